//! A place in a tree, for ordered scans in either direction.
//!
//! A cursor belongs to one version ([`Root`]) and keeps the way from the root to its leaf as references and
//! indexes. It borrows no store: between two steps a reader unpins, sleeps, or waits for a page to be read.
//! Nodes of a version never change, so what the cursor remembers stays true. It keeps no keys either: every step
//! is told the [`Bounds`] of the scan, by whoever has them anyway.
//!
//! | state | meaning |
//! |---|---|
//! | `Unplaced` | the next step descends to the bound where the scan starts |
//! | `At` | the next step goes on in `leaf` at `slot` |
//! | `Finished` | all was seen |
//!
//! A step is [`find_run`](Cursor::find_run), which finds the rest of one leaf within the bounds,
//! [`Run::hand_out`], and [`pass`](Cursor::pass), which moves the cursor behind what was seen;
//! [`next_run`](Cursor::next_run) is all three. Bounds are compared once a leaf, not once an entry. What a step
//! needs is looked up before the cursor moves; after a miss it is where it was.

use std::ops::{Bound, ControlFlow, Range};

use super::run::{Carry, Run};
use super::{Miss, ReadNodes, Root};
use crate::ids::PageRef;
use crate::page::ValueRef;
use crate::page::inner::Inner;
use crate::page::leaf::Leaf;
use crate::page::prefetch;

/// The lowest and the highest key of a scan. While it goes on, the bound that it started from is no longer looked
/// at, and the other may come nearer: so two cursors can scan towards each other.
pub type Bounds<'b> = (Bound<&'b [u8]>, Bound<&'b [u8]>);

/// A scan over one version of a tree.
#[derive(Debug, Clone)]
pub struct Cursor {
    root: Root,
    direction: Direction,
    place: Place,
    /// Inner nodes from the root downwards.
    path: Vec<Level>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Unplaced,
    /// `slot`: how many entries of the leaf have been passed, or, descending, how many are left at most.
    At {
        leaf: PageRef,
        slot: usize,
    },
    Finished,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    reference: PageRef,
    index: usize,
    count: usize,
}

impl Cursor {
    /// A scan over ascending keys. Nothing is read before the first step.
    #[must_use]
    pub fn ascending(root: Root) -> Cursor {
        Cursor::new(root, Direction::Ascending)
    }

    /// A scan over descending keys.
    #[must_use]
    pub fn descending(root: Root) -> Cursor {
        Cursor::new(root, Direction::Descending)
    }

    fn new(root: Root, direction: Direction) -> Cursor {
        let place = if root.reference.is_none() {
            Place::Finished
        } else {
            Place::Unplaced
        };
        Cursor {
            root,
            direction,
            place,
            path: Vec::new(),
        }
    }

