//! How trees look after typical workloads: how full, how high, how much is written anew.

use std::ops::{Bound, ControlFlow};

use super::test_store::TestStore;
use super::{Bounds, BulkBuilder, Cursor, Diff, Miss, Root, Summary, check, delete, get_many, put, warm};
use crate::ids::PageRef;
use crate::page::ValueRef;

const PAGE_BYTES: usize = 4096;
const KEY_BYTES: usize = 24;
const VALUE_BYTES: usize = 150;
const EVERYTHING: Bounds<'static> = (Bound::Unbounded, Bound::Unbounded);

/// A number's scrambled bits: random keys that are the same in every run.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)
}

fn random_key(number: u64) -> Vec<u8> {
    [mix(number), mix(number + (1 << 40)), number]
        .iter()
        .flat_map(|part| part.to_be_bytes())
        .collect()
}

fn ascending_key(number: u64) -> Vec<u8> {
    format!("record/{number:017}").into_bytes()
}

fn put_all(store: &mut TestStore, root: &mut Root, keys: impl Iterator<Item = Vec<u8>>, value_bytes: usize) {
    let value = vec![b'v'; value_bytes];
    for (number, key) in keys.enumerate() {
        assert_eq!(key.len(), KEY_BYTES);
        put(store, root, &key, ValueRef::Inline(&value)).expect("resident");
        if number % 64 == 63 {
            store.freeze();
            store.discard_retired();
        }
    }
}

fn filled(count: u64, key_of: impl Fn(u64) -> Vec<u8>) -> (TestStore, Root) {
    let mut store = TestStore::new(PAGE_BYTES);
    let mut root = Root::default();
    put_all(&mut store, &mut root, (0..count).map(key_of), VALUE_BYTES);
    (store, root)
}

fn summary(store: &TestStore, root: &Root) -> Summary {
    check(store, root, |_, _| {}).expect("sound")
}

/// Bytes of all pages for each byte of keys and values.
fn overhead(summary: &Summary, value_bytes: usize) -> f64 {
    let pages = (summary.leaves + summary.inner_nodes) as f64;
    pages * PAGE_BYTES as f64 / (summary.entries as f64 * (KEY_BYTES + value_bytes) as f64)
}

#[test]
fn random_insertions_fill_pages_well() {
    let (store, root) = filled(30_000, random_key);
    let overhead = overhead(&summary(&store, &root), VALUE_BYTES);
    assert!(overhead < 1.3, "{overhead}");
}

#[test]
fn ascending_and_descending_insertions_leave_full_pages_behind() {
    for descending in [false, true] {
        let count = 20_000;
        let (store, root) = filled(count, |number| {
            ascending_key(if descending { count - number } else { number })
        });
        let summary = summary(&store, &root);
        let fill = summary.leaf_bytes_used as f64 / (summary.leaves * PAGE_BYTES as u64) as f64;
        assert!(fill > 0.95, "descending {descending}: {fill}");
    }
}

#[test]
fn several_ascending_streams_leave_full_pages_behind() {
    let (store, root) = filled(20_000, |number| {
        format!("stream{:02}/{:015}", mix(number) % 8, number).into_bytes()
    });
    let overhead = overhead(&summary(&store, &root), VALUE_BYTES);
    assert!(overhead < 1.1, "{overhead}");
}

#[test]
fn what_deletions_leave_is_merged() {
    let (mut store, mut root) = filled(20_000, random_key);
    for number in 0..18_000 {
        assert_eq!(delete(&mut store, &mut root, &random_key(number)), Ok(true));
    }
    let left = summary(&store, &root);
    assert!(overhead(&left, VALUE_BYTES) < 2.6, "{left:?}");
}

#[test]
fn what_shorter_values_leave_is_merged() {
    let (mut store, mut root) = filled(20_000, random_key);
    put_all(&mut store, &mut root, (0..20_000).map(random_key), 4);
    let left = summary(&store, &root);
    assert!(overhead(&left, 4) < 2.6, "{left:?}");
}

#[test]
fn bulk_building_fills_as_asked() {
    for percent in [60, 90, 100] {
        let mut store = TestStore::new(PAGE_BYTES);
        let mut builder = BulkBuilder::new(PAGE_BYTES, percent);
        for number in 0..20_000 {
            builder
                .push(
                    &mut store,
                    &ascending_key(number),
                    ValueRef::Inline(&[7; VALUE_BYTES]),
                )
                .expect("ascending");
        }
        let root = builder.finish(&mut store);
        let summary = summary(&store, &root);
        let fill = summary.leaf_bytes_used as f64 * 100.0 / (summary.leaves * PAGE_BYTES as u64) as f64;
        let wanted = f64::from(percent);
        assert!(fill <= wanted && fill > wanted - 5.0, "{fill} of {percent}");
    }
}

#[test]
fn a_full_leaf_before_an_ascending_run_is_not_copied() {
    let (mut store, mut root) = filled(22, ascending_key);
    store.freeze();
    let before = root;
    let mut copied = usize::MAX;
    for number in 22..60 {
        store.created = 0;
        put(
            &mut store,
            &mut root,
            &ascending_key(number),
            ValueRef::Inline(&[1; VALUE_BYTES]),
        )
        .expect("resident");
        if root.height > before.height {
            copied = store.created;
            break;
        }
        store.freeze();
    }
    // The new leaf and the new root.
    assert_eq!(copied, 2);
}

