//! Cutting a tree in two, and joining two into one: what moving a part of a tree to another worker needs.
//!
//! Both touch a path of nodes or two and no leaf, however large the trees are. What they make are whole trees: their
//! nodes at the cut may be emptier than writes would leave them, down to a single child. A join makes one node of two
//! at the seam where one has room for both; so what a cut has made two of becomes one again.
//!
//! Nobody counts keys for this. A cut leaves the count with the left part, and the right one counts on from 0,
//! wrapping: only the sum over the parts of a tree says how many keys there are (see [`Root::entries`]).

use super::ascend::{ascend, collapse};
use super::inner_sequence::{InnerSequence, Splice};
use super::path::{HEIGHT_MAX, Path};
use super::sequence::{Measured, Part};
use super::sources::merged_bytes_max;
use super::{Located, Miss, NodeStore, Root};
use crate::ids::PageRef;
use crate::page;
use crate::page::inner::Inner;

/// Trees higher than this are not joined. Writes alone never make such trees, but cutting narrow pieces out of
/// trees and joining them could, again and again.
const JOINED_HEIGHT_MAX: u8 = HEIGHT_MAX as u8 / 2;

/// What [`cut`] makes of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Halves {
    /// Every key below the separator.
    pub left: Root,
    /// Every key from the separator on.
    pub right: Root,
    /// Lower bound of the right part; not necessarily a key, never empty.
    pub separator: Vec<u8>,
}

/// Cuts a tree at a boundary between two leaves, near `key`. `None` for trees of a single leaf or none. O(height)
/// nodes; creates at most [`super::reserve_for`] of them. The old root is no longer part of the tip.
///
/// # Errors
///
/// The first node on the way to `key` that isn't in memory; nothing was changed.
pub fn cut<S: NodeStore>(store: &mut S, root: &Root, key: &[u8]) -> Result<Option<Halves>, Miss> {
    let Some(inner_depths) = usize::from(root.height).checked_sub(1) else {
        return Ok(None);
    };
    let mut steps: Vec<(Located, usize)> = Vec::with_capacity(inner_depths);
    let mut reference = root.reference;
    for _ in 0..inner_depths {
        let node = store.locate(reference)?;
        let inner = Inner::new(store.bytes(node));
        let index = inner.find(key);
        steps.push((node, index));
        reference = inner.child(index);
    }
    // The lowest node on the way that has children on both sides of a boundary next to the way.
    let lowest = steps
        .iter()
        .enumerate()
        .rev()
        .find_map(|(depth, &(node, index))| {
            let boundary = index.max(1);
            (boundary < page::count(store.bytes(node))).then_some((depth, boundary))
        });
    let Some((cut_depth, boundary)) = lowest else {
        return Ok(None);
    };

    let (node, _) = steps[cut_depth];
    let mut separator = Vec::new();
    let inner = Inner::new(store.bytes(node));
    let count = inner.count;
    inner.separator(boundary).copy_to(&mut separator);
    let mut left = write_part(store, node, &Splice::default(), 0..boundary);
    let mut right = write_part(store, node, &Splice::default(), boundary..count);
    store.retire(node);
    for &(node, index) in steps[..cut_depth].iter().rev() {
        let count = page::count(store.bytes(node));
        left = write_part(store, node, &replacing(index, left), 0..index + 1);
        right = write_part(store, node, &replacing(index, right), index..count);
        store.retire(node);
    }
    let mut halves = Halves {
        left: Root {
            reference: left.reference,
            ..*root
        },
        right: Root {
            reference: right.reference,
            entries: 0,
            ..*root
        },
        separator,
    };
    collapse(store, &mut halves.left);
    collapse(store, &mut halves.right);
    Ok(Some(halves))
}

/// A splice that puts one node in the place of child `index`.
fn replacing(index: usize, node: Located) -> Splice {
    let mut splice = Splice::new(index, 1);
    splice.push(Vec::new(), node.reference);
    splice
}

