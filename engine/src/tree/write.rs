//! One write: descend, look, decide, change.
//!
//! All-or-nothing: whatever the change may need, neighbours for a merge included, is located before
//! `decide` is asked; from then on nothing can fail.

use std::borrow::Cow;

use super::leaf_sequence::LeafEdit;
use super::path::{Neighbour, Path};
use super::restructure;
use super::{Change, Decision, Located, Miss, NodeStore, Root};
use crate::ids::PageRef;
use crate::page::key::KeyParts;
use crate::page::leaf::Leaf;
use crate::page::leaf_edit::{self, LeafWriter};
use crate::page::{ValueRef, max_inline_value_bytes, max_key_bytes};

/// Inserts or overwrites. O(height) nodes; creates at most [`super::reserve_for`] of them.
///
/// # Errors
///
/// The first node on the way that isn't in memory; nothing was changed.
///
/// # Panics
///
/// If the key is empty or longer than [`max_key_bytes`], or the value longer than
/// [`max_inline_value_bytes`]. Callers refuse such keys and turn such values into blobs.
pub fn put<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    key: &[u8],
    value: ValueRef<'_>,
) -> Result<Change, Miss> {
    let decision = match value {
        ValueRef::Inline(bytes) => Decision::Put(Cow::Borrowed(bytes)),
        ValueRef::Blob(bytes) => Decision::PutBlob(Cow::Borrowed(bytes)),
    };
    let (change, ()) = change(store, root, key, false, |_| (decision, ()))?;
    Ok(change.unwrap_or(Change::Replaced))
}

/// Removes a key; tells whether it was there. O(height) nodes.
///
/// # Errors
///
/// The first node that isn't in memory, on the way to the key or, if its leaf gets too empty, beside it;
/// nothing was changed.
///
/// # Panics
///
/// If the key is empty or longer than [`max_key_bytes`].
pub fn delete<S: NodeStore>(store: &mut S, root: &mut Root, key: &[u8]) -> Result<bool, Miss> {
    let (change, ()) = change(store, root, key, true, |_| (Decision::Delete, ()))?;
    Ok(change.is_some())
}

/// Looks at the old value, decides and writes, in one descent: conditional writes and update closures.
///
/// `decide` is called exactly once if this returns `Ok`, and never if it returns a miss.
///
/// # Errors
///
/// As [`delete`].
///
/// # Panics
///
/// As [`put`].
pub fn modify<'v, S: NodeStore, R>(
    store: &mut S,
    root: &mut Root,
    key: &[u8],
    decide: impl FnOnce(Option<ValueRef<'_>>) -> (Decision<'v>, R),
) -> Result<(Option<Change>, R), Miss> {
    change(store, root, key, true, decide)
}

fn change<'v, S: NodeStore, R>(
    store: &mut S,
    root: &mut Root,
    key: &[u8],
    may_delete: bool,
    decide: impl FnOnce(Option<ValueRef<'_>>) -> (Decision<'v>, R),
) -> Result<(Option<Change>, R), Miss> {
    let page_bytes = store.page_bytes();
    assert!((1..=max_key_bytes(page_bytes)).contains(&key.len()), "key length");

    if root.reference.is_none() {
        let (decision, result) = decide(None);
        let change = checked_value(&decision, page_bytes).map(|value| plant(store, root, key, value));
        return Ok((change, result));
    }

    let path = Path::descend(store, root, key)?;
    let leaf = Leaf::new(store.bytes(path.leaf()));
    let found = leaf.find(key);
    let neighbours = match found {
        Ok(slot) if may_delete => restructure::prepare_removal(store, &path, slot)?,
        _ => Vec::new(),
    };
    let (decision, result) = decide(found.ok().map(|slot| leaf.value(slot)));

    let change = match (checked_value(&decision, page_bytes), found) {
        (Some(value), Ok(slot)) => {
            replace(store, root, path, slot, value);
            Some(Change::Replaced)
        }
        (Some(value), Err(slot)) => {
            insert(store, root, path, slot, key, value);
            Some(Change::Inserted)
        }
        (None, Ok(slot)) if decision == Decision::Delete => {
            remove(store, root, path, slot, &neighbours);
            Some(Change::Deleted)
        }
        (None, _) => None,
    };
    Ok((change, result))
}