    /// Whether everything was handed out.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.place == Place::Finished
    }

    /// Hands out the entries of the next leaf that has any within the bounds, in order, until `visit`
    /// breaks (the entry it breaks at counts as seen). Returns whether there may be more. O(1) amortised
    /// per entry.
    ///
    /// # Errors
    ///
    /// A node that isn't in memory. Nothing was handed out and the cursor is where it was.
    pub fn next_run<S: ReadNodes>(
        &mut self,
        store: &S,
        bounds: Bounds<'_>,
        visit: impl FnMut(&[u8], ValueRef<'_>) -> ControlFlow<()>,
    ) -> Result<bool, Miss> {
        let Some(run) = self.find_run(store, bounds)? else {
            return Ok(false);
        };
        let page = store.node(run.leaf)?;
        let next = run.next.and_then(|next| store.node(next).ok());
        let seen = run.hand_out(page, next, &mut Carry::default(), visit);
        self.pass(&run, seen);
        Ok(!self.is_finished())
    }

    /// Finds the entries of the next leaf that has any within the bounds; `None` when there are none left. The
    /// cursor passes them by [`pass`](Self::pass).
    ///
    /// # Errors
    ///
    /// A node that isn't in memory. The cursor is where it was.
    pub fn find_run<S: ReadNodes>(&mut self, store: &S, bounds: Bounds<'_>) -> Result<Option<Run>, Miss> {
        let (start, end) = match self.direction {
            Direction::Ascending => bounds,
            Direction::Descending => (bounds.1, bounds.0),
        };
        loop {
            let (leaf, slot) = match self.place {
                Place::Finished => return Ok(None),
                Place::Unplaced => {
                    self.descend(store, start)?;
                    continue;
                }
                Place::At { leaf, slot } => (leaf, slot),
            };
            let node = Leaf::new(store.node(leaf)?);
            let (slots, is_last) = self.slots_within(&node, slot, end);
            if !slots.is_empty() {
                let next = if is_last {
                    None
                } else {
                    self.next_leaf_nearby(store)
                };
                return Ok(Some(Run {
                    leaf,
                    next,
                    slots,
                    is_last,
                    direction: self.direction,
                }));
            }
            if is_last {
                self.place = Place::Finished;
            } else {
                self.step(store)?;
            }
        }
    }

    /// Moves behind the first `seen` entries of what [`find_run`](Self::find_run) has found.
    pub fn pass(&mut self, run: &Run, seen: usize) {
        let exhausted = seen == run.slots.len();
        let slot = match self.direction {
            Direction::Ascending => run.slots.start + seen,
            Direction::Descending => run.slots.end - seen,
        };
        self.place = if exhausted && (run.is_last || !self.can_step()) {
            Place::Finished
        } else {
            Place::At { leaf: run.leaf, slot }
        };
    }

    /// Appends up to `count` references of the leaves that come next and aren't behind the next inner node,
    /// for read-ahead. Nothing before the first step.
    pub fn upcoming<S: ReadNodes>(&self, store: &S, count: usize, leaves: &mut Vec<PageRef>) {
        let Some(parent) = self
            .path
            .last()
            .filter(|_| matches!(self.place, Place::At { .. }))
        else {
            return;
        };
        let Ok(page) = store.node(parent.reference) else {
            return;
        };
        let inner = Inner::new(page);
        match self.direction {
            Direction::Ascending => {
                leaves.extend(
                    (parent.index + 1..inner.count)
                        .take(count)
                        .map(|index| inner.child(index)),
                );
            }
            Direction::Descending => {
                leaves.extend(
                    (0..parent.index)
                        .rev()
                        .take(count)
                        .map(|index| inner.child(index)),
                );
            }
        }
    }

    /// The slots of a leaf that are still to be handed out, and whether the end bound lies in this leaf.
    fn slots_within(&self, leaf: &Leaf<'_>, slot: usize, end: Bound<&[u8]>) -> (Range<usize>, bool) {
        let slot = slot.min(leaf.count);
        match self.direction {
            Direction::Ascending => {
                let end = match end {
                    Bound::Unbounded => leaf.count,
                    Bound::Included(key) => behind(leaf, key),
                    Bound::Excluded(key) => before(leaf, key),
                };
                (slot..end.max(slot), end < leaf.count)
            }
            Direction::Descending => {
                let start = match end {
                    Bound::Unbounded => 0,
                    Bound::Included(key) => before(leaf, key),
                    Bound::Excluded(key) => behind(leaf, key),
                };
                (start.min(slot)..slot, start > 0)
            }
        }
    }

    /// Goes from the root to the leaf where the scan starts.
    fn descend<S: ReadNodes>(&mut self, store: &S, start: Bound<&[u8]>) -> Result<(), Miss> {
        self.path.clear();
        self.path.reserve(usize::from(self.root.height));
        let mut reference = self.root.reference;
        for level in (1..self.root.height).rev() {
            let inner = Inner::new(store.node(reference)?);
            let index = match start {
                Bound::Included(key) | Bound::Excluded(key) => inner.find(key),
                Bound::Unbounded => self.edge(inner.count),
            };
            let place = Level {
                reference,
                index,
                count: inner.count,
            };
            self.path.push(place);
            reference = inner.child(index);
            if level == 1
                && let Some(next) = self.index_after(&place)
            {
                // Where the leaf behind is: it will be asked soon, and is told together with where this one is.
                store.prefetch(inner.child(next));
            }
        }
        let page = store.node(reference)?;
        prefetch::leaf_top(page);
        let leaf = Leaf::new(page);
        let slot =
            match (start, self.direction) {
                (Bound::Unbounded, Direction::Ascending) => 0,
                (Bound::Unbounded, Direction::Descending) => leaf.count,
                (Bound::Included(key), Direction::Ascending)
                | (Bound::Excluded(key), Direction::Descending) => before(&leaf, key),
                (Bound::Excluded(key), Direction::Ascending)
                | (Bound::Included(key), Direction::Descending) => behind(&leaf, key),
            };
        self.place = Place::At {
            leaf: reference,
            slot,
        };
        Ok(())
    }

    /// The child that comes first in the direction of the scan.
    fn edge(&self, count: usize) -> usize {
        match self.direction {
            Direction::Ascending => 0,
            Direction::Descending => count - 1,
        }
    }

    /// The index after this one in the direction of the scan, if there is one.
    fn index_after(&self, level: &Level) -> Option<usize> {
        match self.direction {
            Direction::Ascending => Some(level.index + 1).filter(|&index| index < level.count),
            Direction::Descending => level.index.checked_sub(1),
        }
    }

    fn can_step(&self) -> bool {
        self.path.iter().any(|level| self.index_after(level).is_some())
    }

    /// The leaf after this one, if it has the same parent and that is in memory. Asks for what will tell where the
    /// leaf behind that one is, so that the next step needn't wait for it.
    fn next_leaf_nearby<S: ReadNodes>(&self, store: &S) -> Option<PageRef> {
        let parent = self.path.last()?;
        let index = self.index_after(parent)?;
        let inner = Inner::new(store.node(parent.reference).ok()?);
        if let Some(behind) = self.index_after(&Level { index, ..*parent }) {
            store.prefetch(inner.child(behind));
        }
        Some(inner.child(index))
    }

    /// Moves to the edge of the next leaf, or finishes.
    fn step<S: ReadNodes>(&mut self, store: &S) -> Result<(), Miss> {
        let moving = self
            .path
            .iter()
            .enumerate()
            .rev()
            .find_map(|(depth, level)| self.index_after(level).map(|index| (depth, index)));
        let Some((depth, index)) = moving else {
            self.place = Place::Finished;
            return Ok(());
        };
        let height = self.path.len();
        let mut reference = Inner::new(store.node(self.path[depth].reference)?).child(index);
        // Below the level that moves, everything is looked at before anything of the path is replaced.
        let mut below = Vec::new();
        for _ in depth + 1..height {
            let inner = Inner::new(store.node(reference)?);
            let level = Level {
                reference,
                index: self.edge(inner.count),
                count: inner.count,
            };
            reference = inner.child(level.index);
            below.push(level);
        }
        self.path[depth].index = index;
        self.path.truncate(depth + 1);
        self.path.extend(below);
        let slot = match self.direction {
            Direction::Ascending => 0,
            Direction::Descending => usize::MAX,
        };
        self.place = Place::At {
            leaf: reference,
            slot,
        };
        Ok(())
    }
}

/// Number of entries below a key.
fn before(leaf: &Leaf<'_>, key: &[u8]) -> usize {
    match leaf.find(key) {
        Ok(slot) | Err(slot) => slot,
    }
}

/// Number of entries below a key or equal to it.
fn behind(leaf: &Leaf<'_>, key: &[u8]) -> usize {
    match leaf.find(key) {
        Ok(slot) => slot + 1,
        Err(slot) => slot,
    }
}
