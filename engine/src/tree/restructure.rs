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
use super::sequence::{self, Sequence};
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

fn write_leaf<S: NodeStore>(
    store: &mut S,
    sources: &Sources,
    edit: LeafEdit<'_>,
    range: std::ops::Range<usize>,
) -> Located {
    let target = store.create();
    let (page, [first, second]) = store.rebuild(target, sources.pair());
    LeafSequence::new(first, sources.second.map(|_| second), edit).write(page, range);
    target
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
    let at = index_in_parent(&path, depth);
    let (sources, cuts) = plan_overflow(store, &path, work);
    let leaf = path.leaf();
    let page = store.bytes(leaf);
    let edit = if sources.path_is_second {
        work.edit().shifted(Leaf::new(store.bytes(sources.first)).count)
    } else {
        work.edit()
    };
    // A run's next key behind a full leaf: that leaf stays as it is, frozen or not.
    if let (LeafWork::Insert { slot, .. }, [cut], None) = (work, cuts.as_slice(), sources.second)
        && slot == *cut
        && slot == Leaf::new(page).count
    {
        let separator = LeafSequence::new(page, None, edit).separator(*cut);
        let right = write_leaf(store, &sources, edit, *cut..*cut + 1);
        let mut splice = Splice::new(at, 1);
        splice.push(Vec::new(), leaf.reference);
        splice.push(separator, right.reference);
        return ascend(store, root, path, depth, splice, &[]);
    }
    let splice = rewrite_leaves(store, &sources, edit, &cuts);
    ascend(store, root, path, depth, splice, &[]);
}

/// Writes the entries of the sources to as many new leaves as the cuts make, and retires the sources.
fn rewrite_leaves<S: NodeStore>(
    store: &mut S,
    sources: &Sources,
    edit: LeafEdit<'_>,
    cuts: &[usize],
) -> Splice {
    let mut splice = Splice::new(sources.at, sources.count());
    let [first, second] = sources.pair().map(|node| store.bytes(node));
    let sequence = LeafSequence::new(first, sources.second.map(|_| second), edit);
    let len = sequence.len();
    let separators: Vec<Vec<u8>> = cuts.iter().map(|&cut| sequence.separator(cut)).collect();
    let mut start = 0;
    let mut separator = Vec::new();
    for (part, next_separator) in separators.into_iter().chain([Vec::new()]).enumerate() {
        let end = cuts.get(part).copied().unwrap_or(len);
        let node = write_leaf(store, sources, edit, start..end);
        splice.push(separator, node.reference);
        separator = next_separator;
        start = end;
    }
    sources.retire(store);
    splice
}

/// Which leaves to write anew, and where to cut their entries.
fn plan_overflow<S: NodeStore>(store: &S, path: &Path, work: LeafWork<'_>) -> (Sources, Vec<usize>) {
    let page_bytes = store.page_bytes();
    let depth = path.leaf_depth();
    let at = index_in_parent(path, depth);
    let page = store.bytes(path.leaf());
    let alone = Sources::alone(path.leaf(), at);
    let sequence = LeafSequence::new(page, None, work.edit());
    if sequence::fits(&sequence, &(0..sequence.len()), page_bytes) {
        return (alone, Vec::new());
    }
    if let LeafWork::Insert { slot, .. } = work {
        let cut = match leaf_edit::insertion_run(page, slot) {
            InsertionRun::Ascending => Some(slot),
            InsertionRun::Descending => Some(slot + 1),
            InsertionRun::None => None,
        };
        let valid = |cut: &usize| {
            (1..sequence.len()).contains(cut)
                && sequence::fits(&sequence, &(0..*cut), page_bytes)
                && sequence::fits(&sequence, &(*cut..sequence.len()), page_bytes)
        };
        if let Some(cut) = cut.filter(valid) {
            return (alone, vec![cut]);
        }
    }
    let used = |node: Located| Leaf::new(store.bytes(node)).used_bytes();
    if let Some(neighbour) = path.neighbours(store, depth).best(used) {
        let both = Sources::with(path.leaf(), at, neighbour);
        let [first, second] = both.pair().map(|node| store.bytes(node));
        let shift = if both.path_is_second {
            Leaf::new(first).count
        } else {
            0
        };
        let sequence = LeafSequence::new(first, Some(second), work.edit().shifted(shift));
        if used(neighbour.node()) + roomy_bytes(page_bytes) <= page_bytes
            && let Some(cut) = sequence::cut_in_two(&sequence, page_bytes)
        {
            return (both, vec![cut]);
        }
        if let Some(cuts) = sequence::cut_in_three(&sequence, page_bytes) {
            return (both, cuts.to_vec());
        }
    }
    // An element is at most half of a page, so there is such a cut.
    let cut = sequence::cut_in_two(&sequence, page_bytes);
    (alone, cut.into_iter().collect())
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
    let sources = Sources::with(path.leaf(), index_in_parent(&path, depth), neighbour);
    let [first, second] = sources.pair().map(|node| store.bytes(node));
    let shift = if sources.path_is_second {
        Leaf::new(first).count
    } else {
        0
    };
    let edit = LeafEdit::Remove { at: slot + shift };
    let sequence = LeafSequence::new(first, Some(second), edit);
    let page_bytes = store.page_bytes();
    let cut = if sequence::fits(&sequence, &(0..sequence.len()), merged_bytes_max(page_bytes)) {
        None
    } else {
        sequence::cut_in_two(&sequence, page_bytes)
    };
    let splice = rewrite_leaves(store, &sources, edit, cut.as_slice());
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
    let whole = 0..sequence.len();
    let limit_bytes = if neighbour.is_some() {
        merged_bytes_max(page_bytes)
    } else {
        page_bytes
    };
    let cut = if sequence::fits(&sequence, &whole, limit_bytes) {
        None
    } else {
        cut_inner(&sequence, splice, neighbour.is_none(), page_bytes)
    };
    let separator = cut.map_or_else(Vec::new, |cut| sequence.separator(cut));

    let mut above = Splice::new(sources.at, sources.count());
    let parts = [
        (0..cut.unwrap_or(whole.end), Vec::new()),
        (cut.unwrap_or(whole.end)..whole.end, separator),
    ];
    for (range, separator) in parts.into_iter().filter(|(range, _)| !range.is_empty()) {
        let target = store.create();
        let (page, [first, second]) = store.rebuild(target, sources.pair());
        let second = sources.second.map(|_| (second, middle.as_slice()));
        InnerSequence::new(first, second, splice, sources.path_is_second).write(page, level, range);
        above.push(separator, target.reference);
    }
    sources.retire(store);
    above
}

/// Where to cut an inner node. New children at the right end come from ascending keys: then the left part stays
/// nearly full.
fn cut_inner(sequence: &InnerSequence<'_>, splice: &Splice, alone: bool, page_bytes: usize) -> Option<usize> {
    let len = sequence.len();
    if alone && splice.at + splice.children().len() == len {
        sequence::cut_near(sequence, len - (len / 16).max(2).min(len / 2), page_bytes)
    } else {
        sequence::cut_in_two(sequence, page_bytes)
    }
}
