//! Changes to an open leaf: in place as long as the gap between slots and heap allows, otherwise the caller
//! writes the leaf anew with a [`LeafWriter`].

use super::ValueRef;
use super::key::{self, KeyParts};
use super::layout::{
    self, COUNT_AT, DEAD_AT, HEADER_BYTES, HEAP_START_AT, KIND_AT, KIND_LEAF, LAST_INSERT_AT, LEVEL_AT,
    PREFIX_LEN_AT, RUN_AT, padded, put_u16, put_u32,
};
use super::leaf::{BLOB_FLAG, ENTRY_BYTES, Leaf, SLOT_BYTES, Slot};

fn value_parts(value: ValueRef<'_>) -> (&[u8], u16) {
    match value {
        ValueRef::Inline(bytes) => (bytes, bytes.len() as u16),
        ValueRef::Blob(bytes) => (bytes, bytes.len() as u16 | BLOB_FLAG),
    }
}

/// Whether an entry can be inserted without writing the leaf anew.
#[inline]
pub(crate) fn can_insert(leaf: &Leaf<'_>, key: &[u8], value_len: usize) -> bool {
    key.starts_with(leaf.prefix())
        && leaf.gap_bytes() >= ENTRY_BYTES + key::rest_len(key.len() - leaf.prefix_len) + value_len
}

/// Inserts before slot `index`; [`can_insert`] said that it fits.
pub(crate) fn insert(page: &mut [u8], index: usize, key: &[u8], value: ValueRef<'_>) {
    let leaf = Leaf::new(page);
    let (count, heads_at, slots_at) = (leaf.count, leaf.heads_at(), leaf.slots_at());
    let (slots_end, prefix_len) = (leaf.slots_end(), leaf.prefix_len);
    let suffix = &key[prefix_len..];
    let (bytes, value_tag) = value_parts(value);

    // Slots behind the new one move by a head and a slot, those before it by a head.
    let slot_at = slots_at + SLOT_BYTES * index;
    page.copy_within(slot_at..slots_end, slot_at + ENTRY_BYTES);
    page.copy_within(slots_at..slot_at, slots_at + 4);
    let head_at = heads_at + 4 * index;
    page.copy_within(head_at..slots_at, head_at + 4);
    put_u32(page, head_at, key::head(suffix));
    put_u16(page, COUNT_AT, (count + 1) as u16);
    let offset = push_heap(page, key::rest(suffix), bytes);
    put_slot(
        page,
        slot_at + 4,
        Slot {
            offset,
            suffix_len: suffix.len(),
            value_tag,
        },
    );
    note_insertion(page, index);
}

fn put_slot(page: &mut [u8], at: usize, slot: Slot) {
    let [offset_low, offset_high] = (slot.offset as u16).to_le_bytes();
    let [len_low, len_high] = (slot.suffix_len as u16).to_le_bytes();
    let [tag_low, tag_high] = slot.value_tag.to_le_bytes();
    let bytes = [offset_low, offset_high, len_low, len_high, tag_low, tag_high];
    page[at..at + SLOT_BYTES].copy_from_slice(&bytes);
}

/// Puts an entry's bytes below the heap; gives their offset.
fn push_heap(page: &mut [u8], rest: &[u8], value: &[u8]) -> usize {
    if rest.is_empty() && value.is_empty() {
        return 0;
    }
    let end = layout::heap_start(page);
    let middle = end - value.len();
    let start = middle - rest.len();
    page[middle..end].copy_from_slice(value);
    page[start..middle].copy_from_slice(rest);
    put_u32(page, HEAP_START_AT, start as u32);
    start
}

/// Remembers whether insertions come in order: a full leaf then splits where they go on.
fn note_insertion(page: &mut [u8], index: usize) {
    let last = usize::from(layout::u16_at(page, LAST_INSERT_AT));
    let run = page[RUN_AT] as i8;
    let run = if index == last + 1 {
        run.max(0).saturating_add(1)
    } else if index == last {
        run.min(0).saturating_sub(1)
    } else {
        0
    };
    page[RUN_AT] = run as u8;
    put_u16(page, LAST_INSERT_AT, index as u16);
}

/// What earlier insertions say about where the next go, when one comes to slot `index`.
pub(crate) fn insertion_run(page: &[u8], index: usize) -> InsertionRun {
    const RUN_MIN: i8 = 3;
    let last = usize::from(layout::u16_at(page, LAST_INSERT_AT));
    let run = page[RUN_AT] as i8;
    if index == last + 1 && run >= RUN_MIN {
        InsertionRun::Ascending
    } else if index == last && run <= -RUN_MIN {
        InsertionRun::Descending
    } else {
        InsertionRun::None
    }
}

/// The order in which keys came to a leaf lately.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InsertionRun {
    None,
    Ascending,
    Descending,
}

/// Whether an entry's value can be replaced without writing the leaf anew.
pub(crate) fn can_replace(leaf: &Leaf<'_>, index: usize, value_len: usize) -> bool {
    let slot = leaf.slot(index);
    value_len <= slot.value_len() || leaf.gap_bytes() >= key::rest_len(slot.suffix_len) + value_len
}

