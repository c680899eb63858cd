//! Starting the actors from what was read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use treering_engine::catalog::Directory as Catalog;
use treering_engine::image::ImageSnapshot;
use treering_engine::log::{LogPosition, SegmentLayout, SegmentSet};
use treering_engine::memory::{Memory, MemoryError};
use treering_engine::space::SpaceMap;
use treering_engine::superblock::Superblock;
use treering_engine::version::VersionCell;
use treering_engine::{Retired, Seq, ShardId, Stamp, TreeId};
use treering_io::{BackendChoice, DirectoryLock, File, open_device};

use super::open::Opened;
use crate::commit::{Commit, CommitStart};
use crate::error::{Error, Result};
use crate::flusher::{Flusher, FlusherStart, Named};
use crate::options::Options;
use crate::pager::IN_FLIGHT_MAX;
use crate::runtime::{LogFiles, Runtime, Sim, Started, Threads};
use crate::shard::{Shard, parked_max};
use crate::shared::{Counters, DeadVersions, GroupSizes, Settings, Shared, Status, Version};

/// Most record bytes of a batch, whatever a segment could hold: it is kept in memory several times.
const BATCH_RECORD_BYTES_MAX: usize = 8 << 20;

/// Most bytes that clients have under way, in caches of any size.
const CREDIT_BYTES_MAX: usize = 8 << 20;

/// Most record bytes in batches that are frozen and not published, over all shards.
const UNPUBLISHED_BYTES_MAX: usize = 8 << 20;

/// Most pages that one reader asks for at a time, in large caches.
const FETCHED_MAX: usize = 64;

/// What the actors start from.
pub(super) struct Start {
    pub started: Started,
    pub catalog: Catalog,
    pub space: SpaceMap,
    pub snapshots: Vec<ImageSnapshot>,
    pub superblock: Superblock,
    pub layout: SegmentLayout,
    pub segments: SegmentSet,
    pub position: LogPosition,
    /// The first commit group from now on. Replayed groups, too, come after all that the log holds: the blobs that it
    /// names were born by then, and so are retired as what some version still shows (rule R4).
    pub next_seq: Seq,
    pub next_stamp: Stamp,
    pub data: Arc<dyn File>,
    pub log_files: Option<LogFiles>,
}

/// Starts the actors.
pub(super) fn run(
    start: Start,
    options: &Options,
    backend: BackendChoice,
    in_memory: bool,
    lock: Option<DirectoryLock>,
    sim: Option<Sim>,
) -> Result<Opened> {
    let page_bytes = start.superblock.page_bytes as usize;
    let frames = (options.cache_bytes / page_bytes as u64) as usize;
    let memory = Memory::new(frames, page_bytes).map_err(|error| match error {
        MemoryError::Map { .. } => Error::OutOfSpace {
            what: format!("cache_bytes: {error}"),
        },
        _ => Error::InvalidOption {
            option: "cache_bytes",
            reason: error.to_string(),
        },
    })?;
    let dead = Arc::new(DeadVersions::default());
    let next_tree = start.catalog.iter().map(|tree| TreeId(tree.id.0 + 1)).max();
    let next_tree = next_tree.unwrap_or_default().max(start.superblock.next_tree);
    let version = Arc::new(Version {
        seq: start.superblock.checkpoint_seq,
        position: start.position,
        directory: start.catalog.clone(),
        next_tree,
        dead: Arc::clone(&dead),
    });
    let shards = options.shards_that_fit(page_bytes);
    let settings = Settings {
        page_bytes,
        shards,
        durability: options.durability,
        in_memory,
        log: options.log && !in_memory,
        open_nodes_max: (frames / 4 / shards).max(8),
        parked_max: parked_max(frames, shards),
        fetched_max: (frames / 16).clamp(1, FETCHED_MAX),
        dirty_pages_max: options.max_dirty_pages.unwrap_or(frames / 2).max(1),
        checkpoint_log_bytes: options.checkpoint_log_bytes,
        credit_bytes: (frames * page_bytes / 4).min(CREDIT_BYTES_MAX),
        unpublished_bytes_max: UNPUBLISHED_BYTES_MAX / shards,
        balance_operations: options.balance_operations,
        batch_record_bytes_max: start
            .layout
            .record_bytes_max()
            .saturating_sub(4096)
            .min(BATCH_RECORD_BYTES_MAX),
        retention: options.retention,
        database_id: start.superblock.database_id,
        log_segment_bytes: start.superblock.segment_bytes,
        // At most a second.
        gather_delay_nanos: options.gather_delay.as_nanos() as u64,
        flush_interval_nanos: u64::try_from(options.flush_interval.as_nanos()).unwrap_or(u64::MAX),
    };
    let shared = Arc::new(Shared {
        current: VersionCell::new(memory.collector().clone(), Arc::clone(&version)),
        memory,
        dead,
        status: Status::default(),
        counters: Counters::default(),
        group_sizes: GroupSizes::new(),
        moves_gate: Arc::default(),
        transactions: AtomicU64::new(0),
        settings,
    });
    let shards = (0..shards)
        .map(|index| Shard::new(ShardId(index as u16), Arc::clone(&shared), start.next_stamp))
        .collect();
    let commit = Commit::new(
        Arc::clone(&shared),
        CommitStart {
            log_id: start.superblock.log_id(),
            layout: start.layout,
            segments: start.segments,
            position: start.position,
            log_start: start.superblock.log_start,
            log_seq: start.superblock.checkpoint_seq,
            next_seq: start.next_seq,
            next_tree,
            directory: start.catalog,
            logging: false,
        },
    );
    let (named, kept) = named_versions(start.snapshots, &version);
    let flusher = Flusher::new(
        Arc::clone(&shared),
        FlusherStart {
            space: start.space,
            superblock: start.superblock,
            next_stamp: start.next_stamp,
            version,
            named,
            kept,
        },
    );
    if sim.is_some() {
        let runtime = Runtime::new(shared, shards, commit, flusher, start.data, start.log_files, sim);
        return Ok(Opened {
            runtime: Arc::new(runtime),
            threads: Threads::none(),
            lock,
        });
    }
    let device = open_device(backend, IN_FLIGHT_MAX)
        .map_err(|error| Error::io("setting up the device of the pager", error))?;
    let runtime = Runtime::new(shared, shards, commit, flusher, start.data, start.log_files, None);
    let runtime = Arc::new(runtime.since(start.started));
    let threads = Threads::start(&runtime, device).map_err(|error| Error::io("starting a thread", error))?;
    Ok(Opened {
        runtime,
        threads,
        lock,
    })
}

/// The versions of named snapshots, and what they keep. There is one version for each commit group: each dies once.
fn named_versions(snapshots: Vec<ImageSnapshot>, newest: &Arc<Version>) -> (Named, Vec<(Seq, Vec<Retired>)>) {
    let mut versions = BTreeMap::from([(newest.seq, Arc::clone(newest))]);
    let (mut named, mut kept) = (Named::new(), Vec::new());
    for snapshot in snapshots {
        let version = versions.entry(snapshot.seq).or_insert_with(|| {
            Arc::new(Version {
                seq: snapshot.seq,
                position: newest.position,
                directory: snapshot.directory,
                next_tree: newest.next_tree,
                dead: Arc::clone(&newest.dead),
            })
        });
        named.insert(snapshot.name, Arc::clone(version));
        kept.push((snapshot.seq, snapshot.kept));
    }
    (named, kept)
}
