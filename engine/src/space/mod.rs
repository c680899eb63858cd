//! Which pages of the data file are free, which are in use, and which wait for old versions to die.
//!
//! Every page from [`PageId::FIRST`](crate::PageId::FIRST) on is in exactly one state (invariant 4):
//!
//! | state | held by | left through |
//! |---|---|---|
//! | available | [`SpaceMap`] | [`allocate_chunk`](SpaceMap::allocate_chunk), [`allocate_contiguous`](SpaceMap::allocate_contiguous), [`reserve`](SpaceMap::reserve) |
//! | allocated, not yet published (a worker's chunk, the checkpoint image) | its owner | [`mark_reachable`](SpaceMap::mark_reachable) or [`release`](SpaceMap::release) |
//! | reachable from the newest published version | [`SpaceMap`] | [`unmark_reachable`](SpaceMap::unmark_reachable) |
//! | retired, still visible to an older live version | [`WaitingLists`] | handed out as freed, then [`release`](SpaceMap::release) |
//!
//! Both structures belong to one owner, the flusher (rule R7), and know nothing of threads or files.
//! What a checkpoint stores is the reachable set, and of what waits the part that named snapshots hold: after a
//! restart no other older version lives, so everything else is free.

mod bitmap;
mod blocks;
mod map;
mod runs;
mod waiting;

pub(crate) use blocks::{block_words, map_blocks};
pub use map::{SpaceError, SpaceMap};
pub use waiting::WaitingLists;