/// What a decision stores, if anything.
fn checked_value<'d>(decision: &'d Decision<'_>, page_bytes: usize) -> Option<ValueRef<'d>> {
    let value = match decision {
        Decision::Put(bytes) => ValueRef::Inline(bytes),
        Decision::PutBlob(bytes) => ValueRef::Blob(bytes),
        Decision::Keep | Decision::Delete => return None,
    };
    assert!(
        value.bytes().len() <= max_inline_value_bytes(page_bytes),
        "value length"
    );
    Some(value)
}

/// The first entry of an empty tree.
fn plant<S: NodeStore>(store: &mut S, root: &mut Root, key: &[u8], value: ValueRef<'_>) -> Change {
    let node = store.create();
    let mut writer = LeafWriter::new(store.bytes_mut(node), key, 1);
    writer.push(KeyParts::whole(key), value, &mut Vec::new());
    writer.finish();
    *root = Root {
        reference: node.reference,
        height: 1,
        entries: root.entries.wrapping_add(1),
    };
    Change::Inserted
}

fn insert<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    mut path: Path,
    slot: usize,
    key: &[u8],
    value: ValueRef<'_>,
) {
    if !insert_in_place(store, root, &mut path, slot, key, value) {
        root.entries = root.entries.wrapping_add(1);
        restructure::overflow(store, root, path, LeafEdit::Insert { at: slot, key, value });
    }
}

/// Inserts before a slot of the leaf, if its free bytes suffice. Otherwise nothing is changed.
pub(super) fn insert_in_place<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    path: &mut Path,
    slot: usize,
    key: &[u8],
    value: ValueRef<'_>,
) -> bool {
    if !leaf_edit::can_insert(&Leaf::new(store.bytes(path.leaf())), key, value.bytes().len()) {
        return false;
    }
    root.entries = root.entries.wrapping_add(1);
    let node = path.open(store, root, path.leaf_depth());
    leaf_edit::insert(store.bytes_mut(node), slot, key, value);
    true
}

fn replace<S: NodeStore>(store: &mut S, root: &mut Root, mut path: Path, slot: usize, value: ValueRef<'_>) {
    let edit = LeafEdit::Replace { at: slot, value };
    if let Some(neighbour) = restructure::absorbing_neighbour(store, &path, slot, value.bytes().len()) {
        retire_blob(store, path.leaf(), slot);
        restructure::underflow(store, root, path, edit, neighbour, &[]);
    } else if !replace_in_place(store, root, &mut path, slot, value) {
        retire_blob(store, path.leaf(), slot);
        restructure::overflow(store, root, path, edit);
    }
}

/// Replaces the value of a slot of the leaf, if its free bytes suffice. Otherwise nothing is changed.
pub(super) fn replace_in_place<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    path: &mut Path,
    slot: usize,
    value: ValueRef<'_>,
) -> bool {
    if !leaf_edit::can_replace(&Leaf::new(store.bytes(path.leaf())), slot, value.bytes().len()) {
        return false;
    }
    retire_blob(store, path.leaf(), slot);
    let node = path.open(store, root, path.leaf_depth());
    leaf_edit::replace(store.bytes_mut(node), slot, value);
    true
}

fn remove<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    mut path: Path,
    slot: usize,
    neighbours: &[Option<Neighbour>],
) {
    retire_blob(store, path.leaf(), slot);
    root.entries = root.entries.wrapping_sub(1);
    let depth = path.leaf_depth();
    if Leaf::new(store.bytes(path.leaf())).count == 1 {
        if depth == 0 {
            store.retire(path.leaf());
            *root = Root {
                reference: PageRef::NONE,
                height: 0,
                entries: root.entries,
            };
        } else {
            restructure::drop_leaf(store, root, path, neighbours);
        }
    } else if let Some(Some(neighbour)) = neighbours.last().copied().filter(|_| neighbours.len() > depth) {
        restructure::underflow(
            store,
            root,
            path,
            LeafEdit::Remove { at: slot },
            neighbour,
            neighbours,
        );
    } else {
        let node = path.open(store, root, depth);
        leaf_edit::remove(store.bytes_mut(node), slot);
    }
}

fn retire_blob<S: NodeStore>(store: &mut S, leaf: Located, slot: usize) {
    if let ValueRef::Blob(descriptor) = Leaf::new(store.bytes(leaf)).value(slot) {
        let descriptor = descriptor.to_vec();
        store.retire_blob(&descriptor);
    }
}
