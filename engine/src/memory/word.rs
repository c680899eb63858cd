//! The residency word: all that is known about where a page is, in 64 bits.
//!
//! | bits | what |
//! |---|---|
//! | 63..32 | page id, never 0 |
//! | 31..28 | tag, raised by every eviction that begins (rule R5) |
//! | 27..2 | frame |
//! | 1..0 | state: 0 loading, 1 evicting, 2 resident and cold, 3 resident and recently used |
//!
//! A word of all zeros is an empty slot: no word of a page is, as page ids start above 0.

use crate::{FrameId, PageId};
use std::fmt;

const TAG_SHIFT: u32 = 28;
const TAG_MASK: u64 = 0xF << TAG_SHIFT;
const FRAME_SHIFT: u32 = 2;
const FRAME_BITS: u32 = TAG_SHIFT - FRAME_SHIFT;
const STATE_MASK: u64 = 0b11;
const LOADING: u64 = 0;
const EVICTING: u64 = 1;
const COLD: u64 = 2;
const RECENT: u64 = 3;

/// Frames that a word can tell apart: 256 GiB of 4 KiB pages.
pub(crate) const FRAMES_MAX: usize = 1 << FRAME_BITS;

/// A residency word. Two equal words mean the same use of the same frame by the same page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    /// An empty slot.
    pub(crate) const EMPTY: Word = Word(0);

    fn new(id: PageId, frame: FrameId, state: u64) -> Word {
        debug_assert!(id != PageId::NONE && (frame.0 as usize) < FRAMES_MAX);
        Word(u64::from(id.0) << 32 | u64::from(frame.0) << FRAME_SHIFT | state)
    }

    /// The page is being read into the frame.
    pub(crate) fn loading(id: PageId, frame: FrameId) -> Word {
        Word::new(id, frame, LOADING)
    }

    /// The page is in the frame. New pages count as recently used, or each of their first readers would
    /// have to write to the word.
    pub(crate) fn resident(id: PageId, frame: FrameId) -> Word {
        Word::new(id, frame, RECENT)
    }

    /// The page, or `PageId::NONE` in an empty slot.
    #[inline]
    pub(crate) fn id(self) -> PageId {
        PageId((self.0 >> 32) as u32)
    }

    /// The frame that the page has.
    #[inline]
    pub(crate) fn frame(self) -> FrameId {
        FrameId((self.0 as u32 & !TAG_MASK as u32) >> FRAME_SHIFT)
    }

    /// Whether the page was used since the clock's hand passed.
    #[inline]
    pub(crate) fn is_recent(self) -> bool {
        self.0 & STATE_MASK == RECENT
    }

    /// Whether this is the word of that page, and a reader may use its frame without writing anything first.
    #[inline]
    pub(crate) fn is_recent_of(self, id: PageId) -> bool {
        (self.0 ^ (u64::from(id.0) << 32 | RECENT)) & (u64::from(u32::MAX) << 32 | STATE_MASK) == 0
    }

    /// Whether the page is in its frame and stays there.
    #[inline]
    pub(crate) fn is_resident(self) -> bool {
        self.0 & STATE_MASK >= COLD
    }

    /// Whether the page is about to lose its frame, unless a reader rescues it.
    #[inline]
    pub(crate) fn is_evicting(self) -> bool {
        self.0 & STATE_MASK == EVICTING
    }

    /// Whether the page is still on its way into the frame. Not for empty slots.
    #[inline]
    pub(crate) fn is_loading(self) -> bool {
        self.0 & STATE_MASK == LOADING
    }

    /// Resident and recently used: after a reader's visit, also one that rescues it.
    #[inline]
    pub(crate) fn recent(self) -> Word {
        Word(self.0 | RECENT)
    }

    /// Resident, and not used since: after the clock's hand, or a load.
    pub(crate) fn cold(self) -> Word {
        Word(self.0 & !STATE_MASK | COLD)
    }

    /// The same frame, on its way out, told from earlier evictions of it by its tag.
    pub(crate) fn evicting(self) -> Word {
        let tag = (self.0 & TAG_MASK).wrapping_add(1 << TAG_SHIFT) & TAG_MASK;
        Word(self.0 & !(TAG_MASK | STATE_MASK) | tag | EVICTING)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = ["loading", "evicting", "cold", "recent"][(self.0 & STATE_MASK) as usize];
        write!(
            formatter,
            "page {} in frame {} {state}",
            self.id().0,
            self.frame().0
        )
    }
}
