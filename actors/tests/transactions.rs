//! Batches over several trees and shards, on real threads.

#![expect(clippy::disallowed_methods, reason = "several clients are several threads")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use treering::{Client, Db, Durability, Error, Isolation, Options, Tree};

const SHARDS: usize = 4;

fn options() -> Options {
    support::options().shards(SHARDS)
}

/// One tree on each shard.
fn trees(client: &Client) -> Vec<Tree> {
    (0..SHARDS)
        .map(|number| client.tree(&format!("tree {number}")).unwrap())
        .collect()
}

fn commit_everywhere(client: &Client, trees: &[Tree], round: u64, durability: Durability) {
    let mut batch = client.batch().durability(durability);
    for tree in trees {
        batch.put(tree, b"round", round.to_le_bytes());
        batch.put(tree, round.to_be_bytes(), b"written");
    }
    batch.commit().unwrap();
}

#[test]
fn a_batch_over_shards_is_whole_at_every_snapshot_and_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let client = db.client();
    let all = trees(&client);
    commit_everywhere(&client, &all, 0, Durability::Sync);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let client = db.client();
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) || looks == 0 {
                let snapshot = client.snapshot();
                let first = snapshot.get(&all[0], b"round").unwrap().unwrap();
                for tree in &all {
                    assert_eq!(snapshot.get(tree, b"round").unwrap().unwrap(), first);
                    let written = snapshot.range(tree, [0].as_slice()..b"own".as_slice()).unwrap();
                    assert_eq!(
                        written.count() as u64,
                        u64::from_le_bytes((*first).try_into().unwrap()) + 1
                    );
                }
                looks += 1;
            }
        });
        // Others keep all shards busy.
        for tree in &all {
            let done = &done;
            scope.spawn(move || {
                let tree = tree.with_durability(Durability::Buffered);
                while !done.load(Ordering::Relaxed) {
                    tree.put(b"own", b"value").unwrap();
                }
            });
        }
        for round in 1..300 {
            let durability = [Durability::Sync, Durability::Buffered][round as usize % 2];
            commit_everywhere(&client, &all, round, durability);
        }
        done.store(true, Ordering::Relaxed);
    });
    db.close().unwrap();
    let db = Db::open(directory.path()).unwrap();
    for tree in trees(&db.client()) {
        assert_eq!(tree.get(b"round").unwrap().unwrap(), 299u64.to_le_bytes());
        assert!((0..300u64).all(|round| tree.contains(round.to_be_bytes()).unwrap()));
    }
}

#[test]
fn a_batch_over_shards_comes_after_what_its_client_has_sent_before() {
    let db = options().open_in_memory().unwrap();
    let client = db.client();
    let all = trees(&client);
    for round in 0..500u64 {
        let tickets: Vec<_> = all
            .iter()
            .flat_map(|tree| (0..8).map(|_| tree.send_put(b"k", b"before").unwrap()))
            .collect();
        let mut batch = client.batch();
        for tree in &all {
            batch.put(tree, b"k", round.to_le_bytes());
        }
        batch.commit().unwrap();
        tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
        for tree in &all {
            assert_eq!(
                tree.get(b"k").unwrap().unwrap(),
                round.to_le_bytes(),
                "round {round}"
            );
        }
    }
}

#[test]
fn batches_of_the_same_keys_in_every_order_all_end() {
    let db = options().open_in_memory().unwrap();
    let client = db.client();
    let all = trees(&client);
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            let (client, all) = (&client, &all);
            scope.spawn(move || {
                for round in 0..200usize {
                    let mut batch = client.batch();
                    for step in 0..SHARDS {
                        // Each thread names the trees in an order of its own.
                        let tree = &all[(thread + step * (1 + 2 * (thread % 2))) % SHARDS];
                        batch.put(tree, b"shared", format!("{thread} {round}"));
                    }
                    batch.commit().unwrap();
                    // One shard alone, for keys that others may have locked.
                    all[thread % SHARDS]
                        .send_batch([(b"shared", format!("{thread} {round} again"))])
                        .unwrap()
                        .wait()
                        .unwrap();
                }
            });
        }
    });
    db.close().unwrap();
}