/// Replaces a value; [`can_replace`] said that it fits.
pub(crate) fn replace(page: &mut [u8], index: usize, value: ValueRef<'_>) {
    let leaf = Leaf::new(page);
    let old = leaf.slot(index);
    let at = leaf.slots_at() + SLOT_BYTES * index;
    let (bytes, value_tag) = value_parts(value);
    let mut offset = old.offset;
    if bytes.len() <= old.value_len() {
        let start = old.value_offset();
        page[start..start + bytes.len()].copy_from_slice(bytes);
        add_dead(page, old.value_len() - bytes.len());
    } else {
        // The key's rest moves along, so that key and value stay in neighbouring cache lines.
        let rest_len = key::rest_len(old.suffix_len);
        let end = layout::heap_start(page);
        let start = end - bytes.len() - rest_len;
        page.copy_within(old.offset..old.offset + rest_len, start);
        page[end - bytes.len()..end].copy_from_slice(bytes);
        put_u32(page, HEAP_START_AT, start as u32);
        add_dead(page, old.heap_len());
        offset = start;
    }
    let heap_len = key::rest_len(old.suffix_len) + bytes.len();
    put_slot(
        page,
        at,
        Slot {
            offset: if heap_len == 0 { 0 } else { offset },
            value_tag,
            ..old
        },
    );
}

fn add_dead(page: &mut [u8], bytes: usize) {
    let dead = layout::dead_bytes(page) + bytes;
    put_u32(page, DEAD_AT, dead as u32);
}

/// Removes an entry.
pub(crate) fn remove(page: &mut [u8], index: usize) {
    let leaf = Leaf::new(page);
    let (count, heads_at, slots_at, slots_end) =
        (leaf.count, leaf.heads_at(), leaf.slots_at(), leaf.slots_end());
    let slot = leaf.slot(index);
    let head_at = heads_at + 4 * index;
    page.copy_within(head_at + 4..slots_at, head_at);
    let slot_at = slots_at + SLOT_BYTES * index;
    page.copy_within(slots_at..slot_at, slots_at - 4);
    page.copy_within(slot_at + SLOT_BYTES..slots_end, slot_at - 4);
    put_u16(page, COUNT_AT, (count - 1) as u16);
    if slot.heap_len() > 0 && slot.offset == layout::heap_start(page) {
        put_u32(page, HEAP_START_AT, (slot.offset + slot.heap_len()) as u32);
    } else {
        add_dead(page, slot.heap_len());
    }
    page[RUN_AT] = 0;
}

/// Fills a new leaf with ascending entries whose number and common prefix are known.
pub(crate) struct LeafWriter<'a> {
    page: &'a mut [u8],
    prefix_len: usize,
    heads_at: usize,
    slots_at: usize,
    count: usize,
    written: usize,
    heap_start: usize,
}

impl<'a> LeafWriter<'a> {
    /// Everything but what identifies the node is written anew.
    pub(crate) fn new(page: &'a mut [u8], prefix: &[u8], count: usize) -> LeafWriter<'a> {
        page[KIND_AT] = KIND_LEAF;
        page[LEVEL_AT] = 0;
        put_u16(page, COUNT_AT, count as u16);
        put_u16(page, PREFIX_LEN_AT, prefix.len() as u16);
        put_u16(page, LAST_INSERT_AT, 0);
        put_u32(page, DEAD_AT, 0);
        page[RUN_AT..HEADER_BYTES].fill(0);
        let heads_at = HEADER_BYTES + padded(prefix.len());
        page[HEADER_BYTES..heads_at].fill(0);
        page[HEADER_BYTES..HEADER_BYTES + prefix.len()].copy_from_slice(prefix);
        let heap_start = page.len();
        let slots_at = heads_at + 4 * count;
        LeafWriter {
            page,
            prefix_len: prefix.len(),
            heads_at,
            slots_at,
            count,
            written: 0,
            heap_start,
        }
    }

    /// The next entry. `key_scratch` is only used when the key's parts lie differently in its present node.
    pub(crate) fn push(&mut self, key: KeyParts<'_>, value: ValueRef<'_>, key_scratch: &mut Vec<u8>) {
        if key.prefix.len() == self.prefix_len {
            self.push_parts(key.head, key.suffix_len, key.rest, value);
        } else {
            key.copy_to(key_scratch);
            let suffix = &key_scratch[self.prefix_len..];
            self.push_parts(key::head(suffix), suffix.len(), key::rest(suffix), value);
        }
    }

    /// The next entry as another leaf with the same prefix holds it.
    pub(crate) fn push_entry(&mut self, leaf: &Leaf<'_>, index: usize) {
        let slot = leaf.slot(index);
        let heap_bytes = leaf.heap_bytes(slot);
        let end = self.heap_start;
        let start = end - heap_bytes.len();
        self.page[start..end].copy_from_slice(heap_bytes);
        self.push_slot(
            leaf.head(index),
            start,
            Slot {
                offset: start,
                ..slot
            },
        );
    }

    fn push_parts(&mut self, head: u32, suffix_len: usize, rest: &[u8], value: ValueRef<'_>) {
        let (bytes, value_tag) = value_parts(value);
        let end = self.heap_start;
        let middle = end - bytes.len();
        let start = middle - rest.len();
        self.page[middle..end].copy_from_slice(bytes);
        self.page[start..middle].copy_from_slice(rest);
        self.push_slot(
            head,
            start,
            Slot {
                offset: start,
                suffix_len,
                value_tag,
            },
        );
    }

    fn push_slot(&mut self, head: u32, heap_start: usize, mut slot: Slot) {
        if heap_start == self.heap_start {
            slot.offset = 0;
        }
        self.heap_start = heap_start;
        put_u32(self.page, self.heads_at + 4 * self.written, head);
        put_slot(self.page, self.slots_at + SLOT_BYTES * self.written, slot);
        self.written += 1;
    }

    /// Ends the leaf. Free bytes are zeroed: nothing of what the frame held before reaches the disk.
    pub(crate) fn finish(self) {
        debug_assert_eq!(self.written, self.count);
        put_u32(self.page, HEAP_START_AT, self.heap_start as u32);
        let slots_end = self.heads_at + ENTRY_BYTES * self.count;
        self.page[slots_end..self.heap_start].fill(0);
    }
}
