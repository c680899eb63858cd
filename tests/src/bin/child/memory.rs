//! How much memory a process with an open database takes.

use std::collections::VecDeque;
use std::path::Path;

use treering::{Db, Durability, Options};

/// What a database may take besides its cache.
const OVERHEAD_BYTES: u64 = 64 << 20;
/// Writes on their way at a time.
const PIPELINED: usize = 1_000;

fn open(path: &Path, cache_bytes: u64) -> Db {
    let options = Options::new()
        .cache_bytes(cache_bytes)
        .durability(Durability::Buffered);
    options
        .checkpoint_log_bytes(64 << 20)
        .open(path)
        .expect("the directory is free")
}

/// Fills the cache several times over, overwrites, scans, keeps a snapshot, and checks the budget.
pub fn run(path: &Path, cache_bytes: u64) {
    let records = 4 * cache_bytes / 200;
    let db = open(path, cache_bytes);
    let tree = db.client().tree("t").expect("a tree");
    let key = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    let mut snapshot = None;
    for round in 0..2_u8 {
        let mut tickets = VecDeque::new();
        for number in 0..records {
            tickets.push_back(tree.send_put(key(number), [round; 180]).expect("a put is sent"));
            if tickets.len() > PIPELINED {
                tickets
                    .pop_front()
                    .map(treering::Ticket::wait)
                    .transpose()
                    .expect("a put");
            }
        }
        tickets
            .into_iter()
            .for_each(|ticket| ticket.wait().expect("a put"));
        snapshot.get_or_insert_with(|| db.client().snapshot());
    }
    let mut seen = 0;
    tree.scan::<&[u8]>(.., |_, value| {
        assert_eq!(value, [1; 180]);
        seen += 1;
        std::ops::ControlFlow::Continue(())
    })
    .expect("a scan");
    assert_eq!(seen, records);
    check_peak(cache_bytes, 0);
    drop(snapshot);
    drop(tree);
    db.close().expect("a clean close");
    check_peak(cache_bytes, 0);
}

/// Fills the cache several times over from many threads at once, by every kind of write that carries many bytes: what
/// is under way must be bounded by its bytes, not only by its number.
pub fn writers(path: &Path, cache_bytes: u64, threads: u64) {
    const BATCH_WRITES: u64 = 64;
    const BLOB_BYTES: u64 = 6 << 20;
    let db = open(path, cache_bytes);
    let tree = db.client().tree("t").expect("a tree");
    let blob = large(BLOB_BYTES);
    let all_are_there = std::sync::Barrier::new(threads as usize);
    let rounds = 4 * cache_bytes / 1_000 / threads / BATCH_WRITES;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (db, tree, blob, all_are_there) = (&db, &tree, &blob, &all_are_there);
            let key = move |number: u64| {
                (thread << 32 | number)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                    .to_be_bytes()
            };
            scope.spawn(move || {
                for round in 0..rounds {
                    let first = round * BATCH_WRITES;
                    let numbers = first..first + BATCH_WRITES;
                    let send = |number| tree.send_put(key(number), [1; 900]).expect("a put is sent");
                    let tickets: Vec<_> = numbers.clone().map(send).collect();
                    for ticket in tickets {
                        ticket.wait().expect("a put");
                    }
                    let mut batch = db.client().batch();
                    for number in numbers {
                        batch.put(tree, key(number), [2; 900]);
                    }
                    batch.commit().expect("a batch");
                    tree.put(key(first), [3; 100]).expect("a put");
                }
                all_are_there.wait();
                tree.put(thread.to_be_bytes(), blob).expect("a large put");
            });
        }
    });
    // The caller's large value, and the batches, which are their caller's until they are committed.
    let users_bytes = BLOB_BYTES + threads * BATCH_WRITES * 1_024;
    check_peak(cache_bytes, users_bytes);
    drop(tree);
    db.close().expect("a clean close");
    check_peak(cache_bytes, users_bytes);
}

/// Writes one value much larger than the cache.
pub fn large_value_put(path: &Path, cache_bytes: u64, value_bytes: u64) {
    let db = open(path, cache_bytes);
    let tree = db.client().tree("t").expect("a tree");
    tree.put(b"large", large(value_bytes)).expect("a large put");
    db.close().expect("a clean close");
    check_peak(cache_bytes, value_bytes);
}

/// Reads it. What is handed to the user is the user's.
pub fn large_value_get(path: &Path, cache_bytes: u64, value_bytes: u64) {
    let db = open(path, cache_bytes);
    let tree = db.client().tree("t").expect("a tree");
    let value = tree.get(b"large").expect("a large get").expect("the value");
    assert_eq!(value.len() as u64, value_bytes);
    for (index, words) in value.chunks_exact(8).enumerate().step_by(1009) {
        assert_eq!(words, (index as u64).to_le_bytes());
    }
    check_peak(cache_bytes, value_bytes);
    drop(value);
    db.close().expect("a clean close");
}

fn large(value_bytes: u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(value_bytes as usize);
    for word in 0..value_bytes / 8 {
        value.extend_from_slice(&word.to_le_bytes());
    }
    value
}

/// The highest resident size so far is within what was promised, beyond `users_bytes` of the user's own.
fn check_peak(cache_bytes: u64, users_bytes: u64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process file system");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("the peak");
    let peak_kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a number");
    let peak_bytes = peak_kib << 10;
    let limit_bytes = cache_bytes + OVERHEAD_BYTES + cache_bytes / 50 + users_bytes;
    println!("peak {} MiB of {} MiB", peak_bytes >> 20, limit_bytes >> 20);
    assert!(
        peak_bytes <= limit_bytes,
        "{peak_bytes} bytes are more than {limit_bytes}"
    );
}
