//! Many threads on one database whose cache is far smaller than its data.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::{Random, from_environment, small, watched};
use treering::{Client, Db, Durability, Error, Options, Tree};

const ACCOUNTS: u64 = 4_000;
const BALANCE: u64 = 1_000;

fn key(number: u64) -> Vec<u8> {
    format!("account/{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).into_bytes()
}

/// A balance, and enough bytes that tell whether they belong to it.
fn encode(balance: u64, salt: u64) -> Vec<u8> {
    let length = 20 + (salt % 200) as usize;
    let mut value = balance.to_le_bytes().to_vec();
    value.extend_from_slice(&salt.to_le_bytes());
    value.extend((0..length).map(|at| (balance ^ salt) as u8 ^ at as u8));
    value
}

fn decode(value: &[u8]) -> u64 {
    let word = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!(encode(word(0), word(8)), value, "a value that nobody wrote");
    word(0)
}

fn sum(tree: &Tree) -> (u64, u64) {
    let (mut sum, mut count) = (0, 0);
    tree.scan::<&[u8]>(.., |_, value| {
        sum += decode(value);
        count += 1;
        ControlFlow::Continue(())
    })
    .expect("a scan");
    (sum, count)
}

#[test]
fn batches_keep_the_sum_on_disk() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || {
            small()
                .shards(1)
                .durability(Durability::Buffered)
                .open(directory.path())
                .expect("it opens")
        };
        let db = open();
        transfers(&db);
        db.close().expect("a clean close");
        let db = open();
        assert_eq!(
            sum(&db.client().open_tree("accounts").expect("a tree")),
            (ACCOUNTS * BALANCE, ACCOUNTS)
        );
    });
}

#[test]
fn batches_keep_the_sum_in_memory() {
    watched(|| {
        transfers(
            &Options::new()
                .cache_bytes(32 << 20)
                .open_in_memory()
                .expect("memory"),
        )
    });
}

/// Moves money between accounts by batches, each thread among its own accounts, while others add it all up.
fn transfers(db: &Db) {
    const WRITERS: u64 = 3;
    let client = db.client();
    let tree = client.tree("accounts").expect("a tree");
    let all = (0..ACCOUNTS).map(|number| (key(number), encode(BALANCE, number)));
    for chunk in all.collect::<Vec<_>>().chunks(40) {
        tree.send_batch(chunk.iter().map(|(key, value)| (key, value)))
            .expect("sent")
            .wait()
            .expect("a batch");
    }
    let rounds = from_environment("TREERING_STRESS_ROUNDS", 500);
    let stop = AtomicBool::new(false);
    let sums = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (client, tree, stop, sums) = (&client, &tree, &stop, &sums);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if reader == 0 {
                        assert_eq!(
                            sum(tree),
                            (ACCOUNTS * BALANCE, ACCOUNTS),
                            "a scan saw half a batch"
                        );
                    } else {
                        unchanging_snapshot(client, tree);
                    }
                    sums.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, tree) = (&client, &tree);
                scope.spawn(move || {
                    let mut random = Random(writer);
                    for _ in 0..rounds {
                        transfer(client, tree, &mut random, writer, WRITERS);
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().expect("a writer"));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(sums.load(Ordering::Relaxed) >= 2, "the readers hardly ran");
    assert_eq!(sum(&tree), (ACCOUNTS * BALANCE, ACCOUNTS));
}

/// Moves amounts among ten accounts that belong to this writer.
fn transfer(client: &Client, tree: &Tree, random: &mut Random, writer: u64, writers: u64) {
    let mut balances = BTreeMap::new();
    for _ in 0..10 {
        let account = random.below(ACCOUNTS / writers) * writers + writer;
        let value = tree.get(key(account)).expect("a read").expect("an account");
        balances.insert(account, decode(&value));
    }
    let accounts: Vec<u64> = balances.keys().copied().collect();
    for pair in accounts.windows(2) {
        let amount = random.below(balances[&pair[0]] + 1);
        balances.entry(pair[0]).and_modify(|balance| *balance -= amount);
        balances.entry(pair[1]).and_modify(|balance| *balance += amount);
    }
    let mut batch = client.batch();
    for (account, balance) in &balances {
        batch.put(tree, key(*account), encode(*balance, random.next()));
    }
    batch.commit().expect("a batch");
    for (account, balance) in balances {
        let read = tree.get(key(account)).expect("a read").expect("an account");
        assert_eq!(decode(&read), balance, "one's own acknowledged write is not seen");
    }
}

/// Reads a snapshot twice, in different ways, while others write: the same both times, and the right sum.
fn unchanging_snapshot(client: &Client, tree: &Tree) {
    let snapshot = client.snapshot();
    let forward: Vec<(Vec<u8>, Vec<u8>)> = snapshot
        .range::<&[u8]>(tree, ..)
        .expect("a range")
        .map(|item| item.expect("an entry"))
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect();
    assert_eq!(
        forward.iter().map(|(_, value)| decode(value)).sum::<u64>(),
        ACCOUNTS * BALANCE
    );
    let mut backward = snapshot.range::<&[u8]>(tree, ..).expect("a range").rev();
    for (key, value) in forward.iter().rev() {
        let item = backward.next().expect("an entry").expect("an entry");
        assert_eq!(
            (item.0, item.1),
            (key[..].into(), value[..].into()),
            "a snapshot changed"
        );
    }
    for chunk in forward.chunks(64).step_by(9) {
        let keys: Vec<&[u8]> = chunk.iter().map(|(key, _)| &key[..]).collect();
        let found = snapshot.get_many(tree, &keys).expect("a read");
        for ((_, value), found) in chunk.iter().zip(found) {
            assert_eq!(found.expect("a value"), &value[..], "a snapshot changed");
        }
    }
}

/// Readers that all miss the same few pages, in one cache with writers and with scans that read ahead.
#[test]
fn readers_share_what_they_miss() {
    const READERS: u64 = 12;
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small()
            .durability(Durability::Buffered)
            .open(directory.path())
            .expect("it opens");
        let tree = db.client().tree("accounts").expect("a tree");
        let accounts = 4 * ACCOUNTS;
        let all = (0..accounts).map(|number| (key(number), encode(number, number)));
        for chunk in all.collect::<Vec<_>>().chunks(40) {
            tree.send_batch(chunk.iter().map(|(key, value)| (key, value)))
                .expect("sent")
                .wait()
                .expect("a batch");
        }
        let read = |number: u64| {
            let value = tree.get(key(number)).expect("a read").expect("an account");
            assert_eq!(decode(&value), number);
        };
        let rounds = from_environment("TREERING_STRESS_ROUNDS", 500);
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let (tree, read) = (&tree, &read);
                scope.spawn(move || {
                    // Each reader draws the same numbers: whoever is late joins a read or finds its page.
                    let mut random = Random(7);
                    for round in 0..rounds {
                        let (number, salt) = (random.below(accounts), random.next());
                        read(number);
                        if reader == 0 {
                            tree.put(key(number), encode(number, salt)).expect("a put");
                        } else if reader == 1 && round % 100 == 0 {
                            assert_eq!(sum(tree).1, accounts);
                        }
                    }
                });
            }
        });
        let stats = db.stats();
        assert!(
            stats.evictions > 0 && stats.pages_read > 0,
            "everything fitted the cache"
        );
        db.close().expect("a clean close");
    });
}

