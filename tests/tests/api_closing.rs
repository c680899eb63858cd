//! The end of a database, wherever and whenever it comes: every ticket is answered, nothing hangs, the directory is
//! free afterwards.

mod support;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use support::{block_on, in_memory, small, watched};
use treering::{Db, Durability, Error, Options, Tree};

/// Until another opening finds the directory free: the end may be reached by a thread of its own.
fn open_when_free(path: &std::path::Path) -> Db {
    loop {
        match small().open(path) {
            Err(Error::AlreadyOpen { .. }) => std::thread::sleep(Duration::from_millis(1)),
            other => return other.expect("a database"),
        }
    }
}

#[test]
fn futures_that_race_with_the_end_are_answered() {
    watched(|| {
        for round in 0..20_u64 {
            let directory = tempfile::tempdir().expect("a directory");
            let db = small().open(directory.path()).expect("an empty directory");
            let tree = db
                .client()
                .tree("t")
                .expect("a tree")
                .with_durability(if round % 2 == 0 {
                    Durability::Sync
                } else {
                    Durability::Buffered
                });
            let busy = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let mut senders = Vec::new();
                for thread in 0..2_u64 {
                    let (tree, busy, db) = (&tree, &busy, &db);
                    senders.push(scope.spawn(move || {
                        let mut tickets = Vec::new();
                        for number in 0_u64.. {
                            let sent = match number % 3 {
                                0 if thread == 0 && number % 30 == 0 => db.send_flush(),
                                1 if thread == 1 && number % 30 == 1 => db.send_checkpoint(),
                                _ => tree.send_put([thread, number].map(u64::to_be_bytes).concat(), [7; 100]),
                            };
                            match sent {
                                Ok(ticket) => tickets.push(ticket),
                                Err(Error::Closed) => return tickets,
                                Err(error) => panic!("{error}"),
                            }
                            busy.store(number > 100 || busy.load(Ordering::Relaxed), Ordering::Relaxed);
                        }
                        tickets
                    }));
                }
                while !busy.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                db.clone().close().expect("a clean close");
                let mut carried_out = 0_u64;
                for sender in senders {
                    for ticket in sender.join().expect("a sender") {
                        match block_on(ticket) {
                            Ok(()) => carried_out += 1,
                            Err(Error::Closed) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                assert!(carried_out > 0, "what was sent before the end is carried out");
            });
        }
    });
}

#[test]
fn a_closure_that_owns_the_last_handle_ends_the_database() {
    watched(|| {
        for pipelined in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            let tree = {
                let db = small().open(directory.path()).expect("an empty directory");
                db.client().tree("t").expect("a tree")
            };
            tree.put(b"k", b"1").expect("a put");
            let (told, end) = mpsc::channel::<()>();
            let last = tree.clone();
            let change = move |old: Option<&[u8]>| {
                let _ = (&last, &told);
                old.map(|old| [old, b"2"].concat())
            };
            if pipelined {
                let ticket = tree.send_update(b"k", change).expect("sent");
                drop(tree);
                ticket.wait().expect("an update");
            } else {
                // The request's own handle goes when the caller's does: here the caller's is the last.
                tree.update(b"k", change).expect("an update");
                drop(tree);
            }
            // The closure is gone, and with it the sender.
            assert!(end.recv().is_err());
            let db = open_when_free(directory.path());
            let tree = db.client().open_tree("t").expect("a tree");
            assert_eq!(tree.get(b"k").expect("a read").expect("the value"), b"12");
        }
    });
}

/// Owns a tree, and is owned by the database as the waker of a ticket.
struct Owner {
    _tree: Tree,
    woken: Arc<AtomicU64>,
}

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_waker_that_owns_the_last_handle_ends_the_database() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small().open(directory.path()).expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        drop(db);
        let woken = Arc::new(AtomicU64::new(0));
        let mut ticket = Box::pin(tree.send_put(b"k", b"v").expect("sent"));
        let waker = Waker::from(Arc::new(Owner {
            _tree: tree.clone(),
            woken: Arc::clone(&woken),
        }));
        drop(tree);
        let polled = Future::poll(ticket.as_mut(), &mut Context::from_waker(&waker));
        // From here on the database's own threads drop the last handle, unless the answer was there already.
        drop(waker);
        if polled.is_pending() {
            while woken.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let Poll::Ready(answer) = Future::poll(ticket.as_mut(), &mut Context::from_waker(Waker::noop()))
            else {
                panic!("woken without an answer");
            };
            answer.expect("a put");
        }
        let db = open_when_free(directory.path());
        let tree = db.client().open_tree("t").expect("a tree");
        assert_eq!(tree.get(b"k").expect("a read").expect("the value"), b"v");
    });
}