#[test]
fn comparing_versions_reads_what_changed_only() {
    let (mut store, mut root) = filled(20_000, random_key);
    store.freeze();
    let old = root;
    for number in 0..10 {
        put(
            &mut store,
            &mut root,
            &random_key(number * 1999),
            ValueRef::Inline(b"changed"),
        )
        .expect("resident");
    }
    store.lookups.set(0);
    let mut changed = 0;
    let mut diff = Diff::new(old, root);
    while diff
        .next_run(&store, |difference| {
            assert_eq!(difference.new, Some(ValueRef::Inline(b"changed")));
            assert_eq!(difference.old, Some(ValueRef::Inline(&[b'v'; VALUE_BYTES])));
            changed += 1;
            ControlFlow::Continue(())
        })
        .expect("resident")
    {}
    assert_eq!(changed, 10);
    let summary = summary(&store, &root);
    assert!(summary.leaves > 900, "{summary:?}");
    // Some lookups for every entry of ten pairs of leaves, and two for every child of few inner nodes.
    let lookups = store.lookups.get();
    assert!(lookups < 10 * 2 * 25 * 4 + 2 * 1200, "{lookups}");
}

/// A tree that was cut into partitions, or joined, since: the comparison doesn't see where.
#[test]
fn partitions_are_compared_like_one_tree() {
    let keys: Vec<Vec<u8>> = (0..4_000).map(ascending_key).collect();
    let mut store = TestStore::new(PAGE_BYTES);
    let mut grow = |keys: &[Vec<u8>], value: &[u8]| {
        let mut root = Root::default();
        for key in keys {
            put(&mut store, &mut root, key, ValueRef::Inline(value)).expect("resident");
        }
        store.freeze();
        root
    };
    let whole = grow(&keys[..3_000], b"same");
    let empty = Root::default();
    let parts: Vec<(std::sync::Arc<[u8]>, Root)> = vec![
        (std::sync::Arc::from([]), empty),
        (std::sync::Arc::from(&keys[10][..]), grow(&keys[10..700], b"same")),
        (
            std::sync::Arc::from(&keys[700][..]),
            grow(&keys[700..720], b"other"),
        ),
        (std::sync::Arc::from(&keys[720][..]), empty),
        (
            std::sync::Arc::from(&keys[800][..]),
            grow(&keys[800..4_000], b"same"),
        ),
    ];
    let one = vec![(std::sync::Arc::from([]), whole)];
    let changed: Vec<Vec<u8>> = [0..10, 700..800, 3_000..4_000]
        .into_iter()
        .flat_map(|range| keys[range].to_vec())
        .collect();
    for (old, new) in [(one.clone(), parts.clone()), (parts.clone(), one)] {
        let mut found = Vec::new();
        let mut diff = Diff::of_parts(old, new);
        while diff
            .next_run(&store, |difference| {
                found.push(difference.key.to_vec());
                ControlFlow::Continue(())
            })
            .expect("resident")
        {}
        assert_eq!(found, changed);
    }
    let mut itself = Diff::of_parts(parts.clone(), parts);
    let mut seen = 0;
    while itself
        .next_run(&store, |_| {
            seen += 1;
            ControlFlow::Continue(())
        })
        .expect("resident")
    {}
    assert_eq!(seen, 0);
}

#[test]
fn a_cursor_tells_which_leaves_come_next() {
    let (store, root) = filled(500, random_key);
    let mut leaves = Vec::new();
    check(&store, &root, |reference, page| {
        if crate::page::level(page) == 0 {
            leaves.push(reference);
        }
    })
    .expect("sound");
    let mut cursor = Cursor::ascending(root);
    let mut upcoming: Vec<PageRef> = Vec::new();
    cursor.upcoming(&store, 3, &mut upcoming);
    assert!(upcoming.is_empty(), "nothing is known before the first step");
    cursor
        .next_run(&store, EVERYTHING, |_, _| ControlFlow::Continue(()))
        .expect("resident");
    cursor.upcoming(&store, 3, &mut upcoming);
    assert_eq!(upcoming, leaves[1..4]);

    let mut cursor = Cursor::descending(root);
    cursor
        .next_run(&store, EVERYTHING, |_, _| ControlFlow::Break(()))
        .expect("resident");
    upcoming.clear();
    cursor.upcoming(&store, 2, &mut upcoming);
    leaves.reverse();
    assert_eq!(upcoming, leaves[1..3]);
}

#[test]
fn the_end_of_a_scan_can_be_moved_while_it_goes_on() {
    let (store, root) = filled(100, ascending_key);
    let mut cursor = Cursor::ascending(root);
    let mut seen = 0;
    let mut step = |cursor: &mut Cursor, upper: Bound<&[u8]>| {
        cursor.next_run(&store, (Bound::Unbounded, upper), |_, _| {
            seen += 1;
            if seen == 5 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    };
    assert_eq!(step(&mut cursor, Bound::Unbounded), Ok(true));
    let end = ascending_key(7);
    assert_eq!(step(&mut cursor, Bound::Excluded(&end)), Ok(false));
    assert!(cursor.is_finished());
    assert_eq!(seen, 7);
}

#[test]
fn lookups_side_by_side_report_every_miss() {
    let (mut store, root) = filled(300, random_key);
    let keys: Vec<Vec<u8>> = (0..310).map(random_key).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let mut out = vec![Ok(None); keys.len()];
    get_many(&store, &root, &keys, &mut out);
    assert!(
        out[..300]
            .iter()
            .all(|found| *found == Ok(Some(ValueRef::Inline(&[b'v'; VALUE_BYTES]))))
    );
    assert!(out[300..].iter().all(|found| *found == Ok(None)));

    store.miss_one_in = 1;
    let mut out = vec![Ok(None); keys.len()];
    get_many(&store, &root, &keys, &mut out);
    assert!(out.iter().all(|found| *found == Err(Miss(root.reference))));
    let mut missing = Vec::new();
    warm(&store, &root, &keys[..20], &mut missing);
    assert_eq!(missing, [Miss(root.reference); 20]);
}
