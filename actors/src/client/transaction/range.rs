//! Ranges of a transaction: the snapshot's entries with the transaction's own writes in their place.
//!
//! Two ordered sources are merged, from both ends: entries of the snapshot, of which each direction has one in hand, and
//! the transaction's own writes within the bounds. An own write hides the snapshot's entry of its key.
//!
//! What counts as read is what was looked through: from the lower bound to the highest snapshot key that the front has
//! taken in hand, from the lowest that the back has, to the upper bound; and all, once both have met.

use std::collections::VecDeque;
use std::ops::Bound;

use treering_engine::TreeId;

use super::super::range::Range;
use super::Transaction;
use crate::error::Result;
use crate::shard::KeyRange;
use crate::value::Value;

/// The entries of a tree within bounds, as a transaction sees them, in key order. Double-ended.
pub struct TransactionRange<'t> {
    transaction: &'t Transaction,
    tree: TreeId,
    bounds: KeyRange,
    base: Range,
    /// Own writes within the bounds that no direction has passed.
    own: VecDeque<(Value, Option<Value>)>,
    front: End,
    back: End,
    /// Whether the snapshot's entries were all taken.
    met: bool,
}

/// One direction.
#[derive(Default)]
struct End {
    /// The next entry of the snapshot.
    in_hand: Option<(Value, Value)>,
    /// The last key of the snapshot that was taken in hand.
    reached: Option<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
}

impl<'t> TransactionRange<'t> {
    pub(super) fn new(
        transaction: &'t Transaction,
        tree: TreeId,
        bounds: KeyRange,
        base: Range,
    ) -> TransactionRange<'t> {
        let writes = transaction.writes.get(&tree).filter(|_| !bounds.is_empty());
        let own = writes.into_iter().flat_map(|writes| {
            let within = writes.range::<[u8], _>(bounds.bounds());
            within.map(|(key, value)| (Value::from(&key[..]), value.clone()))
        });
        TransactionRange {
            own: own.collect(),
            transaction,
            tree,
            base,
            front: End::default(),
            back: End::default(),
            met: false,
            bounds,
        }
    }

    /// Takes the snapshot's next entry of this side in hand, unless one is or there is none.
    fn fill(&mut self, side: Side) -> Result<()> {
        let (here, there) = match side {
            Side::Front => (&mut self.front, &mut self.back),
            Side::Back => (&mut self.back, &mut self.front),
        };
        if here.in_hand.is_some() || self.met && there.in_hand.is_none() {
            return Ok(());
        }
        let next = match side {
            _ if self.met => None,
            Side::Front => self.base.next().transpose()?,
            Side::Back => self.base.next_back().transpose()?,
        };
        match next {
            Some(entry) => {
                here.reached = Some(entry.0.clone());
                here.in_hand = Some(entry);
            }
            None => {
                self.met = true;
                here.in_hand = there.in_hand.take();
            }
        }
        Ok(())
    }

    fn take(&mut self, side: Side) -> Option<Result<(Value, Value)>> {
        loop {
            if let Err(error) = self.fill(side) {
                // The range ends here.
                self.met = true;
                self.own.clear();
                self.front.in_hand = None;
                self.back.in_hand = None;
                return Some(Err(error));
            }
            let (here, own) = match side {
                Side::Front => (&mut self.front, self.own.front()),
                Side::Back => (&mut self.back, self.own.back()),
            };
            let order = match (&here.in_hand, own) {
                (None, None) => return None,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((theirs, _)), Some((ours, _))) if side == Side::Front => theirs.cmp(ours),
                (Some((theirs, _)), Some((ours, _))) => ours.cmp(theirs),
            };
            if order.is_lt() {
                return here.in_hand.take().map(Ok);
            }
            if order.is_eq() {
                here.in_hand = None;
            }
            let own = match side {
                Side::Front => self.own.pop_front(),
                Side::Back => self.own.pop_back(),
            };
            if let Some((key, Some(value))) = own {
                return Some(Ok((key, value)));
            }
        }
    }
}

impl Iterator for TransactionRange<'_> {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take(Side::Front)
    }
}

impl DoubleEndedIterator for TransactionRange<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take(Side::Back)
    }
}

impl Drop for TransactionRange<'_> {
    fn drop(&mut self) {
        let KeyRange { lower, upper } = self.bounds.clone();
        if self.met {
            return self.transaction.note_range(self.tree, KeyRange { lower, upper });
        }
        if let Some(reached) = self.front.reached.take() {
            let upper = Bound::Included(reached.to_vec());
            self.transaction.note_range(self.tree, KeyRange { lower, upper });
        }
        if let Some(reached) = self.back.reached.take() {
            let lower = Bound::Included(reached.to_vec());
            self.transaction.note_range(self.tree, KeyRange { lower, upper });
        }
    }
}

impl std::fmt::Debug for TransactionRange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionRange")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}
