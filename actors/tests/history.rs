//! Past versions, and what differs between two of them.

#![expect(
    clippy::disallowed_methods,
    reason = "real threads are what these tests are about"
)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::options;
use treering::{Change, Client, Db, Durability, Error, Options, Retention, Snapshot, Tree};

/// A new database that keeps as many versions as may be kept.
fn keeping_all(directory: &std::path::Path) -> Db {
    options()
        .retain(Retention::Versions(u64::MAX))
        .open(directory)
        .unwrap()
}

type Row = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

fn rows(client: &Client, older: &Snapshot, newer: &Snapshot, tree: &Tree) -> Vec<Row> {
    let row = |change: Change| {
        let bytes = |value: Option<treering::Value>| value.map(|value| value.to_vec());
        (change.key.to_vec(), bytes(change.old), bytes(change.new))
    };
    let diff = client.diff(older, newer, tree).unwrap();
    diff.map(|change| row(change.unwrap())).collect()
}

#[test]
fn the_last_versions_can_be_had_again() {
    let directory = tempfile::tempdir().unwrap();
    let db = options()
        .retain(Retention::Versions(3))
        .open(directory.path())
        .unwrap();
    let client = db.client();
    let tree = client.tree("t").unwrap();
    let seqs: Vec<u64> = (0..10u8)
        .map(|round| {
            tree.put(b"k", [round]).unwrap();
            client.snapshot().seq()
        })
        .collect();
    for (round, &seq) in seqs.iter().enumerate() {
        match client.snapshot_at(seq) {
            Ok(past) => {
                assert!(round >= 7, "version {round} of 10");
                assert_eq!(past.seq(), seq);
                assert_eq!(past.get(&tree, b"k").unwrap().unwrap(), [round as u8]);
            }
            Err(Error::VersionGone { oldest, newest, .. }) => {
                assert!(round < 7, "version {round} of 10");
                assert_eq!((oldest, newest), (seqs[7], seqs[9]));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(matches!(
        client.snapshot_at(seqs[9] + 1),
        Err(Error::VersionGone { .. })
    ));
    db.close().unwrap();
}

/// Also in the moment in which only readers know of it.
#[test]
fn what_a_snapshot_shows_can_be_had_by_its_number_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let db = keeping_all(directory.path());
    let client = db.client();
    let tree = client.tree("t").unwrap().with_durability(Durability::Buffered);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                tree.put(b"k", b"v").unwrap();
            }
        });
        let found: Result<(), Error> = (0..3000).try_for_each(|_| {
            let seq = client.snapshot().seq();
            assert!(client.snapshot_at(seq)?.seq() <= seq);
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        found.unwrap();
    });
    db.close().unwrap();
}

#[test]
fn a_version_is_there_for_its_time_and_its_pages_come_back() {
    let db = options()
        .retain(Retention::Last(Duration::from_secs(600)))
        .open_in_memory()
        .unwrap();
    let tree = db.client().tree("t").unwrap();
    tree.put(b"k", b"first").unwrap();
    let first = db.client().snapshot().seq();
    (0..200u32).for_each(|round| tree.put(b"k", round.to_be_bytes()).unwrap());
    let past = db.client().snapshot_at(first).unwrap();
    assert_eq!(past.get(&tree, b"k").unwrap().unwrap(), b"first");
    drop(past);
    db.close().unwrap();

    let db = options()
        .retain(Retention::Last(Duration::from_millis(1)))
        .open_in_memory()
        .unwrap();
    let tree = db.client().tree("t").unwrap();
    tree.put(b"k", b"first").unwrap();
    let first = db.client().snapshot().seq();
    tree.put(b"k", b"second").unwrap();
    // Nothing is written any more: time alone ends it.
    for _ in 0..5_000 {
        if matches!(db.client().snapshot_at(first), Err(Error::VersionGone { .. })) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(
        db.client().snapshot_at(first),
        Err(Error::VersionGone { .. })
    ));
    let newest = db.client().snapshot_at(first + 1).unwrap();
    assert_eq!(newest.get(&tree, b"k").unwrap().unwrap(), b"second");
}

/// Of any two that follow each other, a full ring gives up at least one.
#[test]
fn named_snapshots_can_be_had_among_thinned_versions() {
    let directory = tempfile::tempdir().unwrap();
    let db = keeping_all(directory.path());
    let client = db.client();
    let tree = client.tree("t").unwrap().with_durability(Durability::Buffered);
    let put = |number: u64| tree.put(b"k", number.to_le_bytes()).unwrap();
    (0..1000).for_each(put);
    let named = ["one", "two"].map(|name| {
        let named = db.create_named_snapshot(name).unwrap();
        put(1000);
        named.seq()
    });
    (0..8000).for_each(put);
    for seq in named {
        assert_eq!(client.snapshot_at(seq).unwrap().seq(), seq);
    }
    let behind = client.snapshot_at(named[1] + 1).unwrap().seq();
    assert!(behind == named[1] || behind == named[1] + 1, "{behind}");
    db.close().unwrap();
}

