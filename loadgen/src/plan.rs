//! A run as it was asked for, checked: what [`crate::run`] works from.

use std::path::PathBuf;
use std::time::Duration;

use crate::inserts;
use crate::record::{HEADER_BYTES, KeyOrder};
use crate::verify::ledger;
use crate::workload::{OperationKind, Workload};

/// When writes are acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When they are durable.
    #[default]
    Sync,
    /// When they are visible.
    Buffered,
}

/// How the database does its I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Io {
    /// io_uring where the system allows it.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// A pool of threads.
    Blocking,
}

/// How the database is opened. What is `None` is the database's default.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// Default of every write.
    pub durability: Durability,
    /// I/O backend.
    pub io: Io,
    /// Budget of the frame pool in bytes.
    pub cache_bytes: Option<u64>,
    /// Bytes of a page, for a directory that is created.
    pub page_bytes: Option<usize>,
    /// Number of shard workers.
    pub shards: Option<usize>,
    /// Log length that starts a checkpoint, in bytes.
    pub checkpoint_log_bytes: Option<u64>,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is done.
    pub workload: Workload,
    /// Records that are there before it starts (or are loaded, or picked from).
    pub records: u64,
    /// Bytes of every value.
    pub value_bytes: usize,
    /// How records lie in key order.
    pub key_order: KeyOrder,
    /// Longest scan in records; lengths are uniform from 1.
    pub scan_length: u64,
    /// Threads that generate load.
    pub threads: usize,
    /// Most operations that one thread has under way.
    pub depth: usize,
    /// How long the load lasts; loading comes before and isn't counted.
    pub duration: Duration,
    /// Ends the load earlier, after this many operations.
    pub operations: Option<u64>,
    /// Operations a second over all threads, due at equal intervals; `None`: each follows on the one before.
    pub rate: Option<u64>,
    /// Where the database lies; `None`: in a temporary directory.
    pub directory: Option<PathBuf>,
    /// Makes runs repeatable, as far as threads are.
    pub seed: u64,
    /// Whether every answer is checked.
    pub verify: bool,
    /// How the database is opened.
    pub store: StoreOptions,
}

/// Threads that can be asked for.
pub const THREADS_MAX: usize = 4096;
/// The longest value that the database takes.
const VALUE_BYTES_MAX: usize = 1 << 30;

// Every write under way fits the ledger's count and the window of inserts.
const _: () = assert!(ledger::WRITES_UNDER_WAY_MAX <= inserts::WINDOW);

impl Plan {
    /// Refuses what can't be run.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn validate(&self) -> Result<(), String> {
        let under_way_max = ledger::WRITES_UNDER_WAY_MAX;
        let is_load = self.workload == Workload::Load;
        let refusals = [
            (self.records == 0, "--records must be at least 1".to_owned()),
            (
                self.value_bytes > VALUE_BYTES_MAX,
                "--value-bytes must be at most 1 GiB".to_owned(),
            ),
            (
                !(1..=THREADS_MAX).contains(&self.threads),
                format!("--threads must be 1 to {THREADS_MAX}"),
            ),
            (self.depth == 0, "--depth must be at least 1".to_owned()),
            (
                self.threads.saturating_mul(self.depth) > under_way_max,
                format!("--threads times --depth must be at most {under_way_max}"),
            ),
            (
                self.scan_length == 0,
                "--scan-length must be at least 1".to_owned(),
            ),
            (self.rate == Some(0), "--rate must be at least 1".to_owned()),
            (
                self.rate.is_some() && is_load,
                "--rate can't be used with the workload load".to_owned(),
            ),
            (
                self.operations.is_some() && is_load,
                "--operations can't be used with the workload load".to_owned(),
            ),
            (
                self.verify && self.value_bytes < HEADER_BYTES,
                format!("--verify needs --value-bytes of at least {HEADER_BYTES}"),
            ),
            (
                self.verify && self.records > ledger::RECORDS_MAX,
                format!("--verify takes at most {} records", ledger::RECORDS_MAX),
            ),
        ];
        match refusals.into_iter().find(|(refused, _)| *refused) {
            Some((_, reason)) => Err(reason),
            None => Ok(()),
        }
    }

    /// Whether the run changes the database.
    #[must_use]
    pub fn writes(&self) -> bool {
        let mix = self.workload.mix();
        self.workload == Workload::Load
            || [
                OperationKind::Update,
                OperationKind::Insert,
                OperationKind::ReadModifyWrite,
            ]
            .into_iter()
            .any(|kind| mix.includes(kind))
    }
}
