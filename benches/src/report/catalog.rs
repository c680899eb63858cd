//! The rows: what each is called, measured in, and what Treering is to reach in it.

use super::Contender::{self, Device, Lmdb, Redb, RocksDb};

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Operations, records or entries a second.
    PerSecond,
    /// Milliseconds; smaller is better.
    Milliseconds,
    /// Megabytes (10^6 bytes) of log a second.
    MegabytesPerSecond,
    /// Bytes in units of the raw records' bytes; smaller is better.
    TimesRaw,
    /// Resident memory in units of what the budget allows; smaller is better.
    TimesBudget,
    /// Blocks of 4 KiB that the device delivered for each get: no merit, but a check that the page
    /// cache is out of the game.
    BlocksPerGet,
}

impl Unit {
    /// Whether the smaller of two figures is the better.
    #[must_use]
    pub fn smaller_is_better(self) -> bool {
        match self {
            Self::PerSecond | Self::MegabytesPerSecond => false,
            Self::Milliseconds | Self::TimesRaw | Self::TimesBudget | Self::BlocksPerGet => true,
        }
    }

    /// Whether one figure can be better than another.
    #[must_use]
    pub fn is_a_merit(self) -> bool {
        self != Self::BlocksPerGet
    }
}

/// What a row's figure of Treering is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// This many times better than that contender.
    Over(Contender, f64),
    /// This many times better than the best of the peers.
    OverBest(f64),
    /// At least this figure.
    AtLeast(f64),
    /// At most this figure.
    AtMost(f64),
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What `PEERS_ROWS` selects by.
    pub key: &'static str,
    /// What the table says.
    pub title: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// What is to be reached.
    pub goals: &'static [Goal],
}

const fn row(key: &'static str, title: &'static str, unit: Unit, goals: &'static [Goal]) -> Row {
    Row {
        key,
        title,
        unit,
        goals,
    }
}

use Goal::{AtLeast, AtMost, Over, OverBest};
use Unit::{BlocksPerGet, MegabytesPerSecond, Milliseconds, PerSecond, TimesBudget, TimesRaw};