#[test]
fn without_retention_there_are_the_newest_and_the_named_ones() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let client = db.client();
    let tree = client.tree("t").unwrap();
    tree.put(b"k", b"named").unwrap();
    let named = db.create_named_snapshot("named").unwrap().seq();
    tree.put(b"k", b"between").unwrap();
    let between = client.snapshot().seq();
    tree.put(b"k", b"newest").unwrap();
    let newest = client.snapshot().seq();
    let value = |seq| {
        client
            .snapshot_at(seq)
            .map(|past| past.get(&tree, b"k").unwrap().unwrap().to_vec())
    };
    assert_eq!(value(named).unwrap(), b"named");
    assert_eq!(value(newest).unwrap(), b"newest");
    assert!(matches!(value(between), Err(Error::VersionGone { .. })));
    db.close().unwrap();
}

#[test]
fn a_diff_names_what_was_inserted_changed_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let client = db.client();
    let tree = client.tree("t").unwrap();
    let blob = vec![7; 40_000];
    tree.put(b"changed", b"1").unwrap();
    tree.put(b"deleted", b"2").unwrap();
    tree.put(b"kept", b"3").unwrap();
    tree.put(b"large", &blob).unwrap();
    tree.put(b"large and written again", &blob).unwrap();
    let older = db.create_named_snapshot("older").unwrap();
    tree.put(b"changed", b"one").unwrap();
    tree.delete(b"deleted").unwrap();
    tree.put(b"inserted", b"4").unwrap();
    tree.put(b"kept", b"5").unwrap();
    tree.put(b"kept", b"3").unwrap();
    tree.put(b"large", b"small").unwrap();
    tree.put(b"large and written again", &blob).unwrap();
    let newer = client.snapshot();
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    let expected: Vec<Row> = vec![
        (b"changed".to_vec(), some(b"1"), some(b"one")),
        (b"deleted".to_vec(), some(b"2"), None),
        (b"inserted".to_vec(), None, some(b"4")),
        (b"large".to_vec(), Some(blob), some(b"small")),
    ];
    assert!(rows(&client, &older, &newer, &tree) == expected);
    let backwards: Vec<Row> = expected
        .iter()
        .cloned()
        .map(|(key, old, new)| (key, new, old))
        .collect();
    assert!(rows(&client, &newer, &older, &tree) == backwards);
    assert!(rows(&client, &newer, &newer, &tree).is_empty());
    // A tree that came, or went, between the two.
    let other = client.tree("other").unwrap();
    other.put(b"k", b"v").unwrap();
    let latest = client.snapshot();
    let came = vec![(b"k".to_vec(), None, some(b"v"))];
    assert_eq!(rows(&client, &older, &latest, &other), came);
    assert!(matches!(
        client.diff(&older, &newer, &other),
        Err(Error::TreeNotFound { .. })
    ));
    let foreign = Options::new().open_in_memory().unwrap();
    assert!(matches!(
        client.diff(&foreign.client().snapshot(), &newer, &tree),
        Err(Error::ForeignSnapshot)
    ));
    drop((older, newer, latest));
    db.close().unwrap();
}

/// Cold, so that every page that is looked at is read.
#[test]
fn a_diff_reads_what_differs_and_little_else() {
    let directory = tempfile::tempdir().unwrap();
    {
        let db = options().open(directory.path()).unwrap();
        let tree = db.client().tree("t").unwrap();
        for chunk in 0..40u32 {
            let pairs = (0..1_000u32).map(|number| {
                let key = (chunk * 1_000 + number).to_be_bytes();
                (key, [1; 100])
            });
            tree.send_batch(pairs).unwrap().wait().unwrap();
        }
        drop(db.create_named_snapshot("older").unwrap());
        for number in [5u32, 20_000, 39_999] {
            tree.put(number.to_be_bytes(), b"changed").unwrap();
        }
        db.close().unwrap();
    }
    let db = options().open(directory.path()).unwrap();
    let client = db.client();
    let tree = client.open_tree("t").unwrap();
    let older = db.named_snapshot("older").unwrap();
    let found = rows(&client, &older, &client.snapshot(), &tree);
    assert_eq!(found.len(), 3);
    let stats = db.stats();
    let pages = stats.file_pages - stats.free_pages;
    assert!(pages > 1_000, "{stats:?}");
    assert!(stats.pages_read < 60, "{stats:?}");
    drop(older);
    db.close().unwrap();
}
