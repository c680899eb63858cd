//! A leaf, to be read. Layout: see [`super::layout`].

use std::ops::Range;

use super::ValueRef;
use super::key::{self, KeyParts, Position};
use super::layout::{self, HEADER_BYTES, padded, u32_at};
use super::search;

/// Bytes that an entry takes besides its heap bytes: head and slot.
pub(crate) const ENTRY_BYTES: usize = 4 + SLOT_BYTES;
pub(crate) const SLOT_BYTES: usize = 6;
/// Set in a slot's value length when the value is a blob descriptor.
pub(crate) const BLOB_FLAG: u16 = 0x8000;

/// A view of a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf<'a> {
    pub(crate) page: &'a [u8],
    pub(crate) count: usize,
    pub(crate) prefix_len: usize,
    heads_at: usize,
}

/// One slot, decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) offset: usize,
    pub(crate) suffix_len: usize,
    /// With [`BLOB_FLAG`].
    pub(crate) value_tag: u16,
}

impl Slot {
    #[inline]
    pub(crate) fn value_len(self) -> usize {
        usize::from(self.value_tag & !BLOB_FLAG)
    }

    pub(crate) fn value_offset(self) -> usize {
        self.offset + key::rest_len(self.suffix_len)
    }

    /// Heap bytes.
    #[inline]
    pub(crate) fn heap_len(self) -> usize {
        key::rest_len(self.suffix_len) + self.value_len()
    }
}

impl<'a> Leaf<'a> {
    #[inline]
    pub(crate) fn new(page: &'a [u8]) -> Leaf<'a> {
        debug_assert_eq!(page[layout::KIND_AT], layout::KIND_LEAF);
        let prefix_len = layout::prefix_len(page);
        Leaf {
            page,
            count: layout::count(page),
            prefix_len,
            heads_at: HEADER_BYTES + padded(prefix_len),
        }
    }

    #[inline]
    pub(crate) fn prefix(&self) -> &'a [u8] {
        &self.page[HEADER_BYTES..HEADER_BYTES + self.prefix_len]
    }

    #[inline]
    pub(crate) fn heads_at(&self) -> usize {
        self.heads_at
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
    pub(crate) fn slots_at(&self) -> usize {
        self.heads_at + 4 * self.count
    }

    /// End of the slots, start of the free bytes.
    #[inline]
    pub(crate) fn slots_end(&self) -> usize {
        self.heads_at + ENTRY_BYTES * self.count
    }

    #[inline]
    pub(crate) fn slot(&self, index: usize) -> Slot {
        let at = self.slots_at() + SLOT_BYTES * index;
        let mut bytes = [0; SLOT_BYTES];
        bytes.copy_from_slice(&self.page[at..at + SLOT_BYTES]);
        let [offset_low, offset_high, len_low, len_high, tag_low, tag_high] = bytes;
        Slot {
            offset: usize::from(u16::from_le_bytes([offset_low, offset_high])),
            suffix_len: usize::from(u16::from_le_bytes([len_low, len_high])),
            value_tag: u16::from_le_bytes([tag_low, tag_high]),
        }
    }

    #[inline]
    fn rest(&self, slot: Slot) -> &'a [u8] {
        &self.page[slot.offset..slot.offset + key::rest_len(slot.suffix_len)]
    }

    /// The heap bytes of an entry.
    #[inline]
    pub(crate) fn heap_bytes(&self, slot: Slot) -> &'a [u8] {
        &self.page[slot.offset..slot.offset + slot.heap_len()]
    }

    #[inline]
    pub(crate) fn value(&self, index: usize) -> ValueRef<'a> {
        self.value_of(self.slot(index))
    }

    #[inline]
    pub(crate) fn value_of(&self, slot: Slot) -> ValueRef<'a> {
        let bytes = &self.heap_bytes(slot)[key::rest_len(slot.suffix_len)..];
        if slot.value_tag & BLOB_FLAG == 0 {
            ValueRef::Inline(bytes)
        } else {
            ValueRef::Blob(bytes)
        }
    }

    #[inline]
    pub(crate) fn key(&self, index: usize) -> KeyParts<'a> {
        self.entry(index).0
    }

    /// Key and value of a slot, and the page from where the key's rest is.
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> (KeyParts<'a>, ValueRef<'a>, &'a [u8]) {
        let slot = self.slot(index);
        let page_from_rest = &self.page[slot.offset..];
        let (rest, after) = page_from_rest.split_at(key::rest_len(slot.suffix_len));
        let value = value_of(&after[..slot.value_len()], slot.value_tag);
        let key = KeyParts {
            prefix: self.prefix(),
            head: self.head(index),
            suffix_len: slot.suffix_len,
            rest,
        };
        (key, value, page_from_rest)
    }

    /// The slots whose heads equal the key's; `None` if the key lacks the prefix. When empty, the key
    /// belongs there.
    #[inline]
    pub(crate) fn candidates(&self, key: &[u8]) -> Option<Range<usize>> {
        let Position::Within(suffix) = key::position(key, self.prefix()) else {
            return None;
        };
        Some(self.equal_heads(key::head(suffix)))
    }

    #[inline]
    fn equal_heads(&self, target: u32) -> Range<usize> {
        let heads = self.heads();
        let low = search::count_below(heads, target);
        low..low + search::count_equal(&heads[low..], target)
    }

    /// The slot that holds the key, or the one before which it belongs.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        match key::position(key, self.prefix()) {
            Position::Before => Err(0),
            Position::Behind => Err(self.count),
            Position::Within(suffix) => self.find_suffix(self.equal_heads(key::head(suffix)), suffix),
        }
    }

    /// Like [`Leaf::find`], given the key's [`Leaf::candidates`].
    #[inline]
    pub(crate) fn find_among(&self, candidates: Range<usize>, key: &[u8]) -> Result<usize, usize> {
        self.find_suffix(candidates, &key[self.prefix_len..])
    }

    #[inline]
    fn find_suffix(&self, candidates: Range<usize>, suffix: &[u8]) -> Result<usize, usize> {
        search::find_among_equals(candidates, suffix, |index| {
            let slot = self.slot(index);
            (slot.suffix_len, self.rest(slot))
        })
    }

    /// Bytes in use: what would be taken if nothing were dead.
    pub(crate) fn used_bytes(&self) -> usize {
        self.slots_end() + (self.page.len() - layout::heap_start(self.page)) - layout::dead_bytes(self.page)
    }

    /// Bytes between slots and heap.
    #[inline]
    pub(crate) fn gap_bytes(&self) -> usize {
        layout::heap_start(self.page) - self.slots_end()
    }
}

#[inline]
fn value_of(bytes: &[u8], value_tag: u16) -> ValueRef<'_> {
    if value_tag & BLOB_FLAG == 0 {
        ValueRef::Inline(bytes)
    } else {
        ValueRef::Blob(bytes)
    }
}
