//! The public interface, name by name and argument by argument, as it is promised: users' programs are written against
//! these shapes. Whatever breaks this file breaks them.

mod support;

use std::error::Error as _;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use support::{block_on, watched};
use treering::{
    Awaiting, Backup, Batch, Client, Db, Diff, Durability, Error, Event, Figure, FigureKind, Histogram,
    IncrementalBackup, IoBackend, Isolation, KeyBounds, Options, Range, Result, Retention, Snapshot, Stats,
    Subscription, Ticket, Transaction, Tree, Value,
};

/// A directory that goes away with the test.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn opening() {
    watched(|| {
        let directory = directory();
        let opened = || -> Result<()> {
            let path = directory.path().join("data");
            let db: Db = Db::open(&path)?;
            assert_eq!(db.path(), Some(&*path));
            db.close()?;
            let db = Options::new()
                .cache_bytes(16 << 20)
                .shards(2)
                .page_size(4096)
                .durability(Durability::Sync)
                .io(IoBackend::Auto)
                .checkpoint_log_bytes(256 << 20)
                .retain(Retention::None)
                .log_segment_bytes(16 << 20)
                .flush_interval(Duration::from_millis(50))
                .gather_delay(Duration::ZERO)
                .max_dirty_pages(1000)
                .log(true)
                .open(path.to_str().expect("text"))?;
            db.checkpoint()?;
            db.flush()?;
            let s: Stats = db.stats();
            assert_eq!(s.page_bytes, 4096);
            drop(db);
            let db = Options::new().open_in_memory()?;
            assert_eq!(db.path(), None);
            db.close()
        };
        opened().expect("all of it");
        for retention in [
            Retention::None,
            Retention::Last(Duration::from_secs(1)),
            Retention::Versions(7),
        ] {
            let options = Options::new().cache_bytes(4 << 20).retain(retention);
            options.open_in_memory().expect("any of them");
        }
    });
}

#[test]
fn the_client_and_its_trees() {
    watched(|| {
        let directory = directory();
        let used = || -> Result<()> {
            let db: Db = Db::open(directory.path())?;
            let client: Client = db.client();
            let users: Tree = client.tree("users")?;
            assert!(
                matches!(client.create_tree("users"), Err(Error::TreeExists { name }) if name == "users")
            );
            assert!(matches!(client.open_tree("none"), Err(Error::TreeNotFound { name }) if name == "none"));
            client.create_tree("other")?;
            assert_eq!(client.tree_names()?, ["other", "users"]);
            client.drop_tree("other")?;
            assert_eq!((users.name(), users.is_empty()?), ("users", true));

            users.put(b"k", b"v")?;
            let v: Option<Value> = users.get(b"k")?;
            let value = v.clone().expect("the value");
            assert_eq!(&value[..], b"v");
            let length: usize = users.get_with(b"k", |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len))?;
            assert_eq!(length, 1);
            let many: Vec<Option<Value>> = users.get_many(&[b"a", b"k"])?;
            assert_eq!(many, [None, v]);
            let (found, deleted): (bool, bool) = (users.contains(b"k")?, users.delete(b"k")?);
            assert!(found && deleted && !users.delete(b"k")?);
            users.insert(b"k", b"v")?;
            assert!(matches!(users.insert(b"k", b"v"), Err(Error::KeyExists)));
            users.replace(b"k", b"w")?;
            assert!(matches!(users.replace(b"x", b"v"), Err(Error::KeyNotFound)));
            let swapped: std::result::Result<(), Option<Value>> =
                users.compare_and_swap(b"k", Some(b"old"), Some(b"new"))?;
            assert_eq!(swapped, Err(Some(Value::from(&b"w"[..]))));
            assert_eq!(users.compare_and_swap(b"k", Some(b"w"), Some(b"new"))?, Ok(()));
            assert_eq!(users.compare_and_swap(b"none", None, None)?, Ok(()));
            users.update(b"k", |old: Option<&[u8]>| -> Option<Vec<u8>> {
                Some([old?, b"er"].concat())
            })?;
            assert_eq!(users.get(b"k")?.as_deref(), Some(&b"newer"[..]));

            users.batch_set([(b"user/a", b"1"), (b"user/b", b"2"), (b"user/c", b"3")])?;
            let mut seen = Vec::new();
            for item in users.range("a".."m")? {
                let (key, value) = item?;
                seen.push((key.to_vec(), value.to_vec()));
            }
            assert_eq!(seen, [(b"k".to_vec(), b"newer".to_vec())]);
            let keys =
                |range: Range| -> Result<Vec<Vec<u8>>> { range.map(|item| Ok(item?.0.to_vec())).collect() };
            assert_eq!(keys(users.range(..)?)?.len(), 4);
            assert_eq!(keys(users.range("user/b"..)?)?.len(), 2);
            assert_eq!(keys(users.range(..="user/a".to_owned())?)?.len(), 2);
            assert_eq!(
                keys(users.range(b"user/a".to_vec()..=b"user/b".to_vec())?)?.len(),
                2
            );
            let backwards: Vec<Result<(Value, Value)>> = users.prefix(b"user/")?.rev().collect();
            assert_eq!(backwards.len(), 3);
            assert_eq!(backwards.into_iter().next().expect("an entry")?.0, b"user/c");
            let first: Option<(Value, Value)> = users.first()?;
            assert_eq!(first.expect("an entry").0, b"k");
            assert_eq!(users.last()?.expect("an entry").0, b"user/c");
            let length: u64 = users.len()?;
            assert_eq!(length, 4);
            users.batch_delete([b"user/a", b"user/b", b"user/c"])?;
            assert_eq!(users.len()?, 1);
            db.close()
        };
        used().expect("all of it");
    });
}

