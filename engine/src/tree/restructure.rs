//! Changes that don't fit into a leaf as it lies: split, even out, merge, and what follows in the levels
//! above.
//!
//! | the change | what becomes of the leaf |
//! |---|---|
//! | fits once dead bytes are dropped or the prefix is shortened | written anew |
//! | comes in a run of ascending or descending keys | cut where the run is: the side left behind stays full |
//! | a neighbour in memory has room | both evened out |
//! | a neighbour in memory is full too | the two become three (B*-tree) |
//! | no neighbour in memory | cut in the middle |
//! | leaves the leaf too empty | merged with a neighbour or, if that gets too full, both evened out |
//! | makes values so much shorter that a neighbour in memory can take the rest | merged with it |
//!
//! What follows in the levels above is [`ascend`]'s.

use super::ascend::ascend;
use super::inner_sequence::Splice;
use super::leaf_sequence::{LeafEdit, LeafSequence};
use super::path::{Neighbour, Path};
use super::sequence::{Measured, Part};
use super::sources::{
    Sources, cut_in_two, index_in_parent, inner_too_empty, merged_bytes_max, underfull_bytes,
};
use super::{Located, Miss, NodeStore, Root};
use crate::page;
use crate::page::inner::Inner;
use crate::page::layout::HEADER_BYTES;
use crate::page::leaf::{ENTRY_BYTES, Leaf};
use crate::page::leaf_edit::{self, InsertionRun};
use crate::page::prefetch;

/// A neighbour with this much room takes entries from an overflowing leaf.
fn roomy_bytes(page_bytes: usize) -> usize {
    page_bytes / 8
}

/// Whether losing entry `slot` leaves a leaf too empty.
fn leaf_too_empty(leaf: &Leaf<'_>, slot: usize) -> bool {
    leaf.used_bytes() - ENTRY_BYTES - leaf.slot(slot).heap_len() < underfull_bytes(leaf.page.len())
}

/// Locates the neighbours that removing an entry may need: for each depth, from the leaf upwards, as long
/// as a merge there might leave the level above too empty. Element `depth` of the result belongs to that
/// depth; it is empty, or reaches to the leaf's depth.
pub(super) fn prepare_removal<S: NodeStore>(
    store: &S,
    path: &Path,
    slot: usize,
) -> Result<Vec<Option<Neighbour>>, Miss> {
    let leaf_depth = path.leaf_depth();
    let leaf = Leaf::new(store.bytes(path.leaf()));
    if leaf_depth == 0 || !leaf_too_empty(&leaf, slot) {
        return Ok(Vec::new());
    }
    let mut located = vec![None; leaf_depth + 1];
    let used = |node: Located| {
        let page = store.bytes(node);
        if page::level(page) == 0 {
            Leaf::new(page).used_bytes()
        } else {
            Inner::new(page).used_bytes()
        }
    };
    // A leaf that loses its only entry is dropped, whatever its neighbours hold.
    if leaf.count > 1 {
        located[leaf_depth] = path.neighbours(store, leaf_depth).required(used)?;
    }
    for depth in (1..leaf_depth).rev() {
        let step = path.step(depth);
        if !inner_too_empty(&Inner::new(store.bytes(step.node)), step.index()) {
            break;
        }
        located[depth] = path.neighbours(store, depth).required(used)?;
    }
    Ok(located)
}

fn write_leaf<S: NodeStore>(store: &mut S, sources: &Sources, edit: LeafEdit<'_>, part: &Part) -> Located {
    let target = store.create();
    let (page, [first, second]) = store.rebuild(target, sources.pair());
    LeafSequence::new(first, sources.second.map(|_| second), edit).write(page, part);
    target
}

/// Applies a change for which the leaf has no room between slots and heap.
pub(super) fn overflow<S: NodeStore>(store: &mut S, root: &mut Root, path: Path, edit: LeafEdit<'_>) {
    let depth = path.leaf_depth();
    let (sources, parts) = plan_overflow(store, &path, edit);
    let edit = sources.edit(store, edit);
    let splice = match (edit, parts.as_slice()) {
        (LeafEdit::Insert { at: slot, .. }, [left, right])
            if sources.second.is_none() && right.range.len() == 1 && right.range.start == slot =>
        {
            // The new entry alone behind a full leaf: that leaf stays as it is, frozen or not.
            let separator = LeafSequence::new(store.bytes(path.leaf()), None, edit).separator(left.range.end);
            let new = write_leaf(store, &sources, edit, right);
            let mut splice = Splice::new(sources.at, 1);
            splice.push(Vec::new(), path.leaf().reference);
            splice.push(separator, new.reference);
            splice
        }
        _ => rewrite_leaves(store, &sources, edit, &parts),
    };
    ascend(store, root, path, depth, splice, &[]);
}

