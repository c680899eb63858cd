//! The memory that readers and writers share: frames, the table that says which page is in which frame, and
//! the epoch through which frames come back.
//!
//! # A frame's life
//! ```text
//!   pool ── allocate ──▶ owned by one thread, which fills it
//!                          │ insert_resident (worker)        │ insert_loading, read, finish_loading (pager)
//!                          ▼                                 ▼
//!                        found by readers, never changed again, except for a page of an open batch (only its
//!                        worker knows the id)
//!                          │ finish_evict (written, not held, not rescued), or remove (the page is dead)
//!                          ▼
//!                        limbo: no lookup finds it, pinned readers may still look at it
//!                          │ release_deferred
//!   pool ◀─────────────────┘   (release_now, if no reader ever could have found it)
//! ```
//!
//! # Guarantees
//! - At most one frame per page (rule R5), and no frame is handed out while a pinned reader may look at it.
//! - Memory use is what [`Memory::new`] was told to: `frames × page_bytes`, and for each frame 12 bytes beside
//!   and 19 to 37 bytes in the residency table. Frames in limbo are among them (rule R9).
//! - Lookups write to shared memory only to say "recently used" when nothing says so yet.
//!
//! # Obligations
//! Frames are plain numbers, so whoever writes to one through [`Memory::frame_ptr`] must have allocated it, and
//! must stop when others may find it. What the pool can check, it does: a frame that is returned twice panics.
//!
//! Absent from here: what is in a page, when to evict what, and files.

mod arena;
mod frames;
mod occupancy;
mod participant;
mod pool;
mod residency;
mod tally;
mod view;
mod word;

#[cfg(test)]
mod tests;

pub use arena::HugeBytes;
pub use participant::Participant;
pub use pool::Class;
pub use residency::Residency;
pub use view::{Frame, View};

use crate::{PAGE_BYTES_MAX, PAGE_BYTES_MIN, PageId};
use arena::{MappedSlice, Mapping};
use crossbeam_epoch::{Collector, Guard};
use occupancy::Occupancy;
use residency::{BUCKET_SLOTS, Bucket, buckets_for};
use std::io;
use std::sync::Arc;
use tally::Tallies;
use word::FRAMES_MAX;

/// Index of a frame in the arena.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FrameId(pub u32);

