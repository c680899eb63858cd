//! Bad arguments and handles that outlived their database: each has its error, and nothing else happens.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use support::{block_on, small, watched};
use treering::{Db, Durability, Error, Isolation, Options};

fn in_memory() -> Db {
    Options::new()
        .cache_bytes(4 << 20)
        .open_in_memory()
        .expect("memory for an empty database")
}

#[test]
fn keys_are_neither_empty_nor_longer_than_a_quarter_page() {
    watched(|| {
        for page_bytes in [4096_usize, 16384, 65536] {
            let options = Options::new()
                .page_size(page_bytes)
                .cache_bytes(512 * page_bytes as u64);
            let db = options.open_in_memory().expect("memory for an empty database");
            let client = db.client();
            let tree = client.tree("t").expect("a tree");
            let longest = vec![1; page_bytes / 4];
            let longer = vec![1; page_bytes / 4 + 1];
            tree.put(&longest, b"longest").expect("the longest key");
            assert_eq!(
                tree.get(&longest).expect("a read").expect("the value"),
                b"longest"
            );
            let is_refused = |error: Option<Error>, key: &[u8]| match error {
                Some(Error::KeyEmpty) => key.is_empty(),
                Some(Error::KeyTooLarge { bytes, limit_bytes }) => {
                    bytes == key.len() && limit_bytes == page_bytes / 4
                }
                _ => false,
            };
            for key in [&longer[..], b""] {
                assert!(is_refused(tree.put(key, b"v").err(), key));
                assert!(is_refused(tree.insert(key, b"v").err(), key));
                assert!(is_refused(tree.replace(key, b"v").err(), key));
                assert!(is_refused(tree.get(key).err(), key));
                assert!(is_refused(tree.get_with(key, |_| ()).err(), key));
                assert!(is_refused(tree.get_many(&[&longest[..], key]).err(), key));
                assert!(is_refused(tree.contains(key).err(), key));
                assert!(is_refused(tree.delete(key).err(), key));
                assert!(is_refused(
                    tree.compare_and_swap(key, None, Some(b"v")).err(),
                    key
                ));
                assert!(is_refused(tree.update(key, |_| None).err(), key));
                assert!(is_refused(tree.send_put(key, b"v").err(), key));
                assert!(is_refused(tree.send_get(key).err(), key));
                assert!(is_refused(tree.send_delete(key).err(), key));
                assert!(is_refused(tree.send_update(key, |_| None).err(), key));
                assert!(is_refused(
                    tree.send_batch([(&longest[..], b"v"), (key, b"v")]).err(),
                    key
                ));
                assert!(is_refused(client.snapshot().get(&tree, key).err(), key));
                let mut batch = client.batch();
                batch
                    .put(&tree, b"good", b"v")
                    .put(&tree, key, b"v")
                    .delete(&tree, b"good");
                assert!(is_refused(batch.commit().err(), key));
            }
            // Bounds are not keys: any bytes will do.
            assert_eq!(tree.range(&b""[..]..=&longer[..]).expect("a range").count(), 1);
            assert_eq!(tree.len().expect("a length"), 1, "a refused write happened");
            assert_eq!(
                tree.get(&longest).expect("a read").expect("the value"),
                b"longest"
            );
        }
    });
}

#[test]
fn values_end_at_one_gibibyte() {
    watched(|| {
        let db = in_memory();
        let tree = db.client().tree("t").expect("a tree");
        // Zeros that nobody touches take address space only.
        let oversized = vec![0_u8; (1 << 30) + 1];
        let is_refused = |error: Option<Error>| matches!(error, Some(Error::ValueTooLarge { bytes, limit_bytes }) if bytes == (1 << 30) + 1 && limit_bytes == 1 << 30);
        assert!(is_refused(tree.put(b"k", &oversized).err()));
        assert!(is_refused(tree.send_put(b"k", &oversized).err()));
        assert!(is_refused(
            tree.compare_and_swap(b"k", None, Some(&oversized)).err()
        ));
        assert!(is_refused(tree.send_batch([(b"k", &oversized)]).err()));
        let mut batch = db.client().batch();
        batch.put(&tree, b"k", &oversized);
        assert!(is_refused(batch.commit().err()));
        assert!(tree.is_empty().expect("a length"));
    });
}