#[test]
fn a_batch_that_no_commit_can_take_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().cache_bytes(1 << 20).open(directory.path()).unwrap();
    let client = db.client();
    let all = trees(&client);
    let mut too_many_bytes = client.batch();
    let mut too_many_pages = client.batch();
    for number in 0..1500u64 {
        too_many_bytes.put(&all[number as usize % SHARDS], number.to_be_bytes(), vec![7; 800]);
    }
    // A quarter of the cache, over all shards, is 16 pages for each.
    for number in 0..400u64 {
        too_many_pages.put(&all[number as usize % SHARDS], number.to_be_bytes(), vec![7; 800]);
    }
    for (batch, counted) in [(too_many_bytes, "bytes of log"), (too_many_pages, "pages")] {
        match batch.commit() {
            Err(Error::TransactionTooLarge { unit, .. }) => assert_eq!(unit, counted),
            other => panic!("{other:?}"),
        }
    }
    for tree in &all {
        assert!(tree.is_empty().unwrap());
        tree.put(b"k", b"still works").unwrap();
    }
    db.close().unwrap();
}

// ---- interactive transactions ----

/// A number that follows from another; any sequence will do that visits everything.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn ranges_of_a_transaction_show_its_own_writes_from_both_ends() {
    let db = options().open_in_memory().unwrap();
    let client = db.client();
    let tree = client.tree("t").unwrap();
    let mut state = 7;
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for _ in 0..300 {
        let key = (next(&mut state) % 1000).to_be_bytes().to_vec();
        tree.put(&key, b"published").unwrap();
        model.insert(key, b"published".to_vec());
    }
    let mut tx = client.begin(Isolation::Serializable).unwrap();
    for _ in 0..200 {
        let key = (next(&mut state) % 1000).to_be_bytes().to_vec();
        if next(&mut state).is_multiple_of(2) {
            tx.put(&tree, &key, b"own").unwrap();
            model.insert(key, b"own".to_vec());
        } else {
            tx.delete(&tree, &key).unwrap();
            model.remove(&key);
        }
    }
    for number in 0..1000u64 {
        let key = number.to_be_bytes().to_vec();
        assert_eq!(
            tx.get(&tree, &key).unwrap().as_deref(),
            model.get(&key).map(Vec::as_slice)
        );
    }
    for round in 0..60 {
        let (a, b) = (next(&mut state) % 1000, next(&mut state) % 1000);
        let (lower, upper) = (a.min(b).to_be_bytes().to_vec(), a.max(b).to_be_bytes().to_vec());
        let wanted: Vec<_> = model.range(lower.clone()..upper.clone()).collect();
        let mut range = tx.range(&tree, lower..upper).unwrap();
        let (mut front, mut back) = (Vec::new(), Vec::new());
        loop {
            let from_front = match round % 3 {
                0 => true,
                1 => false,
                _ => next(&mut state).is_multiple_of(2),
            };
            let item = if from_front {
                range.next()
            } else {
                range.next_back()
            };
            let Some(item) = item else { break };
            let (key, value) = item.unwrap();
            let side = if from_front { &mut front } else { &mut back };
            side.push((key.to_vec(), value.to_vec()));
        }
        assert!(range.next().is_none() && range.next_back().is_none());
        front.extend(back.into_iter().rev());
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(front, wanted);
    }
    tx.commit().unwrap();
    let published: Vec<_> = tree
        .range::<&[u8]>(..)
        .unwrap()
        .map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
        .collect();
    assert_eq!(published, model.into_iter().collect::<Vec<_>>());
}