/// All rows in the table's order.
pub const ROWS: &[Row] = &[
    row(
        "load-sorted",
        "bulk load, sorted, records",
        PerSecond,
        &[OverBest(1.0)],
    ),
    row("load-random", "bulk load, random, records", PerSecond, &[]),
    row(
        "file-random",
        "file after the random load, times the raw records",
        TimesRaw,
        &[AtMost(1.3)],
    ),
    row(
        "put-durable-1",
        "durable put, 1 thread",
        PerSecond,
        &[OverBest(1.0)],
    ),
    row(
        "put-durable-16",
        "durable put, 16 threads",
        PerSecond,
        &[Over(RocksDb, 2.5), Over(Lmdb, 20.0), Over(Redb, 20.0)],
    ),
    row(
        "put-durable-64",
        "durable put, 64 threads",
        PerSecond,
        &[Over(RocksDb, 2.5), Over(Lmdb, 20.0), Over(Redb, 20.0)],
    ),
    row("put-durable-256", "durable put, 256 threads", PerSecond, &[]),
    row("put-durable-1-p99", "its p99, 1 thread, ms", Milliseconds, &[]),
    row("put-durable-16-p99", "its p99, 16 threads, ms", Milliseconds, &[]),
    row(
        "put-durable-64-p99",
        "its p99, 64 threads, ms",
        Milliseconds,
        &[Over(RocksDb, 1.0)],
    ),
    row(
        "put-durable-256-p99",
        "its p99, 256 threads, ms",
        Milliseconds,
        &[],
    ),
    row(
        "batch-durable",
        "durable batches of 1,000 random keys, records",
        PerSecond,
        &[Over(RocksDb, 1.0), Over(Lmdb, 5.0), Over(Redb, 5.0)],
    ),
    row(
        "put-pipelined",
        "buffered pipelined puts, random keys",
        PerSecond,
        &[OverBest(1.3)],
    ),
    row(
        "put-buffered-1",
        "buffered puts, each waited for, 1 thread",
        PerSecond,
        &[],
    ),
    row(
        "batch-buffered",
        "buffered batches of 1,000 random keys, records",
        PerSecond,
        &[],
    ),
    row(
        "get-1",
        "random get at the newest state, 1 thread",
        PerSecond,
        &[Over(Lmdb, 1.7), Over(Redb, 3.0)],
    ),
    row(
        "get-2",
        "random get, 2 threads",
        PerSecond,
        &[Over(Lmdb, 1.7), Over(Redb, 3.0)],
    ),
    row("get-4", "random get, 4 threads", PerSecond, &[]),
    row(
        "get-many",
        "`get_many` of 64, gets",
        PerSecond,
        &[Over(Lmdb, 4.0)],
    ),
    row("range-10", "range of 10", PerSecond, &[]),
    row("range-100", "range of 100", PerSecond, &[Over(Lmdb, 2.5)]),
    row("scan", "full scan, entries", PerSecond, &[Over(Lmdb, 2.5)]),
    row("delete-half", "delete half, random order", PerSecond, &[]),
    row("ycsb-a-1", "YCSB A buffered, 1 thread", PerSecond, &[]),
    row(
        "ycsb-a-16",
        "YCSB A buffered, 16 threads",
        PerSecond,
        &[OverBest(1.5)],
    ),
    row("ycsb-b-1", "YCSB B buffered, 1 thread", PerSecond, &[]),
    row(
        "ycsb-b-16",
        "YCSB B buffered, 16 threads",
        PerSecond,
        &[OverBest(1.5)],
    ),
    row("ycsb-c-1", "YCSB C, 1 thread", PerSecond, &[]),
    row("ycsb-c-16", "YCSB C, 16 threads", PerSecond, &[]),
    row("ycsb-e-1", "YCSB E buffered, 1 thread", PerSecond, &[]),
    row("ycsb-e-16", "YCSB E buffered, 16 threads", PerSecond, &[]),
    row("ycsb-f-1", "YCSB F buffered, 1 thread", PerSecond, &[]),
    row(
        "ycsb-f-16",
        "YCSB F buffered, 16 threads",
        PerSecond,
        &[OverBest(1.5)],
    ),
    row("ycsb-a-durable", "YCSB A durable, 16 threads", PerSecond, &[]),
    row(
        "beyond-get-1",
        "get, data 8x the cache, 1 in flight",
        PerSecond,
        &[OverBest(1.0)],
    ),
    row(
        "beyond-get-16",
        "get, data 8x the cache, 16 in flight",
        PerSecond,
        &[OverBest(1.0)],
    ),
    row(
        "beyond-get-64",
        "get, data 8x the cache, 64 in flight",
        PerSecond,
        &[OverBest(1.0), Over(Device, 0.85)],
    ),
    row(
        "beyond-get-64-blocks",
        "its blocks read from the device for each get",
        BlocksPerGet,
        &[],
    ),
    row(
        "beyond-half",
        "half gets, half buffered puts, data 8x the cache, 64 threads",
        PerSecond,
        &[OverBest(1.0)],
    ),
    row(
        "memory",
        "peak resident memory, times cache + 64 MiB + 2%",
        TimesBudget,
        &[AtMost(1.0)],
    ),
    row(
        "open-killed",
        "open after `kill -9`, log a second, MB",
        MegabytesPerSecond,
        &[AtLeast(300.0)],
    ),
    row("open-killed-ms", "the same, ms", Milliseconds, &[]),
    row(
        "open-killed-4x",
        "the same log on 4x the data, MB a second",
        MegabytesPerSecond,
        &[AtLeast(300.0)],
    ),
    row("open-killed-4x-ms", "the same, ms", Milliseconds, &[]),
];

/// The row of that key.
#[must_use]
pub fn row_named(key: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.key == key)
}
