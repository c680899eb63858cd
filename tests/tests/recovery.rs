//! What opening after a crash costs, counted on a simulated disk, and logs that don't fit into memory at once.

use treering::sim::{self, SimOptions};
use treering::{Db, Durability, Options};
use treering_io::SimDirectory;

const PAGE_BYTES: u64 = 4096;

fn options() -> Options {
    Options::new()
        .cache_bytes(4096 * PAGE_BYTES)
        .shards(1)
        .log_segment_bytes(1 << 20)
        .checkpoint_log_bytes(1 << 30)
}

fn open(disk: &SimDirectory, options: &Options, seed: u64) -> Db {
    let simulation = SimOptions {
        seed,
        ..SimOptions::default()
    };
    sim::open(disk, options, simulation).unwrap()
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn write(db: &Db, numbers: impl Iterator<Item = u32>, value: u8) {
    let tree = db
        .client()
        .tree("tree")
        .unwrap()
        .with_durability(Durability::Buffered);
    let numbers: Vec<u32> = numbers.collect();
    for numbers in numbers.chunks(100) {
        let pairs = numbers.iter().map(|number| (key(*number), [value; 400]));
        tree.send_batch(pairs).unwrap().wait().unwrap();
    }
    db.flush().unwrap();
}

fn assert_holds(db: &Db, records: u32, value: impl Fn(u32) -> u8) {
    let tree = db.client().open_tree("tree").unwrap();
    for number in 0..records {
        let found = tree.get(key(number)).unwrap().unwrap();
        assert_eq!(&found[..], [value(number); 400], "{number}");
    }
}

/// Leaves that lie side by side in the file come together, whatever the order in which the log names their keys.
#[test]
fn neighbouring_leaves_are_read_together() {
    const RECORDS: u32 = 4_000;
    for seed in 0..8 {
        let disk = SimDirectory::new(seed);
        let db = open(&disk, &options(), seed);
        write(&db, 0..RECORDS, 1);
        db.checkpoint().unwrap();
        write(&db, (0..RECORDS).map(|step| step * 1237 % RECORDS), 2);
        sim::crash(db);
        let before = disk.counters();
        let db = open(&disk, &options(), seed + 100);
        let stats = db.stats();
        let reads = disk.counters().reads - before.reads;
        assert!(stats.pages_read > 400, "{stats:?}");
        assert_eq!(stats.records_replayed, u64::from(RECORDS), "{stats:?}");
        // With those of superblocks, image and log, which has a few megabytes.
        assert!(
            reads < stats.pages_read / 4,
            "{reads} reads for {} pages",
            stats.pages_read
        );
        assert_holds(&db, RECORDS, |_| 2);
        sim::check(&db).unwrap();
        db.close().unwrap();
    }
}

/// More records than may be gathered at a time: the rest of the log is read again.
#[test]
fn a_log_that_is_longer_than_memory_is_replayed_part_by_part() {
    const RECORDS: u32 = 5_000;
    let options = options().cache_bytes(1024 * PAGE_BYTES).max_dirty_pages(1 << 20);
    let disk = SimDirectory::new(1);
    let db = open(&disk, &options, 1);
    for round in 0..20 {
        // A different share of the keys each time, so that each part of the log has the last word on some.
        write(
            &db,
            (0..RECORDS).filter(|number| number % 20 >= round),
            round as u8,
        );
    }
    let log_bytes = db.stats().log_length_bytes;
    assert!(log_bytes > 20 << 20, "{log_bytes}");
    sim::crash(db);
    let db = open(&disk, &options, 2);
    assert_holds(&db, RECORDS, |number| (number % 20) as u8);
    sim::check(&db).unwrap();
    db.close().unwrap();
}
