//! Which page has which frame: the residency table, the frames' entries and the pool put together.
//!
//! Everything that needs two of the three at once is here, in the order that makes it safe, and apart from the
//! mapping and the collector, so that the models can explore this very code. What the operations promise to
//! callers is said at [`Memory`](crate::memory::Memory), which hands them on.
//!
//! The orders that matter:
//! - A page's frame entry is filled in before its word is inserted: whoever finds the word may look at it.
//! - An eviction claims the frame before it removes the word, and gives the claim back if a reader was faster.
//!   In between the frame can't be held, so a hold that was granted is never broken.
//! - A frame is given up only after its word is gone, and enters the pool only after it is given up; a frame
//!   that is held then enters it by its last holder.

use crate::memory::frames::{Frames, GivenUp};
use crate::memory::pool::{Class, Pool};
use crate::memory::residency::{Bucket, Residency, ResidencyTable};
use crate::memory::word::Word;
use crate::sync::{Arc, Guard};
use crate::{FrameId, PageId};
use std::ops::Deref;

/// The occupancy of all frames, over the buckets that `B` owns.
#[derive(Debug)]
pub(crate) struct Occupancy<B, const SLOTS: usize> {
    pub(crate) table: ResidencyTable<B, SLOTS>,
    pub(crate) frames: Frames,
    pub(crate) pool: Arc<Pool>,
}

impl<B: Deref<Target = [Bucket<SLOTS>]>, const SLOTS: usize> Occupancy<B, SLOTS> {
    /// All frames free. `buckets` as for [`ResidencyTable::new`].
    pub(crate) fn new(buckets: B, frames: u32) -> Occupancy<B, SLOTS> {
        Occupancy {
            table: ResidencyTable::new(buckets),
            frames: Frames::new(frames as usize),
            pool: Arc::new(Pool::new(frames)),
        }
    }

    pub(crate) fn insert_resident(&self, id: PageId, frame: FrameId) {
        debug_assert!(
            self.table.state(id) == Residency::Absent,
            "page {} is created while it is in memory",
            id.0
        );
        self.frames.assign(frame, id);
        self.table.insert(Word::resident(id, frame));
    }

    pub(crate) fn insert_loading(&self, id: PageId, frame: FrameId) -> bool {
        let absent = self.table.state(id) == Residency::Absent;
        if absent {
            self.frames.assign(frame, id);
            self.table.insert(Word::loading(id, frame));
        }
        absent
    }

    pub(crate) fn finish_loading(&self, id: PageId, frame: FrameId) {
        self.frames.set_written(frame);
        assert!(
            self.table.finish_loading(id, frame),
            "page {} wasn't loading",
            id.0
        );
    }

    pub(crate) fn abandon_loading(&self, id: PageId, frame: FrameId) {
        assert!(self.table.take_loading(id, frame), "page {} wasn't loading", id.0);
        self.release_now(frame);
    }

    pub(crate) fn begin_evict(&self, frame: FrameId) -> bool {
        self.frames
            .page(frame)
            .is_some_and(|id| self.table.begin_evict(id, frame))
    }

    pub(crate) fn finish_evict(&self, frame: FrameId) -> bool {
        let Some(id) = self.frames.page(frame) else {
            return false;
        };
        if !self.frames.claim(frame) {
            return false;
        }
        let evicted = self.table.finish_evict(id, frame);
        if !evicted {
            self.frames.unclaim(frame);
        }
        evicted
    }

    pub(crate) fn reuse(&self, id: PageId, frame: FrameId) -> bool {
        // The claim keeps an eviction of the same page out, and the word can't leave or change its frame meanwhile.
        if self.frames.page(frame) != Some(id) || !self.frames.claim(frame) {
            return false;
        }
        if self.table.remove(id) != Some(frame) {
            self.frames.unclaim(frame);
            return false;
        }
        self.frames.vacate(frame);
        true
    }

    pub(crate) fn allocate(&self, class: Class, count: usize, mut accept: impl FnMut(FrameId)) -> usize {
        self.pool.take(class, count, |frame| {
            self.frames.take(frame);
            accept(frame);
        })
    }

    pub(crate) fn release_now(&self, frame: FrameId) {
        let given_up = self.frames.give_up(frame);
        assert!(given_up == GivenUp::Unheld, "frame {} is held", frame.0);
        self.pool.release_now(frame);
    }

    pub(crate) fn release_deferred(&self, guard: &Guard, frames: impl IntoIterator<Item = FrameId>) {
        let unheld = frames
            .into_iter()
            .filter(|&frame| match self.frames.give_up(frame) {
                GivenUp::Unheld => true,
                GivenUp::Held => {
                    self.pool.enter_limbo();
                    false
                }
            });
        Pool::release_deferred(&self.pool, guard, unheld);
    }

    pub(crate) fn unhold(&self, frame: FrameId, pin: impl FnOnce() -> Guard) {
        if self.frames.unhold(frame) {
            Pool::release_from_limbo(&self.pool, &pin(), frame);
        }
    }
}