/// Writes the parts of the sources' entries to new leaves, and retires the sources.
fn rewrite_leaves<S: NodeStore>(
    store: &mut S,
    sources: &Sources,
    edit: LeafEdit<'_>,
    parts: &[Part],
) -> Splice {
    let mut splice = Splice::new(sources.at, sources.count());
    for part in parts {
        let separator = match part.range.start {
            0 => Vec::new(),
            cut => sources.sequence(store, edit).separator(cut),
        };
        let node = write_leaf(store, sources, edit, part);
        splice.push(separator, node.reference);
    }
    sources.retire(store);
    splice
}

/// Which leaves to write anew, and in which parts.
fn plan_overflow<S: NodeStore>(store: &S, path: &Path, edit: LeafEdit<'_>) -> (Sources, Vec<Part>) {
    let page_bytes = store.page_bytes();
    let depth = path.leaf_depth();
    let page = store.bytes(path.leaf());
    // All of it is about to be read, entry by entry, as the neighbour's below: so that their misses overlap.
    prefetch::all(page);
    let alone = Sources::alone(path.leaf(), index_in_parent(path, depth));
    let sequence = alone.sequence(store, edit);
    let measured = Measured::new(&sequence);
    if let Some(whole) = measured.whole(page_bytes) {
        return (alone, vec![whole]);
    }
    if let LeafEdit::Insert { at: slot, .. } = edit {
        // What lies beyond a run is cut off from it, so that the run can fill its leaf; when nothing does,
        // the run goes on in a new leaf.
        let cut = match leaf_edit::insertion_run(page, slot) {
            InsertionRun::Ascending if slot == page::count(page) => Some(slot),
            InsertionRun::Ascending => Some(slot + 1),
            InsertionRun::Descending if slot == 0 => Some(1),
            InsertionRun::Descending => Some(slot),
            InsertionRun::None => None,
        };
        if let Some(parts) = cut.and_then(|cut| measured.cut_at(cut, page_bytes)) {
            return (alone, parts);
        }
    }
    let used = |node: Located| Leaf::new(store.bytes(node)).used_bytes();
    if let Some(neighbour) = path.neighbours(store, depth).best(used) {
        prefetch::all(store.bytes(neighbour.node()));
        let both = Sources::with(path.leaf(), index_in_parent(path, depth), neighbour);
        let sequence = both.sequence(store, both.edit(store, edit));
        let measured = Measured::new(&sequence);
        let is_roomy = used(neighbour.node()) + roomy_bytes(page_bytes) <= page_bytes;
        let halves = if is_roomy {
            measured.cut_in_two(page_bytes)
        } else {
            None
        };
        if let Some(parts) = halves.or_else(|| measured.cut_in_three(page_bytes)) {
            return (both, parts);
        }
    }
    (alone, cut_in_two(&measured, page_bytes))
}

/// Applies a change to a leaf that gets too empty by it: merges it with a neighbour, or evens both out.
pub(super) fn underflow<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    path: Path,
    edit: LeafEdit<'_>,
    neighbour: Neighbour,
    neighbours: &[Option<Neighbour>],
) {
    let depth = path.leaf_depth();
    let page_bytes = store.page_bytes();
    let sources = Sources::with(path.leaf(), index_in_parent(&path, depth), neighbour);
    let edit = sources.edit(store, edit);
    let sequence = sources.sequence(store, edit);
    let measured = Measured::new(&sequence);
    let merged = measured
        .whole(merged_bytes_max(page_bytes))
        .map(|whole| vec![whole]);
    let parts = merged.unwrap_or_else(|| cut_in_two(&measured, page_bytes));
    let splice = rewrite_leaves(store, &sources, edit, &parts);
    ascend(store, root, path, depth, splice, neighbours);
}

/// Whether replacing a value by a shorter one, in a leaf that gets too empty by it, gives occasion to merge
/// the leaf: the neighbour in memory that can take what is left.
pub(super) fn absorbing_neighbour<S: NodeStore>(
    store: &S,
    path: &Path,
    slot: usize,
    value_bytes: usize,
) -> Option<Neighbour> {
    let page_bytes = store.page_bytes();
    let leaf = Leaf::new(store.bytes(path.leaf()));
    let shorter_by = leaf.slot(slot).value_len().checked_sub(value_bytes)?;
    let left = leaf.used_bytes() - shorter_by;
    if shorter_by == 0 || left >= underfull_bytes(page_bytes) {
        return None;
    }
    let used = |node: Located| Leaf::new(store.bytes(node)).used_bytes();
    let neighbour = path.neighbours(store, path.leaf_depth()).best(used)?;
    (used(neighbour.node()) + left - HEADER_BYTES <= merged_bytes_max(page_bytes)).then_some(neighbour)
}

/// Removes a leaf whose only entry goes; its parent has others or goes too.
pub(super) fn drop_leaf<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    path: Path,
    neighbours: &[Option<Neighbour>],
) {
    let depth = path.leaf_depth();
    store.retire(path.leaf());
    let splice = Splice::new(index_in_parent(&path, depth), 1);
    ascend(store, root, path, depth, splice, neighbours);
}
