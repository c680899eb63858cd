//! What a run is like: sizes, numbers, and how likely each operation is.

use std::ops::RangeInclusive;
use std::time::Duration;

use treering::{Durability, Options, Retention};

use crate::random::Random;

/// Drawn once per run, so that runs differ in kind, not only in detail.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Times that the database is opened.
    pub lives: u32,
    /// Operations of one life.
    pub operations: u64,
    /// Trees, all of them there from the first life on.
    pub trees: usize,
    /// Keys of each tree.
    pub keys: u64,
    /// Longest key, bytes.
    pub key_bytes_max: u64,
    /// Longest value that is no blob, bytes.
    pub value_bytes_max: u64,
    /// One value in so many is a blob.
    pub blob_one_in: u64,
    /// Most tickets that are not waited for.
    pub outstanding_max: usize,
    /// Of ten writes, how many are Sync.
    pub sync_of_ten: u64,
    /// Keys that are written at the beginning of the first life.
    pub loaded: u64,
    /// Shard workers.
    pub shards: usize,
    /// Writes after which the shards' shares are looked at.
    pub balance_operations: u64,
    /// Places in the mailboxes of shards, if they are few.
    pub mailbox_requests: Option<usize>,
    /// Frames of the cache.
    pub frames: u64,
    /// Log segments in checkpoints.
    pub checkpoint_segments: u64,
    /// Changed pages that start a checkpoint.
    pub dirty_pages: usize,
    /// How long a Buffered write may stay unsynced, nanoseconds.
    pub flush_nanos: u64,
    /// How long the first synced commit of a group waits for others, nanoseconds.
    pub gather_nanos: u64,
    /// For how long past versions can be had.
    pub retention: Retention,
    /// How long operations of the disk take, nanoseconds.
    pub delay_nanos: RangeInclusive<u64>,
    /// About how many steps a life has before its power is cut.
    pub steps: u64,
}

/// Bytes of a page.
const PAGE_BYTES: u64 = 4096;
/// The smallest segments that there are.
const SEGMENT_BYTES: u64 = 64 << 10;

impl Profile {
    /// Draws a profile. One run in eight is a large one, with more data than cache.
    pub fn draw(random: &mut Random) -> Profile {
        let large = random.one_in(8);
        let shards = random.pick(&[1, 2, 2, 3]);
        Profile {
            lives: 2 + random.below(3) as u32,
            operations: if large { 150 } else { 20 + random.below(60) },
            trees: 1 + random.below(3) as usize,
            keys: if large { 900 } else { random.pick(&[3, 12, 60]) },
            key_bytes_max: random.pick(&[8, 40, 900]),
            value_bytes_max: if large { 900 } else { random.pick(&[20, 120, 900]) },
            blob_one_in: random.pick(&[10, 40, 1_000]),
            outstanding_max: random.pick(&[1, 4, 30]),
            sync_of_ten: random.pick(&[0, 3, 7, 10]),
            loaded: if large { 700 } else { 0 },
            shards,
            // What one shard may change at once is a share of the cache: enough for the largest batch.
            frames: random.pick(if shards > 2 {
                &[512, 512, 512]
            } else {
                &[256, 256, 512]
            }),
            mailbox_requests: random.pick(&[None, None, Some(1), Some(3)]),
            balance_operations: random.pick(&[4, 12, 40, u64::MAX]),
            checkpoint_segments: random.pick(&[1, 2, 6]),
            dirty_pages: random.pick(&[8, 60, 1_000]),
            flush_nanos: random.pick(&[50_000, 1_000_000, 100_000_000]),
            retention: random.pick(&[
                Retention::None,
                Retention::None,
                Retention::Versions(5),
                Retention::Last(Duration::from_micros(300)),
            ]),
            delay_nanos: random
                .pick(&[(1_000, 2_000), (20_000, 200_000), (10_000, 5_000_000)])
                .into_range(),
            gather_nanos: random.pick(&[0, 0, 0, 30_000, 2_000_000]),
            steps: if large { 6_000 } else { 1_500 },
        }
    }

    /// The database's options.
    #[must_use]
    pub fn options(&self) -> Options {
        Options::new()
            .cache_bytes(self.frames * PAGE_BYTES)
            .shards(self.shards)
            .balance_operations(self.balance_operations)
            .durability(Durability::Sync)
            .log_segment_bytes(SEGMENT_BYTES)
            .checkpoint_log_bytes(self.checkpoint_segments * SEGMENT_BYTES)
            .max_dirty_pages(self.dirty_pages)
            .retain(self.retention)
            .flush_interval(Duration::from_nanos(self.flush_nanos))
            .gather_delay(Duration::from_nanos(self.gather_nanos))
    }
}

trait IntoRange {
    fn into_range(self) -> RangeInclusive<u64>;
}

impl IntoRange for (u64, u64) {
    fn into_range(self) -> RangeInclusive<u64> {
        self.0..=self.1
    }
}
