//! Prints how many writes a second clients get that wait for each of them, and how long they wait:
//! `cargo run --release -p treering --example writers -- [directory]`.
//!
//! `THREADS` (default `1,16,64,256`), `DURABILITY` (`sync`, `buffered`; default both), `READS` (percent of the operations,
//! default 0), `ROW_SECONDS` (default 1) and `RECORDS` (default 200,000) say what to run. Keys are random. Beside the
//! rates stand the log groups a second and the context switches of all threads for each operation, which is what limits
//! writers that wait. At the end: writes that are pipelined, by one thread.

#![expect(clippy::disallowed_methods, reason = "it measures time, with real threads")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use treering::{Durability, Options, Ticket, Tree};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.into())
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn key(number: u64) -> [u8; 24] {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut key = [0; 24];
    key.chunks_exact_mut(8)
        .for_each(|part| part.copy_from_slice(&random(&mut state).to_be_bytes()));
    key
}

/// Context switches of all threads of this process that are alive.
fn switches() -> u64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .flat_map(|status| {
            status
                .lines()
                .filter(|line| line.contains("ctxt_switches"))
                .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
                .collect::<Vec<_>>()
        })
        .sum()
}

/// Waits in nanoseconds, up to ten seconds, in little memory: a large one would be felt.
fn empty_histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 10_000_000_000, 2).expect("the bounds are right")
}

/// One thread's waits.
fn operate(
    tree: &Tree,
    thread: u64,
    records: u64,
    reads: u64,
    warm: &AtomicBool,
    stop: &AtomicBool,
) -> Histogram<u32> {
    let mut state = 5_463_325_252 + 7_919 * thread;
    let mut waits_ns = empty_histogram();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let key = key(random(&mut state) % records);
        if random(&mut state) % 100 < reads {
            assert!(tree.contains(key).expect("the read succeeds"));
        } else {
            tree.put(key, [7u8; 150]).expect("the write succeeds");
        }
        if warm.load(Ordering::Relaxed) {
            waits_ns.saturating_record(begun.elapsed().as_nanos() as u64);
        }
    }
    waits_ns
}

fn main() -> treering::Result<()> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "/tmp/treering-writers".into());
    let records: u64 = setting("RECORDS", "200000").parse().expect("a number");
    let reads: u64 = setting("READS", "0").parse().expect("a number");
    let seconds: f64 = setting("ROW_SECONDS", "1").parse().expect("a number");
    let row = Duration::from_secs_f64(seconds);
    let _ = std::fs::remove_dir_all(&path);
    let db = Options::new().cache_bytes(1 << 30).open(&path)?;
    let buffered = db.client().tree("t")?.with_durability(Durability::Buffered);
    let mut tickets = VecDeque::new();
    for number in 0..records {
        tickets.push_back(buffered.send_put(key(number), [7u8; 150])?);
        if tickets.len() > 1024 {
            tickets.pop_front().map(Ticket::wait).transpose()?;
        }
    }
    tickets.drain(..).try_for_each(Ticket::wait)?;
    db.checkpoint()?;

    println!(
        "| durability | threads | operations/s | p50 µs | p99 µs | p99.9 µs | max µs | log groups/s | switches/operation |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for name in setting("DURABILITY", "sync,buffered").split(',') {
        let durability = match name {
            "sync" => Durability::Sync,
            _ => Durability::Buffered,
        };
        let tree = buffered.with_durability(durability);
        for threads in setting("THREADS", "1,16,64,256").split(',') {
            let threads: u64 = threads.parse().expect("a number");
            let (warm, stop) = (AtomicBool::new(false), AtomicBool::new(false));
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads)
                    .map(|thread| {
                        let (tree, warm, stop) = (&tree, &warm, &stop);
                        scope.spawn(move || operate(tree, thread, records, reads, warm, stop))
                    })
                    .collect();
                std::thread::sleep(row / 4);
                let (groups, switched) = (db.stats().log_groups, switches());
                warm.store(true, Ordering::Relaxed);
                let begun = Instant::now();
                std::thread::sleep(row);
                let elapsed = begun.elapsed().as_secs_f64();
                let (groups, switched) = (db.stats().log_groups - groups, switches() - switched);
                stop.store(true, Ordering::Relaxed);
                let mut waits_ns = empty_histogram();
                for worker in workers {
                    waits_ns
                        .add(worker.join().expect("no panic"))
                        .expect("equal bounds");
                }
                let at = |quantile: f64| waits_ns.value_at_quantile(quantile) as f64 / 1e3;
                let operations = waits_ns.len() as f64;
                println!(
                    "| {name} | {threads} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
                    operations / elapsed,
                    at(0.5),
                    at(0.99),
                    at(0.999),
                    at(1.0),
                    groups as f64 / elapsed,
                    switched as f64 / operations,
                );
            });
        }
    }

    let begun = Instant::now();
    let mut state = 8_463_325_252;
    let mut written = 0;
    while begun.elapsed() < row {
        tickets.push_back(buffered.send_put(key(random(&mut state) % records), [7u8; 150])?);
        if tickets.len() > 1024 {
            tickets.pop_front().map(Ticket::wait).transpose()?;
            written += 1;
        }
    }
    println!(
        "\n{:.0} pipelined writes/s",
        f64::from(written) / begun.elapsed().as_secs_f64()
    );
    tickets.drain(..).try_for_each(Ticket::wait)?;
    db.close()
}
