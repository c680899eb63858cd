//! Opening a database: from files (or nothing) to running actors.
//!
//! | file | subject |
//! |---|---|
//! | [`create`](create) | a new database, complete before it has its name |
//! | [`load`](load) | superblocks and checkpoint image |
//! | [`log`](log), [`read_ahead`](read_ahead) | the log's files, for reading: its end, or corruption |
//! | [`gather`](gather), [`records`](records), [`chunks`](chunks) | what replay needs of the log |
//! | [`sort`](sort) | in the order of the keys, the last of each key |
//! | [`replay`](replay) | the log after the checkpoint, through the shards |
//!
//! # Order (rules R16 to R19)
//! 1. Superblocks, image: the last checkpoint.
//! 2. The log is read once to find its end, or corruption, and the blobs that it names. Its records are gathered on the
//!    way, as many as have room.
//! 3. The log's segments are synced; both superblocks get a higher generation, durably: only then may anything be
//!    appended.
//! 4. The actors start, with logging off. The extents of the blobs are reserved.
//! 5. Trees are created and dropped as the log says. The records are sorted by key (rayon), only the last of each key is
//!    applied, by the shard that owns it. What had no room is read again, gathered and applied in the same way, part by
//!    part.
//! 6. Logging goes on.

mod chunks;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the id of a new database is random"
)]
mod create;
mod gather;
mod history;
mod load;
mod log;
mod read_ahead;
mod records;
mod replay;
mod sort;

use std::collections::BTreeMap;
use std::path::Path;
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
use treering_io::{
    BackendChoice, Directory, DirectoryLock, File, LockError, MemoryDirectory, OpenMode, OsDirectory,
    SimDirectory, open_device,
};

pub(crate) use self::chunks::{Change, Kind};
pub(crate) use self::create::{Content, check_empty, create_with, random_id};
pub(crate) use self::history::read_changes;
use self::read_ahead::Readers;
pub(crate) use self::records::SortedRecords;
use crate::client::RESTORING_FILE;
use crate::commit::{Commit, CommitMessage, CommitStart};
use crate::error::{Error, Result};
use crate::flusher::{Flusher, FlusherMessage, FlusherStart, Named, STAMPS_RESERVED};
use crate::options::{IoBackend, Options, PAGE_BYTES_DEFAULT};
use crate::pager::IN_FLIGHT_MAX;
use crate::runtime::{LogFiles, Runtime, Sim, Started, Threads};
use crate::shard::{Shard, parked_max};
use crate::shared::{
    Counter, Counters, DATA_FILE, DeadVersions, GroupSizes, Settings, Shared, Status, Version,
};

/// Least bytes for records of the log that are gathered, sorted and applied at a time.
const SLICE_BYTES_MIN: usize = 16 << 20;
/// The share of the cache that they may take: beyond the least, frames are left unused for them.
const SLICE_CACHE_SHARE: u64 = 4;
/// Most record bytes of a batch, whatever a segment could hold: it is kept in memory several times.
const BATCH_RECORD_BYTES_MAX: usize = 8 << 20;

/// Most bytes that clients have under way, in caches of any size.
const CREDIT_BYTES_MAX: usize = 8 << 20;
/// Most record bytes in batches that are frozen and not published, over all shards.
const UNPUBLISHED_BYTES_MAX: usize = 8 << 20;

/// Most pages that one reader asks for at a time, in large caches.
const FETCHED_MAX: usize = 64;

/// Equal seeds must give equal files, ids included.
pub(crate) const SIMULATED_ID: [u8; 16] = *b"simulated system";
/// What errors call a simulated disk.
pub(crate) const SIMULATED_PATH: &str = "simulated";

/// A running database.
pub(crate) struct Opened {
    pub runtime: Arc<Runtime>,
    pub threads: Threads,
    pub lock: Option<DirectoryLock>,
}

/// What the actors start from.
struct Start {
    started: Started,
    catalog: Catalog,
    space: SpaceMap,
    snapshots: Vec<ImageSnapshot>,
    superblock: Superblock,
    layout: SegmentLayout,
    segments: SegmentSet,
    position: LogPosition,
    /// The first commit group from now on. Replayed groups, too, come after all that the log holds: the blobs that it
    /// names were born by then, and so are retired as what some version still shows (rule R4).
    next_seq: Seq,
    next_stamp: Stamp,
    data: Arc<dyn File>,
    log_files: Option<LogFiles>,
}

