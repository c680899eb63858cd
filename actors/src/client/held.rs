//! Pages that a reader keeps in memory while it isn't pinned.

use std::ptr::NonNull;

use crossbeam_epoch::Guard;
use treering_engine::PageRef;
use treering_engine::memory::{FrameId, Memory};

use super::db::Inner;
use crate::shared::unhold;

/// Frames that were brought for a reader, held until it has looked again.
pub(super) struct Held<'m> {
    memory: &'m Memory,
    pub frames: Vec<FrameId>,
}

impl<'m> Held<'m> {
    pub fn new(inner: &'m Inner) -> Held<'m> {
        Held {
            memory: &inner.runtime.shared.memory,
            frames: Vec::new(),
        }
    }

    pub fn of(inner: &'m Inner, frame: FrameId) -> Held<'m> {
        Held {
            frames: vec![frame],
            ..Held::new(inner)
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.frames.iter().for_each(|frame| unhold(self.memory, *frame));
    }
}

/// A page of a published version, held: it can be read without a pin, and so by user code.
pub(super) struct HeldPage<'m> {
    memory: &'m Memory,
    reference: PageRef,
    frame: FrameId,
    start: NonNull<u8>,
}

impl<'m> HeldPage<'m> {
    /// `None` if the page isn't in memory, or is just leaving it. The reference must come from a version that
    /// `guard` or a count keeps alive: pages of open batches do change.
    pub fn new(memory: &'m Memory, reference: PageRef, guard: &Guard) -> Option<HeldPage<'m>> {
        let frame = memory.lookup(reference.id, guard)?;
        memory.hold(frame.id).then(|| HeldPage {
            memory,
            reference,
            frame: frame.id,
            start: NonNull::from(frame.bytes).cast(),
        })
    }

    pub fn reference(&self) -> PageRef {
        self.reference
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is where the frame's `page_bytes` bytes begin. The frame is held until `self` is dropped,
        // and the slice borrows `self`: a held frame is neither evicted nor, should its page die, given to another
        // page. The page is frozen, since a published root reaches it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.memory.page_bytes()) }
    }
}

impl Drop for HeldPage<'_> {
    fn drop(&mut self) {
        unhold(self.memory, self.frame);
    }
}