/// Runs two transactions side by side, the second one committed first; tells whether the first one could be.
fn overtaken(
    isolation: Isolation,
    shards: usize,
    first: impl Fn(&mut treering::Transaction, &[Tree]),
    second: impl Fn(&mut treering::Transaction, &[Tree]),
) -> bool {
    let db = options().shards(shards).open_in_memory().unwrap();
    let client = db.client();
    let all = trees(&client);
    for tree in &all {
        tree.put(b"a", b"1").unwrap();
        tree.put(b"m", b"1").unwrap();
    }
    let mut tx = client.begin(isolation).unwrap();
    first(&mut tx, &all);
    let mut other = client.begin(isolation).unwrap();
    second(&mut other, &all);
    other.commit().unwrap();
    match tx.commit() {
        Ok(()) => true,
        Err(Error::Conflict) => {
            assert!(db.stats().conflicts == 1);
            // Nothing of it is there, and nothing is locked.
            all.iter().for_each(|tree| tree.put(b"a", b"2").unwrap());
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn each_isolation_level_refuses_what_it_must_and_nothing_else() {
    use Isolation::{Serializable, Snapshot};
    for shards in [1, SHARDS] {
        for isolation in [Snapshot, Serializable] {
            let lost_update = overtaken(
                isolation,
                shards,
                |tx, all| {
                    tx.get(&all[0], b"a").unwrap();
                    tx.put(&all[0], b"a", b"first").unwrap();
                    tx.put(&all[1], b"x", b"first").unwrap();
                },
                |tx, all| tx.put(&all[0], b"a", b"second").unwrap(),
            );
            assert!(!lost_update);
            let apart = overtaken(
                isolation,
                shards,
                |tx, all| {
                    tx.get(&all[0], b"a").unwrap();
                    tx.put(&all[1], b"a", b"first").unwrap();
                },
                |tx, all| {
                    tx.get(&all[2], b"a").unwrap();
                    tx.put(&all[0], b"m", b"second").unwrap();
                    tx.put(&all[3], b"m", b"second").unwrap();
                },
            );
            assert!(apart);
            let write_skew = overtaken(
                isolation,
                shards,
                |tx, all| {
                    tx.get(&all[0], b"a").unwrap();
                    tx.put(&all[1], b"a", b"first").unwrap();
                },
                |tx, all| {
                    tx.get(&all[1], b"a").unwrap();
                    tx.put(&all[0], b"a", b"second").unwrap();
                },
            );
            assert_eq!(write_skew, isolation == Snapshot);
            let phantom = overtaken(
                isolation,
                shards,
                |tx, all| {
                    let found = tx.range(&all[2], b"b".as_slice()..b"l").unwrap().count();
                    tx.put(&all[1], b"count", [found as u8]).unwrap();
                },
                |tx, all| tx.put(&all[2], b"c", b"second").unwrap(),
            );
            assert_eq!(phantom, isolation == Snapshot);
            let absent = overtaken(
                isolation,
                shards,
                |tx, all| {
                    assert!(!tx.contains(&all[3], b"absent").unwrap());
                    tx.put(&all[1], b"count", b"0").unwrap();
                },
                |tx, all| tx.put(&all[3], b"absent", b"second").unwrap(),
            );
            assert_eq!(absent, isolation == Snapshot);
            let behind_what_was_looked_through = overtaken(
                isolation,
                shards,
                |tx, all| {
                    let first = tx.range::<&[u8]>(&all[2], ..).unwrap().next();
                    let (key, value) = first.unwrap().unwrap();
                    tx.put(&all[1], key, value).unwrap();
                },
                |tx, all| tx.put(&all[2], b"z", b"second").unwrap(),
            );
            assert!(behind_what_was_looked_through);
            let blind_writes = overtaken(
                isolation,
                shards,
                |tx, all| tx.put(&all[0], b"a", b"first").unwrap(),
                |tx, all| tx.put(&all[0], b"a", b"second").unwrap(),
            );
            assert_eq!(blind_writes, isolation == Serializable);
            let written_but_equal = overtaken(
                isolation,
                shards,
                |tx, all| {
                    tx.range::<&[u8]>(&all[0], ..).unwrap().for_each(drop);
                    tx.put(&all[1], b"a", b"first").unwrap();
                },
                |tx, all| tx.put(&all[0], b"a", b"1").unwrap(),
            );
            assert!(written_but_equal);
        }
    }
}

#[test]
fn a_transaction_that_only_reads_is_of_one_instant_and_never_refused() {
    let db = options().open_in_memory().unwrap();
    let client = db.client();
    let all = trees(&client);
    let tx = client.begin(Isolation::Serializable).unwrap();
    assert_eq!(tx.get(&all[0], b"k").unwrap(), None);
    all[0].put(b"k", b"1").unwrap();
    assert_eq!(tx.get(&all[0], b"k").unwrap(), None);
    tx.commit().unwrap();
}

#[test]
fn increments_of_a_few_counters_on_all_shards_are_never_lost() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 60;
    let directory = tempfile::tempdir().unwrap();
    let db = options()
        .durability(Durability::Buffered)
        .open(directory.path())
        .unwrap();
    let client = db.client();
    let all = trees(&client);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (client, all) = (&client, &all);
            scope.spawn(move || {
                let mut state = thread;
                for _ in 0..ROUNDS {
                    let at = next(&mut state) as usize;
                    let chosen = [&all[at % SHARDS], &all[(at + 1) % SHARDS]];
                    client
                        .transact(|tx| {
                            for tree in chosen {
                                let count = tx
                                    .get(tree, b"count")?
                                    .map_or(0, |value| u64::from_le_bytes((*value).try_into().unwrap()));
                                tx.put(tree, b"count", (count + 1).to_le_bytes())?;
                            }
                            Ok(())
                        })
                        .unwrap();
                    // Single writes of the same keys, between them.
                    chosen[0]
                        .update(b"count", |value| {
                            let count = u64::from_le_bytes(value?.try_into().ok()?);
                            Some((count + 1).to_le_bytes().to_vec())
                        })
                        .unwrap();
                }
            });
        }
    });
    let sum: u64 = all
        .iter()
        .filter_map(|tree| tree.get(b"count").unwrap())
        .map(|value| u64::from_le_bytes((*value).try_into().unwrap()))
        .sum();
    assert_eq!(sum, 3 * THREADS * ROUNDS);
    let stats = db.stats();
    assert_eq!(stats.transactions, THREADS * ROUNDS);
    assert_eq!(stats.retries, stats.conflicts);
    db.close().unwrap();
}

