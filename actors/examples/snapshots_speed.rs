//! What snapshots and backups cost: `cargo run --release -p treering --example snapshots_speed`.
//!
//! Environment: `RECORDS` (default 300,000), `SECONDS` of each phase (default 3), `ROUNDS` (default 2).

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures, on real threads, and says what"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use treering::{Client, Durability, Options, Snapshot, Ticket, Tree};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn key(number: u64) -> [u8; 24] {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = [b'k'; 24];
    key[..8].copy_from_slice(&(mixed ^ (mixed >> 29)).to_be_bytes());
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Uniform overwrites for a while, 256 under way; operations a second.
fn overwrite(tree: &Tree, records: u64, seconds: u64, numbers: &mut Numbers) -> f64 {
    let began = Instant::now();
    let mut under_way: std::collections::VecDeque<Ticket<()>> = std::collections::VecDeque::new();
    let mut done = 0u64;
    while began.elapsed() < Duration::from_secs(seconds) {
        let value = [done as u8; 150];
        under_way.push_back(tree.send_put(key(numbers.below(records)), value).expect("a put"));
        if under_way.len() >= 256
            && let Some(ticket) = under_way.pop_front()
        {
            ticket.wait().expect("a put");
        }
        done += 1;
    }
    under_way
        .into_iter()
        .for_each(|ticket| ticket.wait().expect("a put"));
    done as f64 / began.elapsed().as_secs_f64()
}

/// Half gets, half puts, on two threads, while `beside` runs; operations a second.
fn mixed(tree: &Tree, records: u64, seconds: u64, beside: impl FnOnce(&AtomicBool)) -> f64 {
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || {
                let mut numbers = Numbers(77 + thread);
                while !stop.load(Ordering::Relaxed) {
                    let key = key(numbers.below(records));
                    if numbers.below(2) == 0 {
                        tree.get(key).expect("a get");
                    } else {
                        tree.put(key, [1; 150]).expect("a put");
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let timer = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(seconds));
            stop.store(true, Ordering::Relaxed);
        });
        beside(&stop);
        timer.join().expect("the timer");
    });
    // The threads stop with the timer, however long the rest takes.
    done.load(Ordering::Relaxed) as f64 / seconds as f64
}

fn gets(
    tree: &Tree,
    records: u64,
    seconds: u64,
    numbers: &mut Numbers,
    mut get: impl FnMut(&Tree, [u8; 24]),
) -> f64 {
    let began = Instant::now();
    let mut done = 0u64;
    while began.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..1_000 {
            get(tree, key(numbers.below(records)));
        }
        done += 1_000;
    }
    done as f64 / began.elapsed().as_secs_f64()
}

fn held(client: &Client, holds: bool) -> Option<Snapshot> {
    holds.then(|| client.snapshot())
}

fn main() {
    let (records, seconds, rounds) = (
        setting("RECORDS", 300_000),
        setting("SECONDS", 3),
        setting("ROUNDS", 2),
    );
    let directory = tempfile::tempdir().expect("a directory");
    let db = Options::new()
        .durability(Durability::Buffered)
        .cache_bytes(512 << 20)
        .open(directory.path().join("db"))
        .expect("a database");
    let client = db.client();
    let tree = client.tree("t").expect("a tree");
    let mut numbers = Numbers(4711);
    for chunk in (0..records).collect::<Vec<_>>().chunks(1_000) {
        let pairs = chunk.iter().map(|number| (key(*number), [0; 150]));
        tree.send_batch(pairs).and_then(Ticket::wait).expect("a batch");
    }
    db.checkpoint().expect("a checkpoint");
    for _ in 0..rounds {
        let plain = gets(&tree, records, 1, &mut numbers, |tree, key| {
            tree.get(key).expect("a get");
        });
        let snapshots = gets(&tree, records, 1, &mut numbers, |tree, key| {
            client.snapshot().get(tree, key).expect("a get");
        });
        println!(
            "get {plain:.0}/s, snapshot + get {snapshots:.0}/s: {:.3}x",
            plain / snapshots
        );
        let mut rates = [0.0; 2];
        for holds in [false, true] {
            let in_use = db.stats().file_pages - db.stats().free_pages;
            let snapshot = held(&client, holds);
            rates[usize::from(holds)] = overwrite(&tree, records, seconds, &mut numbers);
            if snapshot.is_some() {
                db.checkpoint().expect("a checkpoint");
                let retained = db.stats().retained_pages;
                println!("retained {retained} pages of {in_use} in use");
            }
        }
        println!(
            "puts {:.0}/s, with a snapshot held {:.0}/s: {:.3}",
            rates[0],
            rates[1],
            rates[1] / rates[0]
        );
    }
    for round in 0..rounds {
        let alone = mixed(&tree, records, seconds, |_| {});
        let mut backups = 0;
        let beside = mixed(&tree, records, seconds, |stop| {
            while !stop.load(Ordering::Relaxed) {
                let copy = directory.path().join(format!("copy {round} {backups}"));
                db.backup(&copy).expect("a backup");
                backups += 1;
            }
        });
        println!(
            "half gets, half puts {alone:.0}/s, beside {backups} backups {beside:.0}/s: {:.3}",
            beside / alone
        );
    }
    drop(tree);
    db.close().expect("closing");
}
