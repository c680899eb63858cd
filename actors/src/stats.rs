//! What a database tells about itself.

use treering_engine::memory::Class;

use crate::runtime::Runtime;
use crate::shared::{Counter, with_guard};

/// Counters since opening, and gauges of this moment. Taken without stopping anybody, so figures that belong
/// together may be a few operations apart.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Pages that a reader or worker needed and that had to be read.
    pub misses: u64,
    /// Frames whose page was evicted.
    pub evictions: u64,
    /// Pages written by checkpoints.
    pub flushes: u64,
    /// Changed pages written so that they could be evicted.
    pub background_flushes: u64,
    /// Pages read from the data file.
    pub pages_read: u64,
    /// Pages written to the data file.
    pub pages_written: u64,
    /// Log groups written.
    pub log_groups: u64,
    /// Bytes of log written.
    pub log_bytes: u64,
    /// Syncs of the log and of the data file.
    pub syncs: u64,
    /// Published commit groups.
    pub commit_groups: u64,
    /// Operations in them.
    pub committed_operations: u64,
    /// Operations per commit group: median.
    pub commits_per_group_p50: u64,
    /// Operations per commit group: largest.
    pub commits_per_group_max: u64,
    /// Requests that had to wait for a page.
    pub parked: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Commit group of the last checkpoint.
    pub checkpoint_seq: u64,
    /// Nanoseconds since the last checkpoint (since opening, if there was none).
    pub checkpoint_age_nanos: u64,
    /// Bytes of log that the next opening would replay.
    pub log_length_bytes: u64,
    /// The newest published commit group.
    pub published_seq: u64,
    /// Versions that somebody can still see, as the flusher knows it.
    pub live_versions: u64,
    /// The oldest of them.
    pub oldest_live_seq: u64,
    /// Pages that only older versions reach.
    pub retained_pages: u64,
    /// Pages of the data file.
    pub file_pages: u64,
    /// Pages that are free.
    pub free_pages: u64,
    /// Changed pages in memory.
    pub dirty_pages: u64,
    /// Frames in all.
    pub frames: u64,
    /// Frames that are free, reserve included.
    pub frames_free: u64,
    /// Frames that workers may take now.
    pub frames_available: u64,
    /// Frames that wait for readers to leave them.
    pub frames_in_limbo: u64,
    /// Requests waiting in the mailboxes of the shards.
    pub shard_queue_depth: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Records replayed at opening.
    pub records_replayed: u64,
    /// Time that opening took, nanoseconds.
    pub recovery_nanos: u64,
}

impl Stats {
    pub(crate) fn gather(runtime: &Runtime) -> Stats {
        let shared = &runtime.shared;
        let memory = &shared.memory;
        let get = |counter| shared.counters.get(counter);
        let sizes = shared.group_sizes.snapshot();
        Stats {
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
            commits_per_group_p50: sizes.value_at_quantile(0.5),
            commits_per_group_max: sizes.max(),
            parked: get(Counter::Parked),
            checkpoints: get(Counter::Checkpoints),
            checkpoint_seq: get(Counter::CheckpointSeq),
            checkpoint_age_nanos: runtime.now().saturating_sub(get(Counter::CheckpointAtNanos)),
            log_length_bytes: get(Counter::LogLengthBytes),
            published_seq: with_guard(memory, |guard| shared.current.load(guard).seq.0),
            live_versions: get(Counter::LiveVersions),
            oldest_live_seq: get(Counter::OldestLiveSeq),
            retained_pages: get(Counter::WaitingPages),
            file_pages: get(Counter::FilePages),
            free_pages: get(Counter::FreePages),
            dirty_pages: get(Counter::DirtyPages),
            frames: memory.frames() as u64,
            frames_free: memory.free_frames() as u64,
            frames_available: memory.available_frames(Class::Worker) as u64,
            frames_in_limbo: memory.limbo_frames() as u64,
            shard_queue_depth: runtime
                .shards
                .iter()
                .map(|seat| seat.requests_length() as u64)
                .sum(),
            page_bytes: memory.page_bytes() as u64,
            records_replayed: get(Counter::RecordsReplayed),
            recovery_nanos: get(Counter::RecoveryNanos),
        }
    }
}
