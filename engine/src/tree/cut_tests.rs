//! Cutting and joining against a map: contents, accounts of nodes, and trees that were cut before go on.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use proptest::prelude::*;

use super::test_store::TestStore;
use super::{Cursor, Miss, NodeStore, Root, check_part, cut, delete, join, put, reserve_for};
use crate::page::ValueRef;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, usize),
    Delete(usize),
    /// Cuts the part that holds the key, near it.
    Cut(Vec<u8>),
    /// Joins a part with the next one.
    Join(usize),
    Freeze,
}

/// A tree in parts, each with its lower bound.
struct Parts {
    store: TestStore,
    parts: Vec<(Vec<u8>, Root)>,
    model: Model,
}

fn retried<R>(mut operation: impl FnMut() -> Result<R, Miss>) -> R {
    loop {
        if let Ok(result) = operation() {
            return result;
        }
    }
}

impl Parts {
    fn new(page_bytes: usize, miss_one_in: u64) -> Parts {
        let mut store = TestStore::new(page_bytes);
        store.miss_one_in = miss_one_in;
        Parts {
            store,
            parts: vec![(Vec::new(), Root::default())],
            model: Model::new(),
        }
    }

    fn part_for(&self, key: &[u8]) -> usize {
        self.parts.partition_point(|(lower, _)| lower.as_slice() <= key) - 1
    }

    fn within_reserve<R>(&mut self, height: u8, change: impl FnOnce(&mut Parts) -> R) -> R {
        self.store.created = 0;
        let result = change(self);
        let (created, reserved) = (self.store.created, reserve_for(height));
        assert!(created <= reserved, "{created} nodes, {reserved} reserved");
        result
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Put(key, value_bytes) => {
                let part = self.part_for(&key);
                let value = vec![b'v'; value_bytes];
                let Parts { store, parts, .. } = self;
                retried(|| put(store, &mut parts[part].1, &key, ValueRef::Inline(&value)));
                self.model.insert(key, value);
            }
            Op::Delete(number) => {
                let Some(key) = self.model.keys().nth(number % self.model.len().max(1)).cloned() else {
                    return;
                };
                let part = self.part_for(&key);
                let Parts { store, parts, .. } = self;
                assert!(retried(|| delete(store, &mut parts[part].1, &key)));
                self.model.remove(&key);
            }
            Op::Cut(key) => {
                let part = self.part_for(&key);
                let (lower, root) = self.parts[part].clone();
                let halves =
                    self.within_reserve(root.height, |this| retried(|| cut(&mut this.store, &root, &key)));
                match halves {
                    None => assert!(root.height < 2 || self.leaves(&root) < 2, "there was a boundary"),
                    Some(halves) => {
                        assert!(halves.separator > lower, "the separator lies inside the part");
                        let upper = self.parts.get(part + 1).map(|(upper, _)| upper);
                        assert!(upper.is_none_or(|upper| halves.separator < *upper));
                        self.parts[part].1 = halves.left;
                        self.parts.insert(part + 1, (halves.separator, halves.right));
                    }
                }
            }
            Op::Join(part) => {
                let part = part % self.parts.len();
                let Some((separator, right)) = self.parts.get(part + 1).cloned() else {
                    return;
                };
                let left = self.parts[part].1;
                let height = left.height.max(right.height);
                let joined = self.within_reserve(height, |this| {
                    retried(|| join(&mut this.store, &left, &right, &separator))
                });
                self.parts[part].1 = joined.expect("far from the highest");
                self.parts.remove(part + 1);
            }
            Op::Freeze => {
                self.store.freeze();
                self.store.discard_retired();
            }
        }
    }

    fn leaves(&mut self, root: &Root) -> u64 {
        self.store.without_misses(|store| {
            let mut leaves = 0;
            check_part(store, root, |_, page| {
                leaves += u64::from(crate::page::level(page) == 0);
            })
            .expect("sound");
            leaves
        })
    }

    /// Everything is where it belongs, and every node belongs to one part.
    fn verify(&mut self) {
        let Parts { store, parts, model } = self;
        store.without_misses(|store| {
            store.assert_frozen_unchanged();
            let mut live = std::collections::BTreeSet::new();
            for (index, (lower, root)) in parts.iter().enumerate() {
                let upper = parts.get(index + 1).map(|(upper, _)| upper.clone());
                let expected: Vec<_> = model
                    .range(lower.clone()..)
                    .take_while(|(key, _)| upper.as_ref().is_none_or(|upper| *key < upper))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                assert_eq!(contents(store, root), expected, "part {index}");
                let counted = Root {
                    entries: expected.len() as u64,
                    ..*root
                };
                for id in store.reachable(&counted) {
                    assert!(live.insert(id), "page {} belongs to two parts", id.0);
                }
            }
            assert_eq!(store.unretired(), live, "created - retired = reachable");
            let sum = parts
                .iter()
                .fold(0u64, |sum, (_, root)| sum.wrapping_add(root.entries));
            assert_eq!(sum, model.len() as u64);
        });
    }
}