#[test]
fn pipelined_writes_and_batches() {
    watched(|| {
        let directory = directory();
        let used = || -> Result<()> {
            let db: Db = Db::open(directory.path())?;
            let client: Client = db.client();
            let users: Tree = client.tree("users")?;
            let ticket: Ticket<()> = users.send_put(b"k", b"v")?;
            ticket.wait()?;
            let ticket: Ticket<()> = users.send_put(b"k", b"w")?;
            block_on(ticket)?;
            let got: Ticket<Option<Value>> = users.send_get(b"k")?;
            let updated: Ticket<()> = users.send_update(b"k", |old| old.map(|old| [old, b"!"].concat()))?;
            let deleted: Ticket<bool> = users.send_delete(b"k")?;
            assert_eq!(got.wait()?.as_deref(), Some(&b"w"[..]));
            updated.wait()?;
            assert!(deleted.wait()?);
            let pairs = vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())];
            let all: Ticket<()> = users.send_batch(pairs)?;
            all.wait()?;
            let twins: Vec<Ticket<()>> = vec![
                users.send_insert(b"i", b"v")?,
                users.send_replace(b"i", b"w")?,
                users.send_batch_delete([b"i"])?,
                db.send_flush()?,
                db.send_checkpoint()?,
            ];
            twins.into_iter().try_for_each(Ticket::wait)?;
            let swapped: Ticket<std::result::Result<(), Option<Value>>> =
                users.send_compare_and_swap(b"a", Some(b"1"), Some(b"2"))?;
            assert_eq!(swapped.wait()?, Ok(()));

            let mut batch = client.batch();
            batch.put(&users, b"k", b"v");
            batch.delete(&users, b"x");
            batch.commit()?;
            let mut batch: Batch = client.batch();
            batch.put(&users, b"k", b"w").delete(&users, b"a");
            assert_eq!((batch.len(), batch.is_empty()), (2, false));
            batch.durability(Durability::Buffered).commit()?;
            let mut batch = client.batch();
            batch.put(&users, b"sent", b"v");
            let ticket: Ticket<()> = batch.send()?;
            block_on(ticket)?;
            assert_eq!(users.len()?, 3);
            users.with_durability(Durability::Buffered).put(b"k", b"x")?;
            let dropped: Ticket<()> = client.send_drop_tree("users")?;
            dropped.wait()?;
            db.close()
        };
        used().expect("all of it");
    });
}

