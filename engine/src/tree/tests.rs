//! The tree against a map, with misses, snapshots and accounts.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeBounds};

use proptest::prelude::*;

use super::test_store::TestStore;
use super::{
    Bounds, BulkBuilder, Carry, Change, Cursor, Decision, Diff, Miss, NotAscending, ReadNodes, Root, delete,
    get, get_many, modify, put, reserve_for,
};
use crate::page::{ValueRef, max_inline_value_bytes, max_key_bytes};

/// Whether it is a blob, and the bytes.
type Value = (bool, Vec<u8>);
type Model = BTreeMap<Vec<u8>, Value>;
type OwnBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

const EVERYTHING: Bounds<'static> = (Bound::Unbounded, Bound::Unbounded);

/// Repeats what missed, as a worker does once the page has come.
fn retried<R>(mut operation: impl FnMut() -> Result<R, Miss>) -> R {
    loop {
        if let Ok(result) = operation() {
            return result;
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Vec<u8>),
    PutBlob(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Deletes a run of present keys, so that nodes empty.
    DeleteRange(Vec<u8>, usize),
    PutRun {
        prefix: Vec<u8>,
        count: u8,
        descending: bool,
        value_bytes: usize,
    },
    Modify(Vec<u8>),
    Freeze,
    Snapshot,
    DropSnapshot,
}

fn value_ref(value: &(bool, Vec<u8>)) -> ValueRef<'_> {
    if value.0 {
        ValueRef::Blob(&value.1)
    } else {
        ValueRef::Inline(&value.1)
    }
}

struct Harness {
    store: TestStore,
    root: Root,
    model: Model,
    snapshots: Vec<(Root, Model)>,
    blobs_gone: usize,
}

impl Harness {
    fn new(page_bytes: usize, miss_one_in: u64) -> Harness {
        let mut store = TestStore::new(page_bytes);
        store.miss_one_in = miss_one_in;
        Harness {
            store,
            root: Root::default(),
            model: Model::new(),
            snapshots: Vec::new(),
            blobs_gone: 0,
        }
    }

    fn put(&mut self, key: &[u8], value: (bool, Vec<u8>)) {
        let reserve = reserve_for(self.root.height);
        self.store.created = 0;
        let change = loop {
            let before = self.root;
            match put(&mut self.store, &mut self.root, key, value_ref(&value)) {
                Ok(change) => break change,
                Err(_) => {
                    assert_eq!(before, self.root, "a miss changes nothing");
                    assert_eq!(self.store.created, 0, "a miss changes nothing");
                }
            }
        };
        assert!(
            self.store.created <= reserve,
            "{} nodes, {reserve} reserved",
            self.store.created
        );
        let old = self.model.insert(key.to_vec(), value);
        assert_eq!(
            change,
            if old.is_some() {
                Change::Replaced
            } else {
                Change::Inserted
            }
        );
        self.blobs_gone += usize::from(old.is_some_and(|old| old.0));
    }

    fn delete(&mut self, key: &[u8]) {
        let reserve = reserve_for(self.root.height);
        self.store.created = 0;
        let found = retried(|| delete(&mut self.store, &mut self.root, key));
        assert!(
            self.store.created <= reserve,
            "{} nodes, {reserve} reserved",
            self.store.created
        );
        let old = self.model.remove(key);
        assert_eq!(found, old.is_some());
        self.blobs_gone += usize::from(old.is_some_and(|old| old.0));
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Put(key, value) => self.put(&key, (false, value)),
            Op::PutBlob(key, value) => self.put(&key, (true, value)),
            Op::Delete(key) => self.delete(&key),
            Op::DeleteRange(from, count) => {
                let keys: Vec<Vec<u8>> = self
                    .model
                    .range(from..)
                    .take(count)
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in keys {
                    self.delete(&key);
                }
            }
            Op::PutRun {
                prefix,
                count,
                descending,
                value_bytes,
            } => {
                for number in 0..count {
                    let number = if descending { count - number } else { number };
                    let mut key = prefix.clone();
                    key.push(number);
                    self.put(&key, (false, vec![number; value_bytes]));
                }
            }
            Op::Modify(key) => self.modify(&key),
            Op::Freeze => self.freeze(),
            Op::Snapshot => {
                self.freeze();
                self.snapshots.push((self.root, self.model.clone()));
                if self.snapshots.len() > 3 {
                    self.snapshots.remove(0);
                }
            }
            Op::DropSnapshot => {
                self.snapshots.pop();
                self.freeze();
            }
        }
    }

    /// Appends a byte to a short value, deletes a long one, inserts where there is none.
    fn modify(&mut self, key: &[u8]) {
        let model = &self.model;
        let old = retried(|| {
            let mut calls = 0;
            let result = modify(&mut self.store, &mut self.root, key, |old| {
                calls += 1;
                assert_eq!(old, model.get(key).map(value_ref));
                let decision = match old {
                    Some(ValueRef::Blob(_)) => Decision::Keep,
                    Some(value) if value.bytes().len() >= 4 => Decision::Delete,
                    Some(value) => Decision::Put([value.bytes(), b"+"].concat().into()),
                    None => Decision::PutBlob(b"new".into()),
                };
                (decision, old.map(|old| old.bytes().to_vec()))
            });
            assert_eq!(
                calls,
                usize::from(result.is_ok()),
                "decide is asked once, and only if nothing can miss"
            );
            result
        });
        let (change, old_bytes) = old;
        assert_eq!(old_bytes.as_ref(), self.model.get(key).map(|value| &value.1));
        let expected = match self.model.get_mut(key) {
            Some((true, _)) => None,
            Some((false, value)) if value.len() >= 4 => {
                self.model.remove(key);
                Some(Change::Deleted)
            }
            Some((false, value)) => {
                value.push(b'+');
                Some(Change::Replaced)
            }
            None => {
                self.model.insert(key.to_vec(), (true, b"new".to_vec()));
                Some(Change::Inserted)
            }
        };
        assert_eq!(change, expected);
    }

    fn freeze(&mut self) {
        let (tip, held) = (
            self.root,
            self.snapshots.iter().map(|(root, _)| *root).collect::<Vec<_>>(),
        );
        self.store.without_misses(|store| {
            store.assert_balanced(&tip);
            store.freeze();
            store.reclaim(&held);
        });
    }

    fn assert_matches(&mut self) {
        self.freeze();
        assert_eq!(self.store.retired_blobs.len(), self.blobs_gone);
        let tip = (self.root, self.model.clone());
        let empty = (Root::default(), Model::new());
        let mut before = &empty;
        for version in self.snapshots.iter().chain([&tip]) {
            assert_reads(&self.store, &version.0, &version.1);
            assert_diff(&self.store, before, version);
            assert_diff(&self.store, version, before);
            before = version;
        }
    }
}

