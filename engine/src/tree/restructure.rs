//! Changes that don't fit into a leaf as it lies: split, even out, merge, and what follows in the levels above.
//!
//! | the change | what becomes of the leaf |
//! |---|---|
//! | fits once dead bytes are dropped or the prefix is shortened | written anew |
//! | comes in a run of ascending or descending keys | cut where the run is: the side left behind stays full |
//! | a neighbour in memory has room | both evened out |
//! | a neighbour in memory is full too | the two become three (B*-tree) |
//! | no neighbour in memory | cut in the middle |
//! | leaves the leaf too empty | merged with a neighbour or, if that gets too full, both evened out |
//!
//! Each of these is a [`Splice`] of the parent's children; the parent takes it in place, or is written anew, or
//! cut, or merged, which is a splice one level up.

use super::inner_sequence::{InnerSequence, Splice};
use super::leaf_sequence::{LeafEdit, LeafSequence};
use super::path::{HEIGHT_MAX, Neighbour, Path};
use super::sequence::{Measured, Part, Sequence};
use super::{Located, Miss, NodeStore, Root};
use crate::page::inner::{self, CHILD_BYTES, Inner};
use crate::page::inner_edit::{self, InnerWriter};
use crate::page::leaf::{ENTRY_BYTES, Leaf};
use crate::page::leaf_edit::{self, InsertionRun};
use crate::page::{self, ValueRef};

/// A node that is filled less than this asks for a merge.
fn underfull_bytes(page_bytes: usize) -> usize {
    page_bytes / 3
}

/// Two nodes are merged when this holds them: room for insertions stays.
fn merged_bytes_max(page_bytes: usize) -> usize {
    page_bytes / 5 * 4
}

/// A neighbour with this much room takes entries from an overflowing leaf.
fn roomy_bytes(page_bytes: usize) -> usize {
    page_bytes / 8
}

/// A change that a leaf can't take in place.
#[derive(Clone, Copy, Debug)]
pub(super) enum LeafWork<'a> {
    Insert {
        slot: usize,
        key: &'a [u8],
        value: ValueRef<'a>,
    },
    Replace {
        slot: usize,
        value: ValueRef<'a>,
    },
}

impl<'a> LeafWork<'a> {
    fn edit(self) -> LeafEdit<'a> {
        match self {
            LeafWork::Insert { slot, key, value } => LeafEdit::Insert { at: slot, key, value },
            LeafWork::Replace { slot, value } => LeafEdit::Replace { at: slot, value },
        }
    }
}

/// Whether losing entry `slot` leaves a leaf too empty.
fn leaf_too_empty(leaf: &Leaf<'_>, slot: usize) -> bool {
    leaf.used_bytes() - ENTRY_BYTES - leaf.slot(slot).heap_len() < underfull_bytes(leaf.page.len())
}

/// Whether losing one child near `index` leaves an inner node too empty. Which of its two separators goes isn't known
/// yet: the longer one is assumed.
fn inner_too_empty(inner: &Inner<'_>, index: usize) -> bool {
    let heap_bytes = |index| {
        if index > 0 && index < inner.count {
            inner::heap_bytes(inner.separator(index).suffix_len)
        } else {
            0
        }
    };
    let lost = CHILD_BYTES + heap_bytes(index).max(heap_bytes(index + 1));
    inner.used_bytes() - lost < underfull_bytes(inner.page.len())
}

/// Locates the neighbours that removing an entry may need: for each depth, from the leaf upwards, as long as a merge
/// there might leave the level above too empty. Element `depth` of the result belongs to that depth; it is empty, or
/// reaches to the leaf's depth.
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

/// Halves that fit. There always are: an element takes less than half of a node, so what fitted into one node, or
/// two, before an element was added or taken away fits into two.
fn cut_in_two<S: Sequence>(measured: &Measured<'_, S>, page_bytes: usize) -> Vec<Part> {
    match measured.cut_in_two(page_bytes) {
        Some(parts) => parts,
        None => unreachable!("elements of allowed size, and no cut"),
    }
}

/// One or two neighbouring nodes that are to be written anew.
#[derive(Clone, Copy, Debug)]
struct Sources {
    first: Located,
    second: Option<Located>,
    /// Index of the first among its parent's children.
    at: usize,
    /// Whether the node of the path is the second.
    path_is_second: bool,
}

impl Sources {
    fn alone(node: Located, at: usize) -> Sources {
        Sources {
            first: node,
            second: None,
            at,
            path_is_second: false,
        }
    }

