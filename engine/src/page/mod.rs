//! Nodes as bytes: layout, search, editing and verification of one page.
//!
//! | file | subject |
//! |---|---|
//! | `layout` | the byte table; numbers in a page |
//! | `key` | keys as prefix, head and rest |
//! | `search` | search among heads |
//! | `leaf`, `leaf_edit` | leaves: view; change in place, write anew |
//! | `inner`, `inner_edit` | inner nodes: view; change in place, write anew |
//! | `prefetch` | hints to the processor |
//! | `verify` | checksum, identity and structure of what came from disk |
//!
//! Views and edits trust a page that passed [`verify()`] or was written here. Absent: any notion of where a
//! page is.

pub(crate) mod inner;
pub(crate) mod inner_edit;
pub(crate) mod key;
pub(crate) mod layout;
pub(crate) mod leaf;
pub(crate) mod leaf_edit;
pub(crate) mod prefetch;
mod search;
#[cfg(test)]
mod tests;
mod verify;

pub use inner_edit::set_child;
pub use layout::{HEADER_BYTES, born, copy_node, count, level, reference, set_id, set_identity, stamp};
pub use prefetch::record as prefetch_record;
pub use verify::{PageDefect, seal, verify, verify_structure};

use crate::ids::PageRef;

/// A value as a leaf holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueRef<'a> {
    /// The value itself.
    Inline(&'a [u8]),
    /// What describes a value that lives in extents of its own; opaque to the tree.
    Blob(&'a [u8]),
}

impl<'a> ValueRef<'a> {
    /// The bytes, whatever they mean.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            ValueRef::Inline(bytes) | ValueRef::Blob(bytes) => bytes,
        }
    }
}

/// Longest key, bytes, in pages of this size.
#[must_use]
pub const fn max_key_bytes(page_bytes: usize) -> usize {
    page_bytes / 4
}

/// Longest value, or blob descriptor, that a leaf of this size holds, bytes.
///
/// An entry with the longest key and the longest value takes less than half of what a leaf can hold: so an
/// overflowing leaf can always be cut in two.
#[must_use]
pub const fn max_inline_value_bytes(page_bytes: usize) -> usize {
    page_bytes / 4 - 40
}

/// The children of an inner node, in key order; none for a leaf.
pub fn children(page: &[u8]) -> impl DoubleEndedIterator<Item = PageRef> + '_ {
    let node = (page[layout::KIND_AT] == layout::KIND_INNER).then(|| inner::Inner::new(page));
    node.into_iter()
        .flat_map(|node| (0..node.count).map(move |index| node.child(index)))
}

/// Lets each blob descriptor of a leaf be changed where it is, in key order; does nothing for an inner node.
pub fn blobs_mut(page: &mut [u8], mut change: impl FnMut(&mut [u8])) {
    if page[layout::KIND_AT] != layout::KIND_LEAF {
        return;
    }
    for index in 0..leaf::Leaf::new(page).count {
        let leaf = leaf::Leaf::new(page);
        let slot = leaf.slot(index);
        if let ValueRef::Blob(descriptor) = leaf.value_of(slot) {
            let (start, length) = (slot.value_offset(), descriptor.len());
            change(&mut page[start..start + length]);
        }
    }
}

/// The blob descriptors of a leaf, in key order; none for an inner node.
pub fn blobs(page: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> + '_ {
    let leaf = (page[layout::KIND_AT] == layout::KIND_LEAF).then(|| leaf::Leaf::new(page));
    leaf.into_iter().flat_map(|leaf| {
        (0..leaf.count).filter_map(move |index| match leaf.value(index) {
            ValueRef::Inline(_) => None,
            ValueRef::Blob(descriptor) => Some(descriptor),
        })
    })
}
