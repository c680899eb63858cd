//! Moving nodes from the end of the file to holes in it: the same tree under other ids.
//!
//! Nodes are copied as writes copy them, path by path, so versions that others look at stay as they are. A leaf that
//! lies low enough isn't even read: its parent says where it lies.

use super::path::Path;
use super::{Located, Miss, NodeStore, Root};
use crate::ids::{PageId, PageRef};
use crate::page::inner::Inner;
use crate::page::inner_edit;

/// Most leaves that one step copies.
pub const RELOCATED_LEAVES_MAX: usize = 16;

/// What one step has done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relocated {
    /// Nodes copied.
    pub nodes: usize,
    /// Where to go on: keys below it are done. `None`: the tree is.
    pub next: Option<Vec<u8>>,
}

/// Looks at the leaves from `from` on that have one parent, and at the path to it, and copies those nodes whose ids
/// aren't below `below`, at most [`RELOCATED_LEAVES_MAX`] leaves. O(height + children of a node). Creates at most
/// [`super::reserve_for`] nodes and as many as leaves are copied; their ids are what the store gives.
///
/// # Errors
///
/// The first node that isn't in memory; nothing was changed.
pub fn relocate<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    from: &[u8],
    below: PageId,
) -> Result<Relocated, Miss> {
    let is_high = |reference: PageRef| reference.id >= below;
    if root.reference.is_none() {
        return Ok(Relocated { nodes: 0, next: None });
    }
    let Some(depth) = usize::from(root.height).checked_sub(2) else {
        // The root is the only leaf.
        let mut path = Path::down_to(store, root, from, 0)?;
        let nodes = usize::from(is_high(root.reference) && !store.is_open(path.step(0).node));
        if nodes > 0 {
            path.open(store, root, 0);
        }
        return Ok(Relocated { nodes, next: None });
    };
    let mut path = Path::down_to(store, root, from, depth)?;
    let parent = Inner::new(store.bytes(path.step(depth).node));
    let first = parent.find(from);
    let mut leaves: Vec<(usize, Located)> = Vec::new();
    let mut next = path.upper_bound(store, depth);
    for index in (first..parent.count).filter(|&index| is_high(parent.child(index))) {
        if leaves.len() == RELOCATED_LEAVES_MAX {
            let mut separator = Vec::new();
            parent.separator(index).copy_to(&mut separator);
            next = Some(separator);
            break;
        }
        leaves.push((index, store.locate(parent.child(index))?));
    }
    leaves.retain(|(_, leaf)| !store.is_open(*leaf));
    let high_inner = (0..=depth).rfind(|&depth| is_high(path.step(depth).node.reference));
    let deepest = if leaves.is_empty() {
        high_inner
    } else {
        Some(depth)
    };
    let Some(deepest) = deepest else {
        return Ok(Relocated { nodes: 0, next });
    };
    let frozen = (0..=deepest).filter(|&depth| !store.is_open(path.step(depth).node));
    let nodes = frozen.count() + leaves.len();
    let parent = path.open(store, root, deepest);
    for (index, leaf) in leaves {
        let copy = store.copy(leaf);
        store.retire(leaf);
        inner_edit::set_child(store.bytes_mut(parent), index, copy.reference);
    }
    Ok(Relocated { nodes, next })
}
