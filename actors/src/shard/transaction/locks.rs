//! The lock table of a shard: who may use which key, in the order in which they asked.
//!
//! A [`Claim`] is made for all keys and key ranges of a part at once, or for the one key of a single request that found its key
//! claimed. It gets a number, its [`Order`]; it is *granted* exactly if no claim of a lower order conflicts with it. So
//! nobody overtakes anybody for a key, and requests for other keys aren't held up.
//!
//! Claims are kept by tree and key, so that those of a key range can be taken out when a partition moves.
//!
//! Absent: what the claims are for, and who has to be told when one is granted: [`release`](Locks::release) says whose
//! turn it may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use treering_engine::TreeId;

use super::{KeyRange, Transaction};

/// Place in the order of claims.
pub(crate) type Order = u64;

/// What is claimed.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The keys of a part of a transaction.
    Part {
        transaction: Arc<Transaction>,
        part: usize,
    },
    /// One key.
    Key {
        tree: TreeId,
        key: Box<[u8]>,
        /// Whether nobody else may use it meanwhile; readers share.
        exclusive: bool,
    },
}

impl Claim {
    fn tree(&self) -> TreeId {
        match self {
            Claim::Part { transaction, part } => transaction.parts[*part].tree,
            Claim::Key { tree, .. } => *tree,
        }
    }

    /// Hands out the claimed keys, and whether each is claimed exclusively.
    fn for_each_key(&self, mut visit: impl FnMut(&[u8], bool)) {
        match self {
            Claim::Part { transaction, part } => {
                let part = &transaction.parts[*part];
                part.expected.iter().for_each(|(key, _)| visit(key, false));
                part.for_each_changed(|key| visit(key, true));
            }
            Claim::Key { key, exclusive, .. } => visit(key, *exclusive),
        }
    }
}

impl Claim {
    /// The key ranges that are claimed, shared with other readers.
    fn ranges(&self) -> &[KeyRange] {
        match self {
            Claim::Part { transaction, part } => &transaction.parts[*part].ranges,
            Claim::Key { .. } => &[],
        }
    }
}

/// One claim's place in the queue of a key.
#[derive(Clone, Copy, Debug)]
struct Place {
    order: Order,
    exclusive: bool,
}

/// The claims of one tree.
#[derive(Debug, Default)]
struct TreeClaims {
    /// Who claims a key, by order. No empty queues.
    keys: BTreeMap<Box<[u8]>, Vec<Place>>,
    /// Who claims key ranges, by order.
    ranges: Vec<(Order, KeyRange)>,
}

/// All claims of a shard.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    /// No empty ones.
    trees: BTreeMap<TreeId, TreeClaims>,
    claims: BTreeMap<Order, Claim>,
    next: Order,
}

impl Locks {
    /// Whether there are no claims at all.
    pub fn is_idle(&self) -> bool {
        self.claims.is_empty()
    }

    /// Whether there are claims of a tree's keys.
    pub fn names(&self, tree: TreeId) -> bool {
        self.trees.contains_key(&tree)
    }

    /// Whether a claim of this key would have to wait, or be waited for.
    pub fn conflicts(&self, tree: TreeId, key: &[u8], exclusive: bool) -> bool {
        let Some(claims) = self.trees.get(&tree) else {
            return false;
        };
        let queue = claims.keys.get(key);
        queue.is_some_and(|queue| queue.iter().any(|place| exclusive || place.exclusive))
            || exclusive && claims.ranges.iter().any(|(_, range)| range.contains(key))
    }

    /// Queues a claim behind all others.
    pub fn claim(&mut self, claim: Claim) -> Order {
        let order = self.next;
        self.next += 1;
        let TreeClaims { keys, ranges } = self.trees.entry(claim.tree()).or_default();
        ranges.extend(claim.ranges().iter().map(|range| (order, range.clone())));
        claim.for_each_key(|key, exclusive| {
            let place = Place { order, exclusive };
            match keys.get_mut(key) {
                None => drop(keys.insert(key.into(), vec![place])),
                Some(queue) => match queue.last_mut() {
                    // The same key twice.
                    Some(last) if last.order == order => last.exclusive |= exclusive,
                    _ => queue.push(place),
                },
            }
        });
        self.claims.insert(order, claim);
        order
    }

    /// Whether it is this claim's turn.
    pub fn is_granted(&self, order: Order) -> bool {
        let Some(claim) = self.claims.get(&order) else {
            return false;
        };
        let Some(TreeClaims { keys, ranges }) = self.trees.get(&claim.tree()) else {
            return true;
        };
        let mut granted = true;
        claim.for_each_key(|key, exclusive| {
            let before = keys.get(key).into_iter().flatten();
            granted &= before
                .take_while(|place| place.order < order)
                .all(|place| !exclusive && !place.exclusive);
            let mut ranges_before = ranges.iter().take_while(|(other, _)| *other < order);
            granted &= !exclusive || ranges_before.all(|(_, range)| !range.contains(key));
        });
        granted
            && claim.ranges().iter().all(|range| {
                within(keys, range).all(|queue| {
                    let mut before = queue.iter().take_while(|place| place.order < order);
                    before.all(|place| !place.exclusive)
                })
            })
    }

    /// Ends a claim, granted or not. Returns the claims whose turn it may be now.
    pub fn release(&mut self, order: Order) -> Vec<Order> {
        let Some(claim) = self.claims.remove(&order) else {
            return Vec::new();
        };
        let mut next = Vec::new();
        let tree = claim.tree();
        let Some(TreeClaims { keys, ranges }) = self.trees.get_mut(&tree) else {
            return next;
        };
        ranges.retain(|(other, _)| *other != order);
        for range in claim.ranges() {
            // Who waited for the range wants one of its keys.
            within(keys, range).for_each(|queue| first_in(queue, order, &mut next));
        }
        claim.for_each_key(|key, _| {
            let Some(queue) = keys.get_mut(key) else { return };
            // A key that was read and changed comes twice, and has one place. (Bad run: the first visit, as a reader's,
            // takes the place out, the second finds none, and who waits for a range with the key never hears of it.)
            let exclusive = queue.iter().any(|place| place.order == order && place.exclusive);
            queue.retain(|place| place.order != order);
            if exclusive {
                let waiting = ranges.iter().filter(|(_, range)| range.contains(key));
                next.extend(waiting.map(|(other, _)| *other));
            }
            if queue.is_empty() {
                keys.remove(key);
            } else {
                first_in(queue, order, &mut next);
            }
        });
        if keys.is_empty() && ranges.is_empty() {
            self.trees.remove(&tree);
        }
        next.sort_unstable();
        next.dedup();
        next
    }
}

/// The queues of the keys within a range.
fn within<'k>(
    keys: &'k BTreeMap<Box<[u8]>, Vec<Place>>,
    range: &KeyRange,
) -> impl Iterator<Item = &'k Vec<Place>> {
    let bounds = (!range.is_empty()).then(|| range.bounds());
    bounds
        .into_iter()
        .flat_map(|bounds| keys.range::<[u8], _>(bounds))
        .map(|(_, queue)| queue)
}

/// Whose turn it may be for a key once `gone` is: those that share it, or one who wants it alone.
fn first_in(queue: &[Place], gone: Order, next: &mut Vec<Order>) {
    let others = queue.iter().filter(|place| place.order != gone);
    for (index, place) in others.enumerate() {
        if index > 0 && place.exclusive {
            break;
        }
        next.push(place.order);
        if place.exclusive {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
