//! A snapshot for every get, and writers beside a hot backup.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Filled, Row, median};
use crate::Result;
use crate::rows::Context;
use crate::workload::{Random, key_of};

/// Gets between two looks at the clock.
const GETS_AT_A_TIME: u64 = 1_000;
/// Threads of the mixed load.
const THREADS: u64 = 2;

pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let records = context.settings.records;
    let filled = Filled::new(context, records)?;
    let client = filled.db.client();
    let (mut ratios, mut kept) = (Vec::new(), Vec::new());
    for round in 0..context.settings.rounds {
        let mut random = Random::new(u64::from(round));
        let plain = gets(context, &mut random, |index| {
            Ok(filled.tree.get(key_of(index))?.is_some())
        })?;
        let with_snapshot = gets(context, &mut random, |index| {
            Ok(client.snapshot().get(&filled.tree, key_of(index))?.is_some())
        })?;
        ratios.push(plain / with_snapshot);
    }
    for round in 0..context.settings.rounds {
        let alone = half_puts(context, &filled, |_| Ok(()))?;
        let mut backups = 0;
        let beside = half_puts(context, &filled, |stop| {
            while !stop.load(Ordering::Relaxed) {
                let copy = filled.directory.path().join(format!("copy {round} {backups}"));
                filled.db.backup(&copy)?;
                std::fs::remove_dir_all(copy)?;
                backups += 1;
            }
            Ok(())
        })?;
        kept.push(beside / alone);
    }
    filled.close()?;
    Ok(vec![
        Row::of(
            "`snapshot()` + `get` against `get`: time",
            "1.1x",
            format!("{:.2}x", median(ratios)),
        ),
        Row::of(
            "hot backups during half gets, half buffered puts on 2 threads: what the load keeps",
            "80%",
            format!("{:.0}%", median(kept) * 100.0),
        ),
    ])
}

/// Gets a second.
fn gets(context: &Context, random: &mut Random, get: impl Fn(u64) -> Result<bool>) -> Result<f64> {
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < context.settings.row_time {
        for _ in 0..GETS_AT_A_TIME {
            if !get(random.below(context.settings.records))? {
                return Err("a record is missing".into());
            }
        }
        done += GETS_AT_A_TIME;
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

/// Operations a second of half gets, half puts, on uniform keys, while `beside` runs in this thread.
fn half_puts(
    context: &Context,
    filled: &Filled,
    beside: impl FnOnce(&AtomicBool) -> Result<()>,
) -> Result<f64> {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    // Longer than a backup takes.
    let time = context.settings.row_time.max(Duration::from_secs(2));
    std::thread::scope(|scope| -> Result<()> {
        let load: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (stop, done) = (&stop, &done);
                scope.spawn(move || -> Result<()> {
                    let mut random = Random::new(thread);
                    while !stop.load(Ordering::Relaxed) {
                        if random.below(2) == 0 {
                            let index = random.below(context.settings.records);
                            filled.tree.get(key_of(index))?;
                        } else {
                            let record = context.update(context.settings.records, &mut random);
                            filled.tree.put(record.key, record.value)?;
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let timer = scope.spawn(|| {
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        });
        let outcome = beside(&stop);
        let _ = timer.join();
        for thread in load {
            thread.join().map_err(|_| "a client thread panicked")??;
        }
        outcome
    })?;
    // The threads stop with the timer, however long the rest takes.
    Ok(done.load(Ordering::Relaxed) as f64 / time.as_secs_f64())
}
