//! Named snapshots on real files: there after every kind of end, and gone with all that only they held.

#![expect(
    clippy::disallowed_methods,
    reason = "real threads are what these tests are about"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::{copy_files, options};
use treering::{Db, Error, Options, Snapshot, Tree};

/// Values of one round; one in fifty is a blob.
fn fill(tree: &Tree, round: u32) {
    let pairs = (0..3_000u32).map(|number| {
        let length = if number % 50 == 0 { 5_000 } else { 20 };
        let mut value = vec![round as u8; length];
        value[..4].copy_from_slice(&number.to_le_bytes());
        (number.to_be_bytes(), value)
    });
    let pairs: Vec<_> = pairs.collect();
    for chunk in pairs.chunks(500) {
        tree.send_batch(chunk.iter().map(|(key, value)| (key, value)))
            .unwrap()
            .wait()
            .unwrap();
    }
}

fn content(snapshot: &Snapshot, tree: &Tree) -> BTreeMap<Vec<u8>, Vec<u8>> {
    snapshot
        .range::<&[u8]>(tree, ..)
        .unwrap()
        .map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
        .collect()
}

/// Versions die when the last pin that could see them ends: soon, not at once.
fn eventually(db: &Db, what: &str, holds: impl Fn(u64) -> bool) {
    for _ in 0..2_000 {
        db.checkpoint().unwrap();
        if holds(db.stats().retained_pages) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what}: {:?}", db.stats());
}

#[test]
fn named_snapshots_survive_every_end_and_give_their_pages_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut path = directory.path().join("0");
    let mut db = options().open(&path).unwrap();
    let mut shown = BTreeMap::new();
    for round in 0..3 {
        let users = db.client().tree("users").unwrap();
        fill(&users, round);
        let name = format!("round {round}");
        let snapshot = db.create_named_snapshot(&name).unwrap();
        shown.insert(name, (snapshot.seq(), content(&snapshot, &users)));
    }
    let users = db.client().tree("users").unwrap();
    fill(&users, 9);
    users.delete(1u32.to_be_bytes()).unwrap();
    for life in 0..4 {
        let users = db.client().open_tree("users").unwrap();
        assert_eq!(
            db.named_snapshot_names().unwrap(),
            shown.keys().cloned().collect::<Vec<_>>()
        );
        for (name, (seq, first)) in &shown {
            let snapshot = db.named_snapshot(name).unwrap();
            assert_eq!(snapshot.seq(), *seq);
            assert!(content(&snapshot, &users) == *first, "{name} in life {life}");
        }
        // The one in the middle first: what it shares with its neighbours passes to them.
        if life == 1 {
            db.drop_named_snapshot("round 1").unwrap();
            shown.remove("round 1");
        }
        fill(&users, 10 + life);
        assert!(db.stats().retained_pages > 0);
        if life % 2 == 0 {
            db.close().unwrap();
        } else {
            let next = directory.path().join((life + 1).to_string());
            copy_files(&path, &next);
            drop(db);
            path = next;
        }
        db = options().open(&path).unwrap();
    }
    let before = {
        eventually(&db, "only named snapshots keep pages", |retained| retained > 0);
        db.stats().retained_pages
    };
    db.drop_named_snapshot("round 0").unwrap();
    eventually(&db, "the first is dropped", |retained| {
        0 < retained && retained < before
    });
    db.drop_named_snapshot("round 2").unwrap();
    eventually(&db, "all are dropped", |retained| retained == 0);
    db.close().unwrap();
    let db = options().open(&path).unwrap();
    assert!(db.named_snapshot_names().unwrap().is_empty());
    let stats = db.stats();
    let live = stats.file_pages - stats.free_pages;
    let users = db.client().open_tree("users").unwrap();
    // Without snapshots, writing everything anew needs the space of two versions, not of six.
    for round in 0..6 {
        fill(&users, round);
        db.checkpoint().unwrap();
    }
    assert!(
        db.stats().file_pages < 6 * live + 2_000,
        "{:?}, {live} pages were in use",
        db.stats()
    );
    db.close().unwrap();
}

