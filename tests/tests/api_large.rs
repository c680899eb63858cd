//! Large values, which lie outside the trees, in every operation that meets them: at the owner too.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use support::{block_on, in_memory, small, watched};
use treering::{Durability, Error};

/// Recognisable bytes, several pages of them.
fn large(seed: u8) -> Vec<u8> {
    (0..50_000_u32 + u32::from(seed))
        .map(|number| (number as u8).wrapping_mul(seed | 1))
        .collect()
}

#[test]
fn gets_at_the_owner_see_what_was_sent_before() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small()
            .durability(Durability::Buffered)
            .open(directory.path())
            .expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        let mut gets = Vec::new();
        for round in 0..40_u8 {
            let value = if round % 3 == 0 { vec![round] } else { large(round) };
            let _put = tree.send_put(b"k", &value).expect("sent");
            gets.push((tree.send_get(b"k").expect("sent"), Some(value)));
            if round % 5 == 0 {
                let _delete = tree.send_delete(b"k").expect("sent");
                gets.push((tree.send_get(b"k").expect("sent"), None));
            }
        }
        for (number, (get, expected)) in gets.into_iter().enumerate() {
            let found = if number % 2 == 0 {
                block_on(get)
            } else {
                get.wait()
            };
            assert_eq!(found.expect("a read").as_deref(), expected.as_deref());
        }
    });
}

#[test]
fn updates_of_large_values_are_atomic_and_ordered() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small().open(directory.path()).expect("an empty directory");
        let tree = db
            .client()
            .tree("t")
            .expect("a tree")
            .with_durability(Durability::Buffered);
        // The value grows past a leaf's limit and shrinks again, one byte a time, from several threads.
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let tree = &tree;
                scope.spawn(move || {
                    let grow = move |old: Option<&[u8]>| {
                        let mut value = old.unwrap_or_default().to_vec();
                        value.extend(vec![thread; 100]);
                        Some(value)
                    };
                    let mut tickets = Vec::new();
                    for round in 0..50 {
                        if round % 2 == 0 {
                            tree.update(b"k", grow).expect("an update");
                        } else {
                            tickets.push(tree.send_update(b"k", grow).expect("sent"));
                        }
                    }
                    for ticket in tickets {
                        ticket.wait().expect("an update");
                    }
                });
            }
        });
        let value = tree.get(b"k").expect("a read").expect("the value");
        assert_eq!(value.len(), 4 * 50 * 100, "an update was lost");
        assert!(
            value
                .chunks(100)
                .all(|chunk| chunk.iter().all(|byte| *byte == chunk[0]))
        );
        // From large to small, to nothing, and back.
        tree.update(b"k", |old| old.map(|old| old[..10].to_vec()))
            .expect("an update");
        assert_eq!(tree.get(b"k").expect("a read").expect("the value").len(), 10);
        tree.update(b"k", |_| Some(large(3))).expect("an update");
        tree.update(b"k", |old| (old != Some(&large(3)[..])).then(Vec::new))
            .expect("an update");
        assert_eq!(tree.get(b"k").expect("a read"), None);
        tree.update(b"k", |old| old.is_none().then(|| large(4)))
            .expect("an update");
        db.close().expect("a clean close");
        let db = small().open(directory.path()).expect("the directory is free");
        let tree = db.client().open_tree("t").expect("a tree");
        assert_eq!(tree.get(b"k").expect("a read").expect("the value"), large(4));
    });
}

#[test]
fn swaps_compare_large_values_as_a_whole() {
    watched(|| {
        let (_db, tree) = in_memory(16 << 20);
        let swap = |expected: Option<&[u8]>, new: Option<&[u8]>| {
            let waited = tree.compare_and_swap(b"k", expected, new).expect("a swap");
            waited.map_err(|found| found.map(|value| value.to_vec()))
        };
        assert_eq!(swap(Some(&large(1)), Some(b"x")), Err(None));
        assert_eq!(swap(None, Some(&large(1))), Ok(()));
        assert_eq!(swap(None, Some(b"x")), Err(Some(large(1))));
        let mut other = large(1);
        *other.last_mut().expect("bytes") ^= 1;
        assert_eq!(swap(Some(&other), Some(b"x")), Err(Some(large(1))));
        assert_eq!(swap(Some(b"small"), Some(&large(2))), Err(Some(large(1))));
        assert_eq!(swap(Some(&large(1)), Some(&large(2))), Ok(()));
        assert_eq!(swap(Some(&large(2)), Some(b"small")), Ok(()));
        assert_eq!(swap(Some(&large(2)), None), Err(Some(b"small".to_vec())));
        let sent = [
            tree.send_compare_and_swap(b"k", Some(b"small"), Some(&large(5))),
            tree.send_compare_and_swap(b"k", Some(&large(5)), None),
            tree.send_compare_and_swap(b"k", None, Some(&large(6))),
        ];
        for ticket in sent {
            assert_eq!(ticket.expect("sent").wait().expect("a swap"), Ok(()));
        }
        assert_eq!(tree.get(b"k").expect("a read").expect("the value"), large(6));
    });
}

#[test]
fn what_a_closure_makes_has_the_limits_of_any_value() {
    watched(|| {
        let (_db, tree) = in_memory(4 << 20);
        tree.put(b"k", large(1)).expect("a put");
        // Zeros that nobody touches take address space only.
        let refused = tree.update(b"k", |_| Some(vec![0; (1 << 30) + 1]));
        assert!(matches!(
            refused,
            Err(Error::ValueTooLarge { bytes, .. }) if bytes == (1 << 30) + 1
        ));
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let panicked = tree.update(b"k", move |old| {
            counted.fetch_add(1, Ordering::SeqCst);
            assert!(old.is_none(), "planted");
            None
        });
        assert!(matches!(panicked, Err(Error::ClosurePanicked)));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(tree.get(b"k").expect("a read").expect("the value"), large(1));
    });
}

#[test]
fn space_of_values_that_were_replaced_is_used_again() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small().open(directory.path()).expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        let value = vec![7; 1 << 20];
        let made = value.clone();
        tree.put(b"k", &value).expect("a put");
        for round in 0..60_u8 {
            let mut made = made.clone();
            made[0] = round;
            match round % 3 {
                0 => tree.update(b"k", move |_| Some(made.clone())).expect("an update"),
                1 => {
                    let old = tree.get(b"k").expect("a read").expect("the value");
                    let swapped = tree.compare_and_swap(b"k", Some(&old), Some(&made));
                    swapped.expect("a swap").expect("the value");
                }
                _ => {
                    let refused = tree.compare_and_swap(b"k", None, Some(&made));
                    refused.expect("a swap").expect_err("a value is there");
                }
            }
        }
        db.checkpoint().expect("a checkpoint");
        let stats = db.stats();
        let bytes = stats.file_pages * stats.page_bytes;
        assert!(bytes < 16 << 20, "{bytes} bytes for a value of one mebibyte");
    });
}
