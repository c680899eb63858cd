//! The residency table: the single source of truth about which page is in which frame (architecture 4).
//!
//! # Shape
//! Open addressing in buckets of one cache line: seven words and one counter. Four ids that follow one another
//! have the same home bucket: pages that were created together are used at one time and lie in one line, so a
//! quarter of the lines serve all lookups, and stay in the processor's caches among four times as many pages. A
//! page's word lies in its home bucket, in a place of its own unless another page was there first, or, if the
//! bucket was full, in the next one that wasn't; the counter of each full bucket that had to be passed is raised
//! for as long as the word lies behind it. A lookup goes on to the next bucket only while counters say so, and
//! with at most half of the slots in use it rarely does: one cache line.
//!
//! There are at least two slots for every frame, and a frame belongs to at most one word, so an insertion
//! always finds a slot. The size follows the frames, never the file (rule R9).
//!
//! # States of a page, and who changes them
//! ```text
//!           insert_loading            finish_loading
//!  absent ───────────────▶ loading ───────────────────▶ resident (cold ⇄ recent) ◀─┐
//!    ▲  ▲  (pager)            │ take_loading (pager)         ▲ │      │            │ find (a reader's rescue)
//!    │  └─────────────────────┘          insert_resident ────┘ │      │ begin_evict│
//!    │                                         (worker)        │      ▼ (flusher)  │
//!    ├──────────────────── remove (flusher) ───────────────────┘    evicting ──────┘
//!    └──────────────────── finish_evict, remove (flusher) ──────────────┘
//! ```
//! Every change is one compare-and-swap of one word. A word never moves to another slot.
//!
//! # What may be relied on
//! - *At most one word per page.* Words are inserted by whoever owns the id alone: the worker that created the
//!   page under it, or the pager. Insertions of different ids may race for a slot: compare-and-swap.
//! - *A page whose insertion happened before the lookup and that nobody removes is found*: its slot and its
//!   share in the counters don't change while it is there.
//! - *A frame that `find` gave stays what it is while the reader is pinned*, because frames come back to the
//!   pool through the epoch only. For the same reason a reader's compare-and-swap can't meet an equal word of
//!   a later use of the frame: page and frame can't have parted and met again under one pin. Between one
//!   eviction and the next of an undisturbed pair the tag differs.
//! - *A page may be reported absent while it is removed and inserted again*, when the reader has passed the
//!   new slot before it was filled and comes to the old one after it was emptied. That is an eviction and a
//!   reload in the middle of one lookup: the reader asks the pager, as for any absent page, and learns that
//!   it is there. An id that is removed because its page is *dead* can't be looked up at all: ids are freed
//!   by the death of the last version that reaches them (rule R3), and a reader's pin or count keeps its
//!   version alive.

use crate::memory::word::Word;
use crate::sync::{AtomicU64, Ordering};
use crate::{FrameId, PageId};
use std::ops::Deref;

/// Words in a bucket: with its counter they fill a cache line.
pub(crate) const BUCKET_SLOTS: usize = 7;
/// Slots for every frame, at least.
const SLOTS_PER_FRAME: usize = 2;
/// Ids that share a home bucket, as a power of two. Two such groups fit into a bucket but for one word.
const GROUP_BITS: u32 = 2;
const GROUP_MASK: u32 = (1 << GROUP_BITS) - 1;

/// A cache line of the table. All zero bytes are an empty one.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Bucket<const SLOTS: usize> {
    words: [AtomicU64; SLOTS],
    /// Number of words that lie in a later bucket because this one was full when they came by.
    passed: AtomicU64,
}

impl<const SLOTS: usize> Bucket<SLOTS> {
    /// An empty bucket; the engine's own come as zeroed memory.
    #[cfg(test)]
    pub(crate) fn new() -> Bucket<SLOTS> {
        Bucket {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            passed: AtomicU64::new(0),
        }
    }
}

/// Where a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Residency {
    /// Not in memory, nor on its way.
    Absent,
    /// Being read into this frame.
    Loading(FrameId),
    /// In this frame.
    Resident(FrameId),
    /// In this frame, about to leave it unless a reader comes.
    Evicting(FrameId),
}

/// The table, over buckets that `B` owns. `SLOTS` is smaller than [`BUCKET_SLOTS`] in models only.
#[derive(Debug)]
pub(crate) struct ResidencyTable<B, const SLOTS: usize = BUCKET_SLOTS> {
    buckets: B,
    /// The home bucket of a page is its hash shifted right by this.
    shift: u32,
}

/// A word that was found, and where.
struct Found<'t> {
    slot: &'t AtomicU64,
    word: Word,
    bucket: usize,
}

/// Buckets that a table for `frames` frames needs: a power of two.
pub(crate) fn buckets_for(frames: usize) -> usize {
    (frames * SLOTS_PER_FRAME)
        .div_ceil(BUCKET_SLOTS)
        .next_power_of_two()
        .max(2)
}