#[test]
fn versions() {
    watched(|| {
        let directory = directory();
        let used = || -> Result<()> {
            let db = Options::new()
                .retain(Retention::Versions(100))
                .open(directory.path().join("data"))?;
            let client: Client = db.client();
            let users: Tree = client.tree("users")?;
            users.put(b"k", b"v")?;
            let snap: Snapshot = client.snapshot();
            users.put(b"k", b"w")?;
            assert_eq!(snap.get(&users, b"k")?.as_deref(), Some(&b"v"[..]));
            assert_eq!(snap.range(&users, ..)?.count(), 1);
            assert_eq!(snap.range(&users, "a".."z")?.count(), 1);
            assert_eq!(snap.get_many(&users, &[b"k"])?.len(), 1);
            let seq: u64 = snap.seq();
            let again: Snapshot = client.snapshot_at(seq)?;
            assert_eq!(again.get(&users, b"k")?.as_deref(), Some(&b"v"[..]));
            assert!(matches!(
                client.snapshot_at(u64::MAX),
                Err(Error::VersionGone { .. })
            ));
            db.create_named_snapshot("before-migration")?;
            let named: Snapshot = db.named_snapshot("before-migration")?;
            assert_eq!(named.get(&users, b"k")?.as_deref(), Some(&b"w"[..]));
            db.drop_named_snapshot("before-migration")?;
            let (older, newer) = (snap, client.snapshot());
            let changed: Diff = client.diff(&older, &newer, &users)?;
            assert_eq!(changed.count(), 1);
            db.backup(directory.path().join("copy-dir"))?;
            db.close()?;
            let copy = Db::open(directory.path().join("copy-dir"))?;
            assert_eq!(copy.client().open_tree("users")?.len()?, 1);
            copy.close()
        };
        used().expect("all of it");
    });
}

#[test]
fn backups_that_follow_each_other() {
    watched(|| {
        let directory = directory();
        let used = || -> Result<()> {
            let path = |name: &str| directory.path().join(name);
            let db = Db::open(path("data"))?;
            let users = db.client().tree("users")?;
            users.put(b"k", b"1")?;
            let full: Backup = db.create_named_snapshot("monday")?.backup(path("full"))?;
            users.put(b"k", b"2")?;
            let tuesday = db.create_named_snapshot("tuesday")?;
            let first: IncrementalBackup = db.backup_since("monday", path("first"))?;
            assert_eq!((first.base_seq, first.changes), (full.seq, 1));
            users.delete(b"k")?;
            let second = db.client().snapshot().backup_since(&tuesday, path("second"))?;
            assert_eq!(second.base_seq, tuesday.seq());
            let options = || Options::new().cache_bytes(16 << 20);
            let restored: Db = options().restore(path("full"), &[path("first")], path("one"))?;
            assert_eq!(
                restored.client().tree("users")?.get(b"k")?.as_deref(),
                Some(&b"2"[..])
            );
            let chain = [path("first"), path("second")];
            let restored = options().restore(path("full"), &chain, path("two"))?;
            assert_eq!(restored.client().tree("users")?.get(b"k")?, None);
            let none: &[&Path] = &[];
            let refused = options().restore(path("first"), none, path("three"));
            assert!(matches!(refused, Err(Error::NotABackup { .. })));
            Ok(())
        };
        used().expect("all of it");
    });
}