    /// The node at index `at` of its parent with its neighbour.
    fn with(node: Located, at: usize, neighbour: Neighbour) -> Sources {
        match neighbour {
            Neighbour::Left(left) => Sources {
                first: left,
                second: Some(node),
                at: at - 1,
                path_is_second: true,
            },
            Neighbour::Right(right) => Sources {
                first: node,
                second: Some(right),
                at,
                path_is_second: false,
            },
        }
    }

    fn pair(&self) -> [Located; 2] {
        [self.first, self.second.unwrap_or(self.first)]
    }

    fn count(&self) -> usize {
        1 + usize::from(self.second.is_some())
    }

    /// The entries of these leaves with a change applied.
    fn sequence<'s, S: NodeStore>(&self, store: &'s S, edit: LeafEdit<'s>) -> LeafSequence<'s> {
        LeafSequence::new(
            store.bytes(self.first),
            self.second.map(|second| store.bytes(second)),
            edit,
        )
    }

    /// The change as it is in [`Sources::sequence`], given how it is in the path's leaf.
    fn edit<'e, S: NodeStore>(&self, store: &S, edit: LeafEdit<'e>) -> LeafEdit<'e> {
        if self.path_is_second {
            edit.shifted(page::count(store.bytes(self.first)))
        } else {
            edit
        }
    }

    fn retire<S: NodeStore>(&self, store: &mut S) {
        store.retire(self.first);
        if let Some(second) = self.second {
            store.retire(second);
        }
    }
}

/// Where the parent of the path's node at this depth holds it.
fn index_in_parent(path: &Path, depth: usize) -> usize {
    if depth == 0 {
        0
    } else {
        path.step(depth - 1).index()
    }
}

/// Applies a change for which the leaf has no room between slots and heap.
pub(super) fn overflow<S: NodeStore>(store: &mut S, root: &mut Root, path: Path, work: LeafWork<'_>) {
    let depth = path.leaf_depth();
    let (sources, parts) = plan_overflow(store, &path, work);
    let edit = sources.edit(store, work.edit());
    let splice = match (work, parts.as_slice()) {
        (LeafWork::Insert { slot, .. }, [left, right])
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
fn plan_overflow<S: NodeStore>(store: &S, path: &Path, work: LeafWork<'_>) -> (Sources, Vec<Part>) {
    let page_bytes = store.page_bytes();
    let depth = path.leaf_depth();
    let page = store.bytes(path.leaf());
    let alone = Sources::alone(path.leaf(), index_in_parent(path, depth));
    let sequence = alone.sequence(store, work.edit());
    let measured = Measured::new(&sequence);
    if let Some(whole) = measured.whole(page_bytes) {
        return (alone, vec![whole]);
    }
    if let LeafWork::Insert { slot, .. } = work {
        let cut = match leaf_edit::insertion_run(page, slot) {
            InsertionRun::Ascending => Some(slot),
            InsertionRun::Descending => Some(slot + 1),
            InsertionRun::None => None,
        };
        if let Some(parts) = cut.and_then(|cut| measured.cut_at(cut, page_bytes)) {
            return (alone, parts);
        }
    }
    let used = |node: Located| Leaf::new(store.bytes(node)).used_bytes();
    if let Some(neighbour) = path.neighbours(store, depth).best(used) {
        let both = Sources::with(path.leaf(), index_in_parent(path, depth), neighbour);
        let sequence = both.sequence(store, both.edit(store, work.edit()));
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

/// Removes an entry from a leaf that gets too empty by it.
pub(super) fn underflow<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    path: Path,
    slot: usize,
    neighbour: Neighbour,
    neighbours: &[Option<Neighbour>],
) {
    let depth = path.leaf_depth();
    let page_bytes = store.page_bytes();
    let sources = Sources::with(path.leaf(), index_in_parent(&path, depth), neighbour);
    let edit = sources.edit(store, LeafEdit::Remove { at: slot });
    let sequence = sources.sequence(store, edit);
    let measured = Measured::new(&sequence);
    let merged = measured
        .whole(merged_bytes_max(page_bytes))
        .map(|whole| vec![whole]);
    let parts = merged.unwrap_or_else(|| cut_in_two(&measured, page_bytes));
    let splice = rewrite_leaves(store, &sources, edit, &parts);
    ascend(store, root, path, depth, splice, neighbours);
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

/// Carries a splice of the nodes at `depth` into the levels above, until one takes it without passing anything on.
fn ascend<S: NodeStore>(
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
fn collapse<S: NodeStore>(store: &mut S, root: &mut Root) {
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