impl<B: Deref<Target = [Bucket<SLOTS>]>, const SLOTS: usize> ResidencyTable<B, SLOTS> {
    /// A table over empty buckets, whose number is a power of two and at least 2.
    pub(crate) fn new(buckets: B) -> ResidencyTable<B, SLOTS> {
        assert!(buckets.len().is_power_of_two() && buckets.len() >= 2);
        let shift = u64::BITS - buckets.len().trailing_zeros();
        ResidencyTable { buckets, shift }
    }

    /// Number of buckets, the circumference of the clock.
    pub(crate) fn bucket_count(&self) -> usize {
        self.buckets.len()
    }

    // ---- readers, pinned ----

    /// The frame that the page is in; `None` if it is absent or loading. Marks the page as recently used and
    /// rescues it from eviction, writing only where that was not so already.
    #[inline]
    pub(crate) fn find(&self, id: PageId) -> Option<FrameId> {
        let (home, place) = self.place(id);
        let word = Word(self.buckets[home].words[place].load(Ordering::Acquire));
        if word.is_recent_of(id) {
            Some(word.frame())
        } else {
            self.find_elsewhere(id, home)
        }
    }

    /// The rest of `find`: the page isn't in its own place, or not marked as recently used.
    #[inline(never)]
    fn find_elsewhere(&self, id: PageId, home: usize) -> Option<FrameId> {
        let found = self.locate_from(id, home)?;
        if found.word.is_recent() {
            Some(found.word.frame())
        } else {
            touch(found.slot, found.word)
        }
    }

    /// As `find`, without leaving a trace, for hints: the page may also be loading.
    #[inline]
    pub(crate) fn peek(&self, id: PageId) -> Option<FrameId> {
        let (home, place) = self.place(id);
        let word = Word(self.buckets[home].words[place].load(Ordering::Relaxed));
        if word.id() == id {
            Some(word.frame())
        } else {
            self.peek_elsewhere(id, home)
        }
    }

    #[inline(never)]
    fn peek_elsewhere(&self, id: PageId, home: usize) -> Option<FrameId> {
        self.locate_from(id, home).map(|found| found.word.frame())
    }

    /// The cache line that a lookup of the page will need first.
    #[inline]
    pub(crate) fn home_bucket(&self, id: PageId) -> &Bucket<SLOTS> {
        &self.buckets[self.home(id)]
    }

    /// Where the page is, without leaving a trace.
    pub(crate) fn state(&self, id: PageId) -> Residency {
        let Some(Found { word, .. }) = self.locate(id) else {
            return Residency::Absent;
        };
        if word.is_loading() {
            Residency::Loading(word.frame())
        } else if word.is_evicting() {
            Residency::Evicting(word.frame())
        } else {
            Residency::Resident(word.frame())
        }
    }

    // ---- the pager, and workers creating pages ----

    /// Adds a word for a page that has none and that no other thread may insert now.
    pub(crate) fn insert(&self, word: Word) {
        let (mut index, place) = self.place(word.id());
        loop {
            let bucket = &self.buckets[index];
            for slot in std::iter::once(&bucket.words[place]).chain(&bucket.words) {
                // Looked at before it is swapped: a full bucket's line should stay shared.
                let vacant = slot.load(Ordering::Relaxed) == Word::EMPTY.0;
                if vacant && replace(slot, Word::EMPTY, word).is_ok() {
                    return;
                }
            }
            bucket.passed.fetch_add(1, Ordering::Relaxed);
            index = self.after(index);
        }
    }

    /// The page has arrived in its frame. It is cold: what is read ahead and never asked for leaves first.
    /// Publishes the frame's bytes to those who `find` it. `false` if the page wasn't loading into that frame.
    pub(crate) fn finish_loading(&self, id: PageId, frame: FrameId) -> bool {
        let loading = Word::loading(id, frame);
        self.locate(id)
            .is_some_and(|found| replace(found.slot, loading, loading.cold()).is_ok())
    }

    /// The page won't arrive. `false` if it wasn't loading into that frame.
    pub(crate) fn take_loading(&self, id: PageId, frame: FrameId) -> bool {
        self.locate(id).is_some_and(|found| {
            found.word == Word::loading(id, frame) && self.empty(&found, found.word).is_ok()
        })
    }

    // ---- the flusher ----