#[test]
fn counters_lose_no_increment() {
    watched(|| {
        for durability in [Durability::Sync, Durability::Buffered] {
            let directory = tempfile::tempdir().expect("a directory");
            let db = small()
                .durability(durability)
                .open(directory.path())
                .expect("it opens");
            let tree = db.client().tree("counters").expect("a tree");
            let count = |old: Option<&[u8]>| {
                old.map_or(0, |old| u64::from_le_bytes(old.try_into().expect("a count")))
            };
            std::thread::scope(|scope| {
                for thread in 0..4_u64 {
                    let tree = &tree;
                    scope.spawn(move || {
                        for round in 0..400_u64 {
                            // One counter that all fight for, and many others.
                            let key = if round % 2 == 0 { 0 } else { round % 20 };
                            if thread % 2 == 0 {
                                let add =
                                    move |old: Option<&[u8]>| Some((count(old) + 1).to_le_bytes().to_vec());
                                tree.update(key.to_be_bytes(), add).expect("an update");
                                continue;
                            }
                            loop {
                                let old = tree.get(key.to_be_bytes()).expect("a read");
                                let new = (count(old.as_deref()) + 1).to_le_bytes();
                                if tree
                                    .compare_and_swap(key.to_be_bytes(), old.as_deref(), Some(&new))
                                    .expect("a swap")
                                    .is_ok()
                                {
                                    break;
                                }
                            }
                        }
                    });
                }
            });
            let total: u64 = tree
                .range::<&[u8]>(..)
                .expect("a range")
                .map(|item| count(Some(&item.expect("an entry").1)))
                .sum();
            assert_eq!(total, 4 * 400, "{durability:?}");
            db.close().expect("a clean close");
        }
    });
}

#[test]
fn trees_come_and_go_under_writers() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small()
            .durability(Durability::Buffered)
            .open(directory.path())
            .expect("it opens");
        let client = db.client();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3_u64 {
                let (client, stop) = (&client, &stop);
                scope.spawn(move || {
                    let mut number = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        let written = client.tree("short-lived").and_then(|tree| {
                            let value = if number.is_multiple_of(50) {
                                vec![thread as u8; 5_000]
                            } else {
                                vec![thread as u8; 100]
                            };
                            tree.put([thread.to_be_bytes(), number.to_be_bytes()].concat(), value)?;
                            tree.range::<&[u8]>(..)?
                                .take(50)
                                .try_for_each(|item| item.map(drop))
                        });
                        match written {
                            Ok(()) | Err(Error::TreeNotFound { .. } | Error::TreeExists { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                });
            }
            let kept = client.tree("kept").expect("a tree");
            for round in 0..60_u64 {
                kept.put(round.to_be_bytes(), [9; 200]).expect("a put");
                match client.drop_tree("short-lived") {
                    Ok(()) | Err(Error::TreeNotFound { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
                if round % 10 == 0 {
                    db.checkpoint().expect("a checkpoint");
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        db.clone().close().expect("a clean close");
        let db = small().open(directory.path()).expect("it opens");
        let kept = db.client().open_tree("kept").expect("a tree");
        assert_eq!(
            kept.range::<&[u8]>(..)
                .expect("a range")
                .filter(|item| item.is_ok())
                .count(),
            60
        );
    });
}
