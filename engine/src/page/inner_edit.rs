//! Changes to an open inner node: in place as long as the gap allows, otherwise the caller writes the node
//! anew with an [`InnerWriter`].

use super::inner::{
    self, CHILD_BYTES, HINTS, HINTS_AT, INNER_HEADER_BYTES, Inner, REFERENCE_BYTES, REST_HEADER_BYTES,
    TAIL_BYTES, hint_step,
};
use super::key::{self, KeyParts};
use super::layout::{
    self, COUNT_AT, DEAD_AT, HEADER_BYTES, HEAP_START_AT, KIND_AT, KIND_INNER, LAST_INSERT_AT, LEVEL_AT,
    PREFIX_LEN_AT, RUN_AT, padded, put_reference, put_u16, put_u32,
};
use crate::ids::PageRef;

/// Points a child's place at another node.
///
/// # Panics
///
/// If the page is no inner node, or has no such child.
#[inline]
pub fn set_child(page: &mut [u8], index: usize, child: PageRef) {
    let at = Inner::new(page).references_at() + REFERENCE_BYTES * index;
    put_reference(page, at, child);
}

/// Bytes that a child with this separator takes in this node, or `None` if the separator lacks the node's
/// prefix.
pub(crate) fn child_bytes(inner: &Inner<'_>, separator: &[u8]) -> Option<usize> {
    let suffix = separator.strip_prefix(inner.prefix())?;
    Some(CHILD_BYTES + inner::heap_bytes(suffix.len()))
}

/// Inserts a child with its separator at `index`, which must not be 0; [`child_bytes`] fits into the gap.
/// [`refresh_hints`] must follow.
pub(crate) fn insert(page: &mut [u8], index: usize, separator: &[u8], child: PageRef) {
    let inner = Inner::new(page);
    let (count, heads_at, references_at) = (inner.count, inner.heads_at(), inner.references_at());
    let (tails_at, tails_end) = (inner.tails_at(), inner.tails_end());
    let suffix = &separator[inner.prefix_len..];

    let tail_at = tails_at + TAIL_BYTES * index;
    page.copy_within(tail_at..tails_end, tail_at + CHILD_BYTES);
    page.copy_within(tails_at..tail_at, tails_at + 4 + REFERENCE_BYTES);
    let reference_at = references_at + REFERENCE_BYTES * index;
    page.copy_within(reference_at..tails_at, reference_at + 4 + REFERENCE_BYTES);
    page.copy_within(references_at..reference_at, references_at + 4);
    let head_at = heads_at + 4 * index;
    page.copy_within(head_at..references_at, head_at + 4);

    put_u32(page, head_at, key::head(suffix));
    put_reference(page, reference_at + 4, child);
    put_u16(page, COUNT_AT, (count + 1) as u16);
    let mut heap_start = layout::heap_start(page);
    let tail = push_heap(page, &mut heap_start, suffix.len(), key::rest(suffix));
    put_u32(page, HEAP_START_AT, heap_start as u32);
    put_u16(page, tail_at + 4 + REFERENCE_BYTES, tail);
}

/// Puts what a separator has behind its head below the heap, if it has anything there; gives its tail.
fn push_heap(page: &mut [u8], heap_start: &mut usize, suffix_len: usize, rest: &[u8]) -> u16 {
    if rest.is_empty() {
        return suffix_len as u16;
    }
    *heap_start -= REST_HEADER_BYTES + rest.len();
    let rest_at = *heap_start + REST_HEADER_BYTES;
    put_u16(page, *heap_start, rest.len() as u16);
    page[rest_at..rest_at + rest.len()].copy_from_slice(rest);
    *heap_start as u16
}

