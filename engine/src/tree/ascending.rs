//! Writes of many ascending keys: one descent for each leaf instead of one for each key.

use super::ahead::{AscendingKeys, first_not_below};
use super::path::Path;
use super::restructure::absorbing_neighbour;
use super::write::{insert_in_place, put, replace_in_place};
use super::{Miss, NodeStore, Root};
use crate::page::leaf::Leaf;
use crate::page::{ValueRef, max_inline_value_bytes, max_key_bytes, prefetch};

/// Leaves up to this size are asked for whole before their turn: much of them will be read or written. Of larger ones only
/// the top.
const PREFETCHED_BYTES_MAX: usize = 8 << 10;

/// Ascending keys with what shall be written to them.
pub trait AscendingPairs: AscendingKeys {
    /// The value of a key; `None` if nothing is to be written to it.
    fn value(&self, index: usize) -> Option<ValueRef<'_>>;
}

/// Inserts or overwrites the first key, and those right behind it that lie in the same leaf and leave the shape of the tree
/// as it is. Gives how many that were; none, if there is no first one with a value. A key without a value ends them.
///
/// O(height) nodes and O(log(keys of the leaf)) for each key; creates at most [`super::reserve_for`] nodes.
///
/// # Errors
///
/// As [`put`] for the first key; nothing was changed.
///
/// # Panics
///
/// As [`put`], on keys and values that are too long.
pub fn put_ascending<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    pairs: &impl AscendingPairs,
) -> Result<usize, Miss> {
    let count = pairs.count();
    if count == 0 {
        return Ok(0);
    }
    let first = pairs.key(0);
    let Some(value) = pairs.value(0) else {
        return Ok(0);
    };
    if root.reference.is_none() {
        put(store, root, first, value)?;
        return Ok(1);
    }
    let mut path = Path::descend(store, root, first)?;
    let upper = path.upper_bound(store, path.leaf_depth());
    let end = upper.map_or(count, |upper| {
        first_not_below(1, count, |index| pairs.is_below(index, &upper))
    });
    if end < count {
        prefetch_leaf(store, root, pairs.key(end));
    }
    for index in 0..end {
        let Some(value) = pairs.value(index) else {
            return Ok(index);
        };
        if !put_in_place(store, root, &mut path, pairs.key(index), value) {
            if index > 0 {
                return Ok(index);
            }
            put(store, root, first, value)?;
            return Ok(1);
        }
    }
    Ok(end)
}

/// Inserts or overwrites in the leaf, if that leaves the shape of the tree as it is. Otherwise nothing is changed.
fn put_in_place<S: NodeStore>(
    store: &mut S,
    root: &mut Root,
    path: &mut Path,
    key: &[u8],
    value: ValueRef<'_>,
) -> bool {
    let (page_bytes, value_bytes) = (store.page_bytes(), value.bytes().len());
    assert!((1..=max_key_bytes(page_bytes)).contains(&key.len()), "key length");
    assert!(value_bytes <= max_inline_value_bytes(page_bytes), "value length");
    match Leaf::new(store.bytes(path.leaf())).find(key) {
        Ok(slot) if absorbing_neighbour(store, path, slot, value_bytes).is_some() => false,
        Ok(slot) => replace_in_place(store, root, path, slot, value),
        Err(slot) => insert_in_place(store, root, path, slot, key, value),
    }
}

/// Hints that the leaf of this key comes next, and its neighbour perhaps after it.
fn prefetch_leaf<S: NodeStore>(store: &S, root: &Root, key: &[u8]) {
    let Ok(path) = Path::descend(store, root, key) else {
        return;
    };
    let leaf = store.bytes(path.leaf());
    if leaf.len() <= PREFETCHED_BYTES_MAX {
        prefetch::all(leaf);
    }
    if let Some(next) = path.next_leaf(store) {
        store.prefetch(next);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::test_store::TestStore;
    use super::super::{Root, check, delete, get};
    use super::*;

    const PAGE_BYTES: usize = 512;

    type Pairs = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    struct Rest<'p>(&'p [(Vec<u8>, Option<Vec<u8>>)]);

    impl AscendingKeys for Rest<'_> {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn key(&self, index: usize) -> &[u8] {
            &self.0[index].0
        }
    }

    impl AscendingPairs for Rest<'_> {
        fn value(&self, index: usize) -> Option<ValueRef<'_>> {
            self.0[index].1.as_deref().map(ValueRef::Inline)
        }
    }

    /// Writes the pairs as replay does: as many at a time as go, those without a value alone. Gives how many calls wrote.
    fn write(store: &mut TestStore, root: &mut Root, pairs: &Pairs) -> usize {
        let (mut done, mut calls) = (0, 0);
        while done < pairs.len() {
            let written = put_ascending(store, root, &Rest(&pairs[done..])).expect("everything is in memory");
            if written == 0 {
                delete(store, root, &pairs[done].0).expect("everything is in memory");
            }
            done += written.max(1);
            calls += 1;
        }
        calls
    }

    fn random(state: &mut u64, below: u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % below
    }

    #[test]
    fn many_ascending_writes_do_what_each_alone_would() {
        let mut state = 88_172_645_463_325_252;
        for _ in 0..60 {
            let mut store = TestStore::new(PAGE_BYTES);
            let (mut root, mut model) = (Root::default(), BTreeMap::new());
            for _ in 0..12 {
                let mut changes = BTreeMap::new();
                let (keys, dense) = (1 + random(&mut state, 300), 1 + random(&mut state, 4));
                for _ in 0..keys {
                    let number = random(&mut state, keys * dense) as u32;
                    let length = [0, 8, 40, 80][random(&mut state, 4) as usize];
                    let value = (random(&mut state, 5) > 0).then(|| vec![number as u8; length]);
                    changes.insert(number.to_be_bytes().to_vec(), value);
                }
                let pairs: Pairs = changes.into_iter().collect();
                write(&mut store, &mut root, &pairs);
                store.freeze();
                for (key, value) in pairs {
                    match value {
                        Some(value) => model.insert(key, value),
                        None => model.remove(&key),
                    };
                }
                check(&store, &root, |_, _| ()).expect("a sound tree");
                assert_eq!(root.entries, model.len() as u64);
                for (key, value) in &model {
                    let found = get(&store, &root, key).expect("everything is in memory");
                    assert_eq!(found, Some(ValueRef::Inline(value)));
                }
            }
        }
    }

    #[test]
    fn the_keys_of_a_leaf_are_written_together() {
        let pairs = |value: u8| -> Pairs {
            let pair = |number: u32| (number.to_be_bytes().to_vec(), Some(vec![value; 20]));
            (0..1_000).map(pair).collect()
        };
        let mut store = TestStore::new(PAGE_BYTES);
        let mut root = Root::default();
        write(&mut store, &mut root, &pairs(1));
        store.freeze();
        let leaves = check(&store, &root, |_, _| ()).expect("a sound tree").leaves;
        let calls = write(&mut store, &mut root, &pairs(2));
        assert_eq!(calls as u64, leaves);
        let found = get(&store, &root, &7u32.to_be_bytes()).expect("everything is in memory");
        assert_eq!(found, Some(ValueRef::Inline(&[2; 20])));
    }
}