    /// Starts to evict the page, or starts again after an attempt that came to nothing; from here on a reader's visit is
    /// noticed as a rescue. `false` if the page is not in that frame.
    pub(crate) fn begin_evict(&self, id: PageId, frame: FrameId) -> bool {
        let Some(found) = self.locate(id) else {
            return false;
        };
        let mut word = found.word;
        while word.id() == id && word.frame() == frame && !word.is_loading() {
            match replace(found.slot, word, word.evicting()) {
                Ok(()) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Removes the page if no reader has rescued it since `begin_evict`.
    pub(crate) fn finish_evict(&self, id: PageId, frame: FrameId) -> bool {
        self.locate(id).is_some_and(|found| {
            let word = found.word;
            word.frame() == frame && word.is_evicting() && self.empty(&found, word).is_ok()
        })
    }

    /// Takes a dead page's word out, whatever its readers did to it, and gives its frame. `None` if there is
    /// no word, or the page is loading.
    pub(crate) fn remove(&self, id: PageId) -> Option<FrameId> {
        let mut found = self.locate(id)?;
        while found.word.id() == id && !found.word.is_loading() {
            match self.empty(&found, found.word) {
                Ok(()) => return Some(found.word.frame()),
                Err(current) => found.word = current,
            }
        }
        None
    }

    /// Moves the clock's hand over one bucket: recently used pages in it become cold, those that were cold
    /// already are given to `visit`. So are those whose eviction has begun: it may have failed since the page was held,
    /// and no reader may ever come to rescue it.
    pub(crate) fn sweep(&self, bucket: usize, mut visit: impl FnMut(PageId, FrameId)) {
        for slot in &self.buckets[bucket].words {
            let word = Word(slot.load(Ordering::Relaxed));
            if word.is_recent() {
                // Lost only against a change by which the page deserves to be spared.
                let _ = replace(slot, word, word.cold());
            } else if word.is_resident() || word.is_evicting() {
                visit(word.id(), word.frame());
            }
        }
    }

    /// The buckets' counters of words that lie behind them.
    #[cfg(test)]
    pub(crate) fn passed_counts(&self) -> impl Iterator<Item = u64> {
        self.buckets
            .iter()
            .map(|bucket| bucket.passed.load(Ordering::Relaxed))
    }

    // ---- inside ----

    /// Sequential groups, which the allocator hands out, are spread evenly by the golden ratio.
    #[inline]
    fn hash(id: PageId) -> u64 {
        u64::from(id.0 >> GROUP_BITS).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[inline]
    fn home(&self, id: PageId) -> usize {
        (Self::hash(id) >> self.shift) as usize
    }

    /// The page's home bucket, and the word in it that the page takes if it can. The bit of the hash below those of
    /// the bucket says whether the group takes the lower or the upper words, so that two groups rarely meet.
    #[inline]
    fn place(&self, id: PageId) -> (usize, usize) {
        let hash = Self::hash(id) >> (self.shift - 1);
        let start = (hash & 1) as usize * (BUCKET_SLOTS / 2);
        let place = start + (id.0 & GROUP_MASK) as usize;
        ((hash >> 1) as usize, place.min(SLOTS - 1))
    }

    #[inline]
    fn after(&self, index: usize) -> usize {
        (index + 1) & (self.buckets.len() - 1)
    }

    fn locate(&self, id: PageId) -> Option<Found<'_>> {
        self.locate_from(id, self.home(id))
    }

    /// The page's word, in the given bucket or behind it.
    fn locate_from(&self, id: PageId, from: usize) -> Option<Found<'_>> {
        let mut index = from;
        // Once around is the end, even if the counters were to change for ever.
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[index];
            for slot in &bucket.words {
                let word = Word(slot.load(Ordering::Acquire));
                if word.id() == id {
                    return Some(Found {
                        slot,
                        word,
                        bucket: index,
                    });
                }
            }
            if bucket.passed.load(Ordering::Relaxed) == 0 {
                return None;
            }
            index = self.after(index);
        }
        None
    }

    /// Empties the slot if it still holds `expected`, and takes the word's share out of the counters.
    fn empty(&self, found: &Found<'_>, expected: Word) -> Result<(), Word> {
        replace(found.slot, expected, Word::EMPTY)?;
        let mut index = self.home(expected.id());
        while index != found.bucket {
            self.buckets[index].passed.fetch_sub(1, Ordering::Relaxed);
            index = self.after(index);
        }
        Ok(())
    }
}

/// Marks a page as recently used, rescuing it if it is being evicted; its frame, unless it is gone or loading.
#[cold]
fn touch(slot: &AtomicU64, mut word: Word) -> Option<FrameId> {
    let (id, frame) = (word.id(), word.frame());
    loop {
        if word.id() != id || word.frame() != frame || word.is_loading() {
            return None;
        }
        if word.is_recent() {
            return Some(frame);
        }
        match replace(slot, word, word.recent()) {
            Ok(()) => return Some(frame),
            Err(current) => word = current,
        }
    }
}

/// Compare-and-swap. Releases what the caller did to the frame, acquires what others did.
fn replace(slot: &AtomicU64, expected: Word, next: Word) -> Result<(), Word> {
    match slot.compare_exchange(expected.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(()),
        Err(current) => Err(Word(current)),
    }
}