/// A directory that nobody else has open.
pub(crate) struct Claimed {
    pub directory: Arc<dyn Directory>,
    lock: DirectoryLock,
}

/// Opens a directory of the file system, creates it if it isn't there, and keeps others out.
pub(crate) fn claim(path: &Path) -> Result<Claimed> {
    let what = |action: &str| format!("{action} {}", path.display());
    let directory = if path.exists() {
        if !path.is_dir() {
            return Err(Error::NotADatabase {
                path: path.into(),
                reason: "it is not a directory".into(),
            });
        }
        OsDirectory::open(path)
    } else {
        OsDirectory::create(path)
    };
    let directory = directory.map_err(|error| Error::io(what("opening"), error))?;
    claim_directory(Arc::new(directory), path)
}

fn claim_directory(directory: Arc<dyn Directory>, path: &Path) -> Result<Claimed> {
    let lock = directory.lock().map_err(|error| match error {
        LockError::Held { .. } => Error::AlreadyOpen { path: path.into() },
        LockError::Io(error) => Error::io(format!("locking {}", path.display()), error),
    })?;
    Ok(Claimed { directory, lock })
}

/// Creates an empty database in a directory that has none.
fn create_missing(
    directory: &dyn Directory,
    path: &Path,
    options: &Options,
    database_id: impl FnOnce() -> [u8; 16],
) -> Result<()> {
    let names = directory
        .names()
        .map_err(|error| Error::io(format!("listing {}", path.display()), error))?;
    if names.iter().any(|name| name == RESTORING_FILE) {
        return Err(Error::NotADatabase {
            path: path.into(),
            reason: "a restore was interrupted; begin it anew".into(),
        });
    }
    if !names.iter().any(|name| name == DATA_FILE) {
        create::check_empty(path, &names)?;
        create::create(directory, options, database_id())?;
    }
    Ok(())
}

/// Opens or creates the database in a directory of the file system.
pub(crate) fn open_directory(path: &Path, options: &Options) -> Result<Opened> {
    let started = Started::now();
    let claimed = claim(path)?;
    create_missing(&*claimed.directory, path, options, create::random_id)?;
    open_files(
        &claimed.directory,
        path,
        options,
        Some(claimed.lock),
        None,
        started,
    )
}

/// Opens what a restore has put into the directory that it has claimed.
pub(crate) fn open_restored(
    claimed: Claimed,
    path: &Path,
    options: &Options,
    sim: Option<Sim>,
) -> Result<Opened> {
    let Claimed { directory, lock } = claimed;
    open_files(&directory, path, options, Some(lock), sim, Started::now())
}

/// Keeps others out of a simulated disk.
pub(crate) fn claim_simulated(disk: &SimDirectory) -> Result<Claimed> {
    claim_directory(Arc::new(disk.clone()), Path::new(SIMULATED_PATH))
}

/// Opens or creates the database on a simulated disk, driven by `sim` instead of threads.
pub(crate) fn open_simulated(disk: &SimDirectory, options: &Options, sim: Sim) -> Result<Opened> {
    let started = Started::now();
    let path = Path::new(SIMULATED_PATH);
    let claimed = claim_simulated(disk)?;
    create_missing(&*claimed.directory, path, options, || SIMULATED_ID)?;
    open_files(
        &claimed.directory,
        path,
        options,
        Some(claimed.lock),
        Some(sim),
        started,
    )
}

