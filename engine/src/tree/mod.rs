//! The persistent (copy-on-write) B+ tree.

mod cursor;
mod store;

pub use cursor::Cursor;
pub use store::{Located, Miss, NodeStore, ReadNodes};

use std::borrow::Cow;

use crate::ids::PageRef;
use crate::page::ValueRef;

/// Everything that must be known about a tree to use it: two versions of a tree are two roots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Root {
    /// The topmost node; [`PageRef::NONE`] when the tree is empty.
    pub reference: PageRef,
    /// Number of levels: 0 when empty, 1 when the root is a leaf.
    pub height: u8,
    /// Number of keys.
    pub entries: u64,
}

/// What a write did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The key was absent.
    Inserted,
    /// The key was present; its old value is gone.
    Replaced,
    /// The key was present and no longer is.
    Deleted,
}

/// What [`modify`] shall do, having seen the old value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision<'v> {
    /// Leave everything as it is.
    Keep,
    /// Store this value in the leaf; at most [`crate::page::max_inline_value_bytes`].
    Put(Cow<'v, [u8]>),
    /// Store this descriptor of a blob.
    PutBlob(Cow<'v, [u8]>),
    /// Remove the key, if it is there.
    Delete,
}

/// The most nodes that one write to a tree of this height can create.
#[must_use]
pub fn reserve_for(height: u8) -> usize {
    4 + 2 * usize::from(height)
}

/// Looks a key up.
pub fn get<'s, S: ReadNodes>(_store: &'s S, _root: &Root, _key: &[u8]) -> Result<Option<ValueRef<'s>>, Miss> {
    unimplemented!()
}

/// Inserts or overwrites.
pub fn put<S: NodeStore>(
    _store: &mut S,
    _root: &mut Root,
    _key: &[u8],
    _value: ValueRef<'_>,
) -> Result<Change, Miss> {
    unimplemented!()
}

/// Removes a key; tells whether it was there.
pub fn delete<S: NodeStore>(_store: &mut S, _root: &mut Root, _key: &[u8]) -> Result<bool, Miss> {
    unimplemented!()
}

/// Looks at the old value, decides and writes, in one descent. `decide` is called exactly once if this returns
/// `Ok`, never if it returns a miss.
pub fn modify<'v, S: NodeStore, R>(
    _store: &mut S,
    _root: &mut Root,
    _key: &[u8],
    _decide: impl FnOnce(Option<ValueRef<'_>>) -> (Decision<'v>, R),
) -> Result<(Option<Change>, R), Miss> {
    unimplemented!()
}
