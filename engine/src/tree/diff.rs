//! What differs between two versions of a tree.
//!
//! Versions share the nodes that no write between them touched: equal references mean equal content. So two
//! places walk through the two trees side by side, in key order, and skip a subtree, unread, when both
//! stand before the same one. The work is proportional to what changed, not to what there is.
//!
//! | both places | what happens |
//! |---|---|
//! | stand before the same node | both skip it |
//! | stand before different nodes | the higher one is entered: so they come to stand at one level |
//! | one at an entry, one before a node | the entry differs if it is below the node; else the node is entered |
//! | at entries | the lower key differs; equal keys differ if their values do |
//!
//! A tree may consist of several partitions, and not of the same ones in both versions: a place goes through
//! them one after the other, as through the children of a node without a page.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::Arc;

use super::{Miss, ReadNodes, Root};
use crate::ids::PageRef;
use crate::page::ValueRef;
use crate::page::inner::Inner;
use crate::page::leaf::Leaf;

/// A key whose values in two versions differ. At least one of them is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Difference<'d> {
    /// The key.
    pub key: &'d [u8],
    /// Its value in the old version.
    pub old: Option<ValueRef<'d>>,
    /// Its value in the new version.
    pub new: Option<ValueRef<'d>>,
}

/// A comparison of two versions of one tree, under way. Like a cursor, it keeps references only, and
/// borrows no store between two steps.
#[derive(Clone, Debug)]
pub struct Diff {
    old: Place,
    new: Place,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
}

/// A part of a tree: the lowest key that belongs to it, and its root.
pub type Part = (Arc<[u8]>, Root);

/// A place in one of the trees.
#[derive(Clone, Debug)]
struct Place {
    /// The parts behind this one.
    rest: VecDeque<Part>,
    /// Lowest key of the present part.
    lower: Arc<[u8]>,
    root: Root,
    /// Inner nodes from the root downwards.
    path: Vec<Level>,
    at: At,
    /// The key of the entry, if this is at one.
    key: Vec<u8>,
    /// Whether the lower bound may lie in the node that this is at: of its part nothing was passed so far.
    at_lower: bool,
}

#[derive(Clone, Debug)]
struct Level {
    reference: PageRef,
    index: usize,
    count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// Before a child of the path's last node; which one has to be looked up.
    Child,
    Node(PageRef),
    Entry {
        leaf: PageRef,
        slot: usize,
        count: usize,
    },
    End,
}

/// Steps that one call takes at most: readers are pinned meanwhile.
const STEPS_MAX: usize = 256;

impl Diff {
    /// Will compare two versions of a tree.
    #[must_use]
    pub fn new(old: Root, new: Root) -> Diff {
        let whole = |root| [(Arc::from([]), root)];
        Diff::of_parts(whole(old), whole(new))
    }

    /// Will compare two versions of a tree that consists of parts, ascending by their lowest keys.
    #[must_use]
    pub fn of_parts(old: impl IntoIterator<Item = Part>, new: impl IntoIterator<Item = Part>) -> Diff {
        Diff {
            old: Place::start(old.into_iter().collect()),
            new: Place::start(new.into_iter().collect()),
            lower: Bound::Unbounded,
            upper: Bound::Unbounded,
        }
    }