#[test]
fn trees_that_are_not_there() {
    watched(|| {
        let db = in_memory();
        let client = db.client();
        assert!(matches!(client.open_tree("none"), Err(Error::TreeNotFound { name }) if name == "none"));
        assert!(matches!(
            client.drop_tree("none"),
            Err(Error::TreeNotFound { .. })
        ));
        client.create_tree("one").expect("a new tree");
        assert!(matches!(client.create_tree("one"), Err(Error::TreeExists { name }) if name == "one"));
        for name in ["", "a\0b", &"x".repeat(1025)] {
            assert!(matches!(client.tree(name), Err(Error::TreeNameInvalid { .. })));
            assert!(matches!(
                client.create_tree(name),
                Err(Error::TreeNameInvalid { .. })
            ));
            assert!(matches!(
                client.open_tree(name),
                Err(Error::TreeNameInvalid { .. })
            ));
        }
        client.tree(&"y".repeat(1024)).expect("the longest name");
        client.tree("Bäume 🌳").expect("any text");

        let dropped = client.tree("dropped").expect("a tree");
        dropped.put(b"k", b"old").expect("a put");
        let snapshot = client.snapshot();
        client.drop_tree("dropped").expect("a drop");
        // What is left of it until its pages are free has a name that nobody can ask for.
        for name in ["\0dropped/1", "\0dropped/2", "\0dropped/3", "\0dropped/4"] {
            assert!(matches!(
                client.snapshot().open_tree(name),
                Err(Error::TreeNameInvalid { .. })
            ));
        }
        let is_gone = |error: Option<Error>| matches!(error, Some(Error::TreeNotFound { .. }));
        assert!(is_gone(dropped.get(b"k").err()));
        assert!(is_gone(dropped.put(b"k", b"v").err()));
        assert!(is_gone(dropped.delete(b"k").err()));
        assert!(is_gone(dropped.range::<&[u8]>(..).err()));
        assert!(is_gone(dropped.len().err()));
        assert!(is_gone(dropped.compare_and_swap(b"k", None, Some(b"v")).err()));
        assert!(is_gone(dropped.update(b"k", |_| None).err()));
        let mut batch = client.batch();
        batch.put(&dropped, b"k", b"v");
        assert!(is_gone(batch.commit().err()));
        assert_eq!(
            snapshot.get(&dropped, b"k").expect("a read").expect("the value"),
            b"old"
        );
        // A tree of the same name is another tree.
        let again = client.tree("dropped").expect("a tree");
        assert_eq!(again.get(b"k").expect("a read"), None);
        assert!(is_gone(dropped.get(b"k").err()));
        assert!(is_gone(snapshot.get(&again, b"k").err()));
    });
}

/// Trees have numbers within their database: one of another database would stand for something else.
#[test]
fn trees_of_another_database_are_refused() {
    watched(|| {
        let (db, other) = (in_memory(), in_memory());
        let client = db.client();
        let tree = client.tree("t").expect("a tree");
        tree.put(b"k", b"v").expect("a put");
        let foreign = other.client().tree("foreign").expect("a tree");
        foreign.put(b"k", b"foreign").expect("a put");
        let is_refused =
            |error: Option<Error>| matches!(error, Some(Error::ForeignTree { name }) if name == "foreign");
        let mut batch = client.batch();
        batch.put(&foreign, b"k", b"w");
        assert!(is_refused(batch.commit().err()));
        let mut batch = client.batch();
        batch.put(&tree, b"k", b"w").delete(&foreign, b"k");
        assert!(is_refused(batch.send().err()));
        let snapshot = client.snapshot();
        assert!(is_refused(snapshot.get(&foreign, b"k").err()));
        assert!(is_refused(snapshot.get_many(&foreign, &[b"k"]).err()));
        assert!(is_refused(snapshot.range(&foreign, ..).err()));
        assert!(is_refused(snapshot.len(&foreign).err()));
        assert!(is_refused(block_on(snapshot.get_async(&foreign, b"k")).err()));
        assert!(is_refused(
            block_on(snapshot.get_many_async(&foreign, &[b"k"])).err()
        ));
        assert!(is_refused(client.diff(&snapshot, &snapshot, &foreign).err()));
        let mut transaction = client.begin(Isolation::Serializable).expect("a transaction");
        assert!(is_refused(transaction.get(&foreign, b"k").err()));
        assert!(is_refused(transaction.range(&foreign, ..).err()));
        assert!(is_refused(transaction.prefix(&foreign, b"k").err()));
        assert!(is_refused(transaction.put(&foreign, b"k", b"w").err()));
        assert!(is_refused(transaction.delete(&foreign, b"k").err()));
        transaction.commit().expect("nothing to commit");
        assert_eq!(tree.get(b"k").expect("a read").expect("the value"), b"v");
        assert_eq!(foreign.get(b"k").expect("a read").expect("the value"), b"foreign");
    });
}