fn assert_reads(store: &TestStore, root: &Root, model: &Model) {
    assert_eq!(root.entries, model.len() as u64);
    for (key, value) in model {
        assert_eq!(retried(|| get(store, root, key)), Some(value_ref(value)));
        let mut absent = key.clone();
        absent.push(0);
        assert_eq!(
            retried(|| get(store, root, &absent)),
            model.get(&absent).map(value_ref)
        );
    }
    let keys: Vec<&[u8]> = model.keys().map(Vec::as_slice).collect();
    let mut out = vec![Ok(None); keys.len()];
    get_many(store, root, &keys, &mut out);
    for (key, found) in keys.iter().zip(&out) {
        if let Ok(found) = found {
            assert_eq!(*found, model.get(*key).map(value_ref));
        }
    }
    let all: Vec<_> = model
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(scan(store, Cursor::ascending(*root), EVERYTHING, usize::MAX), all);
    let mut backwards = scan(store, Cursor::descending(*root), EVERYTHING, usize::MAX);
    backwards.reverse();
    assert_eq!(backwards, all);
}

fn assert_diff(store: &TestStore, old: &(Root, Model), new: &(Root, Model)) {
    let mut expected = BTreeMap::new();
    for (key, value) in &old.1 {
        expected.insert(key.clone(), (Some(value.clone()), None));
    }
    for (key, value) in &new.1 {
        expected.entry(key.clone()).or_insert((None, None)).1 = Some(value.clone());
    }
    expected.retain(|_, (old, new)| old != new);
    let all = differences(store, Diff::new(old.0, new.0));
    assert_eq!(all, expected.clone().into_iter().collect::<Vec<_>>());
    // Within bounds that are keys, lie between keys, or beyond all of them.
    let keys: Vec<&Vec<u8>> = old.1.keys().chain(new.1.keys()).collect();
    for (index, lower) in keys.iter().enumerate().step_by(keys.len() / 8 + 1) {
        let upper = keys[(index + keys.len() / 3) % keys.len()];
        let mut behind = upper.clone();
        behind.push(0);
        for bounds in [
            (Bound::Included(&lower[..]), Bound::Excluded(&upper[..])),
            (Bound::Excluded(&lower[..]), Bound::Included(&behind[..])),
            (Bound::Included(&lower[..]), Bound::Unbounded),
            (Bound::Unbounded, Bound::Included(&upper[..])),
        ] {
            let within = differences(store, Diff::new(old.0, new.0).within(bounds.0, bounds.1));
            let wanted = expected.iter().filter(|(key, _)| bounds.contains(&key[..]));
            let wanted: Vec<_> = wanted
                .map(|(key, values)| (key.clone(), values.clone()))
                .collect();
            assert_eq!(within, wanted, "{bounds:?}");
        }
    }
}