fn open_files(
    directory: &Arc<dyn Directory>,
    path: &Path,
    options: &Options,
    lock: Option<DirectoryLock>,
    sim: Option<Sim>,
    started: Started,
) -> Result<Opened> {
    let data = directory
        .open(DATA_FILE, OpenMode::Existing)
        .map_err(|error| Error::io(format!("opening {DATA_FILE}"), error))?;
    let loaded = load::load(&*data, path, options)?;
    let readers = match sim {
        Some(_) => Readers::Inline,
        None => Readers::Background,
    };
    let log = log::Log::open(directory, &loaded.superblock, readers)?;
    let slice_bytes =
        (options.cache_bytes / SLICE_CACHE_SHARE).min(records::GATHERED_BYTES_MAX as u64) as usize;
    let scanned = log.scan(&loaded.superblock, slice_bytes.max(SLICE_BYTES_MIN))?;
    let mut superblock = loaded.superblock;
    log.sync(&superblock, scanned.end.position)?;
    // The superblock of a clean close says where the log ends, and the next opening takes that back before it appends.
    if superblock.clean && scanned.end.position.lsn != superblock.log_known.lsn {
        return Err(log.goes_on(superblock.log_known.lsn));
    }
    superblock.write_number += 1;
    superblock.clean = false;
    // Not used before all of them are reserved, durably: so no birth is given twice, whatever a crash makes unknown
    // (rule R6).
    let next_stamp = superblock.next_stamp.max(scanned.next_stamp);
    superblock.next_stamp = Stamp(next_stamp.0 + STAMPS_RESERVED);
    superblock.log_known = LogPosition {
        generation: scanned.end.position.generation + 1,
        ..scanned.end.position
    };
    load::write_superblocks(&*data, &superblock, loaded.slot)?;
    let layout = log.layout();
    let position = superblock.log_known;
    let segments = SegmentSet::new(
        layout,
        Commit::segments_ahead(),
        superblock.log_start.lsn,
        position.lsn,
        &log.found(position),
    );
    let log_files = LogFiles::new(
        Arc::clone(directory),
        superblock.log_id(),
        superblock.segment_bytes,
    );
    let checkpoint_seq = superblock.checkpoint_seq;
    let start = Start {
        started,
        catalog: loaded.catalog,
        space: loaded.space,
        snapshots: loaded.snapshots,
        layout,
        segments,
        position,
        next_seq: scanned
            .end
            .last_seq
            .map_or(checkpoint_seq, |last| last.max(checkpoint_seq))
            .next(),
        next_stamp,
        data,
        log_files: Some(log_files),
        superblock,
    };
    let backend = match options.io {
        IoBackend::Auto => BackendChoice::Auto,
        IoBackend::Uring => BackendChoice::Uring,
        IoBackend::Blocking => BackendChoice::Blocking,
    };
    let opened = run(start, options, backend, false, lock, sim)?;
    if let Err(error) = replay_log(&opened.runtime, &log, scanned) {
        opened.threads.stop(&opened.runtime);
        return Err(error);
    }
    Ok(opened)
}

fn replay_log(runtime: &Arc<Runtime>, log: &log::Log, scanned: log::Scanned) -> Result<()> {
    replay::replay(runtime, log, scanned)?;
    runtime.send_commit(CommitMessage::GoLive);
    runtime.send_flusher(FlusherMessage::GoLive);
    runtime.shared.counters.set(Counter::RecoveryNanos, runtime.now());
    replay::resume_drops(runtime)
}

/// Makes a database without files.
pub(crate) fn open_memory(options: &Options) -> Result<Opened> {
    let page_bytes = options.page_bytes.unwrap_or(PAGE_BYTES_DEFAULT);
    let superblock = create::initial_superblock(page_bytes as u32, options.log_segment_bytes, [0; 16]);
    let Some(layout) = superblock.segment_layout() else {
        unreachable!("the segment size was validated with the options")
    };
    let directory = MemoryDirectory::new();
    let data = directory
        .open(DATA_FILE, OpenMode::CreateNew)
        .map_err(|error| Error::io("creating an empty file in memory", error))?;
    let position = superblock.log_start;
    let start = Start {
        started: Started::now(),
        catalog: Catalog::new(),
        space: SpaceMap::new(superblock.file_pages),
        snapshots: Vec::new(),
        segments: SegmentSet::new(
            layout,
            0,
            position.lsn,
            position.lsn,
            &std::collections::BTreeMap::new(),
        ),
        layout,
        position,
        next_seq: superblock.checkpoint_seq.next(),
        next_stamp: Stamp(1),
        data,
        log_files: None,
        superblock,
    };
    let opened = run(start, options, BackendChoice::Blocking, true, None, None)?;
    opened.runtime.send_commit(CommitMessage::GoLive);
    opened.runtime.send_flusher(FlusherMessage::GoLive);
    Ok(opened)
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

/// Starts the actors.
fn run(
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
    let settings = Settings {
        page_bytes,
        shards: options.shards,
        durability: options.durability,
        in_memory,
        log: options.log && !in_memory,
        open_nodes_max: (frames / 4 / options.shards).max(8),
        parked_max: parked_max(frames, options.shards),
        fetched_max: (frames / 16).clamp(1, FETCHED_MAX),
        dirty_pages_max: options.max_dirty_pages.unwrap_or(frames / 2).max(1),
        checkpoint_log_bytes: options.checkpoint_log_bytes,
        credit_bytes: (frames * page_bytes / 4).min(CREDIT_BYTES_MAX),
        unpublished_bytes_max: UNPUBLISHED_BYTES_MAX / options.shards,
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
    let shards = (0..options.shards)
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
