//! What is known about each frame besides where its page's word is: the page it has, whether that page is on
//! disk, and how many parked requests hold it.
//!
//! | bits of the status | what |
//! |---|---|
//! | 0 | the page is written: its write has completed, or it was read from disk |
//! | 1 | a write of the page is in flight |
//! | 2 | the flusher is taking the frame away from its page |
//! | 3 | given up by its page: free, or on its way to the pool |
//! | 31..8 | number of holds |
//!
//! Holding and taking away exclude each other, as both go through this one word: a frame is claimed for
//! eviction only while it is written and has no hold, and can't be held while it is claimed. A frame whose
//! page *dies* while it is held stays away from the pool until the last hold ends.

use crate::sync::{AtomicU32, Ordering};
use crate::{FrameId, PageId};

const WRITTEN: u32 = 1;
const WRITING: u32 = 1 << 1;
const CLAIMED: u32 = 1 << 2;
const GIVEN_UP: u32 = 1 << 3;
const HOLD: u32 = 1 << 8;

/// One frame's entry.
#[derive(Debug)]
struct Entry {
    /// The frame's page, `PageId::NONE` if it has none.
    page: AtomicU32,
    status: AtomicU32,
}

/// The entries of all frames. All frames start given up: they are in the pool.
#[derive(Debug)]
pub(crate) struct Frames {
    entries: Box<[Entry]>,
}

/// What became of a frame that its page gave up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GivenUp {
    /// It goes back to the pool by whoever gave it up.
    Unheld,
    /// It goes back by whoever ends the last hold.
    Held,
}

impl Frames {
    pub(crate) fn new(frames: usize) -> Frames {
        let entry = || Entry {
            page: AtomicU32::new(PageId::NONE.0),
            status: AtomicU32::new(GIVEN_UP),
        };
        Frames {
            entries: (0..frames).map(|_| entry()).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn entry(&self, frame: FrameId) -> &Entry {
        &self.entries[frame.0 as usize]
    }

    /// Where the frame's entry lies, for a hint to the processor.
    #[inline]
    pub(crate) fn entry_address(&self, frame: FrameId) -> *const u8 {
        self.entries.as_ptr().wrapping_add(frame.0 as usize).cast()
    }

    /// The frame has left the pool.
    pub(crate) fn take(&self, frame: FrameId) {
        self.entry(frame).status.store(0, Ordering::Relaxed);
    }

    /// Gives the frame a page. Its status says at first that the page isn't written.
    pub(crate) fn assign(&self, frame: FrameId, id: PageId) {
        let entry = self.entry(frame);
        entry.page.store(id.0, Ordering::Relaxed);
        entry.status.fetch_and(!(WRITTEN | WRITING), Ordering::Relaxed);
    }

    /// The page, whose word is gone, leaves the claimed frame, which is as if it had just left the pool.
    pub(crate) fn vacate(&self, frame: FrameId) {
        let entry = self.entry(frame);
        entry.page.store(PageId::NONE.0, Ordering::Relaxed);
        // Released: who sees that the page isn't written any more must see that it isn't here either.
        entry.status.store(0, Ordering::Release);
    }

    /// The frame's page. A hint, unless something keeps the page from leaving just now.
    pub(crate) fn page(&self, frame: FrameId) -> Option<PageId> {
        match self.entry(frame).page.load(Ordering::Relaxed) {
            0 => None,
            id => Some(PageId(id)),
        }
    }

    /// The frame's page leaves it for good.
    ///
    /// # Panics
    /// If the frame was given up before: returned twice, it would be handed out twice.
    pub(crate) fn give_up(&self, frame: FrameId) -> GivenUp {
        let entry = self.entry(frame);
        entry.page.store(PageId::NONE.0, Ordering::Relaxed);
        let before = entry.status.fetch_or(GIVEN_UP, Ordering::AcqRel);
        assert!(before & GIVEN_UP == 0, "frame {} was returned twice", frame.0);
        if before < HOLD {
            GivenUp::Unheld
        } else {
            GivenUp::Held
        }
    }

    pub(crate) fn is_written(&self, frame: FrameId) -> bool {
        self.entry(frame).status.load(Ordering::Acquire) & WRITTEN != 0
    }

    pub(crate) fn is_writing(&self, frame: FrameId) -> bool {
        self.entry(frame).status.load(Ordering::Acquire) & WRITING != 0
    }

    pub(crate) fn set_writing(&self, frame: FrameId) {
        self.entry(frame).status.fetch_or(WRITING, Ordering::Relaxed);
    }

    pub(crate) fn set_written(&self, frame: FrameId) {
        // Only the flusher changes these two bits of a page that is in place, so that two steps don't matter
        // to it; to others "written, still writing" is an accurate thing to see.
        let status = &self.entry(frame).status;
        status.fetch_or(WRITTEN, Ordering::Release);
        status.fetch_and(!WRITING, Ordering::Relaxed);
    }

    pub(crate) fn clear_writing(&self, frame: FrameId) {
        self.entry(frame).status.fetch_and(!WRITING, Ordering::Relaxed);
    }

    /// Claims the frame for eviction: `false` unless its page is written, no write of it is in flight, and
    /// nobody holds it.
    pub(crate) fn claim(&self, frame: FrameId) -> bool {
        let status = &self.entry(frame).status;
        status
            .compare_exchange(WRITTEN, WRITTEN | CLAIMED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes a claim back: the page was rescued.
    pub(crate) fn unclaim(&self, frame: FrameId) {
        self.entry(frame).status.fetch_and(!CLAIMED, Ordering::Release);
    }

    /// Holds the frame; `false` if its page is just leaving it, or has left.
    pub(crate) fn hold(&self, frame: FrameId) -> bool {
        let free_to_hold = |status: u32| (status & (CLAIMED | GIVEN_UP) == 0).then(|| status + HOLD);
        self.entry(frame)
            .status
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, free_to_hold)
            .is_ok()
    }

    /// Ends a hold. `true` if it was the last one of a frame that has been given up meanwhile.
    ///
    /// # Panics
    /// If the frame isn't held.
    pub(crate) fn unhold(&self, frame: FrameId) -> bool {
        let before = self.entry(frame).status.fetch_sub(HOLD, Ordering::AcqRel);
        assert!(before >= HOLD, "frame {} is not held", frame.0);
        before & GIVEN_UP != 0 && before < 2 * HOLD
    }

    /// Number of holds.
    pub(crate) fn holds(&self, frame: FrameId) -> u32 {
        self.entry(frame).status.load(Ordering::Relaxed) / HOLD
    }
}