type Stored = Option<(bool, Vec<u8>)>;

/// Everything that a comparison finds, if it is interrupted after every seven differences.
fn differences(store: &TestStore, mut diff: Diff) -> Vec<(Vec<u8>, (Stored, Stored))> {
    let value = |value: Option<ValueRef<'_>>| {
        value.map(|value| (matches!(value, ValueRef::Blob(_)), value.bytes().to_vec()))
    };
    let mut found = Vec::new();
    while retried(|| {
        diff.next_run(store, |difference| {
            found.push((
                difference.key.to_vec(),
                (value(difference.old), value(difference.new)),
            ));
            if found.len() % 7 == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    }) {}
    found
}

/// Everything that a cursor hands out, if it is interrupted after every `run_max` entries.
fn scan(store: &TestStore, mut cursor: Cursor, bounds: Bounds<'_>, run_max: usize) -> Vec<(Vec<u8>, Value)> {
    let mut seen = Vec::new();
    loop {
        let mut left = run_max;
        let more = retried(|| {
            cursor.next_run(store, bounds, |key, value| {
                seen.push((
                    key.to_vec(),
                    (matches!(value, ValueRef::Blob(_)), value.bytes().to_vec()),
                ));
                left -= 1;
                if left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        });
        if !more {
            return seen;
        }
    }
}

/// Everything that a cursor finds, copied leaf by leaf.
fn copied(store: &TestStore, mut cursor: Cursor, bounds: Bounds<'_>) -> Vec<(Vec<u8>, Value)> {
    let mut seen = Vec::new();
    let mut carry = Carry::default();
    while let Some(run) = retried(|| cursor.find_run(store, bounds)) {
        let page = retried(|| store.node(run.leaf));
        let mut bytes = vec![0; run.bytes(page)];
        let mut lengths = Vec::new();
        run.copy_to(page, None, &mut carry, &mut bytes, |key, value, is_blob| {
            lengths.push((key, value, is_blob))
        });
        assert_eq!(lengths.len(), run.len());
        let mut left = bytes.as_slice();
        for (key_bytes, value_bytes, is_blob) in lengths {
            let (key, rest) = left.split_at(key_bytes);
            let (value, rest) = rest.split_at(value_bytes);
            seen.push((key.to_vec(), (is_blob, value.to_vec())));
            left = rest;
        }
        cursor.pass(&run, run.len());
    }
    assert!(cursor.is_finished());
    seen
}

/// Keys of few different bytes: they share prefixes, and one is often another's.
fn key(page_bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(255)], 1..7),
        3 => (0..2000u32).prop_map(|number| format!("user{number:05}").into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 1..24),
        1 => prop::collection::vec(prop_oneof![Just(7u8), Just(8)], max_key_bytes(page_bytes)),
        // Neighbours that differ at their ends only: the longest separators there are.
        1 => (0..4u8, prop::collection::vec(any::<u8>(), 1..4)).prop_map(move |(first, last)| {
            let mut key = vec![9; max_key_bytes(page_bytes) - last.len()];
            key[0] = first;
            key.extend(last);
            key
        }),
    ]
}

fn value(page_bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..12),
        3 => prop::collection::vec(any::<u8>(), 12..max_inline_value_bytes(page_bytes)),
        1 => prop::collection::vec(any::<u8>(), max_inline_value_bytes(page_bytes)),
    ]
}

fn op(page_bytes: usize) -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (key(page_bytes), value(page_bytes)).prop_map(|(key, value)| Op::Put(key, value)),
        2 => (key(page_bytes), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(key, value)| Op::PutBlob(key, value)),
        6 => key(page_bytes).prop_map(Op::Delete),
        2 => (key(page_bytes), 1..30usize).prop_map(|(key, count)| Op::DeleteRange(key, count)),
        1 => run_of_puts(page_bytes),
        3 => key(page_bytes).prop_map(Op::Modify),
        3 => Just(Op::Freeze),
        1 => Just(Op::Snapshot),
        1 => Just(Op::DropSnapshot),
    ]
}

fn run_of_puts(page_bytes: usize) -> impl Strategy<Value = Op> {
    (key(page_bytes), 1..40u8, any::<bool>(), 0..60usize).prop_map(
        move |(mut prefix, count, descending, value_bytes)| {
            prefix.truncate(max_key_bytes(page_bytes) - 1);
            Op::PutRun {
                prefix,
                count,
                descending,
                value_bytes,
            }
        },
    )
}