#[test]
fn a_client_that_goes_away_leaves_no_lock() {
    let db = options().open_in_memory().unwrap();
    let client = db.client();
    let all = trees(&client);
    // In the middle of a transaction, by a panic.
    let panicking = std::thread::scope(|scope| {
        let work = || -> treering::Result<()> {
            client.transact(|tx| {
                all.iter().try_for_each(|tree| tx.put(tree, b"k", b"never"))?;
                assert!(all.is_empty(), "on purpose");
                Ok(())
            })
        };
        scope.spawn(work).join()
    });
    assert!(panicking.is_err());
    for round in 0..200u32 {
        // After the commit was sent: nobody waits for the answer.
        let mut tx = client.begin(Isolation::Serializable).unwrap();
        for tree in &all {
            tx.get(tree, b"k").unwrap();
            tx.put(tree, b"k", round.to_le_bytes()).unwrap();
        }
        drop(tx.send().unwrap());
    }
    for tree in &all {
        tree.put(b"k", b"free").unwrap();
        assert_eq!(tree.get(b"k").unwrap().unwrap(), b"free");
    }
    db.close().unwrap();
}

/// What the log takes of a large value is where it lies: a transaction holds as many of them as a batch.
#[test]
fn many_large_values_fit_one_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let options = || options().page_size(65536).cache_bytes(64 << 20).shards(1);
    let db = options().open(directory.path()).unwrap();
    let tree = db.client().tree("t").unwrap();
    let large = vec![7; 20_000];
    db.client()
        .transact(|tx| (0..100_u32).try_for_each(|number| tx.put(&tree, number.to_be_bytes(), &large)))
        .unwrap();
    drop(tree);
    db.close().unwrap();
    let db = options().open(directory.path()).unwrap();
    let tree = db.client().tree("t").unwrap();
    assert_eq!(tree.len().unwrap(), 100);
    assert!(tree.range(..).unwrap().all(|entry| entry.unwrap().1 == large));
}

#[test]
fn large_values_of_transactions_are_there_or_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let client = db.client();
    let all = trees(&client);
    let large = vec![7; 100_000];
    client
        .transact(|tx| {
            all.iter().try_for_each(|tree| tx.put(tree, b"large", &large))?;
            assert_eq!(tx.get(&all[0], b"large")?.unwrap(), large);
            Ok(())
        })
        .unwrap();
    let mut refused = client.begin(Isolation::Serializable).unwrap();
    assert_eq!(refused.get(&all[1], b"large").unwrap().unwrap(), large);
    refused.put(&all[2], b"large", vec![8; 100_000]).unwrap();
    refused.put(&all[3], b"large", vec![8; 100_000]).unwrap();
    all[1].put(b"large", b"small").unwrap();
    assert!(matches!(refused.commit(), Err(Error::Conflict)));
    db.close().unwrap();
    let db = options().open(directory.path()).unwrap();
    for (number, tree) in trees(&db.client()).iter().enumerate() {
        let value = tree.get(b"large").unwrap().unwrap();
        assert!(if number == 1 {
            value == b"small"
        } else {
            value == large
        });
    }
}
