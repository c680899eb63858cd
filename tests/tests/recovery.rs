//! What opening after a crash costs, counted on a simulated disk; logs that don't fit into memory at once; what
//! superblocks promise; and damage that must not pass for the end of a log.

mod support;

use treering::sim::{self, SimOptions};
use treering::{Db, Durability, Error, Options};
use treering_engine::log::GroupHeader;
use treering_engine::superblock::Superblock;
use treering_engine::{BLOCK_BYTES, Lsn, PageRef, page};
use treering_io::{AlignedBuffer, Directory, OpenMode, SimDirectory};

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

fn put(db: &Db, numbers: impl Iterator<Item = u32>, value: u8) {
    let tree = db.client().tree("tree").unwrap();
    let tree = tree.with_durability(Durability::Buffered);
    let numbers: Vec<u32> = numbers.collect();
    for numbers in numbers.chunks(100) {
        let pairs = numbers.iter().map(|number| (key(*number), [value; 400]));
        tree.send_batch(pairs).unwrap().wait().unwrap();
    }
}

fn write(db: &Db, numbers: impl Iterator<Item = u32>, value: u8) {
    put(db, numbers, value);
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

fn read(disk: &SimDirectory, name: &str) -> AlignedBuffer {
    let file = disk.open(name, OpenMode::Existing).unwrap();
    let mut bytes = AlignedBuffer::zeroed(file.len().unwrap() as usize);
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// The newer of the two superblocks.
fn superblock(disk: &SimDirectory) -> Superblock {
    let bytes = read(disk, "data");
    let slot = |page: usize| Superblock::decode(&bytes[page * PAGE_BYTES as usize..][..BLOCK_BYTES]).unwrap();
    let (a, b) = (slot(0), slot(1));
    if b.write_number > a.write_number { b } else { a }
}

/// Byte of the segment file at which the last group of the log stands.
fn last_group(disk: &SimDirectory, segment: &str) -> u64 {
    let (bytes, log_id) = (read(disk, segment), superblock(disk).log_id());
    (BLOCK_BYTES..bytes.len())
        .step_by(BLOCK_BYTES)
        .rfind(|&offset| GroupHeader::decode(&bytes[offset..], log_id, Lsn(offset as u64)).is_ok())
        .expect("a group") as u64
}

/// A crash may leave a damaged last group, and then nobody can tell it from a torn one. A clean close knows better.
#[test]
fn after_a_clean_close_the_last_group_of_the_log_can_not_be_lost() {
    let disk = SimDirectory::new(1);
    let db = open(&disk, &options(), 1);
    write(&db, 0..100, 1);
    db.close().unwrap();
    assert!(superblock(&disk).clean);
    let damaged = disk.fork(2);
    let segment = "log-00000000.seg";
    damaged
        .flip_bit(segment, last_group(&disk, segment) + 100, 0)
        .unwrap();
    let opened = sim::open(&damaged, &options(), SimOptions::default());
    assert!(matches!(opened, Err(Error::Corrupt { .. })), "{:?}", opened.err());

    let db = open(&disk, &options(), 2);
    assert!(!superblock(&disk).clean, "it is open");
    assert_eq!(db.stats().records_replayed, 0);
    write(&db, 0..100, 2);
    sim::crash(db);
    assert!(!superblock(&disk).clean);
    let db = open(&disk, &options(), 3);
    assert_holds(&db, 100, |_| 2);
    db.close().unwrap();
    assert!(superblock(&disk).clean);
}

/// The superblock outlives trees: their ids stand in logs and pages that may outlive them too.
#[test]
fn ids_of_trees_are_not_used_again() {
    let disk = SimDirectory::new(1);
    let mut highest = 0;
    for round in 0..3 {
        let db = open(&disk, &options(), round);
        for _ in 0..3 {
            let tree = db.client().create_tree("passing").unwrap();
            tree.put(b"key", b"value").unwrap();
            assert!(db.client().drop_tree("passing").is_ok());
            sim::settle(&db);
        }
        db.checkpoint().unwrap();
        sim::crash(db);
        let next = superblock(&disk).next_tree.0;
        assert!(next >= highest + 3, "{next} after {highest}");
        highest = next;
    }
}

/// Without a log nothing but the superblock can tell which births were given before a crash (rule R6).
#[test]
fn without_a_log_births_are_not_given_twice() {
    let options = options()
        .log(false)
        .cache_bytes(256 * PAGE_BYTES)
        .max_dirty_pages(1 << 20);
    let disk = SimDirectory::new(1);
    for round in 0..3 {
        let db = open(&disk, &options, round);
        let first = superblock(&disk).next_stamp;
        // More pages than there are frames: some are written long before any checkpoint.
        put(&db, 0..6_000, round as u8);
        let bytes = read(&disk, "data");
        sim::crash(db);
        let superblock = superblock(&disk);
        assert_eq!(superblock.next_stamp, first, "there was no checkpoint");
        let stamps = bytes.chunks_exact(PAGE_BYTES as usize).filter_map(|bytes| {
            let PageRef { id, birth } = page::reference(bytes);
            page::verify(bytes, PageRef { id, birth })
                .ok()
                .map(|()| page::stamp(bytes))
        });
        let highest = stamps.max().expect("pages were evicted");
        assert!(highest < superblock.next_stamp, "{highest:?} {superblock:?}");
    }
}

/// The last segment in use is gone, those prepared behind it are there.
#[test]
fn a_lost_segment_is_noticed() {
    let disk = SimDirectory::new(1);
    let options = options().log_segment_bytes(64 << 10);
    let db = open(&disk, &options, 1);
    let mut lost = None;
    for number in 0..1_000 {
        write(&db, number..number + 1, 1);
        sim::settle(&db);
        let used = db.stats().log_length_bytes / (64 << 10);
        // Just begun: no group in it is known to be durable by a later one in another segment.
        if used == 3 {
            lost = Some("log-00000003.seg");
            break;
        }
    }
    sim::crash(db);
    disk.remove(lost.expect("the log grows")).unwrap();
    disk.sync().unwrap();
    let opened = sim::open(&disk, &options, SimOptions::default());
    assert!(
        matches!(&opened, Err(Error::Corrupt { file, .. }) if file == "log-00000003.seg"),
        "{:?}",
        opened.err()
    );
}

/// A program that opens databases in parallel, by the same pool of threads that recovery reads ahead with.
#[test]
fn a_log_is_read_though_all_of_rayons_threads_wait_for_it() {
    support::watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("database");
        let options = || {
            Options::new()
                .cache_bytes(32 << 20)
                .checkpoint_log_bytes(1 << 30)
                .durability(Durability::Buffered)
        };
        let db = options().open(&path).expect("a new database");
        let tree = db.client().tree("t").expect("a tree");
        for number in 0..5_000_u32 {
            tree.put(number.to_be_bytes(), [7; 900]).expect("a put");
        }
        db.flush().expect("a flush");
        // As a crash leaves it.
        let copy = directory.path().join("copy");
        support::copy_directory(&path, &copy);
        db.close().expect("a clean close");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        pool.expect("a thread").install(|| {
            let db = options().open(&copy).expect("what a crash has left");
            assert!(db.stats().records_replayed >= 5_000);
            db.close().expect("a clean close");
        });
    });
}
