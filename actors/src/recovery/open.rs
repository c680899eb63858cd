//! From a directory, or nothing, to a running database.

use std::path::Path;
use std::sync::Arc;

use treering_engine::Stamp;
use treering_engine::catalog::Directory as Catalog;
use treering_engine::log::{LogPosition, SegmentSet};
use treering_engine::space::SpaceMap;
use treering_io::{BackendChoice, Directory, DirectoryLock, MemoryDirectory, OpenMode, SimDirectory};

use super::claim::{Claimed, claim, claim_simulated};
use super::read_ahead::Readers;
use super::start::{Start, run};
use super::{create, load, log, records, replay};
use crate::client::RESTORING_FILE;
use crate::commit::{Commit, CommitMessage};
use crate::error::{Error, Result};
use crate::flusher::{FlusherMessage, STAMPS_RESERVED};
use crate::options::{IoBackend, Options, PAGE_BYTES_DEFAULT};
use crate::runtime::{LogFiles, Runtime, Sim, Started, Threads};
use crate::shared::{Counter, DATA_FILE};

/// Least bytes for records of the log that are gathered, sorted and applied at a time.
pub(super) const SLICE_BYTES_MIN: usize = 16 << 20;

/// The share of the cache that they may take: beyond the least, frames are left unused for them.
const SLICE_CACHE_SHARE: u64 = 4;

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
    let simulated = sim.as_ref().and_then(Sim::replayed_bytes);
    let slice_bytes = simulated.unwrap_or(slice_bytes.max(SLICE_BYTES_MIN));
    let scanned = log.scan(&loaded.superblock, slice_bytes)?;
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
    // Backups name the database that they are of, and an incremental one is refused for the copy of another.
    let superblock =
        create::initial_superblock(page_bytes as u32, options.log_segment_bytes, create::random_id());
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