#[test]
fn a_closure_that_waits_for_its_own_database_is_told() {
    watched(|| {
        let db = Options::new()
            .cache_bytes(4 << 20)
            .open_in_memory()
            .expect("memory for an empty database");
        let client = db.client();
        let tree = client.tree("t").expect("a tree");
        tree.put(b"large", vec![1; 100_000]).expect("a put");
        let directory = tempfile::tempdir().expect("a directory");
        let (copy, changes) = (directory.path().join("copy"), directory.path().join("changes"));
        let inside = (db.clone(), client.clone(), tree.clone());
        let (told, answers) = mpsc::channel();
        tree.update(b"k", move |_| {
            let (db, client, tree) = &inside;
            let snapshot = client.snapshot();
            let would_wait: Vec<Option<Error>> = vec![
                tree.put(b"other", b"v").err(),
                tree.put(b"other", vec![2; 100_000]).err(),
                tree.insert(b"other", b"v").err(),
                tree.delete(b"other").err(),
                tree.update(b"other", |_| None).err(),
                tree.compare_and_swap(b"other", None, Some(b"v")).err(),
                tree.get(b"large").err(),
                tree.batch_set([(b"other", b"v")]).err(),
                client.tree("another").err(),
                client.drop_tree("t").err(),
                db.flush().err(),
                db.checkpoint().err(),
                db.create_named_snapshot("n").err(),
                client.snapshot_at(snapshot.seq()).err(),
                db.backup(&copy).err(),
                snapshot.backup_since(&snapshot, &changes).err(),
                tree.subscribe(b"").err(),
                tree.bulk_load([(b"a", b"b")]).err(),
                client.transact(|tx| tx.put(tree, b"other", b"v")).err(),
                db.clone().close().err(),
            ];
            // What neither waits nor misses is fine.
            let found = tree.get(b"absent").map(|value| value.is_none());
            let sent = tree.send_put(b"sent", b"v").map(drop);
            told.send((would_wait, found, sent)).expect("a receiver");
            Some(b"v".to_vec())
        })
        .expect("an update");
        let (would_wait, found, sent) = answers.recv().expect("the answers");
        for (number, error) in would_wait.into_iter().enumerate() {
            assert!(matches!(error, Some(Error::WouldDeadlock)), "{number}: {error:?}");
        }
        assert!(found.expect("a read"));
        sent.expect("sent");
        assert_eq!(tree.get(b"other").expect("a read"), None, "nothing was done");
        let left = directory.path().read_dir().expect("a directory").count();
        assert_eq!(left, 0, "nothing was done");
        db.flush().expect("a flush");
        tree.put(b"behind", b"v").expect("a put");
        assert_eq!(tree.get(b"sent").expect("a read").expect("the value"), b"v");
        db.close().expect("a clean close");
    });
}

#[test]
fn a_full_mailbox_never_blocks_a_closure() {
    watched(|| {
        let (_db, tree) = in_memory(4 << 20);
        let inside = tree.clone();
        let (told, answers) = mpsc::channel();
        tree.update(b"k", move |_| {
            let refused = (0..100_000_u32).find_map(|number| {
                inside
                    .send_put(number.to_be_bytes(), b"v")
                    .err()
                    .map(|error| (number, error))
            });
            told.send(refused).expect("a receiver");
            None
        })
        .expect("an update");
        let (sent, error) = answers.recv().expect("the answer").expect("a bounded mailbox");
        assert!(matches!(error, Error::WouldDeadlock), "{error:?}");
        tree.put(b"behind", b"v").expect("a put");
        assert_eq!(tree.len().expect("a length"), u64::from(sent) + 1);
    });
}

#[test]
fn a_ticket_can_be_looked_at_and_waited_for_a_while() {
    watched(|| {
        let (_db, tree) = in_memory(4 << 20);
        let (go, gate) = mpsc::channel::<()>();
        let mut held_up = tree
            .send_update(b"k", move |_| {
                let _ = gate.recv();
                Some(b"v".to_vec())
            })
            .expect("sent");
        assert_eq!(held_up.try_wait().expect("no failure"), None);
        assert_eq!(
            held_up
                .wait_timeout(Duration::from_millis(1))
                .expect("no failure"),
            None
        );
        go.send(()).expect("a closure that waits");
        while held_up
            .wait_timeout(Duration::from_secs(60))
            .expect("an update")
            .is_none()
        {}
        // Polled in vain, it may still be waited for.
        for limited in [false, true] {
            let (go, gate) = mpsc::channel::<()>();
            let mut polled = tree
                .send_update(b"k", move |_| {
                    let _ = gate.recv();
                    Some(b"v".to_vec())
                })
                .expect("sent");
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut polled).poll(&mut context).is_pending());
            let early = polled.wait_timeout(Duration::from_millis(1));
            assert_eq!(early.expect("no failure"), None);
            let opener = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                go.send(()).expect("a closure that waits");
            });
            if limited {
                let late = polled.wait_timeout(Duration::from_secs(60));
                assert_eq!(late.expect("an update"), Some(()));
                let mut context = Context::from_waker(Waker::noop());
                let again = Pin::new(&mut polled).poll(&mut context);
                assert!(matches!(again, Poll::Ready(Err(Error::Closed))), "{again:?}");
            } else {
                polled.wait().expect("an update");
            }
            opener.join().expect("a thread that ends");
        }
        let mut put = tree.send_put(b"k", b"w").expect("sent");
        while put.try_wait().expect("a put").is_none() {
            std::thread::yield_now();
        }
        assert!(
            matches!(put.try_wait(), Err(Error::Closed)),
            "an answer is handed out once"
        );
    });
}