fn contents(store: &TestStore, root: &Root) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut cursor = Cursor::ascending(*root);
    while cursor
        .next_run(store, (Bound::Unbounded, Bound::Unbounded), |key, value| {
            found.push((key.to_vec(), value.bytes().to_vec()));
            ControlFlow::Continue(())
        })
        .expect("resident")
    {}
    found
}

fn op() -> impl Strategy<Value = Op> {
    let key = || prop::collection::vec(0u8..4, 1..6);
    prop_oneof![
        12 => (key(), 0usize..60).prop_map(|(key, bytes)| Op::Put(key, bytes)),
        4 => any::<usize>().prop_map(Op::Delete),
        2 => key().prop_map(Op::Cut),
        2 => (0usize..8).prop_map(Op::Join),
        1 => Just(Op::Freeze),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn parts_hold_what_the_whole_would(
        ops in prop::collection::vec(op(), 1..400),
        miss_one_in in prop_oneof![Just(0u64), 2u64..9],
    ) {
        let mut parts = Parts::new(512, miss_one_in);
        for (number, op) in ops.into_iter().enumerate() {
            parts.apply(op);
            if number % 16 == 0 {
                parts.verify();
            }
        }
        parts.verify();
    }
}

fn filled(count: u32) -> Parts {
    let mut parts = Parts::new(512, 0);
    for number in 0..count {
        parts.apply(Op::Put(number.to_be_bytes().to_vec(), 40));
        if number % 50 == 0 {
            parts.apply(Op::Freeze);
        }
    }
    parts.apply(Op::Freeze);
    parts
}

#[test]
fn a_cut_costs_a_path_whatever_the_size() {
    let mut parts = filled(20_000);
    let height = usize::from(parts.parts[0].1.height);
    parts.store.lookups.set(0);
    parts.store.created = 0;
    parts.apply(Op::Cut(10_000u32.to_be_bytes().to_vec()));
    assert!(
        parts.store.lookups.get() <= height + 3,
        "{}",
        parts.store.lookups.get()
    );
    assert!(parts.store.created <= 2 * height, "{}", parts.store.created);
    let (lower, _) = &parts.parts[1];
    let separator = u32::from_be_bytes(lower.clone().try_into().unwrap_or([0; 4]));
    assert!(
        (9_900..=10_100).contains(&separator) || lower.len() < 4,
        "{lower:?}"
    );
    parts.store.created = 0;
    parts.apply(Op::Join(0));
    assert!(parts.store.created <= 2 * height, "{}", parts.store.created);
    parts.verify();
}

#[test]
fn trees_of_one_leaf_or_none_are_not_cut() {
    let mut store = TestStore::new(512);
    let mut root = Root::default();
    assert_eq!(cut(&mut store, &root, b"k"), Ok(None));
    put(&mut store, &mut root, b"k", ValueRef::Inline(b"v")).expect("resident");
    assert_eq!(cut(&mut store, &root, b"k"), Ok(None));
    assert!(store.locate(root.reference).is_ok(), "untouched");
}

#[test]
fn what_is_too_high_is_not_joined() {
    let mut parts = filled(100);
    let root = Root {
        height: 16,
        ..parts.parts[0].1
    };
    parts.store.created = 0;
    assert_eq!(join(&mut parts.store, &root, &root, b"s"), Ok(None));
    assert_eq!(parts.store.created, 0);
}

#[test]
fn trees_that_are_cut_and_joined_again_and_again_do_not_grow() {
    let mut parts = filled(5_000);
    let height = parts.parts[0].1.height;
    let nodes = parts.store.unretired().len();
    for number in 0..300u32 {
        for at in [7, 11, 13] {
            let key = (number * 977 * at % 5_000).to_be_bytes();
            parts.apply(Op::Cut(key.to_vec()));
        }
        parts.apply(Op::Freeze);
        while parts.parts.len() > 1 {
            parts.apply(Op::Join(0));
        }
        assert!(
            parts.parts[0].1.height <= height,
            "{} levels after {number} times, {height} before",
            parts.parts[0].1.height
        );
        parts.apply(Op::Freeze);
    }
    parts.verify();
    let (now, most) = (parts.store.unretired().len(), nodes + nodes / 10);
    assert!(now <= most, "{now} nodes, {nodes} before");
}
