//! Transactions over two shards beside the same writes in one, and a counter that many threads raise; all of it synced.

use std::time::Instant;

use treering::{Client, Options, Tree};

use super::{Row, median};
use crate::Result;
use crate::report::Contender;
use crate::rows::Context;

/// With two shards, trees 0 and 2 are on the first one, tree 1 is on the second.
const SHARDS: usize = 2;
const COUNTER_THREADS: u64 = 64;

pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let directory = context.directory(Contender::Treering)?;
    let db = Options::new()
        .cache_bytes(256 << 20)
        .shards(SHARDS)
        .open(directory.path())?;
    let client = db.client();
    let trees = [client.tree("0")?, client.tree("1")?, client.tree("2")?];
    let (together, apart) = ([&trees[0], &trees[2]], [&trees[0], &trees[1]]);
    let batch = ratio(context, [together, apart], |trees, round| {
        let mut batch = client.batch();
        for tree in trees {
            batch.put(tree, round.to_be_bytes(), [7; 100]);
        }
        Ok(batch.commit()?)
    })?;
    let transaction = ratio(context, [together, apart], |trees, round| {
        let key = (round / 2).to_be_bytes();
        Ok(client.transact(|transaction| {
            for tree in trees {
                let old = transaction.get(tree, key)?.map_or(0, |value| value.len());
                transaction.put(tree, key, [old as u8; 100])?;
            }
            Ok(())
        })?)
    })?;
    let counts: Result<Vec<f64>> = (0..context.settings.rounds)
        .map(|_| count(context, &client))
        .collect();
    let counts = median(counts?);
    drop((client, trees));
    db.close()?;
    Ok(vec![
        Row::of(
            "transaction over 2 shards (2 reads, 2 puts, Sync): latency against the same in one shard",
            "1.5x, no more",
            transaction,
        ),
        Row::of("the same as a batch of 2 puts", "", batch),
        Row::of(
            "64 threads `update` one key, Sync: increments a second, none lost",
            "50,000",
            format!("{counts:.0}"),
        ),
    ])
}

/// Runs `work` on either pair of trees in turns; the ratio of the median latencies, and both.
fn ratio(
    context: &Context,
    pairs: [[&Tree; 2]; 2],
    work: impl Fn([&Tree; 2], u64) -> Result<()>,
) -> Result<String> {
    let mut micros = [Vec::new(), Vec::new()];
    let begun = Instant::now();
    let time = context.settings.row_time * context.settings.rounds;
    let mut round = 0;
    while begun.elapsed() < time {
        for (trees, micros) in pairs.iter().zip(&mut micros) {
            let start = Instant::now();
            work(*trees, round)?;
            micros.push(start.elapsed().as_secs_f64() * 1e6);
        }
        round += 1;
    }
    let [one, two] = micros.map(median);
    Ok(format!("{:.2}x ({one:.0} → {two:.0} µs)", two / one))
}

/// Increments a second.
fn count(context: &Context, client: &Client) -> Result<f64> {
    let tree = client.tree("counter")?;
    let before = number(tree.get(b"count")?.as_deref());
    let start = Instant::now();
    let done = std::thread::scope(|scope| -> Result<u64> {
        let threads: Vec<_> = (0..COUNTER_THREADS)
            .map(|_| {
                scope.spawn(|| -> Result<u64> {
                    let mut done = 0;
                    while start.elapsed() < context.settings.row_time {
                        tree.update(b"count", |old| Some((number(old) + 1).to_le_bytes().to_vec()))?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        let mut sum = 0;
        for thread in threads {
            sum += thread.join().map_err(|_| "a client thread panicked")??;
        }
        Ok(sum)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let counted = number(tree.get(b"count")?.as_deref()) - before;
    if counted != done {
        return Err(format!("{done} increments were acknowledged, {counted} are there").into());
    }
    Ok(done as f64 / seconds)
}

fn number(value: Option<&[u8]>) -> u64 {
    let bytes = value.and_then(|value| value.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}
