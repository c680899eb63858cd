//! Prints what it costs that a transaction's keys are on two shards, and how often many threads can raise one counter, all
//! of it synced: `cargo run --release -p treering --example transaction_speed [directory]`.
//!
//! The same two writes are made to two trees of one shard and to two trees of two shards, in turns; medians are printed.

#![expect(clippy::disallowed_methods, reason = "it measures time, with real threads")]

use std::time::{Duration, Instant};

use treering::{Client, Db, Options, Tree};

/// With two shards, trees 0 and 2 are on the first one, tree 1 is on the second.
const SHARDS: usize = 2;
const ROUNDS: u64 = 2_000;
const COUNTER_THREADS: u64 = 64;
const COUNTER_TIME: Duration = Duration::from_secs(5);

fn main() -> treering::Result<()> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "/tmp/treering-transaction-speed".into());
    let _ = std::fs::remove_dir_all(&path);
    let db = Options::new().cache_bytes(256 << 20).shards(SHARDS).open(&path)?;
    let client = db.client();
    let trees: treering::Result<Vec<Tree>> = (0..3)
        .map(|number| client.tree(&format!("tree {number}")))
        .collect();
    let trees = trees?;
    let (together, apart) = ([&trees[0], &trees[2]], [&trees[0], &trees[1]]);
    compare("batch of two puts", [together, apart], |trees, round| {
        let mut batch = client.batch();
        for tree in trees {
            batch.put(tree, round.to_be_bytes(), [7; 100]);
        }
        batch.commit()
    })?;
    compare(
        "transaction: two reads, two puts",
        [together, apart],
        |trees, round| {
            client.transact(|tx| {
                for tree in trees {
                    let old = tx
                        .get(tree, (round / 2).to_be_bytes())?
                        .map_or(0, |value| value.len());
                    tx.put(tree, (round / 2).to_be_bytes(), [old as u8; 100])?;
                }
                Ok(())
            })
        },
    )?;
    count(&db, &client)?;
    db.close()
}

/// Runs `work` on either pair of trees in turns, and prints the medians and their ratio.
fn compare(
    name: &str,
    pairs: [[&Tree; 2]; 2],
    work: impl Fn([&Tree; 2], u64) -> treering::Result<()>,
) -> treering::Result<()> {
    let mut nanos = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (trees, nanos) in pairs.iter().zip(&mut nanos) {
            let start = Instant::now();
            work(*trees, round)?;
            nanos.push(start.elapsed().as_nanos() as u64);
        }
    }
    let [one, two] = nanos.map(|mut nanos| {
        nanos.sort_unstable();
        nanos[nanos.len() / 2]
    });
    println!(
        "{name:34} one shard {:>7.1} us, two shards {:>7.1} us: {:.2} times",
        one as f64 / 1e3,
        two as f64 / 1e3,
        two as f64 / one as f64
    );
    Ok(())
}

/// Many threads raise one counter; none of what they did may be missing.
fn count(db: &Db, client: &Client) -> treering::Result<()> {
    let tree = client.tree("counter")?;
    let start = Instant::now();
    let done: treering::Result<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..COUNTER_THREADS)
            .map(|_| {
                let tree = &tree;
                scope.spawn(move || {
                    let mut done = 0;
                    while start.elapsed() < COUNTER_TIME {
                        tree.update(b"count", |old| Some((number(old) + 1).to_le_bytes().to_vec()))?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(0)));
        joined.sum()
    });
    let (done, seconds) = (done?, start.elapsed().as_secs_f64());
    let found = number(tree.get(b"count")?.as_deref());
    println!(
        "one counter, {COUNTER_THREADS} threads, synced: {:.0} a second; {done} acknowledged, {found} counted; {} commit groups",
        done as f64 / seconds,
        db.stats().commit_groups
    );
    Ok(())
}

fn number(value: Option<&[u8]>) -> u64 {
    value
        .and_then(|value| value.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}