    /// The same, of the keys within bounds. What lies outside isn't read, but for the ways to the bounds.
    #[must_use]
    pub fn within(self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Diff {
        Diff {
            lower: lower.map(<[u8]>::to_vec),
            upper: upper.map(<[u8]>::to_vec),
            ..self
        }
    }

    /// Appends up to `count` nodes of either version that will be needed soon: those behind the present ones, below
    /// the same parents, that the other version doesn't share. Looks at nodes in memory only.
    pub fn upcoming<S: ReadNodes>(&self, store: &S, count: usize, nodes: &mut Vec<PageRef>) {
        let old = self.old.siblings(store, 2 * count);
        let new = self.new.siblings(store, 2 * count);
        // Both come in key order, and what is shared comes in the same order in both.
        let unshared = |mine: &[PageRef], other: &[PageRef]| -> Vec<PageRef> {
            let mine = mine.iter().copied();
            mine.filter(|node| !other.contains(node)).take(count).collect()
        };
        nodes.extend(unshared(&old, &new));
        nodes.extend(unshared(&new, &old));
    }

    /// Hands out some differences, in key order, until `visit` breaks (the difference it breaks at counts
    /// as seen) or enough has been looked at for one pin. Returns whether there may be more.
    ///
    /// # Errors
    ///
    /// A node that isn't in memory. What was handed out before counts as seen; go on when the node has come.
    pub fn next_run<S: ReadNodes>(
        &mut self,
        store: &S,
        mut visit: impl FnMut(Difference<'_>) -> ControlFlow<()>,
    ) -> Result<bool, Miss> {
        for _ in 0..STEPS_MAX {
            self.old.look(store)?;
            self.new.look(store)?;
            self.old.end_beyond(store, &self.upper)?;
            self.new.end_beyond(store, &self.upper)?;
            if (self.old.at, self.new.at) == (At::End, At::End) {
                return Ok(false);
            }
            if self.step(store, &mut visit)?.is_break() {
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn step<S: ReadNodes>(
        &mut self,
        store: &S,
        visit: &mut impl FnMut(Difference<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Miss> {
        let Diff {
            old,
            new,
            lower,
            upper,
        } = self;
        if let (Some(before_old), Some(before_new)) = (old.stands_before(), new.stands_before())
            && before_old == before_new
        {
            old.skip();
            new.skip();
            return Ok(ControlFlow::Continue(()));
        }
        let order = match (old.at, new.at) {
            (At::Node(_), At::Node(_)) => {
                let higher = if old.level() >= new.level() { old } else { new };
                higher.enter(store, lower)?;
                return Ok(ControlFlow::Continue(()));
            }
            (At::Entry { .. }, At::Node(_)) if new.is_above(store, &old.key)? => Ordering::Less,
            (At::Node(_), At::Entry { .. }) if old.is_above(store, &new.key)? => Ordering::Greater,
            (At::Node(_), _) => {
                old.enter(store, lower)?;
                return Ok(ControlFlow::Continue(()));
            }
            (_, At::Node(_)) => {
                new.enter(store, lower)?;
                return Ok(ControlFlow::Continue(()));
            }
            (_, At::End) => Ordering::Less,
            (At::End, _) => Ordering::Greater,
            _ => old.key.cmp(&new.key),
        };
        let old_value = if order.is_le() { old.value(store)? } else { None };
        let new_value = if order.is_ge() { new.value(store)? } else { None };
        let key = if order.is_le() { &old.key } else { &new.key };
        let bounds = (as_slice(lower), as_slice(upper));
        let flow = if old_value == new_value || !RangeBounds::<[u8]>::contains(&bounds, &key[..]) {
            ControlFlow::Continue(())
        } else {
            visit(Difference {
                key,
                old: old_value,
                new: new_value,
            })
        };
        if order.is_le() {
            old.pass_entry();
        }
        if order.is_ge() {
            new.pass_entry();
        }
        Ok(flow)
    }
}

impl Place {
    fn start(parts: VecDeque<Part>) -> Place {
        let mut place = Place {
            rest: parts,
            lower: Arc::from([]),
            root: Root::default(),
            path: Vec::new(),
            at: At::End,
            key: Vec::new(),
            at_lower: true,
        };
        place.next_part();
        place
    }

    /// Ends here if everything to come is above the upper bound, as far as that is known.
    fn end_beyond<S: ReadNodes>(&mut self, store: &S, upper: &Bound<Vec<u8>>) -> Result<(), Miss> {
        let (Bound::Included(upper) | Bound::Excluded(upper)) = upper else {
            return Ok(());
        };
        let beyond = match self.at {
            At::Node(_) => self.is_above(store, upper)?,
            At::Entry { .. } => self.key > *upper,
            At::Child | At::End => false,
        };
        if beyond {
            self.at = At::End;
        }
        Ok(())
    }

    /// Goes before the root of the next part that has one.
    fn next_part(&mut self) {
        self.at = At::End;
        while let Some((lower, root)) = self.rest.pop_front() {
            if !root.reference.is_none() {
                self.lower = lower;
                self.root = root;
                self.at = At::Node(root.reference);
                self.at_lower = true;
                return;
            }
        }
    }

    /// Up to `count` nodes behind this place below the same parent.
    fn siblings<S: ReadNodes>(&self, store: &S, count: usize) -> Vec<PageRef> {
        let Some(level) = self.path.last() else {
            return Vec::new();
        };
        let Ok(page) = store.node(level.reference) else {
            return Vec::new();
        };
        let inner = Inner::new(page);
        let from = level.index + 1;
        (from..level.count.min(from + count))
            .map(|index| inner.child(index))
            .collect()
    }

    /// Height of the node that this is before, 0 for a leaf.
    fn level(&self) -> usize {
        usize::from(self.root.height) - 1 - self.path.len()
    }

    /// The node of which everything is still to come.
    fn stands_before(&self) -> Option<PageRef> {
        match self.at {
            At::Node(reference)
            | At::Entry {
                leaf: reference,
                slot: 0,
                ..
            } => Some(reference),
            _ => None,
        }
    }

    /// Finds out what this is at: which child, or which key.
    fn look<S: ReadNodes>(&mut self, store: &S) -> Result<(), Miss> {
        match (self.at, self.path.last()) {
            (At::Child, Some(parent)) => {
                let inner = Inner::new(store.node(parent.reference)?);
                self.at = At::Node(inner.child(parent.index));
            }
            (At::Entry { leaf, slot, .. }, _) if self.key.is_empty() => {
                Leaf::new(store.node(leaf)?).key(slot).copy_to(&mut self.key);
            }
            _ => {}
        }
        Ok(())
    }

    /// Goes from before a node to before its first child (or the one that the lower bound lies in), or to its first
    /// entry.
    fn enter<S: ReadNodes>(&mut self, store: &S, lower: &Bound<Vec<u8>>) -> Result<(), Miss> {
        let At::Node(reference) = self.at else {
            return Ok(());
        };
        let page = store.node(reference)?;
        if self.level() == 0 {
            self.at = At::Entry {
                leaf: reference,
                slot: 0,
                count: Leaf::new(page).count,
            };
            self.key.clear();
        } else {
            let inner = Inner::new(page);
            let index = match lower {
                Bound::Included(lower) | Bound::Excluded(lower) if self.at_lower => inner.find(lower),
                _ => 0,
            };
            self.path.push(Level {
                reference,
                index,
                count: inner.count,
            });
            self.at = At::Node(inner.child(index));
        }
        Ok(())
    }

    /// Whether all keys of the node that this is before are above a key, as far as separators tell.
    fn is_above<S: ReadNodes>(&self, store: &S, key: &[u8]) -> Result<bool, Miss> {
        let Some(level) = self.path.iter().rev().find(|level| level.index > 0) else {
            // The first of its part.
            return Ok(key < &*self.lower);
        };
        let mut separator = Vec::new();
        Inner::new(store.node(level.reference)?)
            .separator(level.index)
            .copy_to(&mut separator);
        Ok(key < separator.as_slice())
    }

    fn value<'s, S: ReadNodes>(&self, store: &'s S) -> Result<Option<ValueRef<'s>>, Miss> {
        match self.at {
            At::Entry { leaf, slot, .. } => Ok(Some(Leaf::new(store.node(leaf)?).value(slot))),
            _ => Ok(None),
        }
    }

    fn pass_entry(&mut self) {
        match &mut self.at {
            At::Entry { slot, count, .. } if *slot + 1 < *count => {
                *slot += 1;
                self.key.clear();
            }
            _ => self.skip(),
        }
    }

    /// Goes behind the node that this stands before or is in.
    fn skip(&mut self) {
        self.key.clear();
        self.at_lower = false;
        while let Some(level) = self.path.last_mut() {
            if level.index + 1 < level.count {
                level.index += 1;
                self.at = At::Child;
                return;
            }
            self.path.pop();
        }
        self.next_part();
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}
