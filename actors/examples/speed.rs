//! Prints how fast the public interface is on this machine: `cargo run --release -p treering --example speed [dir]`.

#![expect(clippy::disallowed_methods, reason = "it measures time, with real threads")]

use std::ops::ControlFlow;
use std::time::Instant;

use treering::{Durability, Options};

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

fn report(name: &str, count: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{name:32} {:>12.0}/s {:>10.0} ns",
        count as f64 / seconds,
        seconds * 1e9 / count as f64
    );
}

fn main() -> treering::Result<()> {
    let path = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "/tmp/treering-speed".into());
    let records: u64 = std::env::var("RECORDS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1_000_000);
    let _ = std::fs::remove_dir_all(&path);
    let mut options = Options::new().cache_bytes(1 << 30);
    if let Some(shards) = std::env::var("SHARDS")
        .ok()
        .and_then(|shards| shards.parse().ok())
    {
        options = options.shards(shards);
    }
    let db = options.open(&path)?;
    let tree = db.client().tree("t")?.with_durability(Durability::Buffered);
    let value = [7u8; 150];

    if std::env::var("PHASE").is_ok_and(|phase| phase == "sorted") {
        let mut keys: Vec<_> = (0..records).map(key).collect();
        keys.sort_unstable();
        let start = Instant::now();
        tree.bulk_load(keys.iter().map(|key| (key, value)))?;
        report("bulk load, sorted", records, start);
        return db.close();
    }

    let start = Instant::now();
    let mut tickets = std::collections::VecDeque::new();
    for number in 0..records {
        tickets.push_back(tree.send_put(key(number), value)?);
        if tickets.len() > 2048 {
            tickets.pop_front().map(treering::Ticket::wait).transpose()?;
        }
    }
    tickets.drain(..).try_for_each(treering::Ticket::wait)?;
    report("load random, pipelined", records, start);
    if std::env::var("PHASE").is_ok() {
        println!("{:?}", db.stats());
        return db.close();
    }

    let start = Instant::now();
    for number in 0..records {
        tickets.push_back(tree.send_put(key(number), value)?);
        if tickets.len() > 2048 {
            tickets.pop_front().map(treering::Ticket::wait).transpose()?;
        }
    }
    tickets.drain(..).try_for_each(treering::Ticket::wait)?;
    report("overwrite, pipelined", records, start);

    for threads in [1u64, 2] {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let tree = &tree;
                scope.spawn(move || {
                    let mut state = 88_172_645_463_325_252 + thread;
                    for _ in 0..records {
                        assert!(tree.get(key(random(&mut state) % records)).unwrap().is_some());
                    }
                });
            }
        });
        report(&format!("get, {threads} threads"), records * threads, start);
    }
    let start = Instant::now();
    let mut state = 99;
    for _ in 0..records / 64 {
        let keys: Vec<_> = (0..64).map(|_| key(random(&mut state) % records)).collect();
        assert!(tree.get_many(&keys)?.iter().all(Option::is_some));
    }
    report("get_many of 64, per key", records / 64 * 64, start);
    let start = Instant::now();
    let mut count = 0u64;
    tree.scan::<&[u8]>(.., |_, value| {
        count += u64::from(value.len() == 150);
        ControlFlow::Continue(())
    })?;
    report("full scan, per entry", count, start);
    let start = Instant::now();
    let count = tree.range::<&[u8]>(..)?.filter(|item| item.is_ok()).count();
    report("full range, per entry", count as u64, start);
    let start = Instant::now();
    for _ in 0..records / 100 {
        let mut left = 100;
        tree.scan(key(random(&mut state) % records).., |_, _| {
            left -= 1;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
    }
    report("range of 100", records / 100, start);
    for threads in [1u64, 16] {
        let each = 300_000 / threads;
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let tree = &tree;
                scope.spawn(move || {
                    let mut state = 7_465_463_325_252 + thread;
                    for _ in 0..each {
                        tree.put(key(random(&mut state) % records), value).unwrap();
                    }
                });
            }
        });
        report(
            &format!("buffered put, waited, {threads} thr"),
            each * threads,
            start,
        );
    }
    let synced = tree.with_durability(Durability::Sync);
    if std::env::var("QUICK").is_ok() {
        return db.close();
    }
    for threads in [1u64, 16, 64] {
        let each = if threads == 1 { 10_000 } else { 200_000 / threads };
        let before = db.stats();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let tree = &synced;
                scope.spawn(move || {
                    let mut state = 5_463_325_252 + thread;
                    for _ in 0..each {
                        tree.put(key(random(&mut state) % records), value).unwrap();
                    }
                });
            }
        });
        report(&format!("durable put, {threads} threads"), each * threads, start);
        let after = db.stats();
        println!(
            "   {} log groups, {} syncs, {} MB of log",
            after.log_groups - before.log_groups,
            after.syncs - before.syncs,
            (after.log_bytes - before.log_bytes) >> 20
        );
    }
    println!("{:?}", db.stats());
    let start = Instant::now();
    db.close()?;
    println!("close {:?}", start.elapsed());
    Ok(())
}