fn run(page_bytes: usize, miss_one_in: u64, ops: Vec<Op>) {
    let mut harness = Harness::new(page_bytes, miss_one_in);
    for op in ops {
        harness.apply(op);
    }
    harness.assert_matches();
    let keys: Vec<Vec<u8>> = harness.model.keys().cloned().collect();
    for key in keys {
        harness.delete(&key);
    }
    harness.assert_matches();
    assert!(harness.root.reference.is_none());
}

/// Every way of asking for the keys between two others, against a map's range.
fn assert_ranges(store: &TestStore, root: &Root, model: &Model, bounds: &[OwnBounds], run_max: usize) {
    for (lower, upper) in bounds {
        let (lower, upper) = (
            lower.as_ref().map(Vec::as_slice),
            upper.as_ref().map(Vec::as_slice),
        );
        let inside = |key: &[u8]| {
            let above = match lower {
                Bound::Included(lower) => key >= lower,
                Bound::Excluded(lower) => key > lower,
                Bound::Unbounded => true,
            };
            let below = match upper {
                Bound::Included(upper) => key <= upper,
                Bound::Excluded(upper) => key < upper,
                Bound::Unbounded => true,
            };
            above && below
        };
        let mut expected: Vec<_> = model
            .iter()
            .filter(|(key, _)| inside(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let bounds = (lower, upper);
        assert_eq!(scan(store, Cursor::ascending(*root), bounds, run_max), expected);
        assert_eq!(copied(store, Cursor::ascending(*root), bounds), expected);
        expected.reverse();
        assert_eq!(scan(store, Cursor::descending(*root), bounds, run_max), expected);
        assert_eq!(copied(store, Cursor::descending(*root), bounds), expected);
    }
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    (key(512), 0..5u8).prop_map(|(key, kind)| match kind {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Included(key),
        _ => Bound::Excluded(key),
    })
}

fn model() -> impl Strategy<Value = Model> {
    prop::collection::btree_map(key(512), (any::<bool>(), value(512)), 0..250)
}

/// Long keys that differ at their ends make nodes of few children, so that a few thousand give a high tree; growing
/// and shrinking it takes every way there is of cutting, merging and evening out inner nodes.
#[test]
fn high_trees_grow_and_shrink() {
    let mut harness = Harness::new(512, 50);
    let mut random = 1u64;
    let mut next = move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let mut height_max = 0;
    for round in 0..12_000u64 {
        let number = next() % 4000;
        let mut key = vec![b'k'; max_key_bytes(512)];
        key[0] = (number % 5) as u8;
        let end = key.len() - 2;
        key[end..].copy_from_slice(&(number as u16).to_be_bytes());
        // First mostly insertions, then mostly deletions.
        if next() % 12_000 > round {
            harness.put(&key, (next() % 50 == 0, vec![7; (next() % 40) as usize]));
        } else {
            harness.delete(&key);
        }
        height_max = height_max.max(harness.root.height);
        if round % 400 == 0 {
            harness.apply(Op::Snapshot);
        }
    }
    harness.assert_matches();
    assert!(height_max >= 6, "{height_max}");
    let keys: Vec<Vec<u8>> = harness.model.keys().cloned().collect();
    for key in keys {
        harness.delete(&key);
    }
    harness.assert_matches();
    assert!(harness.root.reference.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn small_pages_match_a_map(
        ops in prop::collection::vec(op(512), 1..300),
        miss in prop_oneof![Just(0u64), Just(20)],
    ) {
        run(512, miss, ops);
    }

    #[test]
    fn large_pages_match_a_map(ops in prop::collection::vec(op(4096), 1..400)) {
        run(4096, 0, ops);
    }

    #[test]
    fn bulk_built_trees_match_a_map(
        model in model(),
        fill in 50..=100u8,
        ranges in prop::collection::vec((bound(), bound()), 8),
        run_max in 1..40usize,
        miss in prop_oneof![Just(0u64), Just(10)],
    ) {
        let mut store = TestStore::new(512);
        let mut builder = BulkBuilder::new(512, fill);
        for (key, value) in &model {
            let reserve = builder.reserve();
            store.created = 0;
            builder.push(&mut store, key, value_ref(value)).unwrap();
            prop_assert!(store.created <= reserve);
            prop_assert_eq!(builder.push(&mut store, key, ValueRef::Inline(b"")), Err(NotAscending));
        }
        let reserve = builder.reserve();
        store.created = 0;
        let root = builder.finish(&mut store);
        prop_assert!(store.created <= reserve);
        store.freeze();
        store.assert_balanced(&root);
        store.miss_one_in = miss;
        assert_reads(&store, &root, &model);
        assert_ranges(&store, &root, &model, &ranges, run_max);
    }
}