/// Why no [`Memory`] could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Too few or too many frames.
    #[error("{frames} frames: must be at least {min} and at most {max}", min = Memory::FRAMES_MIN, max = Memory::FRAMES_MAX)]
    Frames {
        /// What was asked for.
        frames: usize,
    },
    /// Not a page size.
    #[error(
        "page size of {page_bytes} bytes: must be a power of two from {PAGE_BYTES_MIN} to {PAGE_BYTES_MAX}"
    )]
    PageBytes {
        /// What was asked for.
        page_bytes: usize,
    },
    /// The system doesn't give that much memory.
    #[error("no memory for {bytes} bytes of frames: {source}")]
    Map {
        /// What was asked for.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Frames, residency and the epoch of one database. Shared by all of its threads.
#[derive(Debug)]
pub struct Memory {
    occupancy: Occupancy<MappedSlice<Bucket<BUCKET_SLOTS>>, BUCKET_SLOTS>,
    arena: Mapping,
    page_bytes: usize,
    collector: Collector,
    hits: Arc<Tallies>,
}

impl Memory {
    /// The fewest frames that a memory can have.
    pub const FRAMES_MIN: usize = 8;
    /// The most frames that a memory can have.
    pub const FRAMES_MAX: usize = FRAMES_MAX;

    /// Memory of `frames` frames of `page_bytes` bytes each, all free.
    ///
    /// # Errors
    /// [`MemoryError`], if the numbers are out of range or the system refuses.
    pub fn new(frames: usize, page_bytes: usize) -> Result<Memory, MemoryError> {
        if !(Memory::FRAMES_MIN..=FRAMES_MAX).contains(&frames) {
            return Err(MemoryError::Frames { frames });
        }
        if !page_bytes.is_power_of_two() || !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes) {
            return Err(MemoryError::PageBytes { page_bytes });
        }
        let bytes = frames.saturating_mul(page_bytes);
        let refused = |source| MemoryError::Map { bytes, source };
        // SAFETY: zeroed bytes are empty buckets, which consist of atomic integers and need no drop.
        let buckets = unsafe { MappedSlice::zeroed(buckets_for(frames)) };
        Ok(Memory {
            occupancy: Occupancy::new(buckets.map_err(refused)?, frames as u32),
            arena: Mapping::new(bytes).map_err(refused)?,
            page_bytes,
            collector: Collector::new(),
            hits: Arc::default(),
        })
    }

    /// Number of frames.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.occupancy.frames.len()
    }

    /// Bytes of a frame, and of a page.
    #[inline]
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The epoch that protects frames and versions.
    #[inline]
    #[must_use]
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Makes the calling thread a participant in the epoch.
    #[must_use]
    pub fn participant(&self) -> Participant {
        Participant::new(self.collector.register(), &self.hits)
    }

    /// What all participants have counted with [`Participant::add_hits`]. O(threads).
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.sum()
    }

    /// First byte of a frame, aligned to the page size. See the obligations above.
    ///
    /// # Panics
    /// If there is no such frame.
    #[inline]
    #[must_use]
    pub fn frame_ptr(&self, frame: FrameId) -> *mut u8 {
        assert!((frame.0 as usize) < self.frames(), "no frame {}", frame.0);
        self.frame_start(frame)
    }

    /// As `frame_ptr`, for frames that came out of the table.
    #[inline]
    fn frame_start(&self, frame: FrameId) -> *mut u8 {
        debug_assert!((frame.0 as usize + 1) * self.page_bytes <= self.arena.bytes());
        self.arena
            .start()
            .wrapping_add(frame.0 as usize * self.page_bytes)
    }

    // ---- readers ----

    /// What a reader sees under `guard`.
    ///
    /// # Panics
    /// If `guard` is not of this memory's collector.
    #[inline]
    #[must_use]
    pub fn view<'g>(&'g self, guard: &'g Guard) -> View<'g> {
        View::new(self, guard)
    }

    /// The page, if it is in memory: see [`View::lookup`].
    ///
    /// # Panics
    /// If `guard` is not of this memory's collector.
    #[inline]
    #[must_use]
    pub fn lookup<'g>(&'g self, id: PageId, guard: &'g Guard) -> Option<Frame<'g>> {
        self.view(guard).lookup(id)
    }

    /// Where the page is, without marking it as used. A hint, unless the caller is who changes it.
    #[must_use]
    pub fn state(&self, id: PageId) -> Residency {
        self.occupancy.table.state(id)
    }

    // ---- creating ----

    /// Makes a page that was created in `frame` known, as recently used and not written. The id must be the
    /// caller's alone; that it has no frame yet is what makes the id free to be given out (rule R5).
    pub fn insert_resident(&self, id: PageId, frame: FrameId) {
        self.occupancy.insert_resident(id, frame);
    }

    /// Announces that the page is being read into `frame`. `false`, and nothing done, if it is in memory or on
    /// its way already. Pager only: two threads must not do this for the same page.
    #[must_use]
    pub fn insert_loading(&self, id: PageId, frame: FrameId) -> bool {
        self.occupancy.insert_loading(id, frame)
    }

    /// The page has been read into `frame` and verified: from here on readers find it. It counts as written.
    /// Pager only.
    ///
    /// # Panics
    /// If the page wasn't loading into that frame.
    pub fn finish_loading(&self, id: PageId, frame: FrameId) {
        self.occupancy.finish_loading(id, frame);
    }

    /// The page could not be read, or not be believed: forgets it and frees the frame at once, as no reader can
    /// have seen it. Pager only.
    ///
    /// # Panics
    /// If the page wasn't loading into that frame, or the frame is held.
    pub fn abandon_loading(&self, id: PageId, frame: FrameId) {
        self.occupancy.abandon_loading(id, frame);
    }

    // ---- removing: the flusher, and a worker for what it created in its open batch ----

    /// Forgets a page that no reader may look for any more. The caller gives the frame back, by
    /// [`release_deferred`](Self::release_deferred) if readers could ever find it. `None` if the page is absent
    /// or loading.
    #[must_use]
    pub fn remove(&self, id: PageId) -> Option<FrameId> {
        self.occupancy.table.remove(id)
    }

    /// Takes a written page out of memory and leaves its frame to the caller, at once, as if it had come from the pool.
    /// `false`, and nothing done, if the page is not written, held, just being written or evicted. No reader may look at
    /// the page then, pinned or not: for recovery, before there are any.
    #[must_use]
    pub fn reuse(&self, id: PageId, frame: FrameId) -> bool {
        self.occupancy.reuse(id, frame)
    }

    /// Begins to evict the page of `frame`: until [`finish_evict`](Self::finish_evict) readers can still use and
    /// and thereby rescue it. Begins again if it has begun before. `false` if the frame has no page, or a loading one.
    #[must_use]
    pub fn begin_evict(&self, frame: FrameId) -> bool {
        self.occupancy.begin_evict(frame)
    }

    /// Evicts the page of `frame`. `false`, and nothing done, if a reader rescued it, if it is not written or
    /// just being written, or if it is held. On `true` the caller gives the frame back by
    /// [`release_deferred`](Self::release_deferred).
    #[must_use]
    pub fn finish_evict(&self, frame: FrameId) -> bool {
        self.occupancy.finish_evict(frame)
    }

    /// Moves the clock's hand on by `steps` cache lines of the residency table, from `hand` on: pages used since
    /// its last visit lose that mark, the others are appended to `cold`. Returns the hand's new place. Reads
    /// memory in order; a round is [`sweep_steps`](Self::sweep_steps).
    #[must_use]
    pub fn sweep(&self, hand: usize, steps: usize, cold: &mut Vec<FrameId>) -> usize {
        let round = self.occupancy.table.bucket_count();
        for step in hand..hand + steps {
            self.occupancy
                .table
                .sweep(step % round, |_, frame| cold.push(frame));
        }
        (hand + steps) % round
    }

    /// Steps of [`sweep`](Self::sweep) that make a round.
    #[must_use]
    pub fn sweep_steps(&self) -> usize {
        self.occupancy.table.bucket_count()
    }

    // ---- frames ----

    /// A free frame, if the class may have one. Its bytes are what its last page left.
    #[must_use]
    pub fn allocate(&self, class: Class) -> Option<FrameId> {
        let mut allocated = None;
        self.occupancy.allocate(class, 1, |frame| allocated = Some(frame));
        allocated
    }

    /// Appends up to `count` free frames to `frames`, as many as the class may have; returns how many. One step
    /// for all of them.
    pub fn allocate_many(&self, class: Class, count: usize, frames: &mut Vec<FrameId>) -> usize {
        self.occupancy.allocate(class, count, |frame| frames.push(frame))
    }

    /// Gives back a frame that no reader ever could have found.
    ///
    /// # Panics
    /// If it is free already, or held.
    pub fn release_now(&self, frame: FrameId) {
        self.occupancy.release_now(frame);
    }

    /// Gives back frames that pinned readers may still look at: they are free when all pins of now have ended
    /// and [`Participant::collect`] has run. One deferred function for all of them.
    ///
    /// # Panics
    /// If `guard` is not of this memory's collector, or a frame was given back before.
    pub fn release_deferred(&self, guard: &Guard, frames: impl IntoIterator<Item = FrameId>) {
        assert!(
            guard.collector() == Some(&self.collector),
            "pinned in a foreign collector"
        );
        self.occupancy.release_deferred(guard, frames);
    }

    /// Frames that are free, the reserve included.
    #[must_use]
    pub fn free_frames(&self) -> usize {
        self.occupancy.pool.free()
    }

    /// Frames that the class could have now.
    #[must_use]
    pub fn available_frames(&self, class: Class) -> usize {
        self.occupancy
            .pool
            .free()
            .saturating_sub(self.occupancy.pool.kept_from(class))
    }

    /// Frames that have been given back and are not free yet.
    #[must_use]
    pub fn limbo_frames(&self) -> usize {
        self.occupancy.pool.limbo()
    }

    // ---- what is known about a frame ----

    /// The page in the frame. A hint, unless something keeps the page from leaving just now.
    #[must_use]
    pub fn page_of(&self, frame: FrameId) -> Option<PageId> {
        self.occupancy.frames.page(frame)
    }

    /// Whether the frame's page is on disk.
    #[must_use]
    pub fn is_written(&self, frame: FrameId) -> bool {
        self.occupancy.frames.is_written(frame)
    }

    /// Whether a write of the frame's page is in flight.
    #[must_use]
    pub fn is_writing(&self, frame: FrameId) -> bool {
        self.occupancy.frames.is_writing(frame)
    }

    /// A write of the frame's page begins: it can't be evicted meanwhile. Flusher only.
    pub fn set_writing(&self, frame: FrameId) {
        self.occupancy.frames.set_writing(frame);
    }

    /// The write has completed; the page counts as written. Flusher only.
    pub fn set_written(&self, frame: FrameId) {
        self.occupancy.frames.set_written(frame);
    }

    /// The write has failed; the page counts as what it was before (rule R2). Flusher only.
    pub fn clear_writing(&self, frame: FrameId) {
        self.occupancy.frames.clear_writing(frame);
    }

    /// Keeps the frame's page from eviction until [`unhold`](Self::unhold), for a request that waits for more
    /// pages (rule R10). `false` if the page is just leaving: treat it as missing. The caller must know that
    /// the frame is the page's: be pinned since it looked it up, or be the pager that loads it.
    #[must_use]
    pub fn hold(&self, frame: FrameId) -> bool {
        self.occupancy.frames.hold(frame)
    }

    /// Ends a hold. Should the page have died meanwhile, its frame goes back to the pool, under a pin that is asked
    /// for only then.
    ///
    /// # Panics
    /// If the frame isn't held, or the pin is not of this memory's collector.
    pub fn unhold(&self, frame: FrameId, pin: impl FnOnce() -> Guard) {
        self.occupancy.unhold(frame, || {
            let guard = pin();
            assert!(
                guard.collector() == Some(&self.collector),
                "pinned in a foreign collector"
            );
            guard
        });
    }

    /// Number of holds on the frame.
    #[must_use]
    pub fn holds(&self, frame: FrameId) -> u32 {
        self.occupancy.frames.holds(frame)
    }
}
