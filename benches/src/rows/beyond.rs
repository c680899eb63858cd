//! The rows where the data is eight times the cache and the page cache is out of the game.
//!
//! Each engine runs in a child process of its own, one after the other, round after round, with a
//! cache of an eighth of the raw records. How the page cache is kept out differs, because the
//! engines do ([`PageCache`]):
//!
//! * Treering and RocksDB read with `O_DIRECT`.
//! * redb and fjall have a cache of their own and read files: a thread of the child drops their files
//!   from the page cache two hundred times a second, so their own cache is what counts.
//! * For LMDB the page cache is the cache: its child lives in a memory cgroup of the cache's size
//!   and a little for the process itself. The operator provides the group (`PEERS_CGROUP`); without
//!   one, LMDB has no figure here.
//!
//! The device's own rates are measured in between, on a file as large as the records in a tree: random reads, and for
//! the row of half updates a random write after every other read.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::{Context, Opened, get_checked, note};
use crate::Result;
use crate::child::{Answer, Assignment, Task, answer_figure};
use crate::device::{Mix, RawFile};
use crate::disk;
use crate::measure::{self, Plan};
use crate::memory;
use crate::peers::{self, PageCache, Profile, Promise, Store};
use crate::report::{Contender, Results, catalog};
use crate::workload::RECORD_BYTES;

const GETS: [(&str, u32); 3] = [("beyond-get-1", 1), ("beyond-get-16", 16), ("beyond-get-64", 64)];
/// The row whose reads from the device are counted, and the row that says how many there were.
const CHECKED: &str = "beyond-get-64";
const CHECK: &str = "beyond-get-64-blocks";
const HALF: &str = "beyond-half";
const HALF_THREADS: u64 = 64;
const MEMORY: &str = "memory";

/// Bytes of a block and of every engine's page.
const BLOCK_BYTES: u64 = 4096;
/// Raw records to cache.
const DATA_TO_CACHE: u64 = 8;
/// What Treering may use besides its cache.
const ALLOWANCE_BYTES: u64 = 64 << 20;
/// What a process needs besides the page cache, for a process confined to a cgroup.
const PROCESS_BYTES: u64 = 16 << 20;

fn cache_bytes(records: u64) -> u64 {
    records * RECORD_BYTES / DATA_TO_CACHE
}

fn profile(records: u64) -> Profile {
    Profile {
        promise: Promise::Buffered,
        cache_bytes: cache_bytes(records),
        direct: true,
        keep_log: false,
        records,
    }
}

/// Runs the group's rows that are wanted.
///
/// # Errors
/// The first failure of an engine or of the device.
pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let rows: Vec<&str> = GETS.iter().map(|(row, _)| *row).chain([HALF, MEMORY]).collect();
    if !context.settings.wants_any(&rows) {
        return Ok(());
    }
    let records = context.settings.records_beyond;
    let mut loaded = Vec::new();
    for &engine in &context.engines {
        if peers::page_cache(engine) == PageCache::IsTheCache && context.settings.cgroup.is_none() {
            eprintln!(
                "{}: skipped beyond the cache, PEERS_CGROUP is not set",
                engine.title()
            );
            continue;
        }
        loaded.push((engine, load(context, engine, records)?));
    }
    let raw_path = context.settings.directory.join("raw-data");
    let device = RawFile::create(&raw_path, records * RECORD_BYTES * 4 / 3)?;
    for round in 0..context.settings.rounds {
        let reads = GETS.map(|(row, in_flight)| (row, Mix::Reads, in_flight));
        for (row, mix, in_flight) in reads
            .into_iter()
            .chain([(HALF, Mix::HalfUpdates, HALF_THREADS as u32)])
        {
            if context.settings.wants(row) {
                let rate = device.random(mix, in_flight, context.settings.row_time, u64::from(round))?;
                note(results, row, Contender::Device, rate);
            }
        }
        for engine in context.turn(round) {
            if let Some((_, directory)) = loaded.iter().find(|(loaded, _)| *loaded == engine) {
                let assignment = Assignment {
                    task: Task::Beyond,
                    engine,
                    directory: directory.path().to_owned(),
                    records,
                    round: u64::from(round),
                };
                collect(results, &assignment)?;
            }
        }
    }
    drop(device);
    std::fs::remove_file(raw_path)?;
    for (_, directory) in loaded {
        directory.close()?;
    }
    Ok(())
}

