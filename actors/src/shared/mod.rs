//! What all threads of a database see: the memory, the current version, the status and the counters.
//!
//! Everything here is either immutable after opening or a small lock-free (or briefly locked) cell; all
//! other state belongs to exactly one actor.

mod counters;
mod feed;
mod held_frame;
mod participants;
mod status;
mod version;

pub(crate) use counters::{Counter, Counters, GroupSizes};
pub(crate) use feed::{Change, Changed, Changes, Entry, Feed};
pub(crate) use held_frame::HeldFrame;
pub(crate) use participants::{collect, unhold, with_guard, with_reader};
pub(crate) use status::Status;
pub(crate) use version::{DeadVersions, Version};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use treering_engine::memory::Memory;
use treering_engine::version::VersionCell;

use crate::options::{Durability, Retention};
use crate::runtime::MovesGate;

/// Name of the data file inside the database directory.
pub(crate) const DATA_FILE: &str = "data";

/// Shared by all actors and clients of one database.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Frames and residency.
    pub memory: Memory,
    /// The version that readers start from.
    pub current: VersionCell<Version>,
    /// Versions whose last user went away, for the flusher.
    pub dead: Arc<DeadVersions>,
    /// Whether the database still takes requests.
    pub status: Status,
    /// What happened so far.
    pub counters: Counters,
    /// Operations per commit group.
    pub group_sizes: GroupSizes,
    /// Keeps requests for several keys and ranges that move out of each other's way.
    pub moves_gate: Arc<MovesGate>,
    /// Numbers of transactions.
    pub transactions: AtomicU64,
    /// Fixed limits and settings.
    pub settings: Settings,
}

impl Shared {
    /// A number that no transaction has had since the database was opened.
    pub fn next_transaction(&self) -> u64 {
        self.transactions.fetch_add(1, Ordering::Relaxed)
    }
}

/// Settings that stay as they were at opening.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub page_bytes: usize,
    pub shards: usize,
    pub durability: Durability,
    /// Whether there are files at all.
    pub in_memory: bool,
    /// Whether changes are logged.
    pub log: bool,
    /// Most nodes that the open batch of one shard may hold: a quarter of the pool over all shards (rule R11).
    pub open_nodes_max: usize,
    /// Most requests of one shard that wait for pages.
    pub parked_max: usize,
    /// Most pages that one reader asks for at a time.
    pub fetched_max: usize,
    /// Changed pages in memory that start a checkpoint.
    pub dirty_pages_max: usize,
    /// Log length that starts a checkpoint.
    pub checkpoint_log_bytes: u64,
    /// Most bytes of larger requests, and of pieces of blobs, that clients have under way.
    pub credit_bytes: usize,
    /// Most record bytes in the frozen batches of one shard that are not published, beyond which none is frozen.
    pub unpublished_bytes_max: usize,
    /// Operations after which the shards' shares of the work are looked at.
    pub balance_operations: u64,
    /// Most record bytes of one batch.
    pub batch_record_bytes_max: usize,
    /// Longest time that a buffered write stays unsynced.
    pub flush_interval_nanos: u64,
    /// How long the first synced commit of a group waits for others.
    pub gather_delay_nanos: u64,
    /// What the database is called.
    pub database_id: [u8; 16],
    /// Bytes of a log segment, for copies.
    pub log_segment_bytes: u64,
    /// For how long past versions are kept.
    pub retention: Retention,
}