#[test]
fn subscriptions() {
    watched(|| {
        let directory = directory();
        let used = || -> Result<()> {
            let db = Db::open(directory.path())?;
            let users = db.client().tree("users")?;
            users.put(b"prefix/0", b"before")?;
            let began = db.client().snapshot().seq();
            let mut feed: Subscription = users.subscribe(b"prefix/")?;
            assert_eq!(feed.try_next()?, None);
            users.put(b"prefix/1", b"v")?;
            users.put(b"other", b"v")?;
            users.delete(b"prefix/1")?;
            let mut past = users.subscribe_from(b"prefix/", began, 1 << 20)?;
            assert!(past.first_seq() == began + 1 && feed.first_seq() > began);
            for feed in [&mut feed, &mut past] {
                let ready: Ticket<()> = feed.ready();
                ready.wait()?;
                for expected in [Some(&b"v"[..]), None] {
                    let Some(Event::Changed { seq, key, value }) = feed.next().transpose()? else {
                        panic!("a change");
                    };
                    assert!(seq > began && &key[..] == b"prefix/1" && value.as_deref() == expected);
                }
            }
            let mut small = users.subscribe_buffered(b"", 10)?;
            users.put(b"long", [0; 100])?;
            assert!(matches!(small.try_next()?, Some(Event::Missed { from, to }) if from == to));
            db.client().drop_tree("users")?;
            assert!(matches!(feed.next(), Some(Ok(Event::TreeDropped { .. }))));
            assert!(feed.next().is_none());
            Ok(())
        };
        used().expect("all of it");
    });
}

#[test]
fn transactions() {
    watched(|| {
        let used = || -> Result<()> {
            let db = Options::new().cache_bytes(16 << 20).open_in_memory()?;
            let client = db.client();
            let users = client.tree("users")?;
            users.put(b"a", b"1")?;
            let there: bool = client.transact(|tx| {
                let a = tx.get(&users, b"a")?;
                tx.put(&users, b"b", b"2")?;
                let keys: Vec<_> = tx.range(&users, ..)?.collect::<Result<_>>()?;
                assert_eq!(keys.len(), 2, "it sees its own writes");
                Ok(a.is_some())
            })?;
            assert!(there && users.contains(b"b")?);
            for isolation in [Isolation::Serializable, Isolation::Snapshot] {
                let mut first: Transaction = client.begin(isolation)?;
                let mut second = client.begin(isolation)?;
                assert!(first.get(&users, b"a")?.is_some());
                first.put(&users, b"a", b"first")?;
                second.delete(&users, b"a")?;
                second.commit()?;
                assert!(matches!(first.commit(), Err(Error::Conflict)));
                users.put(b"a", b"again")?;
            }
            let mut dropped = client.begin(Isolation::Snapshot)?;
            dropped.put(&users, b"c", b"3")?;
            drop(dropped);
            assert!(!users.contains(b"c")?, "rolled back");
            Ok(())
        };
        used().expect("all of it");
    });
}

fn is_handle<T: Send + Sync + Clone + Debug + 'static>() {}
fn is_sent<T: Send + Debug + 'static>() {}
fn is_shared<T: Send + Sync + Debug + 'static>() {}
fn is_future<T: Send, F: Future<Output = Result<T>> + Send + Unpin>() {}

#[test]
fn what_can_be_cloned_sent_and_shared() {
    is_handle::<Db>();
    is_handle::<Client>();
    is_handle::<Tree>();
    is_handle::<Snapshot>();
    is_handle::<Value>();
    is_handle::<Options>();
    is_handle::<Stats>();
    is_handle::<Histogram>();
    is_handle::<Figure>();
    is_handle::<FigureKind>();
    is_handle::<Error>();
    is_handle::<Durability>();
    is_handle::<IoBackend>();
    is_handle::<Retention>();
    is_handle::<Isolation>();
    is_handle::<Event>();
    is_handle::<Backup>();
    is_handle::<IncrementalBackup>();
    is_sent::<Range>();
    is_sent::<Ticket<()>>();
    is_sent::<Diff>();
    is_sent::<Subscription>();
    is_sent::<Transaction>();
    is_shared::<Batch>();
    is_future::<(), Ticket<()>>();
    is_future::<Option<Value>, Ticket<Option<Value>>>();
    is_future::<Option<Value>, Awaiting<Option<Value>>>();
    is_sent::<Awaiting<Db>>();
    fn bounds<K, B: KeyBounds<K>>(_: B) {}
    bounds(..);
    bounds("a"..);
    assert_eq!(Durability::default(), Durability::Sync);
    assert_eq!(IoBackend::default(), IoBackend::Auto);
    assert_eq!(Retention::default(), Retention::None);
    // One that waits goes to other threads, and values outlive everything.
    let value = Value::from(&b"bytes"[..]);
    assert_eq!(format!("{value:?}"), "Value(5 bytes: \"bytes\")");
}

