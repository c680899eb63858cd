//! Counters that many threads add to and `Stats` reads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

/// What is counted. The order is the order of the cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Counter {
    /// Requests that found all they needed in memory; readers count theirs by thread.
    ShardHits,
    Misses,
    Evictions,
    Flushes,
    BackgroundFlushes,
    PagesRead,
    PagesWritten,
    LogGroups,
    LogBytes,
    Syncs,
    CommitGroups,
    CommittedOperations,
    Transactions,
    Checkpoints,
    Parked,
    /// Commits of transactions that were refused because of another's.
    Conflicts,
    /// Transactions that were run again for that.
    Retries,
    RecordsReplayed,
    RecoveryNanos,
    FreePages,
    WaitingPages,
    FilePages,
    LiveVersions,
    OldestLiveSeq,
    OldestRetainedPages,
    CheckpointSeq,
    CheckpointAtNanos,
    LogLengthBytes,
    DirtyPages,
    FramesLoading,
    FramesEvicting,
    PartitionMoves,
    PartitionJoins,
    RequestsHandedOver,
}

const COUNTERS: usize = Counter::RequestsHandedOver as usize + 1;

/// One cell a cache line: two threads that count different things don't disturb each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell(AtomicU64);

/// All counters of a database.
#[derive(Debug)]
pub(crate) struct Counters([Cell; COUNTERS]);

impl Default for Counters {
    fn default() -> Counters {
        Counters(std::array::from_fn(|_| Cell::default()))
    }
}

impl Counters {
    pub fn add(&self, counter: Counter, amount: u64) {
        if amount != 0 {
            self.0[counter as usize].0.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// For gauges, which have a single writer.
    pub fn set(&self, counter: Counter, value: u64) {
        self.0[counter as usize].0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].0.load(Ordering::Relaxed)
    }
}

/// Distribution of the number of operations in a commit group.
pub(crate) struct GroupSizes(Mutex<Histogram<u64>>);

impl GroupSizes {
    /// Groups of up to a million operations are told apart to three digits; larger ones count as that.
    const OPERATIONS_MAX: u64 = 1_000_000;

    pub fn new() -> GroupSizes {
        let histogram = Histogram::new_with_max(GroupSizes::OPERATIONS_MAX, 2);
        GroupSizes(Mutex::new(
            histogram.unwrap_or_else(|_| unreachable!("the bounds are valid constants")),
        ))
    }

    /// Called by the commit actor alone, so the lock is free but for a reader of statistics.
    pub fn record(&self, operations: u64) {
        self.lock().saturating_record(operations);
    }

    pub fn snapshot(&self) -> crate::stats::Histogram {
        crate::stats::Histogram(self.lock().clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for GroupSizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupSizes")
            .field("groups", &self.lock().len())
            .finish()
    }
}