fn load(context: &Context, engine: Contender, records: u64) -> Result<TempDir> {
    let profile = Profile {
        cache_bytes: super::cache_bytes_ample(records),
        direct: false,
        ..profile(records)
    };
    let opened = Opened::fresh(context, engine, &profile)?;
    load_sorted(context, &*opened.store, records)?;
    opened.close()
}

/// Loads the records in the order of their keys.
pub(super) fn load_sorted(context: &Context, store: &dyn Store, records: u64) -> Result<()> {
    let indices = crate::workload::indices_by_key(records);
    store.load_sorted(&mut indices.iter().map(|&index| context.values.record(index, 0)))?;
    store.settle()
}

fn collect(results: &mut Results, assignment: &Assignment) -> Result<()> {
    let mut child = assignment.start()?;
    while let Some(answer) = child.next_answer()? {
        if let Answer::Figure { row, value } = answer {
            let row = catalog::row_named(&row).ok_or("a figure for no row")?;
            note(results, row.key, assignment.engine, value);
        }
    }
    Ok(())
}

/// What the child process does.
///
/// # Errors
/// The engine's, or a cgroup that can't be used.
pub fn run_as_child(context: &Context, assignment: &Assignment) -> Result<()> {
    let page_cache = peers::page_cache(assignment.engine);
    let records = assignment.records;
    disk::evict(&assignment.directory)?;
    if page_cache == PageCache::IsTheCache {
        let group = context.settings.cgroup.as_deref();
        let group = group.ok_or("PEERS_CGROUP is not set")?;
        memory::confine(group, cache_bytes(records) + PROCESS_BYTES)?;
    }
    let store = peers::open(assignment.engine, &assignment.directory, &profile(records))?;
    while_evicted(page_cache, &assignment.directory, || {
        measure_rows(context, assignment, &*store)
    })?;
    let budget_bytes = cache_bytes(records) * 102 / 100 + ALLOWANCE_BYTES;
    if context.settings.wants(MEMORY) {
        let peak_bytes = memory::resident()?.peak;
        answer_figure(MEMORY, peak_bytes as f64 / budget_bytes as f64);
    }
    store.close()
}

fn while_evicted(page_cache: PageCache, directory: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let evictor =
            (page_cache == PageCache::Evicted).then(|| scope.spawn(|| disk::keep_evicted(directory, &stop)));
        let outcome = work();
        stop.store(true, Ordering::Relaxed);
        if let Some(evictor) = evictor {
            evictor.join().map_err(|_| "the evicting thread panicked")??;
        }
        outcome
    })
}

fn measure_rows(context: &Context, assignment: &Assignment, store: &dyn Store) -> Result<()> {
    let records = assignment.records;
    let plan = |threads| Plan {
        threads,
        warm_up: context.settings.warm_up(),
        window: context.settings.row_time,
        seed: assignment.round + 1,
        latencies: false,
    };
    fill_cache(assignment, store)?;
    for (row, threads) in GETS.into_iter().rev() {
        if context.settings.wants(row) {
            let gets = AtomicU64::new(0);
            let before = disk::bytes_delivered()?;
            let sample = measure::run(store, plan(u64::from(threads)), &|session, random| {
                gets.fetch_add(1, Ordering::Relaxed);
                get_checked(session, random.below(records))
            })?;
            answer_figure(row, sample.rate);
            if row == CHECKED {
                let blocks = (disk::bytes_delivered()? - before) as f64 / BLOCK_BYTES as f64;
                answer_figure(CHECK, blocks / gets.into_inner() as f64);
            }
        }
    }
    if context.settings.wants(HALF) {
        let sample = measure::run(store, plan(HALF_THREADS), &|session, random| {
            if random.below(2) == 0 {
                get_checked(session, random.below(records))
            } else {
                session.put(&context.update(records, random)).map(|()| 1)
            }
        })?;
        answer_figure(HALF, sample.rate);
    }
    Ok(())
}

/// Reads until the cache has seen twice as many pages as it holds.
fn fill_cache(assignment: &Assignment, store: &dyn Store) -> Result<()> {
    const STEP: Duration = Duration::from_millis(250);
    let wanted = (2 * cache_bytes(assignment.records) / BLOCK_BYTES) as f64;
    let mut reads = 0.0;
    let mut seed = 1 << 32;
    while reads < wanted {
        let plan = Plan {
            threads: 64,
            warm_up: Duration::ZERO,
            window: STEP,
            seed,
            latencies: false,
        };
        let sample = measure::run(store, plan, &|session, random| {
            get_checked(session, random.below(assignment.records))
        })?;
        reads += sample.rate * STEP.as_secs_f64();
        seed += 1;
    }
    Ok(())
}
