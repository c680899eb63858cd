//! Runs that once went wrong, through the public interface.

#![expect(
    clippy::disallowed_methods,
    reason = "real threads are what these tests are about"
)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use support::{copy_files, options};
use treering::{Durability, Error};

/// Trees remember their shard; an opening may have fewer.
#[test]
fn trees_of_many_shards_are_opened_with_one() {
    let directory = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..8).map(|number| format!("tree {number}")).collect();
    {
        let db = options().shards(4).open(directory.path()).unwrap();
        for name in &names {
            db.client().tree(name).unwrap().put(b"name", name).unwrap();
        }
        db.close().unwrap();
    }
    for shards in [1, 3] {
        let db = options().shards(shards).open(directory.path()).unwrap();
        for name in &names {
            let tree = db.client().open_tree(name).unwrap();
            assert_eq!(tree.get(b"name").unwrap().unwrap(), name.as_bytes());
            tree.put(b"shards", [shards as u8]).unwrap();
        }
        db.close().unwrap();
    }
}

/// A small tree is reclaimed in the step that drops it; writes came in before that was published.
#[test]
fn a_tree_is_dropped_while_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    for round in 0..30 {
        let tree = db.client().create_tree("short-lived").unwrap();
        tree.put(b"first", [round]).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..2u8 {
                let tree = tree.with_durability(Durability::Buffered);
                scope.spawn(move || {
                    loop {
                        match tree.put([b'k', writer], b"value") {
                            Ok(()) => {}
                            Err(Error::TreeNotFound { .. }) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            let client = db.client();
            let second = scope.spawn(move || client.drop_tree("short-lived"));
            let first = db.client().drop_tree("short-lived");
            let second = second.join().unwrap();
            assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        });
    }
    db.client()
        .tree("another")
        .unwrap()
        .put(b"still", b"alive")
        .unwrap();
    db.close().unwrap();
}

/// Writers that come too late are refused, and none waits for ever.
#[test]
fn a_database_is_closed_under_its_writers() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let db = options().open(directory.path()).unwrap();
        let tree = db.client().tree("t").unwrap();
        let begun = AtomicBool::new(false);
        let written = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3u8)
                .map(|writer| {
                    let tree = tree.with_durability(Durability::Buffered);
                    let begun = &begun;
                    scope.spawn(move || {
                        let mut written = 0u32;
                        while tree
                            .put([&[writer], &written.to_be_bytes()[..]].concat(), b"value")
                            .is_ok()
                        {
                            written += 1;
                            begun.store(true, Ordering::Relaxed);
                        }
                        written
                    })
                })
                .collect();
            while !begun.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            db.close().unwrap();
            writers
                .into_iter()
                .map(|writer| u64::from(writer.join().unwrap()))
                .sum::<u64>()
        });
        drop(tree);
        let db = options().open(directory.path()).unwrap();
        let found = db.client().open_tree("t").unwrap().len().unwrap();
        // What was under way when closing began may be there without having been acknowledged.
        assert!(found >= written, "{found} of {written} are there");
        db.close().unwrap();
    }
}

/// What replay creates in a new tree must become evictable while it goes on.
#[test]
fn a_large_new_tree_is_replayed_in_a_small_cache() {
    let directory = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let db = options()
        .checkpoint_log_bytes(64 << 20)
        .max_dirty_pages(1 << 20)
        .open(directory.path())
        .unwrap();
    let tree = db
        .client()
        .tree("t")
        .unwrap()
        .with_durability(Durability::Buffered);
    let tickets: Vec<_> = (0..30_000u32)
        .map(|number| tree.send_put(number.to_be_bytes(), [number as u8; 100]).unwrap())
        .collect();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    db.flush().unwrap();
    copy_files(directory.path(), copy.path());
    db.close().unwrap();
    let db = options().cache_bytes(1 << 20).open(copy.path()).unwrap();
    let tree = db.client().open_tree("t").unwrap();
    assert_eq!(tree.len().unwrap(), 30_000);
    assert_eq!(
        tree.get(777u32.to_be_bytes()).unwrap().unwrap(),
        [777u32 as u8; 100]
    );
    db.close().unwrap();
}

/// Within one log a large value may lie where another lay before; new trees end the slices that replay sorts.
#[test]
fn large_values_that_took_the_place_of_others_are_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let db = options()
        .durability(Durability::Buffered)
        .open(directory.path())
        .unwrap();
    let tree = db.client().tree("t").unwrap();
    let value = |round: u8| vec![round; 50_000 + 1_000 * usize::from(round % 5)];
    for round in 0..60u8 {
        tree.put([round % 3], value(round)).unwrap();
        if round % 4 == 1 {
            tree.delete([(round + 1) % 3]).unwrap();
        }
        if round % 2 == 0 {
            db.client().tree(&format!("tree {round}")).unwrap();
        }
    }
    (0..3).for_each(|key| tree.put([key], value(60 + key)).unwrap());
    db.flush().unwrap();
    copy_files(directory.path(), copy.path());
    db.close().unwrap();
    let db = options().open(copy.path()).unwrap();
    let tree = db.client().open_tree("t").unwrap();
    let snapshot = db.client().snapshot();
    for key in 0..3 {
        assert_eq!(tree.get([key]).unwrap().unwrap(), value(60 + key));
    }
    (0..3).for_each(|key| tree.put([key], value(70 + key)).unwrap());
    (0..3).for_each(|key| tree.put([key], value(80 + key)).unwrap());
    for key in 0..3 {
        assert_eq!(snapshot.get(&tree, [key]).unwrap().unwrap(), value(60 + key));
        assert_eq!(tree.get([key]).unwrap().unwrap(), value(80 + key));
    }
    drop(snapshot);
    db.close().unwrap();
}

/// Writers that each read their own page don't wait for the shard's reads, one behind the other.
#[test]
fn a_write_that_waits_brings_its_page_itself() {
    let directory = tempfile::tempdir().unwrap();
    let key = |number: u32| number.wrapping_mul(0x9E37_79B9).to_be_bytes();
    let small = || options().cache_bytes(1 << 20).durability(Durability::Buffered);
    {
        let db = small().open(directory.path()).unwrap();
        let tree = db.client().tree("tree").unwrap();
        let pairs: Vec<_> = (0..20_000).map(|number| (key(number), [1; 150])).collect();
        for chunk in pairs.chunks(20) {
            tree.send_batch(chunk.iter().copied()).unwrap().wait().unwrap();
        }
        db.close().unwrap();
    }
    let db = small().open(directory.path()).unwrap();
    let tree = db.client().open_tree("tree").unwrap();
    for number in (0..20_000).step_by(200) {
        tree.put(key(number), [2; 150]).unwrap();
        assert_eq!(tree.get(key(number)).unwrap().unwrap(), [2; 150][..]);
    }
    let stats = db.stats();
    assert!(stats.misses > 50, "everything was in memory: {stats:?}");
    assert!(
        stats.parked < 10,
        "{} of 100 puts waited in the shard",
        stats.parked
    );
    db.close().unwrap();
}
