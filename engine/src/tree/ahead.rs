//! Which nodes changes to many sorted keys will need that aren't in memory yet: what to read ahead.

use super::{ReadNodes, Root};
use crate::ids::PageRef;
use crate::page::inner::Inner;

/// Ascending keys that are known in advance, each of which there is once.
pub trait AscendingKeys {
    /// How many there are.
    fn count(&self) -> usize;

    /// One of them.
    fn key(&self, index: usize) -> &[u8];

    /// Whether it is lower than a bound. Asked for several keys of each leaf, so it should be told without touching the
    /// key where that is possible.
    fn is_below(&self, index: usize, bound: &[u8]) -> bool {
        self.key(index) < bound
    }
}

/// How far [`missing`] looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Looked {
    /// Keys whose way was looked at, from the first on.
    pub keys: usize,
    /// Whether all ways were seen down to the leaves. Otherwise inner nodes are among what is missing: when
    /// they have come, look again.
    pub to_the_leaves: bool,
}

/// Appends the nodes on the ways to the keys that aren't in memory, each once, in key order, until
/// there are `limit` of them. Below a missing node nothing is known, so of each way only the topmost is named.
///
/// O(height + log(keys of the leaf)) for each leaf, whatever the number of keys.
pub fn missing<S: ReadNodes>(
    store: &S,
    root: &Root,
    keys: &impl AscendingKeys,
    limit: usize,
    missing: &mut Vec<PageRef>,
) -> Looked {
    let count = keys.count();
    let mut looked = Looked {
        keys: 0,
        to_the_leaves: true,
    };
    if root.reference.is_none() {
        looked.keys = count;
        return looked;
    }
    let mut bound = Vec::new();
    while looked.keys < count && missing.len() < limit {
        let first = keys.key(looked.keys);
        let mut reference = root.reference;
        let mut bounded = false;
        for level in (0..root.height).rev() {
            let Ok(page) = store.node(reference) else {
                missing.push(reference);
                looked.to_the_leaves &= level == 0;
                break;
            };
            if level > 0 {
                let inner = Inner::new(page);
                let index = inner.find(first);
                if index + 1 < inner.count {
                    inner.separator(index + 1).copy_to(&mut bound);
                    bounded = true;
                }
                reference = inner.child(index);
            }
        }
        // The bound of the lowest node that was seen holds for all above it.
        looked.keys = if bounded {
            first_not_below(looked.keys + 1, count, |index| keys.is_below(index, &bound))
        } else {
            count
        };
    }
    looked
}

/// The first index from `from` on that isn't below, in steps that double: the next leaf's keys are mostly near.
pub(super) fn first_not_below(from: usize, count: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut step) = (from, 1);
    let mut high = loop {
        let probe = low + step - 1;
        if probe >= count {
            break count;
        }
        if !below(probe) {
            break probe;
        }
        low = probe + 1;
        step *= 2;
    };
    while low < high {
        let middle = low.midpoint(high);
        if below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::test_store::TestStore;
    use super::super::{BulkBuilder, Miss, ReadNodes, Root, get};
    use super::{AscendingKeys, Looked, missing};
    use crate::ids::{PageId, PageRef};
    use crate::page::{self, ValueRef};

    const KEYS: u32 = 2_000;

    fn key(number: u32) -> [u8; 8] {
        u64::from(number).to_be_bytes()
    }

    fn tree(store: &mut TestStore) -> Root {
        let mut builder = BulkBuilder::new(512, 100);
        for number in 0..KEYS {
            builder
                .push(store, &key(number), ValueRef::Inline(&[7; 20]))
                .unwrap();
        }
        let root = builder.finish(store);
        store.freeze();
        root
    }

    struct Keys<'k>(&'k [[u8; 8]]);

    impl AscendingKeys for Keys<'_> {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn key(&self, index: usize) -> &[u8] {
            &self.0[index]
        }
    }

    /// Without the pages of a level, or some others.
    struct Partly<'s> {
        store: &'s TestStore,
        absent: BTreeSet<PageId>,
    }

    impl ReadNodes for Partly<'_> {
        fn node(&self, reference: PageRef) -> Result<&[u8], Miss> {
            if self.absent.contains(&reference.id) {
                return Err(Miss(reference));
            }
            self.store.node(reference)
        }
    }

    /// All nodes below the root, by level.
    fn levels(store: &TestStore, root: &Root) -> Vec<Vec<PageId>> {
        let mut level = vec![root.reference];
        let mut levels = Vec::new();
        for _ in 1..root.height {
            level = level
                .iter()
                .flat_map(|node| page::children(store.node(*node).unwrap()).collect::<Vec<_>>())
                .collect();
            levels.push(level.iter().map(|node| node.id).collect());
        }
        levels
    }

    #[test]
    fn names_what_lookups_of_the_keys_would_miss() {
        let mut store = TestStore::new(512);
        let root = tree(&mut store);
        let levels = levels(&store, &root);
        assert!(root.height >= 3);
        let strides = [1, 3, 40, 700];
        for (step, stride) in (1u32..).zip(strides.into_iter().cycle().take(40)) {
            // Every so many nodes of each level are absent, and sometimes all leaves.
            let absent = levels
                .iter()
                .enumerate()
                .flat_map(|(depth, ids)| {
                    let one_in = (step as usize + depth) % 7;
                    ids.iter().skip(one_in).step_by(one_in + 1)
                })
                .copied()
                .collect();
            let store = Partly {
                store: &store,
                absent,
            };
            // Keys that are there, between others, and behind the last.
            let keys: Vec<[u8; 8]> = (step % 5..KEYS + 10).step_by(stride).map(key).collect();
            let mut expected: Vec<PageRef> = keys
                .iter()
                .filter_map(|key| get(&store, &root, key).err().map(|miss| miss.0))
                .collect();
            expected.dedup();
            let mut found = Vec::new();
            let looked = missing(&store, &root, &Keys(&keys), usize::MAX, &mut found);
            assert_eq!(found, expected);
            assert_eq!(looked.keys, keys.len());
            let leaves = levels.last().unwrap();
            assert_eq!(
                looked.to_the_leaves,
                found.iter().all(|node| leaves.contains(&node.id))
            );
        }
    }

    #[test]
    fn stops_at_its_limit_and_says_where() {
        let mut store = TestStore::new(512);
        let root = tree(&mut store);
        let absent = levels(&store, &root).pop().unwrap().into_iter().collect();
        let store = Partly {
            store: &store,
            absent,
        };
        let keys: Vec<[u8; 8]> = (0..KEYS).map(key).collect();
        let (mut all, mut parts) = (Vec::new(), Vec::new());
        missing(&store, &root, &Keys(&keys), usize::MAX, &mut all);
        let mut from = 0;
        while from < keys.len() {
            let mut part = Vec::new();
            let looked = missing(&store, &root, &Keys(&keys[from..]), 7, &mut part);
            assert!(part.len() <= 7 && looked.keys > 0 && looked.to_the_leaves);
            from += looked.keys;
            parts.extend(part);
        }
        assert_eq!(parts, all);
        let looked = missing(&store, &Root::default(), &Keys(&keys[..5]), 1, &mut parts);
        assert_eq!(
            looked,
            Looked {
                keys: 5,
                to_the_leaves: true
            }
        );
    }
}
