//! Nodes as bytes: layout, search, editing and verification of one page.

/// A value as a leaf holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueRef<'a> {
    /// The value itself.
    Inline(&'a [u8]),
    /// What describes a value that lives in extents of its own; opaque to the tree.
    Blob(&'a [u8]),
}

/// Longest key, bytes, in pages of this size.
#[must_use]
pub const fn max_key_bytes(page_bytes: usize) -> usize {
    page_bytes / 4
}

/// Longest value, or blob descriptor, that a leaf of this size holds, bytes. Chosen so that two entries with the
/// longest keys and values fit into one leaf.
#[must_use]
pub const fn max_inline_value_bytes(page_bytes: usize) -> usize {
    page_bytes / 4 - 32
}
