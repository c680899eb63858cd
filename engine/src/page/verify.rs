//! What a page must satisfy before anything of it is believed.
//!
//! A page that passed can be searched, scanned and edited without leaving its bounds: every offset and
//! length has been looked at, keys ascend, and the heap's accounts are right.

use super::inner::Inner;
use super::key;
use super::layout::{self, CRC_AT, DEAD_AT, HEADER_BYTES, HEAP_START_AT, KIND_AT, KIND_INNER, KIND_LEAF};
use super::leaf::{ENTRY_BYTES, Leaf};
use super::{inner, max_key_bytes};
use crate::checksum::crc32c;
use crate::ids::{PAGE_BYTES_MAX, PAGE_BYTES_MIN, PageId, PageRef};

/// Why a page can't be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PageDefect {
    /// The checksum isn't that of the bytes.
    #[error("checksum does not match")]
    Checksum,
    /// The page says that it is another one: a misdirected read or write.
    #[error("page says it is page {}", found.0)]
    WrongId {
        /// What it says.
        found: PageId,
    },
    /// The page is of another use of its place: a lost or stale write.
    #[error("page was born under stamp {found}, which is not the one expected")]
    WrongBirth {
        /// The low half of its stamp.
        found: u32,
    },
    /// Neither leaf nor inner node.
    #[error("page is of an unknown kind")]
    UnknownKind,
    /// The checksum is right but the content isn't a node.
    #[error("malformed node: {0}")]
    Malformed(&'static str),
}

/// What the checksum covers.
const BODY_AT: usize = CRC_AT + 4;

fn checksum(page: &[u8]) -> u32 {
    crc32c(&page[BODY_AT..])
}

/// Writes the checksum. To be called right before the page is written to disk.
///
/// # Panics
///
/// If the slice is shorter than a header.
pub fn seal(page: &mut [u8]) {
    let crc = checksum(page);
    layout::put_u32(page, CRC_AT, crc);
}

/// Checks a page that came from disk against the reference by which it was asked for.
///
/// # Errors
///
/// The first defect found, in the order of [`PageDefect`].
pub fn verify(page: &[u8], expected: PageRef) -> Result<(), PageDefect> {
    if !page.len().is_power_of_two() || !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page.len()) {
        return Err(PageDefect::Malformed("page size"));
    }
    if layout::u32_at(page, CRC_AT) != checksum(page) {
        return Err(PageDefect::Checksum);
    }
    let found = layout::reference(page);
    if found.id != expected.id {
        return Err(PageDefect::WrongId { found: found.id });
    }
    if found.birth != expected.birth {
        return Err(PageDefect::WrongBirth { found: found.birth });
    }
    verify_structure(page)
}

/// The part of [`verify`] that looks at kind and content only.
///
/// # Errors
///
/// [`PageDefect::UnknownKind`] or [`PageDefect::Malformed`].
pub fn verify_structure(page: &[u8]) -> Result<(), PageDefect> {
    match page[KIND_AT] {
        KIND_LEAF => verify_leaf(page),
        KIND_INNER => verify_inner(page),
        _ => Err(PageDefect::UnknownKind),
    }
}

fn require(holds: bool, what: &'static str) -> Result<(), PageDefect> {
    if holds {
        Ok(())
    } else {
        Err(PageDefect::Malformed(what))
    }
}

/// Frame of a node: where its arrays end and its heap begins. Nothing else may be read before this holds.
fn verify_bounds(page: &[u8], arrays_at: usize, entry_bytes: usize) -> Result<(), PageDefect> {
    let prefix_len = layout::prefix_len(page);
    require(prefix_len <= max_key_bytes(page.len()), "prefix length")?;
    let arrays_end = arrays_at + layout::padded(prefix_len) + entry_bytes * layout::count(page);
    let heap_start = layout::u32_at(page, HEAP_START_AT) as usize;
    require(arrays_end <= heap_start && heap_start <= page.len(), "heap start")?;
    let dead = layout::u32_at(page, DEAD_AT) as usize;
    require(dead <= page.len() - heap_start, "dead bytes")?;
    require(layout::count(page) > 0, "no entries")
}

