//! What a change of the leaves makes of the levels above.
//!
//! Nodes of one level that took the place of others are a [`Splice`] of their parent's children. The parent
//! takes it in place, or is written anew, or cut, or merged with a neighbour, which is a splice one level
//! up.

use super::inner_sequence::{InnerSequence, Splice};
use super::path::{HEIGHT_MAX, Neighbour, Path};
use super::sequence::{Measured, Sequence};
use super::sources::{Sources, cut_in_two, index_in_parent, inner_too_empty, merged_bytes_max};
use super::{NodeStore, Root};
use crate::page;
use crate::page::inner::{CHILD_BYTES, Inner};
use crate::page::inner_edit::{self, InnerWriter};

/// Carries a splice of the nodes at `depth` into the levels above, until one takes it without passing
/// anything on.
pub(super) fn ascend<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    mut path: Path,
    mut depth: usize,
    mut splice: Splice,
    neighbours: &[Option<Neighbour>],
) {
    while depth > 0 {
        depth -= 1;
        let parent = path.step(depth).node;
        let inner = Inner::new(store.bytes(parent));
        let count = inner.count + splice.children().len() - splice.removed;
        if count == 0 {
            store.retire(parent);
            splice = Splice::new(index_in_parent(&path, depth), 1);
            continue;
        }
        if depth == 0 && count == 1 {
            let only = match splice.children() {
                [child] => *child,
                _ => inner.child(if splice.at == 0 { inner.count - 1 } else { 0 }),
            };
            store.retire(parent);
            root.reference = only;
            root.height -= 1;
            return collapse(store, root);
        }
        let neighbour = neighbours
            .get(depth)
            .copied()
            .flatten()
            .filter(|_| count < inner.count && inner_too_empty(&inner, splice.at));
        if neighbour.is_none() && fits_in_place(&inner, &splice) {
            let node = path.open(store, root, depth);
            return apply_in_place(store.bytes_mut(node), &splice);
        }
        splice = rewrite_inner(store, &path, depth, &splice, neighbour);
    }
    replace_root(store, root, &splice);
}

/// A root with a single child gives way to it.
pub(super) fn collapse<S: NodeStore>(store: &mut S, root: &mut Root) {
    while root.height > 1 {
        let Ok(node) = store.locate(root.reference) else {
            return;
        };
        let inner = Inner::new(store.bytes(node));
        if inner.count > 1 {
            return;
        }
        root.reference = inner.child(0);
        root.height -= 1;
        store.retire(node);
    }
}

/// The nodes that take the root's place.
fn replace_root<S: NodeStore>(store: &mut S, root: &mut Root, splice: &Splice) {
    match *splice.children() {
        [] => {
            *root = Root {
                entries: root.entries,
                ..Root::default()
            }
        }
        [only] => root.reference = only,
        ref children => {
            assert!(usize::from(root.height) < HEIGHT_MAX, "height");
            let node = store.create();
            let page = store.bytes_mut(node);
            // One or two separators: no common prefix is worth its while.
            let mut writer = InnerWriter::new(page, root.height, &[], children.len());
            for (index, &child) in children.iter().enumerate() {
                let separator = page::key::KeyParts::whole(splice.separator(index));
                writer.push(Some(separator), child, &mut Vec::new());
            }
            writer.finish();
            root.reference = node.reference;
            root.height += 1;
        }
    }
}

fn fits_in_place(inner: &Inner<'_>, splice: &Splice) -> bool {
    let needed: Option<usize> = (1..splice.children().len())
        .map(|index| inner_edit::child_bytes(inner, splice.separator(index)))
        .sum();
    // Slots of what goes are room too, but heap bytes aren't until the node is written anew.
    let given = CHILD_BYTES * splice.removed.saturating_sub(1);
    needed.is_some_and(|needed| needed <= inner.gap_bytes() + given)
}

fn apply_in_place(page: &mut [u8], splice: &Splice) {
    let keep_first = usize::from(!splice.children().is_empty());
    for _ in keep_first..splice.removed {
        inner_edit::remove(page, splice.at + keep_first);
    }
    if let Some(&child) = splice.children().first() {
        inner_edit::set_child(page, splice.at, child);
    }
    for (index, &child) in splice.children().iter().enumerate().skip(1) {
        inner_edit::insert(page, splice.at + index, splice.separator(index), child);
    }
    inner_edit::refresh_hints(page);
}

/// Writes the inner node at `depth` anew with the splice applied: as one node, cut in two, or together with a
/// neighbour. Gives the splice for the level above.
fn rewrite_inner<S: NodeStore>(
    store: &mut S,
    path: &Path,
    depth: usize,
    splice: &Splice,
    neighbour: Option<Neighbour>,
) -> Splice {
    let page_bytes = store.page_bytes();
    let at = index_in_parent(path, depth);
    let node = path.step(depth).node;
    let sources = match neighbour {
        Some(neighbour) => Sources::with(node, at, neighbour),
        None => Sources::alone(node, at),
    };
    let mut middle = Vec::new();
    if sources.second.is_some() {
        Inner::new(store.bytes(path.step(depth - 1).node))
            .separator(sources.at + 1)
            .copy_to(&mut middle);
    }
    let [first, second] = sources.pair().map(|node| store.bytes(node));
    let level = page::level(first);
    let second = sources.second.map(|_| (second, middle.as_slice()));
    let sequence = InnerSequence::new(first, second, splice, sources.path_is_second);
    let measured = Measured::new(&sequence);
    let whole_bytes_max = if neighbour.is_some() {
        merged_bytes_max(page_bytes)
    } else {
        page_bytes
    };
    let parts = match measured.whole(whole_bytes_max) {
        Some(whole) => vec![whole],
        // New children at the right end come from ascending keys: then the left part stays nearly full.
        None if neighbour.is_none() && splice.at + splice.children().len() == sequence.len() => {
            let len = sequence.len();
            let nearly_all = measured.cut_near(len - (len / 16).max(2).min(len / 2), page_bytes);
            nearly_all.unwrap_or_else(|| cut_in_two(&measured, page_bytes))
        }
        None => cut_in_two(&measured, page_bytes),
    };
    let separators: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| {
            if part.range.start == 0 {
                Vec::new()
            } else {
                sequence.separator(part.range.start)
            }
        })
        .collect();

    let mut above = Splice::new(sources.at, sources.count());
    for (part, separator) in parts.iter().zip(separators) {
        let target = store.create();
        let (page, [first, second]) = store.rebuild(target, sources.pair());
        let second = sources.second.map(|_| (second, middle.as_slice()));
        InnerSequence::new(first, second, splice, sources.path_is_second).write(page, level, part);
        above.push(separator, target.reference);
    }
    sources.retire(store);
    above
}
