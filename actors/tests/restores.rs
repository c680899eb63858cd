//! Incremental backups and restoring, on real files.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use treering::{Db, Error, Options};
use treering_io::{Directory, OsDirectory};

fn options() -> Options {
    support::options().cache_bytes(2 << 20)
}

type Content = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn content(db: &Db) -> Content {
    let client = db.client();
    let names = client.tree_names().unwrap();
    names
        .into_iter()
        .map(|name| {
            let tree = client.open_tree(&name).unwrap();
            let entries = tree.range::<&[u8]>(..).unwrap();
            let entries =
                entries.map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap());
            (name, entries.collect())
        })
        .collect()
}

/// A database, a full backup of it, two incremental ones, and what it held at each.
fn chain(path: &Path) -> (Db, Vec<Content>) {
    let db = options().open(path.join("db")).unwrap();
    let client = db.client();
    let users = client.tree("users").unwrap();
    let pairs = |round: u8| {
        (0..2_000u32).map(move |number| {
            let length = if number % 100 == 0 { 20_000 } else { 100 };
            (number.to_be_bytes(), vec![round; length])
        })
    };
    users.send_batch(pairs(0)).unwrap().wait().unwrap();
    client.tree("gone").unwrap().put(b"k", b"v").unwrap();
    client.tree("again").unwrap().put(b"old", b"v").unwrap();
    let mut contents = vec![content(&db)];
    let monday = db.create_named_snapshot("monday").unwrap();
    monday.backup(path.join("full")).unwrap();

    (0..2_000u32)
        .step_by(13)
        .for_each(|number| assert!(users.delete(number.to_be_bytes()).unwrap()));
    users.put(b"inserted", vec![5; 3_000_000]).unwrap();
    client.drop_tree("gone").unwrap();
    client.drop_tree("again").unwrap();
    client.tree("again").unwrap().put(b"new", b"v").unwrap();
    client.tree("empty").unwrap();
    contents.push(content(&db));
    let tuesday = db.create_named_snapshot("tuesday").unwrap();
    let backup = tuesday.backup_since(&monday, path.join("first")).unwrap();
    assert_eq!((backup.base_seq, backup.seq), (monday.seq(), tuesday.seq()));
    assert_eq!(backup.changes, 2_000 / 13 + 1 + 1 + 1);
    db.drop_named_snapshot("monday").unwrap();

    users.put(b"inserted", b"small").unwrap();
    users.put(b"last", b"1").unwrap();
    contents.push(content(&db));
    let backup = db.backup_since("tuesday", path.join("second")).unwrap();
    assert_eq!(backup.changes, 2);
    (db, contents)
}

#[test]
fn a_chain_of_backups_gives_back_each_of_its_states() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (db, contents) = chain(path);
    db.close().unwrap();
    let increments = [path.join("first"), path.join("second")];
    for (count, expected) in contents.iter().enumerate() {
        let target = path.join(format!("restored {count}"));
        let restored = options()
            .restore(path.join("full"), &increments[..count], &target)
            .unwrap();
        assert!(content(&restored) == *expected, "{count} increments");
        restored.close().unwrap();
        // What was restored is a database like any other.
        let again = options().open(&target).unwrap();
        assert!(content(&again) == *expected, "{count} increments, reopened");
        again
            .client()
            .open_tree("users")
            .unwrap()
            .put(b"k", b"v")
            .unwrap();
        again.close().unwrap();
        assert!(matches!(
            options().restore(path.join("full"), &increments[..count], &target),
            Err(Error::BackupExists { .. })
        ));
    }
}

#[test]
fn what_is_no_chain_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (db, _) = chain(path);
    let target = path.join("target");
    let refused = |full: &str, increments: &[&str]| {
        let increments: Vec<_> = increments.iter().map(|name| path.join(name)).collect();
        let error = options()
            .restore(path.join(full), &increments, &target)
            .expect_err("refused");
        assert!(!target.join("data").exists());
        error
    };
    assert!(matches!(refused("full", &["second"]), Error::NotABackup { .. }));
    assert!(matches!(
        refused("full", &["first", "first"]),
        Error::NotABackup { .. }
    ));
    assert!(matches!(refused("db", &[]), Error::NotABackup { .. }));
    assert!(matches!(refused("nothing", &[]), Error::Io { .. }));
    // Another database's changes.
    let other = options().open(path.join("other")).unwrap();
    other.create_named_snapshot("monday").unwrap();
    other.backup_since("monday", path.join("foreign")).unwrap();
    assert!(matches!(refused("full", &["foreign"]), Error::NotABackup { .. }));
    assert!(matches!(
        other.backup_since("monday", path.join("foreign")),
        Err(Error::BackupExists { .. })
    ));
    assert!(matches!(
        other.backup_since("tuesday", path.join("none")),
        Err(Error::SnapshotNotFound { .. })
    ));
    // Databases in memory are different ones, too.
    let memory = [(); 2].map(|()| options().open_in_memory().unwrap());
    for (db, name) in memory.iter().zip(["memory", "others"]) {
        let client = db.client();
        let tree = client.tree("t").unwrap();
        let base = client.snapshot();
        base.backup(path.join(name)).unwrap();
        tree.put(b"k", name).unwrap();
        let changes = path.join(format!("{name} changes"));
        client.snapshot().backup_since(&base, changes).unwrap();
    }
    assert!(matches!(
        refused("memory", &["others changes"]),
        Error::NotABackup { .. }
    ));
    // One writer in a directory at a time: both would write the same file.
    let directory = OsDirectory::create(path.join("busy")).unwrap();
    let lock = directory.lock().unwrap();
    assert!(matches!(
        other.backup_since("monday", path.join("busy")),
        Err(Error::AlreadyOpen { .. })
    ));
    drop(lock);
    other.backup_since("monday", path.join("busy")).unwrap();
    // Damage anywhere in the file.
    let file = path.join("first").join("changes");
    let whole = std::fs::read(&file).unwrap();
    for at in [0, 9, 20, 45, 61, 4096, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, damaged).unwrap();
        let error = refused("full", &["first"]);
        assert!(matches!(error, Error::Corrupt { .. }), "byte {at}: {error}");
    }
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(refused("full", &["first"]), Error::Corrupt { .. }));
    std::fs::write(&file, whole).unwrap();
    // A backup that was used as a database is one.
    options().open(path.join("full")).unwrap().close().unwrap();
    assert!(matches!(refused("full", &[]), Error::NotABackup { .. }));
    db.close().unwrap();
    other.close().unwrap();
}

#[test]
fn an_interrupted_restore_can_not_be_opened_and_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (db, contents) = chain(path);
    db.close().unwrap();
    let target = path.join("target");
    let restored = options()
        .restore(path.join("full"), &[path.join("first")], &target)
        .unwrap();
    restored.close().unwrap();
    std::fs::write(target.join("restoring"), []).unwrap();
    assert!(matches!(options().open(&target), Err(Error::NotADatabase { .. })));
    let restored = options()
        .restore(
            path.join("full"),
            &[path.join("first"), path.join("second")],
            &target,
        )
        .unwrap();
    assert!(content(&restored) == contents[2]);
    restored.close().unwrap();
}
