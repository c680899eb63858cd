//! The shard worker: the only one that changes the B+ trees of its key ranges.
//!
//! # Job
//! Requests for keys of this shard arrive in [`ShardMessage::Request`]. A step applies all of them to the
//! private tip (copy-on-write, one open batch), then freezes the batch and hands its log records, roots and
//! replies to the commit actor.
//!
//! # States of a request
//! - *incoming*: taken from the mailbox, not looked at yet.
//! - *parked*: a page that it needs was asked for (`state::Parked`). Later requests for its key queue behind it
//!   (rule R10), others overtake it. The page is held in memory until the request has run.
//! - *large*: the value that its key holds, or shall hold, is a blob, which is being read or written ([`large`]). As
//!   above, later requests for its key queue behind it.
//! - *exclusive*: a request for several keys. It runs alone on a batch of its own, so that it can be undone;
//!   until it has run no other request is taken.
//! - *waiting for a lock*: a transaction has claimed its key (see [`transaction`]).
//! - *moving*: its key's range is on its way to, or from, another shard (see [`moves`]).
//! - *in a batch*: applied (or refused); its reply leaves with the batch and is told when that is published
//!   (rule R12).
//!
//! # Guarantees
//! - An operation starts only when ids and frames for its worst case are at hand (rule R11). If they are not, the
//!   shard freezes what it has, asks the flusher and waits; everything that was applied stays.
//! - Batches of a dropped tip carry an older tip epoch and are rejected by the commit actor (rule R13).
//! - While a batch is under way the open one grows, up to its bounds, and is frozen when the other is published. (A
//!   batch for each write while the log is busy cost 64 writers a copy of the path from the root each.)
//! - At most [`UNPUBLISHED_BATCHES_MAX`] batches are under way; beyond that requests wait in the mailbox.
//!
//! Absent: files, clocks, locks; knowledge of other shards.

mod apply;
mod batch;
mod exclusive;
mod large;
mod load;
mod messages;
mod moves;
mod park;
mod reclaim;
mod relocate;
mod replay;
mod single;
mod state;
mod step;
mod store;
mod supply;
mod tips;
mod transaction;
mod update;

pub(crate) use messages::{
    Action, Condition, EmptyLists, LoadedTree, Pair, Request, ShardMessage, Stored, ValueKind,
};
pub(crate) use moves::{PartitionChange, Wanted, partitions_wanted};
pub(crate) use replay::ReplayPart;
pub(crate) use state::Shard;
pub(crate) use transaction::{KeyRange, Part, Transaction, Visit, changes, split};
pub(crate) use update::UpdateFunction;

/// Most frozen batches of one shard that are not published yet.
pub(crate) const UNPUBLISHED_BATCHES_MAX: u32 = 64;
/// Batches under way above which the open one waits for them, unless it has reached its bounds.
const BATCHES_UNDER_WAY: u32 = 1;
/// Most operations of one open batch.
const BATCH_OPERATIONS_MAX: usize = 1024;
/// Most requests that wait for pages; each has at most one read under way. In small caches fewer: see
/// [`parked_max`].
const PARKED_MAX: usize = 256;

/// Most requests that wait for a range which is on its way to its new owner, beyond what stands in a mailbox.
const MOVED_REQUESTS_MAX: usize = 1024;

/// Most parked requests of one shard: what they hold in memory, a path each, must leave frames for running them.
/// (Bad run: in a cache of 256 frames 240 requests hold one page each, and none can have the frames to run.)
pub(crate) fn parked_max(frames: usize, shards: usize) -> usize {
    (frames / 32 / shards).clamp(1, PARKED_MAX)
}
/// Ids asked for at a time; more are asked for when half of them are left.
const CHUNK_IDS: usize = 1024;
/// The same while the database is compacted, and from then on until more are needed: what a shard has in hand is room
/// that the file keeps (2 to 5 % of 500,000 records).
pub(crate) const CHUNK_IDS_COMPACTING: usize = 128;
/// Most lists of published batches that are kept for batches to come: those of the batches that are under way at once
/// while the log is busy.
const EMPTY_LISTS_MAX: usize = 4;
/// Most frames taken from the pool at a time.
const FRAMES_TAKEN: usize = 64;
