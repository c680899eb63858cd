//! The flusher: the only one that evicts frames, runs checkpoints and owns the space map.
//!
//! # Job
//! - *Space* (`space.rs`): notes what every published group created and retired, in publication order; files retired
//!   pages by version and frees them when the last version that reaches them dies (rules R3, R4, R8); hands
//!   chunks of page ids to the shards, grows the file ahead of need, and cuts it (`compact.rs`).
//! - *Eviction* (`evict.rs`): keeps frames free. The clock takes pages that were not used since its last round;
//!   clean ones leave at once, changed ones are written first, and only after all of their children (rule R2); changed
//!   leaves beside them in the file are written with them, and stay. Pages that only the last checkpoint needs don't wait
//!   for the clock: they leave when the last version that might be read dies.
//! - *Checkpoints* (`checkpoint/`): writes a version completely, then the superblock, and only then gives up
//!   the previous one. Readers and writers never stop.
//! - *Time travel* (`retained.rs`): keeps past versions alive for a while, in memory only.
//! - *Named snapshots* (`named.rs`): kept alive here, stored with checkpoints; made and dropped by one.
//!
//! # States of a checkpoint
//! idle → walking → writing → image → data sync → log sync → slot A → its sync → slot B → its sync → idle.
//! Any failure leads back to idle with nothing freed; a failed superblock poisons (rule R17).
//!
//! # Guarantees
//! - A page is freed only when no live version reaches it, and nothing reads or writes it (rule R5).
//! - The version of the last durable checkpoint is live, and so is the one being written.
//! - A named snapshot is made, and dropped, exactly when a checkpoint that says so is durable (rule R23).
//! - "Written" is said of an inner node only when everything below is (rule R2): leaves when their write has
//!   completed, inner nodes of a checkpoint when its whole pass has.
//!
//! Absent: the log's contents, the trees' contents (it follows child references only), clocks.

mod audit;
mod checkpoint;
mod compact;
mod evict;
mod messages;
mod named;
mod page_set;
mod retained;
mod space;
mod state;
mod step;
mod write_pause;

#[cfg(test)]
mod tests;

pub(crate) use compact::CutReply;
pub(crate) use messages::{ExtentWaiter, FileTask, FlusherMessage, PublishedPages};
pub(crate) use named::Named;
pub(crate) use state::{Flusher, FlusherStart};

/// Most page writes that are under way for eviction, and for a checkpoint.
const WRITES_MAX: usize = 64;
/// Nodes that a checkpoint's walk looks at in one step.
const WALK_NODES: usize = 2048;
/// Batch stamps that a superblock reserves beyond those that were given. Odd, so that openings after crashes don't give
/// the same births in a cycle of a few openings.
pub(crate) const STAMPS_RESERVED: u64 = 40_000_003;
/// And those of a clean close, for batches that only retire pages.
const STAMPS_RESERVED_CLOSING: u64 = 1 << 16;
/// Ids kept available ahead of need, beside those in the shards' hands: a file of 1,000,000 records ends up 1,250 pages
/// (2 %) shorter than with twice as many, and growing by half as much at a time.
const IDS_AHEAD: u64 = 768;

/// Free frames below which eviction begins: enough for the readers and workers of the next moments.
pub(crate) fn frames_low(frames: usize) -> usize {
    (frames / 32).clamp(24, 2048)
}
