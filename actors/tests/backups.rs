//! Hot backups on real files: each opens as a database of its own and shows one instant.

#![expect(
    clippy::disallowed_methods,
    reason = "real threads are what these tests are about"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use treering::{Db, Durability, Error, Options, Snapshot, Tree};

fn options() -> Options {
    support::options().cache_bytes(2 << 20)
}

fn content(snapshot: &Snapshot, tree: &Tree) -> BTreeMap<Vec<u8>, Vec<u8>> {
    snapshot
        .range::<&[u8]>(tree, ..)
        .unwrap()
        .map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
        .collect()
}

/// More than the cache holds, with blobs of one and of several pages.
fn fill(tree: &Tree) {
    for chunk in 0..40u32 {
        let pairs = (0..500u32).map(|number| {
            let number = chunk * 500 + number;
            let length = match number % 250 {
                0 => 5_000,
                1 => 30_000,
                _ => 150,
            };
            (number.to_be_bytes(), vec![number as u8; length])
        });
        tree.send_batch(pairs).unwrap().wait().unwrap();
    }
}

#[test]
fn a_copy_opens_by_itself_and_shows_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path().join("db")).unwrap();
    let client = db.client();
    let users = client.tree("users").unwrap();
    let empty = client.tree("empty").unwrap();
    fill(&users);
    client.tree("gone").unwrap().put(b"k", b"v").unwrap();
    client.drop_tree("gone").unwrap();
    (0..20_000u32)
        .filter(|number| number % 3 == 0)
        .for_each(|number| {
            users
                .with_durability(Durability::Buffered)
                .delete(number.to_be_bytes())
                .map(drop)
                .unwrap();
        });
    let snapshot = client.snapshot();
    let expected = content(&snapshot, &users);
    let path = directory.path().join("copies").join("copy");
    let backup = db.backup(&path).unwrap();
    assert_eq!(backup.seq, snapshot.seq());
    assert!(matches!(db.backup(&path), Err(Error::BackupExists { .. })));
    // What is written later is not in it, and the copy is another database.
    users.put(b"later", b"not there").unwrap();
    for life in 0..3 {
        let copy = options().open(&path).unwrap();
        assert_eq!(copy.client().tree_names().unwrap(), ["empty", "users"]);
        let users = copy.client().open_tree("users").unwrap();
        assert!(
            content(&copy.client().snapshot(), &users) == expected,
            "life {life}"
        );
        assert!(copy.client().open_tree("empty").unwrap().is_empty().unwrap());
        let stats = copy.stats();
        assert!(
            stats.file_pages - stats.free_pages <= backup.pages + 4_000,
            "{stats:?}"
        );
        users.put(b"later", b"of the copy").unwrap();
        users.delete(b"later").unwrap();
        copy.client().tree("new").unwrap().put(b"k", b"v").unwrap();
        copy.client().drop_tree("new").unwrap();
        copy.close().unwrap();
    }
    assert_eq!(users.get(b"later").unwrap().unwrap(), b"not there");
    drop((snapshot, empty));
    db.close().unwrap();
}

#[test]
fn a_backup_is_one_instant_while_writers_go_on() {
    const ACCOUNTS: u32 = 200;
    let directory = tempfile::tempdir().unwrap();
    let db = options()
        .durability(Durability::Buffered)
        .open(directory.path().join("db"))
        .unwrap();
    let tree = db.client().tree("accounts").unwrap();
    let all = |value: u32| (0..ACCOUNTS).map(move |account| (account.to_be_bytes(), value.to_be_bytes()));
    fill(&db.client().tree("others").unwrap());
    tree.send_batch(all(0)).unwrap().wait().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, tree) = (&stop, &tree);
        scope.spawn(move || {
            // Each batch writes one value everywhere: a copy with two of them has seen a half.
            for round in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                tree.send_batch(all(round)).unwrap().wait().unwrap();
            }
        });
        for copy in 0..3 {
            let path = directory.path().join(format!("copy {copy}"));
            db.backup(&path).unwrap();
            let copy = Db::open(&path).unwrap();
            let tree = copy.client().open_tree("accounts").unwrap();
            let found = content(&copy.client().snapshot(), &tree);
            assert_eq!(found.len(), ACCOUNTS as usize);
            let first = found.values().next().unwrap();
            assert!(found.values().all(|value| value == first));
            assert_eq!(copy.client().open_tree("others").unwrap().len().unwrap(), 20_000);
            copy.close().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    db.close().unwrap();
}

#[test]
fn named_snapshots_and_databases_in_memory_are_copied_too() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Options::new().open_in_memory().unwrap();
    let tree = memory.client().tree("t").unwrap();
    fill(&tree);
    let snapshot = memory.create_named_snapshot("before").unwrap();
    let expected = content(&snapshot, &tree);
    (0..20_000u32)
        .step_by(7)
        .for_each(|number| tree.put(number.to_be_bytes(), b"changed").unwrap());
    let path = directory.path().join("copy");
    snapshot.backup(&path).unwrap();
    let copy = options().open(&path).unwrap();
    let copied = copy.client().open_tree("t").unwrap();
    assert!(content(&copy.client().snapshot(), &copied) == expected);
    assert!(copy.named_snapshot_names().unwrap().is_empty());
    copy.close().unwrap();
    let foreign = directory.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter"), "dear").unwrap();
    assert!(matches!(memory.backup(&foreign), Err(Error::NotADatabase { .. })));
}
