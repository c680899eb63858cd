//! What waits, as futures: reads beyond the cache, futures that are dropped at any moment, opening and closing.

mod support;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use support::{block_on, small, watched};
use treering::{Durability, Error, Options, Tree};

const RECORDS: u32 = 6_000;

fn value(number: u32) -> Vec<u8> {
    [number.to_le_bytes(); 100].concat()
}

/// More records than the cache holds, a large value among them.
fn fill(tree: &Tree) {
    let tree = tree.with_durability(Durability::Buffered);
    for number in 0..RECORDS {
        tree.put(number.to_be_bytes(), value(number)).expect("a put");
    }
    tree.put(b"large", vec![7; 3_000_000]).expect("a put");
}

#[test]
fn reads_await_what_is_not_in_memory() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small().open(directory.path()).expect("an empty directory");
        let client = db.client();
        let tree = block_on(client.tree_async("t")).expect("a new tree");
        assert_eq!(block_on(client.tree_async("t")).expect("an old tree").name(), "t");
        assert!(matches!(
            block_on(client.create_tree_async("t")),
            Err(Error::TreeExists { .. })
        ));
        fill(&tree);
        let snapshot = client.snapshot();
        tree.delete(0_u32.to_be_bytes()).expect("a delete");
        for number in (1..RECORDS).rev().step_by(7) {
            let found = block_on(tree.get_async(number.to_be_bytes())).expect("a read");
            assert_eq!(found.expect("the value"), value(number));
        }
        let mut once = tree.get_async(b"none");
        assert_eq!(block_on(&mut once).expect("a read"), None);
        assert!(
            matches!(block_on(once), Err(Error::Closed)),
            "a result is handed out once"
        );
        assert_eq!(
            block_on(tree.get_async(0_u32.to_be_bytes())).expect("a read"),
            None
        );
        let old = block_on(snapshot.get_async(&tree, 0_u32.to_be_bytes())).expect("a read");
        assert_eq!(old.expect("the old value"), value(0));
        let large = block_on(tree.get_async(b"large"))
            .expect("a read")
            .expect("the value");
        assert!(large.len() == 3_000_000 && large.iter().all(|byte| *byte == 7));
        let keys: Vec<[u8; 4]> = (0..RECORDS).step_by(11).map(u32::to_be_bytes).collect();
        let found = block_on(tree.get_many_async(&keys)).expect("reads");
        let before = block_on(snapshot.get_many_async(&tree, &keys)).expect("reads");
        assert_eq!(
            (found[0].as_deref(), before[0].as_deref()),
            (None, Some(&value(0)[..]))
        );
        for (number, found) in (0..RECORDS).step_by(11).zip(found).skip(1) {
            assert_eq!(found.expect("the value"), value(number));
        }
        for bad in [&b""[..], &[0; 2000]] {
            assert!(block_on(tree.get_async(bad)).is_err());
            assert!(block_on(tree.get_many_async(&[bad])).is_err());
        }
        assert!(db.stats().misses > 100, "they were not all in memory");
    });
}

#[test]
fn ranges_await_what_is_not_in_memory() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small().open(directory.path()).expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        fill(&tree);
        let expected: Vec<_> = tree
            .range(..)
            .expect("a range")
            .map(|item| item.expect("an entry"))
            .collect();
        assert_eq!(expected.len() as u32, RECORDS + 1);
        let mut context = Context::from_waker(Waker::noop());
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let mut range = tree.range(..).expect("a range");
        for number in 0_u32.. {
            if number % 50 == 0 {
                // Asked, perhaps not answered, and left. What was answered counts.
                let mut future = Box::pin(range.next_async());
                if let Poll::Ready(Some(item)) = future.as_mut().poll(&mut context) {
                    front.push(item.expect("an entry"));
                }
            }
            let (side, item) = if number % 3 == 0 {
                (&mut back, block_on(range.next_back_async()))
            } else {
                (&mut front, block_on(range.next_async()))
            };
            match item {
                Some(item) => side.push(item.expect("an entry")),
                None => break,
            }
        }
        assert!(block_on(range.next_async()).is_none());
        front.extend(back.into_iter().rev());
        assert!(front == expected, "entries are missing, or out of order");
        let mut range = tree.range(..).expect("a range");
        db.close().expect("a clean close");
        while let Some(item) = block_on(range.next_async()) {
            if let Err(error) = item {
                assert!(matches!(error, Error::Closed), "{error}");
                assert!(block_on(range.next_async()).is_none(), "an error ends the range");
                return;
            }
        }
        panic!("a range went on after the end");
    });
}

#[test]
fn futures_that_are_dropped_hold_nothing() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small().open(directory.path()).expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        fill(&tree);
        // 256 frames: a few hundred holds that nobody gives back would be all of them.
        let mut context = Context::from_waker(Waker::noop());
        let mut pending = 0;
        for number in 0..RECORDS {
            let mut future = tree.get_async((number * 7 % RECORDS).to_be_bytes());
            for _ in 0..number % 4 {
                match Pin::new(&mut future).poll(&mut context) {
                    Poll::Ready(found) => {
                        assert!(found.expect("a read").is_some());
                        break;
                    }
                    Poll::Pending => pending += 1,
                }
                if number % 3 == 0 {
                    std::thread::yield_now();
                }
            }
        }
        assert!(pending > 500, "{pending}");
        for number in 0..RECORDS {
            tree.with_durability(Durability::Buffered)
                .put(number.to_be_bytes(), value(number + 1))
                .expect("frames are to be had");
        }
        for number in 0..RECORDS {
            let found = tree.get(number.to_be_bytes()).expect("a read");
            assert_eq!(found.expect("the value"), value(number + 1));
        }
        db.close().expect("a clean close");
    });
}

#[test]
fn opening_closing_and_what_races_with_it() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let db = block_on(small().open_async(&path)).expect("a new database");
        assert!(matches!(
            block_on(small().open_async(&path)),
            Err(Error::AlreadyOpen { .. })
        ));
        assert!(matches!(
            block_on(Options::new().shards(0).open_async(&path)),
            Err(Error::InvalidOption { .. })
        ));
        let tree = db.client().tree("t").expect("a tree");
        fill(&tree);
        db.create_named_snapshot("now").expect("a snapshot");
        block_on(db.drop_named_snapshot_async("now")).expect("it is there");
        block_on(db.create_named_snapshot_async("later")).expect("a snapshot");
        block_on(db.backup_async(directory.path().join("copy"))).expect("a backup");
        let reads: Vec<_> = (0..500_u32)
            .map(|number| tree.get_async((number * 11).to_be_bytes()))
            .collect();
        let closing = db.close_async();
        for read in reads {
            match block_on(read) {
                Ok(found) => assert!(found.is_some()),
                Err(Error::Closed) => {}
                Err(error) => panic!("{error}"),
            }
        }
        block_on(closing).expect("a clean close");
        assert!(matches!(block_on(tree.get_async(b"large")), Err(Error::Closed)));
        // A future of an opening that nobody waits for opens all the same, and closes.
        drop(small().open_async(&path));
        let again = loop {
            match small().open(&path) {
                Err(Error::AlreadyOpen { .. }) => std::thread::yield_now(),
                other => break other.expect("a database"),
            }
        };
        assert_eq!(
            again
                .client()
                .open_tree("t")
                .expect("a tree")
                .len()
                .expect("a length"),
            u64::from(RECORDS) + 1
        );
    });
}
