//! Opening after `kill -9`.
//!
//! A child process opens a loaded and settled database, overwrites as many records as the cached
//! rows have, without checkpoints, makes its log durable, says how long the log is, and is killed.
//! Then this process opens the directory; the time until the first get is answered counts. Once
//! with the usual data and once with four times as much under the same log: what matters is to be
//! the log alone. Twice as much memory as there are records is touched before, see [`memory::warm`].
//!
//! LMDB and redb have no log; they show how long their open takes, which for redb means repairing.

use std::time::{Duration, Instant};

use super::beyond::load_sorted;
use super::cached::{BATCH_RECORDS, random_batch};
use super::{Context, Opened, cache_bytes_ample, get_checked, note};
use crate::Result;
use crate::child::{Answer, Assignment, Task, answer_ready};
use crate::memory;
use crate::peers::{self, Profile, Promise};
use crate::report::{Contender, Results};
use crate::workload::{RECORD_BYTES, Random};

/// Rows by how many times the usual data there is: rate, milliseconds, factor.
const OPENS: [(&str, &str, u64); 2] = [
    ("open-killed", "open-killed-ms", 1),
    ("open-killed-4x", "open-killed-4x-ms", 4),
];

fn profile(records: u64) -> Profile {
    Profile {
        promise: Promise::Buffered,
        cache_bytes: cache_bytes_ample(records),
        direct: false,
        keep_log: true,
        records,
    }
}

/// Runs the group's rows that are wanted.
///
/// # Errors
/// The first failure of an engine.
pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    for (rate, milliseconds, factor) in OPENS {
        if !context.settings.wants_any(&[rate, milliseconds]) {
            continue;
        }
        for round in 0..context.settings.rounds {
            for engine in context.turn(round) {
                let records = context.settings.records * factor;
                let (elapsed, log_bytes) = open_once(context, engine, records, round)?;
                note(results, milliseconds, engine, elapsed.as_secs_f64() * 1e3);
                if let Some(bytes) = log_bytes {
                    let megabytes = bytes as f64 / 1e6;
                    note(results, rate, engine, megabytes / elapsed.as_secs_f64());
                }
            }
        }
    }
    Ok(())
}

fn open_once(
    context: &Context,
    engine: Contender,
    records: u64,
    round: u32,
) -> Result<(Duration, Option<u64>)> {
    let opened = Opened::fresh(context, engine, &profile(records))?;
    load_sorted(context, &*opened.store, records)?;
    let directory = opened.close()?;
    let assignment = Assignment {
        task: Task::Crash,
        engine,
        directory: directory.path().to_owned(),
        records,
        round: u64::from(round),
    };
    let mut child = assignment.start()?;
    let log_bytes = loop {
        match child.next_answer()? {
            Some(Answer::Ready { log_bytes }) => break log_bytes,
            Some(Answer::Figure { .. }) => {}
            None => return Err("the child ended before it was killed".into()),
        }
    };
    child.kill()?;
    memory::warm((2 * records + context.settings.records) * RECORD_BYTES);
    let begun = Instant::now();
    let store = peers::open(engine, directory.path(), &profile(records))?;
    let mut session = store.session()?;
    get_checked(&mut *session, 0)?;
    let elapsed = begun.elapsed();
    drop(session);
    store.close()?;
    directory.close()?;
    Ok((elapsed, (log_bytes > 0).then_some(log_bytes)))
}

/// What the child process does: never returns when all goes well.
///
/// # Errors
/// The engine's.
pub fn run_as_child(context: &Context, assignment: &Assignment) -> Result<()> {
    let records = assignment.records;
    let store = peers::open(assignment.engine, &assignment.directory, &profile(records))?;
    let mut session = store.session()?;
    let mut random = Random::new(assignment.round);
    for _ in 0..context.settings.records.div_ceil(BATCH_RECORDS as u64) {
        session.put_batch(&random_batch(context, records, &mut random))?;
    }
    store.sync_log()?;
    answer_ready(store.log_bytes()?.unwrap_or(0));
    loop {
        std::thread::park();
    }
}