/// Each error says what, where and why in words.
#[test]
fn errors_tell_what_where_and_why() {
    let cause = || Arc::new(io::Error::from_raw_os_error(5));
    let told: Vec<(Error, &[&str])> = vec![
        (Error::KeyEmpty, &["key", "empty"]),
        (
            Error::KeyTooLarge {
                bytes: 2000,
                limit_bytes: 1024,
            },
            &["key", "2000", "1024"],
        ),
        (
            Error::ValueTooLarge {
                bytes: (1 << 30) + 1,
                limit_bytes: 1 << 30,
            },
            &["value", "1073741825", "1073741824"],
        ),
        (Error::KeyExists, &["key", "exists"]),
        (Error::KeyNotFound, &["key", "not found"]),
        (Error::TreeNotFound { name: "t".into() }, &["tree", "\"t\""]),
        (
            Error::TreeExists { name: "t".into() },
            &["tree", "\"t\"", "already"],
        ),
        (
            Error::TreeNameInvalid {
                name: "t\0".into(),
                reason: "it contains a NUL character",
            },
            &["tree", "NUL"],
        ),
        (
            Error::TransactionTooLarge {
                needed: 9,
                limit: 8,
                unit: "pages",
            },
            &["9 pages", "8"],
        ),
        (Error::ClosurePanicked, &["closure", "panicked", "unchanged"]),
        (Error::WouldDeadlock, &["closure", "wait"]),
        (
            Error::AlreadyOpen {
                path: Path::new("/data").into(),
            },
            &["/data", "open"],
        ),
        (
            Error::NotADatabase {
                path: Path::new("/data").into(),
                reason: "why".into(),
            },
            &["/data", "why"],
        ),
        (
            Error::UnsupportedFormat {
                found: 7,
                supported: 1,
            },
            &["7", "1", "format"],
        ),
        (
            Error::InvalidOption {
                option: "shards",
                reason: "why".into(),
            },
            &["shards", "why"],
        ),
        (
            Error::Corrupt {
                file: "data".into(),
                offset: 8192,
                page: Some(2),
                reason: "why".into(),
            },
            &["data", "8192", "(page 2)", "why"],
        ),
        (
            Error::Corrupt {
                file: "log-1".into(),
                offset: 4096,
                page: None,
                reason: "why".into(),
            },
            &["log-1 is corrupt at byte 4096: why"],
        ),
        (
            Error::ForeignTree { name: "t".into() },
            &["tree", "\"t\"", "another database"],
        ),
        (
            Error::OutOfSpace {
                what: "the log".into(),
            },
            &["space", "the log", "nothing was changed"],
        ),
        (
            Error::Poisoned { cause: cause() },
            &["refused", "reopen", "os error 5"],
        ),
        (
            Error::OutcomeUnknown { cause: cause() },
            &["unknown", "os error 5"],
        ),
        (Error::Closed, &["closed"]),
        (
            Error::Io {
                what: "reading data".into(),
                source: cause(),
            },
            &["reading data", "os error 5"],
        ),
    ];
    for (error, words) in told {
        let display: &dyn Display = &error;
        let text = display.to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
        assert!(!text.ends_with('.') && text.len() > 10, "{text:?}");
        let has_source = matches!(
            error,
            Error::Poisoned { .. } | Error::OutcomeUnknown { .. } | Error::Io { .. }
        );
        assert_eq!(error.source().is_some(), has_source, "{text}");
        if let Some(source) = error.source() {
            let system = source
                .downcast_ref::<Arc<io::Error>>()
                .map(|cause| cause.raw_os_error());
            assert_eq!(
                system,
                Some(Some(5)),
                "{text}: the system's own error is to be had"
            );
        }
        // More kinds may come: what matches them all must have an arm for the rest.
        let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(error.clone());
        assert_eq!(boxed.to_string(), text);
    }
}