#[test]
fn a_snapshot_keeps_one_copy_of_what_changed_however_often_it_changed() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let users = db.client().tree("users").unwrap();
    fill(&users, 0);
    db.checkpoint().unwrap();
    let in_use = db.stats().file_pages - db.stats().free_pages;
    let snapshot = db.create_named_snapshot("before").unwrap();
    let first = content(&snapshot, &users);
    drop(snapshot);
    for round in 1..8 {
        fill(&users, round);
    }
    eventually(&db, "one copy", |retained| 0 < retained && retained <= in_use);
    let snapshot = db.named_snapshot("before").unwrap();
    assert!(content(&snapshot, &users) == first);
    // A handle keeps what the name no longer does.
    db.drop_named_snapshot("before").unwrap();
    fill(&users, 9);
    assert!(content(&snapshot, &users) == first);
    drop(snapshot);
    eventually(&db, "nothing", |retained| retained == 0);
    db.close().unwrap();
}

#[test]
fn names_are_checked() {
    let memory = Options::new().open_in_memory().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = options().open(directory.path()).unwrap();
    for db in [memory, files] {
        let users = db.client().tree("users").unwrap();
        users.put(b"k", b"old").unwrap();
        let made = db.create_named_snapshot("before").unwrap();
        users.put(b"k", b"new").unwrap();
        assert!(matches!(
            db.create_named_snapshot("before"),
            Err(Error::SnapshotExists { .. })
        ));
        for name in ["", &"x".repeat(1025)] {
            assert!(matches!(
                db.create_named_snapshot(name),
                Err(Error::SnapshotNameInvalid { .. })
            ));
        }
        assert!(matches!(
            db.named_snapshot("other"),
            Err(Error::SnapshotNotFound { .. })
        ));
        assert!(matches!(
            db.drop_named_snapshot("other"),
            Err(Error::SnapshotNotFound { .. })
        ));
        let found = db.named_snapshot("before").unwrap();
        assert_eq!(found.seq(), made.seq());
        assert_eq!(found.get(&users, b"k").unwrap().unwrap(), b"old");
        // Two names of one version, dropped one after the other.
        db.create_named_snapshot("a").unwrap();
        db.create_named_snapshot("b").unwrap();
        db.drop_named_snapshot("a").unwrap();
        users.put(b"k", b"newer").unwrap();
        let b = db.named_snapshot("b").unwrap();
        assert_eq!(b.get(&users, b"k").unwrap().unwrap(), b"new");
        db.drop_named_snapshot("b").unwrap();
        assert_eq!(db.named_snapshot_names().unwrap(), ["before"]);
        drop((made, found, b));
        db.close().unwrap();
    }
}

/// What a snapshot shows doesn't go with its tree.
#[test]
fn a_dropped_tree_is_still_in_the_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let client = db.client();
    let users = client.tree("users").unwrap();
    fill(&users, 3);
    let snapshot = db.create_named_snapshot("before").unwrap();
    let first = content(&snapshot, &users);
    drop(snapshot);
    client.drop_tree("users").unwrap();
    let again = client.tree("users").unwrap();
    again.put(b"k", b"of another tree").unwrap();
    db.close().unwrap();
    let db = options().open(directory.path()).unwrap();
    let snapshot = db.named_snapshot("before").unwrap();
    assert_eq!(snapshot.tree_names(), ["users"]);
    let users = snapshot.open_tree("users").unwrap();
    assert!(content(&snapshot, &users) == first);
    assert!(matches!(users.put(b"k", b"v"), Err(Error::TreeNotFound { .. })));
    assert!(matches!(
        snapshot.open_tree("others"),
        Err(Error::TreeNotFound { .. })
    ));
    drop((users, snapshot));
    db.close().unwrap();
}
