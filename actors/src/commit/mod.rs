//! The commit actor: the only one that orders commits, appends to the log and publishes versions.
//!
//! # Job
//! Batches of the shards arrive in [`CommitMessage::Batch`]. They are gathered into *commit groups* (the unit of
//! visibility: one [`Version`](crate::shared::Version) each), whose records are appended to the open *log group*
//! (the unit of I/O and of atomicity on disk).
//!
//! # States of a batch
//! - *part of a set*: applied at one of the owners of a set of transactions; see [`set`](set).
//! - *gathered*: received; has no sequence number yet. Buffered batches leave this state at once, unless a
//!   synced group is before them; the others when the log device is free, all together.
//! - *pending*: has a sequence number and stands in the open or in the written log group, not durable yet.
//! - *published*: its version is the current one, its replies are told, the flusher knows its pages.
//!
//! # Guarantees
//! - Publication order = log order = order of sequence numbers. A group that holds a synced batch is published
//!   when all of the log up to its end is durable (rule R15); nobody ever reads it earlier.
//! - Buffered groups are published at once, and are durable at the latest `flush_interval` later.
//! - A batch gets its sequence number only when its records have a place in a prepared segment, so that out of
//!   space is known before the first byte is submitted (rule R13). Refusing a batch raises the shard's tip
//!   epoch; all batches of older epochs are refused, too.
//! - After a failed write or sync of the log everything is refused (poisoned); what was submitted is answered with
//!   [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown).
//! - One log task is out at a time; what arrives meanwhile makes the next group.
//!
//! Absent: files, page contents, the space map.

mod balance;
#[cfg(test)]
mod batches_tests;
mod feeds;
mod group;
mod messages;
mod publish;
mod refuse;
mod set;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod trees;
mod write;

pub(crate) use feeds::{LogRange, tell};
pub(crate) use messages::{Batch, CommitMessage, LogTask, LogWrite, TreeChange};
pub(crate) use set::logged_bytes;
pub(crate) use state::{Commit, CommitStart};

/// The log is written when that many record bytes are gathered, whether or not anybody waits for it.
const WRITE_BYTES: usize = 256 << 10;
/// Most record bytes that are gathered while the device is busy; beyond it batches wait.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// Most pages in publications that the flusher has not taken note of. Each publication counts as one more.
pub(crate) const DELTA_PAGES_MAX: usize = 1 << 17;
/// The log may grow to this multiple of `checkpoint_log_bytes` before commits wait for the checkpoint.
const LOG_LENGTH_FACTOR_MAX: u64 = 4;
/// Most subscriptions at a time: each published group is compared with all of them.
const SUBSCRIPTIONS_MAX: usize = 1024;
/// Segments kept ready ahead of the one in use.
const SEGMENTS_AHEAD: u64 = 2;
/// Name prefix of a dropped tree whose pages are still being retired. Names given by users can't contain NUL.
pub(crate) const DROPPED_PREFIX: &str = "\0dropped/";
