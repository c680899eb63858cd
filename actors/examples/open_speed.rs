//! How long opening takes after a crash, by its parts.
//!
//! `open_speed prepare DIR [DATA_RECORDS] [LOG_RECORDS]` loads a database, settles it, overwrites random records
//! without a checkpoint and ends without closing. `open_speed open DIR` opens it, reads one key, prints the figures
//! and ends without closing, so that it can be opened again under the same log.

#![expect(clippy::disallowed_methods, reason = "it measures time, with real threads")]

use std::path::PathBuf;
use std::process::exit;
use std::time::Instant;

use treering::{Db, Durability, Options, Tree};

const VALUE_BYTES: usize = 150;
const BATCH_RECORDS: u64 = 1_000;
const CACHE_BYTES: u64 = 4 << 30;
/// Longer than any log here: no checkpoint shortens it.
const LOG_BYTES_UNBOUNDED: u64 = 8 << 30;

fn key(number: u64) -> [u8; 24] {
    let mut key = *b"record-0000000000000000-";
    key[7..23].copy_from_slice(format!("{number:016x}").as_bytes());
    key
}

fn value(number: u64) -> [u8; VALUE_BYTES] {
    let mut value = [7; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

fn open(directory: &PathBuf) -> treering::Result<Db> {
    let cache_bytes = std::env::var("CACHE_BYTES")
        .ok()
        .and_then(|bytes| bytes.parse().ok());
    Options::new()
        .cache_bytes(cache_bytes.unwrap_or(CACHE_BYTES))
        .checkpoint_log_bytes(LOG_BYTES_UNBOUNDED)
        .open(directory)
}

fn write(tree: &Tree, numbers: impl Iterator<Item = u64>) -> treering::Result<()> {
    let mut batch = Vec::new();
    for number in numbers {
        batch.push((key(number), value(number)));
        if batch.len() as u64 == BATCH_RECORDS {
            tree.send_batch(std::mem::take(&mut batch))?.wait()?;
        }
    }
    tree.send_batch(batch)?.wait()
}

fn prepare(directory: &PathBuf, data_records: u64, log_records: u64) -> treering::Result<()> {
    let _ = std::fs::remove_dir_all(directory);
    let db = open(directory)?;
    let tree = db.client().tree("records")?.with_durability(Durability::Buffered);
    write(&tree, 0..data_records)?;
    db.flush()?;
    db.checkpoint()?;
    let mut state = 88_172_645_463_325_252_u64;
    let random = std::iter::from_fn(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state % data_records)
    });
    write(&tree, random.take(log_records as usize))?;
    db.flush()?;
    println!("log {:.1} MB", db.stats().log_length_bytes as f64 / 1e6);
    exit(0)
}

fn main() -> treering::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, phase, directory, numbers @ ..] = &arguments[..] else {
        eprintln!("open_speed prepare|open DIR [DATA_RECORDS] [LOG_RECORDS]");
        exit(2)
    };
    let directory = PathBuf::from(directory);
    let number = |index: usize| numbers.get(index).and_then(|text| text.parse().ok());
    if phase == "prepare" {
        return prepare(
            &directory,
            number(0).unwrap_or(1_000_000),
            number(1).unwrap_or(1_000_000),
        );
    }
    let begun = Instant::now();
    let db = open(&directory)?;
    let tree = db.client().tree("records")?;
    let found = tree.get(key(0))?;
    let elapsed = begun.elapsed();
    assert!(found.is_some(), "the first record is there");
    let stats = db.stats();
    let megabytes = stats.log_length_bytes as f64 / 1e6;
    println!(
        "{:.0} ms for {megabytes:.1} MB of log: {:.0} MB/s; {stats:?}",
        elapsed.as_secs_f64() * 1e3,
        megabytes / elapsed.as_secs_f64()
    );
    exit(0)
}
