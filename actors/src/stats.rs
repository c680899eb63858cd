//! What a database tells about itself.

mod histogram;
#[cfg(feature = "metrics")]
mod metrics;

pub use histogram::Histogram;

use std::collections::BTreeSet;

use treering_engine::memory::Class;

use crate::runtime::Runtime;
use crate::shared::{Counter, with_guard};

/// One figure of [`Stats`], for exporters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Figure {
    /// The field's name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: FigureKind,
    /// What it counts or measures; units are in the name.
    pub value: u64,
    /// The field's documentation, one line.
    pub description: &'static str,
}

/// What kind of number a [`Figure`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FigureKind {
    /// Only grows, from opening on.
    Counter,
    /// What is so at this moment.
    Gauge,
}

macro_rules! stats {
    ($($(#[doc = $description:literal])+ $kind:ident $name:ident,)*) => {
        /// Counters since opening, and gauges of this moment. Taken without stopping anybody, so figures that belong
        /// together may be a few operations apart. Pages are those of the data file, frames those in memory, of
        /// [`page_bytes`](Stats::page_bytes) bytes both.
        #[derive(Clone, Debug, Default)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $description])+ pub $name: u64,)*
            /// Operations per commit group.
            pub commits_per_group: Histogram,
        }

        impl Stats {
            /// All numbers, by name: for exporters. The histogram is apart, with its median and largest among them.
            pub fn figures(&self) -> impl Iterator<Item = Figure> {
                [$(Figure {
                    name: stringify!($name),
                    kind: FigureKind::$kind,
                    value: self.$name,
                    description: concat!($($description,)+).trim_ascii_start(),
                },)*].into_iter()
            }
        }
    };
}

stats! {
    /// Lookups that found all they needed in memory: one for each key that was read, for each leaf of a scan, and for
    /// each request at its owner.
    Counter hits,
    /// Pages that had to be read because somebody needed them.
    Counter misses,
    /// Frames whose page was evicted.
    Counter evictions,
    /// Pages written by checkpoints.
    Counter flushes,
    /// Changed pages written so that they could be evicted.
    Counter background_flushes,
    /// Pages read from the data file.
    Counter pages_read,
    /// Pages written to the data file.
    Counter pages_written,
    /// Log groups written.
    Counter log_groups,
    /// Bytes of log written.
    Counter log_bytes,
    /// Syncs of the log and of the data file.
    Counter syncs,
    /// Published commit groups.
    Counter commit_groups,
    /// Operations in them.
    Counter committed_operations,
    /// Transactions that happened: those over several shards, and those with reads.
    Counter transactions,
    /// Operations per commit group: median.
    Gauge commits_per_group_p50,
    /// Operations per commit group: largest.
    Gauge commits_per_group_max,
    /// Requests that had to wait for a page or a large value.
    Counter parked,
    /// Commits of transactions that were refused because of another's.
    Counter conflicts,
    /// Transactions that were run again for that.
    Counter retries,
    /// Key ranges that went to another shard.
    Counter partition_moves,
    /// Neighbouring partitions that were joined.
    Counter partition_joins,
    /// Requests that were handed over with a range that moved.
    Counter requests_handed_over,
    /// Partitions of all trees, each with one owner.
    Gauge partitions,
    /// Shards that own some of them.
    Gauge owners,
    /// Checkpoints written.
    Counter checkpoints,
    /// Commit group of the last checkpoint.
    Gauge checkpoint_seq,
    /// Nanoseconds since the last checkpoint (since opening, if there was none).
    Gauge checkpoint_age_nanos,
    /// Bytes of log that the next opening would replay.
    Gauge log_length_bytes,
    /// The newest published commit group.
    Gauge published_seq,
    /// Versions that somebody can still see, as the flusher knows it.
    Gauge live_versions,
    /// The oldest of them.
    Gauge oldest_live_seq,
    /// Pages that no version but the oldest shows: they are free as soon as nobody can see it any more.
    Gauge oldest_retained_pages,
    /// Retired pages: only versions before the newest show them.
    Gauge retained_pages,
    /// Pages of the data file.
    Gauge file_pages,
    /// Pages that are free.
    Gauge free_pages,
    /// Pages that are neither free nor retired: what the newest version shows, and what was handed out for the next.
    Gauge live_pages,
    /// Changed pages in memory.
    Gauge dirty_pages,
    /// Frames in all.
    Gauge frames,
    /// Frames that are free, reserve included.
    Gauge frames_free,
    /// Frames that workers may take now.
    Gauge frames_available,
    /// Frames whose page is being read.
    Gauge frames_loading,
    /// Frames whose page is being written so that it can be evicted.
    Gauge frames_evicting,
    /// Frames that hold a page, or were handed out for one.
    Gauge frames_resident,
    /// Frames that wait for readers to leave them.
    Gauge frames_in_limbo,
    /// Requests waiting in the mailboxes of the shards.
    Gauge shard_queue_depth,
    /// Messages waiting for the commit actor.
    Gauge commit_queue_depth,
    /// Messages waiting for the pager.
    Gauge pager_queue_depth,
    /// Messages waiting for the flusher.
    Gauge flusher_queue_depth,
    /// Bytes of a page.
    Gauge page_bytes,
    /// Records replayed at opening.
    Gauge records_replayed,
    /// Time that opening took, nanoseconds.
    Gauge recovery_nanos,
}

impl Stats {
    pub(crate) fn gather(runtime: &Runtime) -> Stats {
        let shared = &runtime.shared;
        let memory = &shared.memory;
        let get = |counter| shared.counters.get(counter);
        let sizes = shared.group_sizes.snapshot();
        let (frames, frames_free) = (memory.frames() as u64, memory.free_frames() as u64);
        let (frames_in_limbo, frames_loading) = (memory.limbo_frames() as u64, get(Counter::FramesLoading));
        Stats {
            hits: memory.hits() + get(Counter::ShardHits),
            misses: get(Counter::Misses),
            evictions: get(Counter::Evictions),
            flushes: get(Counter::Flushes),
            background_flushes: get(Counter::BackgroundFlushes),
            pages_read: get(Counter::PagesRead),
            pages_written: get(Counter::PagesWritten),
            log_groups: get(Counter::LogGroups),
            log_bytes: get(Counter::LogBytes),
            syncs: get(Counter::Syncs),
            commit_groups: get(Counter::CommitGroups),
            committed_operations: get(Counter::CommittedOperations),
            transactions: get(Counter::Transactions),
            commits_per_group_p50: sizes.quantile(0.5),
            commits_per_group_max: sizes.max(),
            parked: get(Counter::Parked),
            conflicts: get(Counter::Conflicts),
            retries: get(Counter::Retries),
            partition_moves: get(Counter::PartitionMoves),
            partition_joins: get(Counter::PartitionJoins),
            requests_handed_over: get(Counter::RequestsHandedOver),
            partitions: with_guard(memory, |guard| {
                let trees = shared.current.load(guard).directory.clone();
                trees.iter().map(|tree| tree.partitions.len() as u64).sum()
            }),
            owners: with_guard(memory, |guard| {
                let trees = shared.current.load(guard).directory.clone();
                let partitions = trees.iter().flat_map(|tree| tree.partitions.iter());
                let owners: BTreeSet<_> = partitions.map(|partition| partition.owner).collect();
                owners.len() as u64
            }),
            checkpoints: get(Counter::Checkpoints),
            checkpoint_seq: get(Counter::CheckpointSeq),
            checkpoint_age_nanos: runtime.now().saturating_sub(get(Counter::CheckpointAtNanos)),
            log_length_bytes: get(Counter::LogLengthBytes),
            published_seq: with_guard(memory, |guard| shared.current.load(guard).seq.0),
            live_versions: get(Counter::LiveVersions),
            oldest_live_seq: get(Counter::OldestLiveSeq),
            oldest_retained_pages: get(Counter::OldestRetainedPages),
            retained_pages: get(Counter::WaitingPages),
            file_pages: get(Counter::FilePages),
            free_pages: get(Counter::FreePages),
            live_pages: get(Counter::FilePages)
                .saturating_sub(get(Counter::FreePages) + get(Counter::WaitingPages)),
            dirty_pages: get(Counter::DirtyPages),
            frames,
            frames_free,
            frames_available: memory.available_frames(Class::Worker) as u64,
            frames_loading,
            frames_evicting: get(Counter::FramesEvicting),
            frames_resident: frames.saturating_sub(frames_free + frames_in_limbo + frames_loading),
            frames_in_limbo,
            shard_queue_depth: runtime
                .shards
                .iter()
                .map(|seat| seat.requests_length() as u64)
                .sum(),
            commit_queue_depth: runtime.commit.messages_length(),
            pager_queue_depth: runtime.pager.messages_length(),
            flusher_queue_depth: runtime.flusher.messages_length(),
            page_bytes: memory.page_bytes() as u64,
            records_replayed: get(Counter::RecordsReplayed),
            recovery_nanos: get(Counter::RecoveryNanos),
            commits_per_group: sizes,
        }
    }
}
