//! A place in a tree, for ordered scans in either direction.
//!
//! A cursor belongs to one version ([`Root`]) and keeps the way from the root to its leaf as references and
//! indexes. It borrows no store: between two steps a reader unpins, sleeps, or waits for a page to be read.
//! Nodes of a version never change, so what the cursor remembers stays true.
//!
//! | state | meaning |
//! |---|---|
//! | `Unplaced` | the next step descends to the start bound |
//! | `At` | the next step goes on in `leaf` at `slot` |
//! | `Finished` | all was seen |
//!
//! A step hands out the rest of one leaf: bounds are compared once a leaf, not once an entry. What a step
//! needs is looked up before the cursor moves; after a miss it is where it was.

use std::ops::{Bound, ControlFlow, Range};

use super::{Miss, ReadNodes, Root};
use crate::ids::PageRef;
use crate::page::inner::Inner;
use crate::page::key::KeyParts;
use crate::page::layout::HEAD_BYTES;
use crate::page::leaf::Leaf;
use crate::page::prefetch;
use crate::page::{ValueRef, max_key_bytes};

/// A scan over one version of a tree.
#[derive(Debug, Clone)]
pub struct Cursor {
    root: Root,
    direction: Direction,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    place: Place,
    /// Inner nodes from the root downwards.
    path: Vec<Level>,
    keys: KeyBuffer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
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

fn owned(bound: Bound<&[u8]>) -> Bound<Vec<u8>> {
    bound.map(<[u8]>::to_vec)
}

impl Cursor {
    /// A scan over ascending keys. Nothing is read before the first step.
    #[must_use]
    pub fn ascending(root: Root, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Cursor {
        Cursor::new(root, Direction::Ascending, lower, upper)
    }

    /// A scan over descending keys.
    #[must_use]
    pub fn descending(root: Root, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Cursor {
        Cursor::new(root, Direction::Descending, upper, lower)
    }

    fn new(root: Root, direction: Direction, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Cursor {
        let place = if root.reference.is_none() {
            Place::Finished
        } else {
            Place::Unplaced
        };
        Cursor {
            root,
            direction,
            start: owned(start),
            end: owned(end),
            place,
            path: Vec::with_capacity(usize::from(root.height)),
            keys: KeyBuffer::default(),
        }
    }

    /// Moves the far end of the scan: two cursors that scan towards each other tell each other what they
    /// have seen.
    pub fn set_end(&mut self, end: Bound<&[u8]>) {
        self.end = owned(end);
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
        mut visit: impl FnMut(&[u8], ValueRef<'_>) -> ControlFlow<()>,
    ) -> Result<bool, Miss> {
        loop {
            let (leaf, slot) = match self.place {
                Place::Finished => return Ok(false),
                Place::Unplaced => {
                    self.descend(store)?;
                    continue;
                }
                Place::At { leaf, slot } => (leaf, slot),
            };
            let page = store.node(leaf)?;
            prefetch::leaf_top(page);
            let next = self.next_leaf_nearby(store);
            if let Some(next) = next {
                store.prefetch(next);
            }
            let node = Leaf::new(page);
            let (run, is_last) = self.run(&node, slot);
            if run.is_empty() {
                if is_last {
                    self.place = Place::Finished;
                    return Ok(false);
                }
                self.step(store)?;
                continue;
            }
            let ahead = next.and_then(|next| store.node(next).ok());
            let seen = self.hand_out(&node, run.clone(), ahead, &mut visit);
            let exhausted = seen == run.len();
            let slot = match self.direction {
                Direction::Ascending => run.start + seen,
                Direction::Descending => run.end - seen,
            };
            self.place = if exhausted && (is_last || !self.can_step()) {
                Place::Finished
            } else {
                Place::At { leaf, slot }
            };
            return Ok(!self.is_finished());
        }
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

    /// Hands out a range of slots; returns how many were seen. With each entry some lines of the page ahead
    /// are asked for: all at once they would stop the processor until memory has caught up.
    fn hand_out(
        &mut self,
        leaf: &Leaf<'_>,
        run: Range<usize>,
        ahead: Option<&[u8]>,
        visit: &mut impl FnMut(&[u8], ValueRef<'_>) -> ControlFlow<()>,
    ) -> usize {
        let keys = &mut self.keys;
        keys.begin(leaf);
        let ahead = ahead.unwrap_or_default();
        let ahead_step = ahead
            .len()
            .div_ceil(run.len())
            .next_multiple_of(prefetch::LINE_BYTES);
        let mut seen = 0;
        let mut show = |slot: usize| {
            prefetch::range(ahead, seen * ahead_step..(seen + 1) * ahead_step);
            seen += 1;
            let (suffix, value, from_rest) = leaf.entry(slot);
            visit(keys.with_suffix(from_rest, &suffix), value)
        };
        let _ = match self.direction {
            Direction::Ascending => run.into_iter().try_for_each(&mut show),
            Direction::Descending => run.into_iter().rev().try_for_each(&mut show),
        };
        seen
    }

    /// The slots of a leaf that are still to be handed out, and whether the end bound lies in this leaf.
    fn run(&self, leaf: &Leaf<'_>, slot: usize) -> (Range<usize>, bool) {
        let slot = slot.min(leaf.count);
        match self.direction {
            Direction::Ascending => {
                let end = match &self.end {
                    Bound::Unbounded => leaf.count,
                    Bound::Included(key) => behind(leaf, key),
                    Bound::Excluded(key) => before(leaf, key),
                };
                (slot..end.max(slot), end < leaf.count)
            }
            Direction::Descending => {
                let start = match &self.end {
                    Bound::Unbounded => 0,
                    Bound::Included(key) => before(leaf, key),
                    Bound::Excluded(key) => behind(leaf, key),
                };
                (start.min(slot)..slot, start > 0)
            }
        }
    }

    /// Goes from the root to the leaf where the scan starts.
    fn descend<S: ReadNodes>(&mut self, store: &S) -> Result<(), Miss> {
        self.path.clear();
        let mut reference = self.root.reference;
        for _ in 1..self.root.height {
            let inner = Inner::new(store.node(reference)?);
            let index = match &self.start {
                Bound::Included(key) | Bound::Excluded(key) => inner.find(key),
                Bound::Unbounded => self.edge(inner.count),
            };
            self.path.push(Level {
                reference,
                index,
                count: inner.count,
            });
            reference = inner.child(index);
        }
        let leaf = Leaf::new(store.node(reference)?);
        let slot =
            match (&self.start, self.direction) {
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

    /// The leaf after this one, if it has the same parent and that is in memory.
    fn next_leaf_nearby<S: ReadNodes>(&self, store: &S) -> Option<PageRef> {
        let parent = self.path.last()?;
        let index = self.index_after(parent)?;
        Some(Inner::new(store.node(parent.reference).ok()?).child(index))
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

/// Where keys are put together.
#[derive(Debug, Clone, Default)]
struct KeyBuffer {
    /// The prefix, then the suffix of the last key, then whatever.
    bytes: Vec<u8>,
    prefix_len: usize,
}

impl KeyBuffer {
    /// Short rests are copied with this many bytes from the page, whatever follows them there: a copy of
    /// fixed length is two instructions, one of variable length a call. (Not so empty ones: their offset is
    /// that of the checksum, which may be written at any time.)
    const COPIED_BYTES: usize = 32;

    fn begin(&mut self, leaf: &Leaf<'_>) {
        self.prefix_len = leaf.prefix_len;
        self.bytes.resize(
            max_key_bytes(leaf.page.len()) + HEAD_BYTES + Self::COPIED_BYTES,
            0,
        );
        self.bytes[..leaf.prefix_len].copy_from_slice(leaf.prefix());
    }

    /// The whole key of an entry of the leaf that this began with. `rest_and_more` begins with the key's
    /// rest.
    #[inline]
    fn with_suffix(&mut self, rest_and_more: &[u8], key: &KeyParts<'_>) -> &[u8] {
        let (head_at, rest_at) = (self.prefix_len, self.prefix_len + HEAD_BYTES);
        self.bytes[head_at..rest_at].copy_from_slice(&key.head.to_be_bytes());
        match rest_and_more.first_chunk::<{ Self::COPIED_BYTES }>() {
            Some(chunk) if (1..=Self::COPIED_BYTES).contains(&key.rest.len()) => {
                self.bytes[rest_at..rest_at + Self::COPIED_BYTES].copy_from_slice(chunk);
            }
            _ => self.bytes[rest_at..rest_at + key.rest.len()].copy_from_slice(key.rest),
        }
        &self.bytes[..head_at + key.suffix_len]
    }
}
