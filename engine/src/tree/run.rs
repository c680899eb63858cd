//! The rest of a leaf, as a scan hands it out.
//!
//! What an entry costs is its cache misses, so memory is asked for ahead of time, in one of two ways:
//!
//! - *Entry by entry*, while a scan is in its first leaf, or where the leaf wasn't asked for before: with each entry the
//!   lines of the one [`ENTRIES_AHEAD`] places later, across the end of the leaf. A scan that stops early has brought
//!   little that it doesn't need.
//! - *The next leaf as a whole*, from the second leaf on: some of its lines, in order, with each entry of this one. That
//!   is what memory does fastest, and all at once would stop the processor until it has caught up.

use std::ops::{ControlFlow, Range};

use super::cursor::Direction;
use crate::ids::PageRef;
use crate::page::ValueRef;
use crate::page::key;
use crate::page::layout::HEAD_BYTES;
use crate::page::leaf::{Leaf, Slot};
use crate::page::prefetch;

/// How many entries ahead of the one that is handed out memory is asked for: enough to hide its latency, few enough
/// that the processor can have all of their lines under way.
const ENTRIES_AHEAD: usize = 4;

/// The entries of one leaf that a scan comes to next. Found by [`Cursor::find_run`](super::Cursor::find_run).
#[derive(Debug, Clone)]
pub struct Run {
    /// The leaf.
    pub leaf: PageRef,
    /// The leaf that comes after it, if the scan goes on there and that is known.
    pub next: Option<PageRef>,
    pub(super) slots: Range<usize>,
    /// Whether the end bound lies in this leaf.
    pub(super) is_last: bool,
    pub(super) direction: Direction,
}

/// What a scan carries from run to run: room for a key, and which leaf's memory it has asked for.
#[derive(Debug, Clone, Default)]
pub struct Carry {
    keys: KeyBuffer,
    /// Whether this isn't the first run.
    is_under_way: bool,
    /// All of it was asked for.
    asked_for: PageRef,
}

impl Run {
    /// Number of entries, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Length of all keys and values of the run, bytes.
    ///
    /// # Panics
    ///
    /// If `page` isn't the run's leaf.
    #[must_use]
    pub fn bytes(&self, page: &[u8]) -> usize {
        let leaf = Leaf::new(page);
        let entry_bytes = |slot| {
            let slot = leaf.slot(slot);
            leaf.prefix_len + slot.suffix_len + slot.value_len()
        };
        self.slots.clone().map(entry_bytes).sum()
    }

    /// Hands the entries of the leaf's `page` out, in the direction of the scan, until `visit` breaks; returns how
    /// many were seen, the one it broke at included. `next` is the page of [`Run::next`], if it is at hand; `carry`
    /// that of the whole scan.
    #[inline]
    pub fn hand_out(
        &self,
        page: &[u8],
        next: Option<&[u8]>,
        carry: &mut Carry,
        mut visit: impl FnMut(&[u8], ValueRef<'_>) -> ControlFlow<()>,
    ) -> usize {
        let leaf = Leaf::new(page);
        let ahead = self.ahead(next, carry);
        let keys = &mut carry.keys;
        keys.begin(&leaf);
        self.each(&leaf, &ahead, |index| {
            let slot = leaf.slot(index);
            visit(keys.put(&leaf, slot, leaf.head(index)), leaf.value_of(slot))
        })
    }

    /// Copies key after key and value after value to `target`, in the direction of the scan, and tells the lengths
    /// of each key and its value, and whether that is a blob's descriptor.
    ///
    /// # Panics
    ///
    /// If `target` isn't of the length that [`Run::bytes`] says.
    #[inline]
    pub fn copy_to(
        &self,
        page: &[u8],
        next: Option<&[u8]>,
        carry: &mut Carry,
        target: &mut [u8],
        mut copied: impl FnMut(usize, usize, bool),
    ) {
        let leaf = Leaf::new(page);
        let ahead = self.ahead(next, carry);
        let mut free = target;
        self.each(&leaf, &ahead, |index| {
            let slot = leaf.slot(index);
            let (key_len, value_len) = (leaf.prefix_len + slot.suffix_len, slot.value_len());
            let (entry, rest) = std::mem::take(&mut free).split_at_mut(key_len + value_len);
            copy_entry(&leaf, slot, leaf.head(index), entry);
            free = rest;
            copied(
                key_len,
                value_len,
                matches!(leaf.value_of(slot), ValueRef::Blob(_)),
            );
            ControlFlow::Continue(())
        });
        assert!(free.is_empty(), "the target is longer than the run");
    }

    /// Decides what memory to ask for.
    fn ahead<'p>(&self, next: Option<&'p [u8]>, carry: &mut Carry) -> Ahead<'p> {
        let by_entry = carry.asked_for != self.leaf;
        let whole = next.filter(|_| carry.is_under_way).unwrap_or_default();
        carry.is_under_way = true;
        carry.asked_for = match self.next {
            Some(next) if !whole.is_empty() => next,
            _ => PageRef::NONE,
        };
        Ahead {
            by_entry,
            whole,
            whole_step: whole
                .len()
                .div_ceil(self.slots.len())
                .next_multiple_of(prefetch::LINE_BYTES),
            next: next.filter(|_| by_entry && whole.is_empty()),
        }
    }

    /// Goes through the slots, asking for the memory ahead; returns how many were seen.
    #[inline(always)]
    fn each(
        &self,
        leaf: &Leaf<'_>,
        ahead: &Ahead<'_>,
        mut visit: impl FnMut(usize) -> ControlFlow<()>,
    ) -> usize {
        let count = self.slots.len();
        if ahead.by_entry {
            for place in 0..ENTRIES_AHEAD.min(count) {
                prefetch::entry(leaf, self.slot(place));
            }
            if let Some(next) = ahead.next {
                prefetch::leaf_top(next);
            }
        }
        for place in 0..count {
            if ahead.by_entry {
                self.prefetch_entry(leaf, place + ENTRIES_AHEAD, ahead);
            }
            prefetch::range(
                ahead.whole,
                place * ahead.whole_step..(place + 1) * ahead.whole_step,
            );
            if visit(self.slot(place)).is_break() {
                return place + 1;
            }
        }
        count
    }

    #[inline]
    fn slot(&self, place: usize) -> usize {
        match self.direction {
            Direction::Ascending => self.slots.start + place,
            Direction::Descending => self.slots.end - 1 - place,
        }
    }

    /// Asks for the entry at a place of the run, or of the leaf behind it.
    #[inline]
    fn prefetch_entry(&self, leaf: &Leaf<'_>, place: usize, ahead: &Ahead<'_>) {
        let count = self.slots.len();
        if place < count {
            prefetch::entry(leaf, self.slot(place));
        } else if let Some(next) = ahead.next {
            let (next, place) = (Leaf::new(next), place - count);
            if place < next.count {
                let slot = match self.direction {
                    Direction::Ascending => place,
                    Direction::Descending => next.count - 1 - place,
                };
                prefetch::entry(&next, slot);
            }
        }
    }
}

