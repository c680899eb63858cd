//! An inner node, to be read. Layout: see [`super::layout`].
//!
//! Child `i` holds the keys from separator `i` up to, but not including, separator `i + 1`; child 0 has no
//! separator and holds everything below separator 1.

use super::key::{self, KeyParts, Position};
use super::layout::{self, HEAD_BYTES, HEADER_BYTES, padded, u16_at, u32_at};
use super::{prefetch, search};
use crate::ids::PageRef;

/// Number of hints: every so many heads once more, together, so that a search reads two lines of heads, not
/// five.
pub(crate) const HINTS: usize = 16;
pub(crate) const HINTS_AT: usize = HEADER_BYTES;
pub(crate) const INNER_HEADER_BYTES: usize = HINTS_AT + 4 * HINTS;
pub(crate) const TAIL_BYTES: usize = 2;
/// Bytes before a separator's rest in the heap: its length.
pub(crate) const REST_HEADER_BYTES: usize = 2;
pub(crate) const REFERENCE_BYTES: usize = 8;
/// Bytes that a child takes besides heap bytes: head, reference, tail.
pub(crate) const CHILD_BYTES: usize = 4 + REFERENCE_BYTES + TAIL_BYTES;

/// A view of an inner node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inner<'a> {
    pub(crate) page: &'a [u8],
    pub(crate) count: usize,
    pub(crate) prefix_len: usize,
    heads_at: usize,
}

/// Heap bytes of a separator that has so many bytes behind the prefix.
#[inline]
pub(crate) const fn heap_bytes(suffix_len: usize) -> usize {
    match key::rest_len(suffix_len) {
        0 => 0,
        rest_len => REST_HEADER_BYTES + rest_len,
    }
}

/// Distance of the heads that hints repeat.
#[inline]
pub(crate) fn hint_step(count: usize) -> usize {
    count.div_ceil(HINTS + 1)
}

impl<'a> Inner<'a> {
    #[inline]
    pub(crate) fn new(page: &'a [u8]) -> Inner<'a> {
        debug_assert_eq!(page[layout::KIND_AT], layout::KIND_INNER);
        let prefix_len = layout::prefix_len(page);
        Inner {
            page,
            count: layout::count(page),
            prefix_len,
            heads_at: INNER_HEADER_BYTES + padded(prefix_len),
        }
    }

    #[inline]
    pub(crate) fn prefix(&self) -> &'a [u8] {
        &self.page[INNER_HEADER_BYTES..INNER_HEADER_BYTES + self.prefix_len]
    }

    #[inline]
    pub(crate) fn heads_at(&self) -> usize {
        self.heads_at
    }

    #[inline]
    pub(crate) fn references_at(&self) -> usize {
        self.heads_at + 4 * self.count
    }

    #[inline]
    pub(crate) fn tails_at(&self) -> usize {
        self.heads_at + (4 + REFERENCE_BYTES) * self.count
    }

    #[inline]
    pub(crate) fn tails_end(&self) -> usize {
        self.heads_at + CHILD_BYTES * self.count
    }

    #[inline]
    fn heads(&self) -> &'a [[u8; 4]] {
        self.page[self.heads_at..self.heads_at + 4 * self.count]
            .as_chunks()
            .0
    }

    #[inline]
    pub(crate) fn head(&self, index: usize) -> u32 {
        u32_at(self.page, self.heads_at + 4 * index)
    }

    #[inline]
    pub(crate) fn child(&self, index: usize) -> PageRef {
        debug_assert!(index < self.count);
        layout::reference_at(self.page, self.references_at() + REFERENCE_BYTES * index)
    }

    /// The tail of child `index`: see the layout.
    #[inline]
    pub(crate) fn tail(&self, index: usize) -> usize {
        usize::from(u16_at(self.page, self.tails_at() + TAIL_BYTES * index))
    }

    /// Length behind the prefix, and what lies behind the head.
    #[inline]
    fn suffix_of(&self, tail: usize) -> (usize, &'a [u8]) {
        if tail <= HEAD_BYTES {
            return (tail, &[]);
        }
        let rest_len = usize::from(u16_at(self.page, tail));
        let start = tail + REST_HEADER_BYTES;
        (HEAD_BYTES + rest_len, &self.page[start..start + rest_len])
    }

    /// Separator `index`, which must not be 0.
    pub(crate) fn separator(&self, index: usize) -> KeyParts<'a> {
        debug_assert!(index > 0 && index < self.count);
        let (suffix_len, rest) = self.suffix_of(self.tail(index));
        KeyParts {
            prefix: self.prefix(),
            head: self.head(index),
            suffix_len,
            rest,
        }
    }

    /// The child whose range holds the key.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> usize {
        let suffix = match key::position(key, self.prefix()) {
            Position::Before => return 0,
            Position::Behind => return self.count - 1,
            Position::Within(suffix) => suffix,
        };
        let target = key::head(suffix);
        let heads = self.heads();
        // Hint j repeats head (j + 1) × step: with c hints below the target, the first head that isn't lies
        // behind head c × step and at most at head (c + 1) × step. Head 0 belongs to no separator.
        let step = hint_step(self.count);
        let hints: &[[u8; 4]] = self.page[HINTS_AT..INNER_HEADER_BYTES].as_chunks().0;
        let below = hints
            .iter()
            .filter(|hint| u32::from_le_bytes(**hint) < target)
            .count();
        let start = (below * step).max(1).min(self.count);
        let end = ((below + 1) * step).min(self.count);
        // The child's reference is near here too: its line comes together with that of the heads, not after
        // it.
        let references = self.references_at() + REFERENCE_BYTES * start;
        prefetch::range(self.page, references..references + REFERENCE_BYTES * step);
        let low = if start < end {
            start + search::count_below(&heads[start..end], target)
        } else {
            start
        };
        if low == self.count || self.head(low) != target {
            return low - 1;
        }
        self.find_among_equals(low, target, suffix)
    }

    #[cold]
    fn find_among_equals(&self, first: usize, target: u32, suffix: &[u8]) -> usize {
        let equals = first..first + search::count_equal(&self.heads()[first..], target);
        match search::find_among_equals(equals, suffix, |index| self.suffix_of(self.tail(index))) {
            Ok(index) => index,
            Err(index) => index - 1,
        }
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.tails_end() + (self.page.len() - layout::heap_start(self.page)) - layout::dead_bytes(self.page)
    }

    #[inline]
    pub(crate) fn gap_bytes(&self) -> usize {
        layout::heap_start(self.page) - self.tails_end()
    }
}
