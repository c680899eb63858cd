//! What a pinned reader sees of the memory.

use super::{FrameId, Memory};
use crate::PageId;
use crossbeam_epoch::Guard;
use std::ops::Deref;

/// A page in its frame, as long as the pin lasts.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'g> {
    /// Where it is.
    pub id: FrameId,
    /// The whole page.
    pub bytes: &'g [u8],
}

impl Deref for Frame<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// The memory as one pin shows it: pages that are found stay where they are until the guard goes. Copy it
/// freely; making one costs the check that the guard is of the right collector, which the lookups then save.
#[derive(Clone, Copy, Debug)]
pub struct View<'g> {
    memory: &'g Memory,
}

impl<'g> View<'g> {
    #[inline]
    pub(super) fn new(memory: &'g Memory, guard: &'g Guard) -> View<'g> {
        assert!(
            guard.collector() == Some(memory.collector()),
            "pinned in a foreign collector"
        );
        View { memory }
    }

    /// The memory behind it.
    #[must_use]
    pub fn memory(self) -> &'g Memory {
        self.memory
    }

    /// The page, if it is in memory; `None` if it is absent or still loading. Marks it as recently used and
    /// rescues it from an eviction in progress; writes to shared memory only when that was not so already.
    ///
    /// O(1), one cache line in the common case.
    #[inline]
    #[must_use]
    pub fn lookup(self, id: PageId) -> Option<Frame<'g>> {
        let frame = self.memory.occupancy.table.find(id)?;
        // SAFETY: the word was `frame`'s while this thread was pinned (`'g` is within the guard's life). Who
        // inserts a page has filled its frame before, and its bytes don't change from then on as long as readers
        // can find it: frozen nodes never change, pages of an open batch have ids that no reader knows. Its
        // frame is handed out again no earlier than the pin's end.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.memory.frame_start(frame), self.memory.page_bytes()) };
        Some(Frame { id: frame, bytes })
    }

    /// Asks for the line of the residency table that `lookup(id)` will read. Part one of a lookup that is
    /// interleaved with others.
    #[inline]
    pub fn prefetch_word(self, id: PageId) {
        prefetch((&raw const *self.memory.occupancy.table.home_bucket(id)).cast());
    }

    /// Asks for what [`Memory::hold`] will write to.
    #[inline]
    pub fn prefetch_hold(self, frame: FrameId) {
        prefetch(self.memory.occupancy.frames.entry_address(frame));
    }

    /// Asks for the first `lines` cache lines of a page that is in memory, without leaving a trace in the
    /// table. Part two of a lookup that is interleaved with others.
    #[inline]
    pub fn prefetch_page(self, id: PageId, lines: usize) {
        if let Some(frame) = self.memory.occupancy.table.peek(id) {
            let start = self.memory.frame_start(frame);
            for line in 0..lines {
                prefetch(start.wrapping_add(line * 64));
            }
        }
    }
}

/// Asks the processor for a cache line; never faults, whatever the address.
#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could notice, and SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