/// What memory to ask for while a run is handed out.
struct Ahead<'p> {
    /// The run's own entries, one by one: nobody has asked for them before.
    by_entry: bool,
    /// The leaf that comes next, if its first entries are wanted one by one.
    next: Option<&'p [u8]>,
    /// The leaf that comes next, if all of it is wanted; so many bytes with each entry.
    whole: &'p [u8],
    whole_step: usize,
}

/// Writes key and value to a slice of their length. What the heap has of a key lies right before the value.
#[inline]
fn copy_entry(leaf: &Leaf<'_>, slot: Slot, head: u32, target: &mut [u8]) {
    let head_end = leaf.prefix_len + slot.suffix_len.min(HEAD_BYTES);
    let (start, heap) = target.split_at_mut(head_end);
    heap.copy_from_slice(leaf.heap_bytes(slot));
    let (prefix, head_target) = start.split_at_mut(leaf.prefix_len);
    let head = head.to_be_bytes();
    match head_target.first_chunk_mut::<HEAD_BYTES>() {
        Some(whole) => *whole = head,
        None => head_target.copy_from_slice(&head[..head_target.len()]),
    }
    // Prefixes are mostly so short that calling `memcpy` costs more than it does.
    for (target, source) in prefix.iter_mut().zip(leaf.prefix()) {
        *target = *source;
    }
}

/// Where keys are put together.
#[derive(Debug, Clone, Default)]
struct KeyBuffer {
    /// The prefix, then the suffix of the last key, then whatever.
    bytes: Vec<u8>,
    prefix_len: usize,
}

impl KeyBuffer {
    /// Short rests are copied with this many bytes from the page, whatever follows them there: a copy of
    /// fixed length is two instructions, one of variable length a call.
    const COPIED_BYTES: usize = 32;

    fn begin(&mut self, leaf: &Leaf<'_>) {
        self.prefix_len = leaf.prefix_len;
        self.make_room(Self::COPIED_BYTES);
        self.bytes[..leaf.prefix_len].copy_from_slice(leaf.prefix());
    }

    /// Makes sure of room for rests of this length.
    fn make_room(&mut self, rest_len: usize) {
        let wanted = self.prefix_len + HEAD_BYTES + rest_len;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
    }

    /// The whole key of an entry of the leaf that this began with.
    #[inline(always)]
    fn put(&mut self, leaf: &Leaf<'_>, slot: Slot, head: u32) -> &[u8] {
        let rest_len = key::rest_len(slot.suffix_len);
        let rest_and_more = leaf.page.get(slot.offset..).unwrap_or_default();
        match rest_and_more.first_chunk::<{ Self::COPIED_BYTES }>() {
            Some(chunk) if rest_len <= Self::COPIED_BYTES => {
                let start = self.prefix_len + HEAD_BYTES;
                self.bytes[start..start + Self::COPIED_BYTES].copy_from_slice(chunk);
            }
            _ => self.put_rest(&rest_and_more[..rest_len]),
        }
        self.bytes[self.prefix_len..self.prefix_len + HEAD_BYTES].copy_from_slice(&head.to_be_bytes());
        &self.bytes[..self.prefix_len + slot.suffix_len]
    }

    #[cold]
    fn put_rest(&mut self, rest: &[u8]) {
        self.make_room(rest.len());
        let start = self.prefix_len + HEAD_BYTES;
        self.bytes[start..start + rest.len()].copy_from_slice(rest);
    }
}
