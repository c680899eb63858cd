//! The pager: the only one that reads and writes the data file.
//!
//! # Job
//! - Bring pages into memory (`read.rs`). Concurrent misses of one page share one read. What comes from disk is believed
//!   only after its checksum, id, birth and kind were verified (rule R6). Shards, read-ahead and readers of many pages
//!   ask by message ([`PagerMessage::Fetch`]); a reader of one page reads it in its own thread, between two short
//!   visits here ([`Pager::begin`], [`Pager::finish`]).
//! - [`PagerMessage::ReadAhead`]: bring many pages that recovery will need, neighbours together (`ahead.rs`).
//! - [`PagerMessage::WritePage`]: write a frozen page, from a copy that has its checksum, for the flusher.
//! - [`PagerMessage::Transfer`]: reads, writes and syncs with buffers of their own: superblocks, checkpoint
//!   images, blobs.
//!
//! # States of a page, as the residency table shows them
//! absent → (`fetch`, `begin`) loading → (`finish_read`, `finish`) resident, or absent again if the read failed.
//! Pages become loading with the pager's seat taken only, so no page ever has two frames (rule R5).
//!
//! # Guarantees
//! - A page that was fetched is held once for each waiter until the waiter gives the hold back (rule R10).
//! - At most [`IN_FLIGHT_MAX`] operations are with the device, reads first, read-ahead last; beside them each client's
//!   thread has at most one read of its own under way.
//! - Every request is answered exactly once, also when the device fails. A sync that fails poisons the database.
//!
//! Absent: eviction (the flusher's), retries, knowledge of trees and versions.

mod ahead;
mod messages;
mod read;
mod state;
mod step;

#[cfg(test)]
mod tests;

pub(crate) use messages::{Kept, PagerMessage, Transfer, TransferKind, TransferReply, Waiter};
pub(crate) use read::Begun;
pub(crate) use state::Pager;

/// Most operations that are with the device at a time.
pub(crate) const IN_FLIGHT_MAX: usize = 128;
