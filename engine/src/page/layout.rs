//! The bytes that every node starts with, and how numbers are read and written in a page.
//!
//! All integers are little endian. `n` is the count, `p` the prefix length rounded up to a multiple of 4.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32C over the rest of the page |
//! | 4 | 4 | page id |
//! | 8 | 8 | batch stamp; its low half is the birth that references carry |
//! | 16 | 8 | born: first group that may have shown this node |
//! | 24 | 1 | kind: 1 leaf, 2 inner |
//! | 25 | 1 | level: 0 leaf, parents one more than their children |
//! | 26 | 2 | count: entries of a leaf, children of an inner node |
//! | 28 | 2 | length of the key prefix that all keys of the node share |
//! | 30 | 2 | slot of the last insertion (leaves; a hint for splits) |
//! | 32 | 4 | heap start: offset of the lowest heap byte |
//! | 36 | 4 | dead bytes inside the heap |
//! | 40 | 1 | run: successive insertions, each right behind (> 0) or right before (< 0) the last, as i8 |
//! | 41 | 7 | zero |
//!
//! A leaf goes on with the prefix at 48, padded to `p`; heads (4n) at `48 + p`; slots (6n); free bytes;
//! heap. An inner node has 16 hints (4 bytes each) at 48; the prefix at 112; heads (4n) at `112 + p`; child
//! references (8n); tails (2n); free bytes; heap.
//!
//! - The *head* of a key is the first four bytes behind the prefix, padded with zeros, as a number whose
//!   order is the keys' order. A search reads heads only, until it meets an equal one.
//! - A leaf's *slot*: offset u16, key length behind the prefix u16, value length u16 (top bit: blob
//!   descriptor). At the offset: what the key has behind prefix and head, then the value.
//! - An inner node's *tail*, u16, is the separator's length behind the prefix if that is at most 4;
//!   otherwise the offset of what the separator has behind prefix and head, preceded by its length, u16.
//!   Separators are cut as short as they may be, so most are in their heads. Child 0 has no separator: its
//!   head and tail are zero.
//! - A leaf's heap entry of no bytes has offset 0.

use crate::ids::{PageId, PageRef, Seq, Stamp};

pub(crate) const CRC_AT: usize = 0;
pub(crate) const ID_AT: usize = 4;
pub(crate) const STAMP_AT: usize = 8;
pub(crate) const BORN_AT: usize = 16;
pub(crate) const KIND_AT: usize = 24;
pub(crate) const LEVEL_AT: usize = 25;
pub(crate) const COUNT_AT: usize = 26;
pub(crate) const PREFIX_LEN_AT: usize = 28;
pub(crate) const LAST_INSERT_AT: usize = 30;
pub(crate) const HEAP_START_AT: usize = 32;
pub(crate) const DEAD_AT: usize = 36;
pub(crate) const RUN_AT: usize = 40;
/// Bytes of the header that all nodes have.
pub const HEADER_BYTES: usize = 48;

pub(crate) const KIND_LEAF: u8 = 1;
pub(crate) const KIND_INNER: u8 = 2;

/// Bytes of a key that its head holds.
pub(crate) const HEAD_BYTES: usize = 4;

/// Fills in what identifies a node. Stores call this when they create or copy one.
///
/// # Panics
///
/// If the page is shorter than a header.
#[inline]
pub fn set_identity(page: &mut [u8], id: PageId, stamp: Stamp, born: Seq) {
    put_u32(page, ID_AT, id.0);
    put_u64(page, STAMP_AT, stamp.0);
    put_u64(page, BORN_AT, born.0);
}

/// Gives a node another place; its stamp stays.
///
/// # Panics
///
/// If the page is shorter than a header.
#[inline]
pub fn set_id(page: &mut [u8], id: PageId) {
    put_u32(page, ID_AT, id.0);
}

/// The reference by which a parent knows this node.
#[inline]
#[must_use]
pub fn reference(page: &[u8]) -> PageRef {
    PageRef {
        id: PageId(u32_at(page, ID_AT)),
        birth: stamp(page).birth(),
    }
}

/// Copies a node, all but its checksum, which is made when a page is written to disk. [`set_identity`] must follow.
///
/// # Panics
///
/// If the pages aren't of the same size.
#[inline]
pub fn copy_node(target: &mut [u8], source: &[u8]) {
    target[ID_AT..].copy_from_slice(&source[ID_AT..]);
}

/// The batch that created this node.
#[inline]
#[must_use]
pub fn stamp(page: &[u8]) -> Stamp {
    Stamp(u64_at(page, STAMP_AT))
}

/// The first group that may have shown this node (rule R4).
#[inline]
#[must_use]
pub fn born(page: &[u8]) -> Seq {
    Seq(u64_at(page, BORN_AT))
}

/// Distance from the leaves: 0 for a leaf.
#[inline]
#[must_use]
pub fn level(page: &[u8]) -> u8 {
    page[LEVEL_AT]
}

/// Number of entries or children.
#[inline]
#[must_use]
pub fn count(page: &[u8]) -> usize {
    usize::from(u16_at(page, COUNT_AT))
}

#[inline]
pub(crate) fn prefix_len(page: &[u8]) -> usize {
    usize::from(u16_at(page, PREFIX_LEN_AT))
}

#[inline]
pub(crate) fn heap_start(page: &[u8]) -> usize {
    u32_at(page, HEAP_START_AT) as usize
}

#[inline]
pub(crate) fn dead_bytes(page: &[u8]) -> usize {
    u32_at(page, DEAD_AT) as usize
}

/// Space that a prefix takes: heads stay aligned.
#[inline]
pub(crate) const fn padded(prefix_len: usize) -> usize {
    (prefix_len + 3) & !3
}

#[inline]
pub(crate) fn u16_at(page: &[u8], at: usize) -> u16 {
    let mut bytes = [0; 2];
    bytes.copy_from_slice(&page[at..at + 2]);
    u16::from_le_bytes(bytes)
}

#[inline]
pub(crate) fn u32_at(page: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&page[at..at + 4]);
    u32::from_le_bytes(bytes)
}

#[inline]
pub(crate) fn u64_at(page: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&page[at..at + 8]);
    u64::from_le_bytes(bytes)
}

#[inline]
pub(crate) fn put_u16(page: &mut [u8], at: usize, value: u16) {
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

#[inline]
pub(crate) fn put_u32(page: &mut [u8], at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[inline]
pub(crate) fn put_u64(page: &mut [u8], at: usize, value: u64) {
    page[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[inline]
pub(crate) fn put_reference(page: &mut [u8], at: usize, reference: PageRef) {
    put_u32(page, at, reference.id.0);
    put_u32(page, at + 4, reference.birth);
}

#[inline]
pub(crate) fn reference_at(page: &[u8], at: usize) -> PageRef {
    PageRef {
        id: PageId(u32_at(page, at)),
        birth: u32_at(page, at + 4),
    }
}