#[test]
fn options_that_make_no_sense() {
    watched(|| {
        let refused = |options: Options| match options.open_in_memory() {
            Err(Error::InvalidOption { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        for bytes in [0, 1000, 2048, 4097, 131_072] {
            assert_eq!(refused(Options::new().page_size(bytes)), "page_size");
        }
        assert_eq!(refused(Options::new().cache_bytes(1)), "cache_bytes");
        assert_eq!(
            refused(Options::new().page_size(65536).cache_bytes(1 << 20)),
            "cache_bytes"
        );
        assert_eq!(refused(Options::new().shards(0)), "shards");
        assert_eq!(
            refused(Options::new().log_segment_bytes(100)),
            "log_segment_bytes"
        );
        assert_eq!(
            refused(Options::new().checkpoint_log_bytes(0)),
            "checkpoint_log_bytes"
        );
        assert_eq!(refused(Options::new().max_dirty_pages(0)), "max_dirty_pages");
    });
}

#[test]
fn closed_handles_say_so() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small().open(directory.path()).expect("an empty directory");
        let client = db.client();
        let tree = client.tree("t").expect("a tree");
        tree.put(b"k", b"v").expect("a put");
        let value = tree.get(b"k").expect("a read").expect("the value");
        let snapshot = client.snapshot();
        let mut range = tree.range::<&[u8]>(..).expect("a range");
        db.clone().close().expect("a clean close");
        let is_closed = |error: Option<Error>| matches!(error, Some(Error::Closed));
        assert!(is_closed(tree.get(b"k").err()));
        assert!(is_closed(tree.get_many(&[b"k"]).err()));
        assert!(is_closed(tree.put(b"k", b"v").err()));
        assert!(is_closed(tree.delete(b"k").err()));
        assert!(is_closed(tree.range::<&[u8]>(..).err()));
        assert!(is_closed(tree.len().err()));
        assert!(is_closed(tree.update(b"k", |_| None).err()));
        assert!(is_closed(tree.compare_and_swap(b"k", None, None).err()));
        assert!(is_closed(tree.send_put(b"k", b"v").err()));
        assert!(is_closed(tree.send_batch([(b"k", b"v")]).err()));
        assert!(is_closed(snapshot.get(&tree, b"k").err()));
        assert!(is_closed(client.open_tree("t").err()));
        assert!(is_closed(client.tree_names().err()));
        assert!(is_closed(client.drop_tree("t").err()));
        assert!(is_closed(db.flush().err()));
        assert!(is_closed(db.checkpoint().err()));
        let mut batch = client.batch();
        batch.put(&tree, b"k", b"v");
        assert!(is_closed(batch.commit().err()));
        // An open range may still hand out what it holds; it ends or says that the database is closed.
        assert!(
            range
                .by_ref()
                .all(|item| item.is_ok() || matches!(item, Err(Error::Closed)))
        );
        assert_eq!(value, b"v", "values belong to the user");
        let _ = db.stats();
        db.clone().close().expect("closing twice is no mistake");
        // All handles still live, and yet the directory is free.
        let again = small().open(directory.path()).expect("the directory is free");
        assert_eq!(
            again
                .client()
                .open_tree("t")
                .expect("a tree")
                .get(b"k")
                .expect("a read")
                .expect("the value"),
            b"v"
        );
    });
}

