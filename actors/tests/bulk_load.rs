//! Loading empty trees from sorted entries: on real files, and in memory.

mod support;

use treering::{Db, Durability, Error, Options, Tree};

const ENTRIES: u64 = 60_000;

fn options() -> Options {
    support::options().cache_bytes(1 << 20)
}

fn value(number: u64) -> Vec<u8> {
    let mut value = vec![number as u8; 60 + number as usize % 40];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

fn entries(count: u64) -> impl Iterator<Item = ([u8; 8], Vec<u8>)> {
    (0..count).map(|number| (number.to_be_bytes(), value(number)))
}

fn check(tree: &Tree, count: u64) {
    assert_eq!(tree.len().expect("a count"), count);
    let mut next = 0;
    tree.scan::<&[u8]>(.., |key, found| {
        assert_eq!(key, next_key(&mut next));
        assert_eq!(found, value(next - 1), "entry {}", next - 1);
        std::ops::ControlFlow::Continue(())
    })
    .expect("a scan");
    assert_eq!(next, count);
}

fn next_key(next: &mut u64) -> [u8; 8] {
    *next += 1;
    (*next - 1).to_be_bytes()
}

/// Pages that are in use, when nothing is under way.
fn pages_used(db: &Db) -> u64 {
    db.checkpoint().expect("a checkpoint");
    db.checkpoint().expect("a checkpoint");
    let stats = db.stats();
    stats.file_pages - stats.free_pages
}

#[test]
fn a_load_larger_than_the_cache_is_there_at_once_and_after_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("db");
    let db = options().open(&path).expect("a new database");
    let tree = db.client().tree("t").expect("a tree");
    assert_eq!(tree.bulk_load(entries(ENTRIES)).expect("a load"), ENTRIES);
    check(&tree, ENTRIES);
    // The log has the load's place only, and the leaves are full.
    let stats = db.stats();
    assert!(stats.log_bytes < 64 << 10, "{} bytes of log", stats.log_bytes);
    let raw_bytes: u64 = entries(ENTRIES)
        .map(|(key, value)| (key.len() + value.len()) as u64)
        .sum();
    let used_bytes = pages_used(&db) * stats.page_bytes;
    assert!(
        used_bytes < raw_bytes * 5 / 4 + (8 << 20),
        "{used_bytes} bytes for {raw_bytes}"
    );
    // What was loaded can be changed like anything else.
    let changed = tree.with_durability(Durability::Buffered);
    for number in (0..ENTRIES).step_by(7) {
        assert!(changed.delete(number.to_be_bytes()).expect("a delete"));
    }
    for number in (0..ENTRIES).step_by(7) {
        changed.put(number.to_be_bytes(), value(number)).expect("a put");
    }
    check(&tree, ENTRIES);
    drop(changed);
    db.close().expect("a clean close");
    drop(tree);
    let db = options().open(&path).expect("what was closed opens");
    check(&db.client().open_tree("t").expect("the tree"), ENTRIES);
}

#[test]
fn large_values_are_loaded_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let db = options()
        .open(directory.path().join("db"))
        .expect("a new database");
    let tree = db.client().tree("t").expect("a tree");
    let value = |number: u32| vec![number as u8; if number.is_multiple_of(3) { 50_000 } else { 100 }];
    let loaded = tree.bulk_load((0..90u32).map(|number| (number.to_be_bytes(), value(number))));
    assert_eq!(loaded.expect("a load"), 90);
    for number in 0..90u32 {
        let found = tree.get(number.to_be_bytes()).expect("a get").expect("the value");
        assert_eq!(found, value(number));
    }
}

#[test]
fn a_refused_load_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let db = options()
        .open(directory.path().join("db"))
        .expect("a new database");
    let tree = db.client().tree("t").expect("a tree");
    let used = pages_used(&db);
    let with_last = |last: u64| {
        let last = (last.to_be_bytes(), vec![0; 5_000]);
        entries(ENTRIES).chain(std::iter::once(last))
    };
    for last in [ENTRIES - 1, 5] {
        let refused = tree.bulk_load(with_last(last)).expect_err("it isn't sorted");
        assert!(
            matches!(refused, Error::NotSorted { position: ENTRIES }),
            "{refused:?}"
        );
    }
    let refused = tree.bulk_load(with_last(ENTRIES).chain(std::iter::once(([0; 8], vec![]))));
    assert!(
        matches!(refused, Err(Error::NotSorted { position }) if position == ENTRIES + 1),
        "{refused:?}"
    );
    let refused = tree.bulk_load([(vec![1], b"a"), (Vec::new(), b"b")]);
    assert!(matches!(refused, Err(Error::KeyEmpty)), "{refused:?}");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tree.bulk_load(entries(ENTRIES).map(|(key, value)| {
            assert!(key != 50_000u64.to_be_bytes(), "the caller's iterator panics");
            (key, value)
        }))
    }));
    assert!(panicked.is_err());
    assert!(tree.is_empty().expect("a look"));
    assert_eq!(
        pages_used(&db),
        used,
        "what a refused load has taken is free again"
    );
    assert_eq!(tree.bulk_load(entries(0)).expect("an empty load"), 0);
    assert_eq!(tree.bulk_load(entries(10)).expect("a load"), 10);
    let refused = tree.bulk_load(entries(20));
    assert!(
        matches!(refused, Err(Error::TreeNotEmpty { entries: 10 })),
        "{refused:?}"
    );
    check(&tree, 10);
}

#[test]
fn what_a_load_has_taken_is_free_when_its_tree_is_dropped_meanwhile() {
    let directory = tempfile::tempdir().expect("a directory");
    let db = options()
        .open(directory.path().join("db"))
        .expect("a new database");
    let tree = db.client().tree("t").expect("a tree");
    let used = pages_used(&db);
    let refused = tree.bulk_load(entries(ENTRIES).inspect(|(key, _)| {
        if *key == (ENTRIES / 2).to_be_bytes() {
            db.client().drop_tree("t").expect("dropped");
        }
    }));
    assert!(matches!(refused, Err(Error::TreeNotFound { .. })), "{refused:?}");
    assert_eq!(pages_used(&db), used);
}

#[test]
fn who_writes_meanwhile_wins() {
    let directory = tempfile::tempdir().expect("a directory");
    let db = options()
        .open(directory.path().join("db"))
        .expect("a new database");
    let tree = db.client().tree("t").expect("a tree");
    let used = pages_used(&db);
    let refused = tree.bulk_load(entries(ENTRIES).inspect(|(key, _)| {
        if *key == 40_000u64.to_be_bytes() {
            tree.put(b"other", b"writer").expect("a put");
        }
    }));
    assert!(
        matches!(refused, Err(Error::TreeNotEmpty { entries: 1 })),
        "{refused:?}"
    );
    assert_eq!(tree.len().expect("a count"), 1);
    assert!(tree.delete(b"other").expect("a delete"));
    // A page that came back while a shard was about to use it is in nobody's way.
    assert!(pages_used(&db) <= used);
    check(&tree, tree.bulk_load(entries(ENTRIES)).expect("a load"));
}

#[test]
fn in_memory_a_load_takes_frames() {
    let db = options().open_in_memory().expect("memory");
    let tree = db.client().tree("t").expect("a tree");
    let full = tree.bulk_load(entries(ENTRIES));
    assert!(matches!(full, Err(Error::OutOfSpace { .. })), "{full:?}");
    assert_eq!(tree.bulk_load(entries(3_000)).expect("a load"), 3_000);
    check(&tree, 3_000);
    tree.put(b"x", b"y").expect("a put");
    assert_eq!(tree.len().expect("a count"), 3_001);
}