/// Removes a child with its separator. When it is child 0, the next child loses its separator: it takes the
/// range. [`refresh_hints`] must follow.
pub(crate) fn remove(page: &mut [u8], index: usize) {
    let inner = Inner::new(page);
    let (count, heads_at, references_at) = (inner.count, inner.heads_at(), inner.references_at());
    let (tails_at, tails_end) = (inner.tails_at(), inner.tails_end());
    // Child 0 owns no heap bytes; what becomes child 0 gives up its own.
    let separator_gone = if index == 0 { 1 } else { index };
    if separator_gone < count {
        let gone = inner::heap_bytes(inner.separator(separator_gone).suffix_len);
        let dead = layout::dead_bytes(page) + gone;
        put_u32(page, DEAD_AT, dead as u32);
    }
    if index == 0 && count > 1 {
        put_u32(page, heads_at + 4, 0);
        put_u16(page, tails_at + TAIL_BYTES, 0);
    }
    let head_at = heads_at + 4 * index;
    page.copy_within(head_at + 4..references_at, head_at);
    let reference_at = references_at + REFERENCE_BYTES * index;
    page.copy_within(references_at..reference_at, references_at - 4);
    page.copy_within(reference_at + REFERENCE_BYTES..tails_at, reference_at - 4);
    let tail_at = tails_at + TAIL_BYTES * index;
    page.copy_within(tails_at..tail_at, tails_at - 4 - REFERENCE_BYTES);
    page.copy_within(tail_at + TAIL_BYTES..tails_end, tail_at - 4 - REFERENCE_BYTES);
    put_u16(page, COUNT_AT, (count - 1) as u16);
}

/// Repeats the heads that searches start with. Hints without a head are higher than every target.
pub(crate) fn refresh_hints(page: &mut [u8]) {
    let inner = Inner::new(page);
    let (count, heads_at) = (inner.count, inner.heads_at());
    let step = hint_step(count);
    for hint in 0..HINTS {
        let index = (hint + 1) * step;
        let head = if index < count {
            layout::u32_at(page, heads_at + 4 * index)
        } else {
            u32::MAX
        };
        put_u32(page, HINTS_AT + 4 * hint, head);
    }
}

/// Fills a new inner node with children whose number and common separator prefix are known.
pub(crate) struct InnerWriter<'a> {
    page: &'a mut [u8],
    prefix_len: usize,
    count: usize,
    heads_at: usize,
    written: usize,
    heap_start: usize,
}

impl<'a> InnerWriter<'a> {
    /// Everything but what identifies the node is written anew.
    pub(crate) fn new(page: &'a mut [u8], level: u8, prefix: &[u8], count: usize) -> InnerWriter<'a> {
        page[KIND_AT] = KIND_INNER;
        page[LEVEL_AT] = level;
        put_u16(page, COUNT_AT, count as u16);
        put_u16(page, PREFIX_LEN_AT, prefix.len() as u16);
        put_u16(page, LAST_INSERT_AT, 0);
        put_u32(page, DEAD_AT, 0);
        page[RUN_AT..HEADER_BYTES].fill(0);
        let heads_at = INNER_HEADER_BYTES + padded(prefix.len());
        page[INNER_HEADER_BYTES..heads_at].fill(0);
        page[INNER_HEADER_BYTES..INNER_HEADER_BYTES + prefix.len()].copy_from_slice(prefix);
        let heap_start = page.len();
        InnerWriter {
            page,
            prefix_len: prefix.len(),
            count,
            heads_at,
            written: 0,
            heap_start,
        }
    }

    /// The next child; the separator of the first is ignored.
    pub(crate) fn push(
        &mut self,
        separator: Option<KeyParts<'_>>,
        child: PageRef,
        key_scratch: &mut Vec<u8>,
    ) {
        match separator {
            Some(key) if self.written > 0 => {
                if key.prefix.len() == self.prefix_len {
                    self.push_parts(key.head, key.suffix_len, key.rest, child);
                } else {
                    key.copy_to(key_scratch);
                    let suffix = &key_scratch[self.prefix_len..];
                    self.push_parts(key::head(suffix), suffix.len(), key::rest(suffix), child);
                }
            }
            _ => self.push_parts(0, 0, &[], child),
        }
    }

    fn push_parts(&mut self, head: u32, suffix_len: usize, rest: &[u8], child: PageRef) {
        let tail = push_heap(self.page, &mut self.heap_start, suffix_len, rest);
        let references_at = self.heads_at + 4 * self.count;
        let tails_at = references_at + REFERENCE_BYTES * self.count;
        put_u32(self.page, self.heads_at + 4 * self.written, head);
        put_reference(self.page, references_at + REFERENCE_BYTES * self.written, child);
        put_u16(self.page, tails_at + TAIL_BYTES * self.written, tail);
        self.written += 1;
    }

    /// Ends the node; free bytes are zeroed.
    pub(crate) fn finish(self) {
        debug_assert_eq!(self.written, self.count);
        put_u32(self.page, HEAP_START_AT, self.heap_start as u32);
        let tails_end = self.heads_at + CHILD_BYTES * self.count;
        self.page[tails_end..self.heap_start].fill(0);
        refresh_hints(self.page);
    }
}