#[test]
fn tickets_and_futures_may_be_dropped() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small().open(directory.path()).expect("an empty directory");
        let tree = db
            .client()
            .tree("t")
            .expect("a tree")
            .with_durability(Durability::Buffered);
        for number in 0..5_000_u32 {
            drop(
                tree.send_put(number.to_be_bytes(), number.to_le_bytes())
                    .expect("sent"),
            );
            if number % 3 == 0 {
                // Polled once, and left.
                let mut future = pin!(tree.send_get(number.to_be_bytes()).expect("sent"));
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    assert_eq!(value.expect("a read").expect("the value"), number.to_le_bytes());
                }
            }
        }
        db.close().expect("a clean close");
        let db = small().open(directory.path()).expect("the directory is free");
        let tree = db.client().open_tree("t").expect("a tree");
        assert_eq!(
            tree.len().expect("a length"),
            5_000,
            "what was sent is carried out, ticket or not"
        );
        let _ = tree.range::<&[u8]>(..).expect("a range").next();
    });
}

#[test]
fn a_panicking_closure_harms_nobody_else() {
    watched(|| {
        let db = in_memory();
        let tree = db.client().tree("t").expect("a tree");
        tree.put(b"small", b"1").expect("a put");
        tree.put(b"large", vec![7; 50_000]).expect("a put");
        let is_told = |error: Option<Error>| matches!(error, Some(Error::ClosurePanicked));
        for key in [&b"small"[..], b"large", b"absent"] {
            assert!(is_told(tree.update(key, |_| panic!("planted")).err()));
            assert_eq!(tree.get(b"small").expect("a read").expect("the value"), b"1");
        }
        assert!(is_told(
            tree.send_update(b"small", |_| panic!("planted"))
                .expect("sent")
                .wait()
                .err()
        ));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tree.get_with(b"small", |_| panic!("planted"))
        }));
        assert!(panicked.is_err());
        assert_eq!(
            tree.get(b"large").expect("a read").expect("the value"),
            vec![7; 50_000]
        );
        tree.update(b"small", |old| old.map(|old| [old, b"2"].concat()))
            .expect("an update");
        assert_eq!(tree.get(b"small").expect("a read").expect("the value"), b"12");
        assert_eq!(tree.len().expect("a length"), 2);
        db.close().expect("a clean close");
    });
}

#[test]
fn closing_under_busy_threads() {
    watched(|| {
        for round in 0..6_u64 {
            let directory = tempfile::tempdir().expect("a directory");
            let db = small().open(directory.path()).expect("an empty directory");
            let durability = if round % 2 == 0 {
                Durability::Sync
            } else {
                Durability::Buffered
            };
            let tree = db.client().tree("t").expect("a tree").with_durability(durability);
            let started = AtomicBool::new(false);
            let acknowledged = std::thread::scope(|scope| {
                let mut writers = Vec::new();
                for thread in 0..3_u64 {
                    let (tree, started) = (&tree, &started);
                    writers.push(scope.spawn(move || {
                        let mut number = 0_u64;
                        loop {
                            let key = [thread.to_be_bytes(), number.to_be_bytes()].concat();
                            match tree.put(key, [1; 300]) {
                                Ok(()) => number += 1,
                                Err(Error::Closed) => return (thread, number),
                                Err(error) => panic!("{error:?}"),
                            }
                            started.store(number > 50 || started.load(Ordering::Relaxed), Ordering::Relaxed);
                        }
                    }));
                }
                for reader in 0..2_u64 {
                    let tree = &tree;
                    scope.spawn(move || {
                        loop {
                            let found = match reader {
                                0 => tree.get([0; 16]).map(drop),
                                _ => tree
                                    .range::<&[u8]>(..)
                                    .and_then(|mut range| range.try_for_each(|item| item.map(drop))),
                            };
                            match found {
                                Ok(()) => {}
                                Err(Error::Closed) => return,
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                    });
                }
                while !started.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                db.clone().close().expect("a clean close");
                writers
                    .into_iter()
                    .map(|writer| writer.join().expect("a writer"))
                    .collect::<Vec<_>>()
            });
            let db = small().open(directory.path()).expect("the directory is free");
            let tree = db.client().open_tree("t").expect("a tree");
            for (thread, count) in acknowledged {
                let prefix = thread.to_be_bytes();
                let found = tree.prefix(prefix).expect("a range").count() as u64;
                // The write that was refused may still have been carried out before the end.
                assert!(
                    (count..=count + 1).contains(&found),
                    "thread {thread}: {found} of {count}"
                );
            }
        }
    });
}