#[test]
fn options_are_checked() {
    let refused = |options: Options| match options.open_in_memory() {
        Err(Error::InvalidOption { option, reason }) => {
            assert!(reason.len() > 10, "{reason}");
            option
        }
        other => panic!("{other:?}"),
    };
    let new = || Options::new().cache_bytes(4 << 20);
    assert_eq!(refused(new().cache_bytes(0)), "cache_bytes");
    assert_eq!(refused(new().cache_bytes(u64::MAX)), "cache_bytes");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("none");
    for bytes in [u64::MAX, (1 << 38) + 1] {
        let opened = new().cache_bytes(bytes).open(&path);
        assert!(
            matches!(&opened, Err(Error::InvalidOption { option: "cache_bytes", reason }) if reason.contains("67108864 pages")),
            "{opened:?}"
        );
        assert!(!path.join("data").exists(), "a database was created");
    }
    assert_eq!(refused(new().shards(0)), "shards");
    assert_eq!(refused(new().shards(257)), "shards");
    assert_eq!(refused(new().page_size(0)), "page_size");
    assert_eq!(refused(new().page_size(5000)), "page_size");
    assert_eq!(refused(new().page_size(1 << 17)), "page_size");
    assert_eq!(refused(new().log_segment_bytes(0)), "log_segment_bytes");
    assert_eq!(refused(new().log_segment_bytes(2 << 30)), "log_segment_bytes");
    assert_eq!(refused(new().checkpoint_log_bytes(0)), "checkpoint_log_bytes");
    assert_eq!(
        refused(new().gather_delay(Duration::from_secs(2))),
        "gather_delay"
    );
    assert_eq!(refused(new().max_dirty_pages(0)), "max_dirty_pages");
    for extreme in [
        new().flush_interval(Duration::ZERO),
        new().flush_interval(Duration::MAX),
        new().max_dirty_pages(usize::MAX),
        new().checkpoint_log_bytes(u64::MAX),
    ] {
        let db = extreme.open_in_memory().expect("extreme, and fine");
        db.client()
            .tree("t")
            .expect("a tree")
            .put(b"k", b"v")
            .expect("a put");
    }
}

#[test]
fn commits_that_gather_are_one_group_and_each_waits() {
    watched(|| {
        let directory = directory();
        let delay = Duration::from_millis(30);
        let db = support::small()
            .gather_delay(delay)
            .open(directory.path())
            .expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        let began = std::time::Instant::now();
        tree.put(b"k", b"v").expect("a put");
        assert!(began.elapsed() >= delay, "it waits for others, though none come");
        let buffered = tree.with_durability(Durability::Buffered);
        buffered.put(b"buffered", b"v").expect("a put");
        let before = db.stats();
        let tickets: Vec<Ticket<()>> = (0..200_u32)
            .map(|number| tree.send_put(number.to_be_bytes(), b"v").expect("sent"))
            .collect();
        tickets.into_iter().try_for_each(Ticket::wait).expect("puts");
        let groups = db.stats().commit_groups - before.commit_groups;
        assert!((1..100).contains(&groups), "{groups} groups of 200 commits");
        db.close().expect("a clean close");
        let db = support::small()
            .open(directory.path())
            .expect("the directory is free");
        assert_eq!(
            db.client()
                .open_tree("t")
                .expect("a tree")
                .len()
                .expect("a length"),
            202
        );
    });
}
