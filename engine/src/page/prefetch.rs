//! Hints to the processor: which lines of a node will be read next.

use std::ops::Range;

use super::inner::INNER_HEADER_BYTES;
use super::leaf::Leaf;

pub(crate) const LINE_BYTES: usize = 64;
/// Header, heads and slots of a leaf with about 20 entries.
const LEAF_TOP_BYTES: usize = 320;
/// Most that is asked for of one entry.
const ENTRY_LINES_BYTES_MAX: usize = 512;

/// Asks for the line at an offset of a page; nothing if the offset lies outside.
#[inline]
pub(crate) fn line(page: &[u8], offset: usize) {
    if let Some(byte) = page.get(offset) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing that a program could see, and the address is that of a live
            // byte.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = byte;
    }
}

/// A record of usual size that starts here: its first lines.
#[inline]
pub fn record(bytes: &[u8]) {
    range(bytes, 0..4 * LINE_BYTES);
}

/// What a search in a leaf reads first.
#[inline]
pub(crate) fn leaf_top(page: &[u8]) {
    for offset in (0..LEAF_TOP_BYTES).step_by(LINE_BYTES) {
        line(page, offset);
    }
}

/// What a search in an inner node reads first: header and hints.
#[inline]
pub(crate) fn inner_top(page: &[u8]) {
    for offset in (0..INNER_HEADER_BYTES).step_by(LINE_BYTES) {
        line(page, offset);
    }
}

/// The lines that a range touches, as far as the page has them. Pages start on a line.
#[inline]
pub(crate) fn range(page: &[u8], range: Range<usize>) {
    let start = range.start & !(LINE_BYTES - 1);
    for offset in (start..range.end.min(page.len())).step_by(LINE_BYTES) {
        line(page, offset);
    }
}

/// The heap bytes of an entry; only the first lines of a long one: the processor notices by itself that the others
/// are read one after another.
#[inline]
pub(crate) fn entry(leaf: &Leaf<'_>, slot: usize) {
    let slot = leaf.slot(slot);
    let len = slot.heap_len().min(ENTRY_LINES_BYTES_MAX);
    range(leaf.page, slot.offset..slot.offset + len);
}

/// Everything.
#[inline]
pub(crate) fn all(page: &[u8]) {
    range(page, 0..page.len());
}