fn verify_heap_entry(page: &[u8], offset: usize, len: usize) -> Result<(), PageDefect> {
    if len == 0 {
        return require(offset == 0, "offset of an empty heap entry");
    }
    require(
        offset >= layout::heap_start(page) && offset + len <= page.len(),
        "heap entry",
    )
}

/// A key part: its length is allowed, and what its head doesn't use is zero.
fn verify_key(page: &[u8], prefix_len: usize, suffix_len: usize, head: u32) -> Result<(), PageDefect> {
    let key_len = prefix_len + suffix_len;
    require(key_len >= 1 && key_len <= max_key_bytes(page.len()), "key length")?;
    let unused_bits = 32 - 8 * suffix_len.min(4) as u32;
    require(
        unused_bits == 0 || u64::from(head) & ((1 << unused_bits) - 1) == 0,
        "head padding",
    )
}

fn verify_leaf(page: &[u8]) -> Result<(), PageDefect> {
    require(layout::level(page) == 0, "level of a leaf")?;
    verify_bounds(page, HEADER_BYTES, ENTRY_BYTES)?;
    let leaf = Leaf::new(page);
    let mut heap_bytes = 0;
    for index in 0..leaf.count {
        let slot = leaf.slot(index);
        verify_heap_entry(page, slot.offset, slot.heap_len())?;
        verify_key(page, leaf.prefix_len, slot.suffix_len, leaf.head(index))?;
        heap_bytes += slot.heap_len();
        if index > 0 {
            let (before, this) = (leaf.key(index - 1), leaf.key(index));
            let order = before
                .head
                .cmp(&this.head)
                .then_with(|| key::compare_rest(before.rest, before.suffix_len, this.rest, this.suffix_len));
            require(order.is_lt(), "order of keys")?;
        }
    }
    verify_heap_accounts(page, heap_bytes)
}

fn verify_inner(page: &[u8]) -> Result<(), PageDefect> {
    require(layout::level(page) > 0, "level of an inner node")?;
    verify_bounds(page, inner::INNER_HEADER_BYTES, inner::CHILD_BYTES)?;
    let node = Inner::new(page);
    let mut heap_bytes = 0;
    for index in 0..node.count {
        require(node.child(index).id >= PageId::FIRST, "child reference")?;
        let tail = node.tail(index);
        if index == 0 {
            require(tail == 0 && node.head(0) == 0, "separator of the first child")?;
            continue;
        }
        if tail > layout::HEAD_BYTES {
            require(
                tail >= layout::heap_start(page) && tail + 2 <= page.len(),
                "separator",
            )?;
            let rest_len = usize::from(layout::u16_at(page, tail));
            require(rest_len > 0 && tail + 2 + rest_len <= page.len(), "separator")?;
        }
        let suffix_len = node.separator(index).suffix_len;
        verify_key(page, node.prefix_len, suffix_len, node.head(index))?;
        heap_bytes += inner::heap_bytes(suffix_len);
        if index > 1 {
            let (before, this) = (node.separator(index - 1), node.separator(index));
            let order = before
                .head
                .cmp(&this.head)
                .then_with(|| key::compare_rest(before.rest, before.suffix_len, this.rest, this.suffix_len));
            require(order.is_lt(), "order of separators")?;
        }
    }
    verify_hints(&node)?;
    verify_heap_accounts(page, heap_bytes)
}

fn verify_hints(node: &Inner<'_>) -> Result<(), PageDefect> {
    let step = inner::hint_step(node.count);
    for hint in 0..inner::HINTS {
        let index = (hint + 1) * step;
        let expected = if index < node.count {
            node.head(index)
        } else {
            u32::MAX
        };
        require(
            layout::u32_at(node.page, inner::HINTS_AT + 4 * hint) == expected,
            "hints",
        )?;
    }
    Ok(())
}

fn verify_heap_accounts(page: &[u8], heap_bytes: usize) -> Result<(), PageDefect> {
    require(
        page.len() - layout::heap_start(page) == heap_bytes + layout::dead_bytes(page),
        "heap accounts",
    )
}