/// Writes some of an inner node's children, with a splice applied, to a new node.
fn write_part<S: NodeStore>(
    store: &mut S,
    source: Located,
    splice: &Splice,
    range: std::ops::Range<usize>,
) -> Located {
    let page_bytes = store.page_bytes();
    let target = store.create();
    let (page, [bytes, _]) = store.rebuild(target, [source, source]);
    let level = page::level(bytes);
    let sequence = InnerSequence::new(bytes, None, splice, false);
    let part: Option<Part> = Measured::new(&sequence).part(range, page_bytes);
    match part {
        Some(part) => sequence.write(page, level, &part),
        None => unreachable!("some of a node's children take no more room than all of them"),
    }
    target
}

/// Joins two trees: every key of `left` is below `separator`, every key of `right` isn't. `None` if the result would
/// be higher than trees are meant to be; both stay as they are then. O(height) nodes; creates at most
/// [`super::reserve_for`] the higher one's height. Otherwise neither root is part of the tip any more.
///
/// # Errors
///
/// The first node on the edge of one of the trees that is needed and isn't in memory; nothing was changed.
pub fn join<S: NodeStore>(
    store: &mut S,
    left: &Root,
    right: &Root,
    separator: &[u8],
) -> Result<Option<Root>, Miss> {
    let entries = left.entries.wrapping_add(right.entries);
    if left.reference.is_none() || right.reference.is_none() {
        let only = if left.reference.is_none() { right } else { left };
        return Ok(Some(Root { entries, ..*only }));
    }
    if left.height.max(right.height) >= JOINED_HEIGHT_MAX {
        return Ok(None);
    }
    let into_left = left.height >= right.height;
    let mut root = if into_left { *left } else { *right };
    let depth = usize::from(left.height.abs_diff(right.height));
    let (path, neighbour) = Path::along_edge(store, &root, depth, into_left)?;
    let at = if depth == 0 {
        0
    } else {
        path.step(depth - 1).index()
    };
    let mut splice = Splice::new(at, 1);
    let (first, second) = if into_left {
        (neighbour, right.reference)
    } else {
        (left.reference, neighbour)
    };
    // (Bad run: a tree is cut and joined again and again, and each time gets a level more for two nodes of few children.)
    match merge_seam(store, first, second, left.height.min(right.height), separator)? {
        Some(merged) => splice.push(Vec::new(), merged),
        None => {
            splice.push(Vec::new(), first);
            splice.push(separator.to_vec(), second);
        }
    }
    ascend(store, &mut root, path, depth, splice, &[]);
    root.entries = entries;
    collapse(store, &mut root);
    Ok(Some(root))
}

/// Makes one inner node of two neighbours, if one has room for both, and likewise of those below them on both sides of the
/// separator. `None` if these two stay. Creates one node for two.
fn merge_seam<S: NodeStore>(
    store: &mut S,
    left: PageRef,
    right: PageRef,
    height: u8,
    separator: &[u8],
) -> Result<Option<PageRef>, Miss> {
    let page_bytes = store.page_bytes();
    let mut seam: Vec<[Located; 2]> = Vec::new();
    let (mut left, mut right) = (left, right);
    for _ in 1..height {
        let pair = [store.locate(left)?, store.locate(right)?];
        let [first, second] = pair.map(|node| store.bytes(node));
        let whole = Splice::default();
        let sequence = InnerSequence::new(first, Some((second, separator)), &whole, false);
        if Measured::new(&sequence)
            .whole(merged_bytes_max(page_bytes))
            .is_none()
        {
            break;
        }
        let first = Inner::new(first);
        left = first.child(first.count - 1);
        right = Inner::new(second).child(0);
        seam.push(pair);
    }
    let mut merged: Option<PageRef> = None;
    for pair in seam.into_iter().rev() {
        let mut splice = Splice::default();
        if let Some(child) = merged {
            splice = Splice::new(page::count(store.bytes(pair[0])) - 1, 2);
            splice.push(Vec::new(), child);
        }
        let target = store.create();
        let (page, [first, second]) = store.rebuild(target, pair);
        let level = page::level(first);
        let sequence = InnerSequence::new(first, Some((second, separator)), &splice, false);
        match Measured::new(&sequence).whole(page_bytes) {
            Some(whole) => sequence.write(page, level, &whole),
            None => unreachable!("one child less takes no more room"),
        }
        pair.into_iter().for_each(|node| store.retire(node));
        merged = Some(target.reference);
    }
    Ok(merged)
}
