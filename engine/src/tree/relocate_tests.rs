//! Relocation keeps content and versions, and leaves nothing high.

use std::ops::{Bound, ControlFlow};

use super::test_store::TestStore;
use super::{Cursor, RELOCATED_LEAVES_MAX, Root, put, relocate, reserve_for};
use crate::ids::PageId;
use crate::page::ValueRef;

fn contents(store: &TestStore, root: &Root) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut cursor = Cursor::ascending(*root);
    while cursor
        .next_run(store, (Bound::Unbounded, Bound::Unbounded), |key, _| {
            found.push(key.to_vec());
            ControlFlow::Continue(())
        })
        .expect("resident")
    {}
    found
}

/// A tree in the upper half of the ids, and the lower half free.
fn high_tree(count: u32, miss_one_in: u64) -> (TestStore, Root, PageId) {
    let mut store = TestStore::new(512);
    let mut filler = Root::default();
    let mut root = Root::default();
    let key = |number: u32| number.wrapping_mul(0x9E37_79B9).to_be_bytes();
    // Larger, since paths may be copied more than once.
    for number in 0..2 * count + 100 {
        put(&mut store, &mut filler, &key(number), ValueRef::Inline(&[1; 30])).expect("resident");
    }
    store.freeze();
    store.discard_retired();
    let below = store.highest().0 + 1;
    for number in 0..count {
        put(&mut store, &mut root, &key(number), ValueRef::Inline(&[2; 30])).expect("resident");
    }
    store.freeze();
    store.discard_retired();
    for id in store.reachable(&filler) {
        store.forget(id);
    }
    store.miss_one_in = miss_one_in;
    (store, root, PageId(below))
}

#[test]
fn everything_goes_below_and_older_versions_stay() {
    for count in [1, 5, 40, 1_500] {
        for miss_one_in in [0, 5] {
            let (mut store, mut root, below) = high_tree(count, miss_one_in);
            let old = root;
            let before = store.without_misses(|store| contents(store, &old));
            let mut from = Vec::new();
            let mut steps = 0;
            loop {
                store.created = 0;
                let Ok(done) = relocate(&mut store, &mut root, &from, below) else {
                    assert_eq!(store.created, 0, "a miss changes nothing");
                    continue;
                };
                assert_eq!(done.nodes, store.created);
                assert!(store.created <= reserve_for(root.height) + RELOCATED_LEAVES_MAX);
                steps += 1;
                if steps % 3 == 0 {
                    store.freeze();
                }
                match done.next {
                    None => break,
                    Some(next) => {
                        assert!(next > from, "the walk goes on");
                        from = next;
                    }
                }
            }
            store.without_misses(|store| {
                assert_eq!(contents(store, &root), before);
                assert_eq!(contents(store, &old), before, "an older version");
                // What was copied twice, because its batch had ended, may lie anywhere where there was room.
                let high = store
                    .reachable(&root)
                    .into_iter()
                    .filter(|id| *id >= below)
                    .count();
                assert_eq!(high, 0, "{count} keys");
                store.reclaim(&[root]);
                store.assert_balanced(&root);
            });
        }
    }
}

#[test]
fn what_lies_low_is_neither_read_nor_copied() {
    let (mut store, mut root, _) = high_tree(3_000, 0);
    let mut from = Vec::new();
    store.lookups.set(0);
    store.created = 0;
    let mut steps = 0;
    while let Some(next) = relocate(&mut store, &mut root, &from, PageId(u32::MAX))
        .expect("resident")
        .next
    {
        from = next;
        steps += 1;
    }
    assert_eq!(store.created, 0);
    let height = usize::from(root.height);
    assert!(
        store.lookups.get() <= (steps + 1) * (height - 1),
        "leaves are not looked at"
    );
}
