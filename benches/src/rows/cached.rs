//! The rows where everything fits in memory and writes are buffered.
//!
//! First the bulk loads, each into a fresh directory. Then all engines are open at once on the
//! randomly loaded records, and every row goes round the engines, round after round, so that
//! neighbours in time are compared. After a row that writes, every engine may finish its background
//! work before the next row begins.

use std::time::Instant;

use super::ycsb::{Chooser, Mix};
use super::{Context, Opened, get_checked, get_many_checked, note, settle, timed, turns};
use crate::Result;
use crate::measure::Operation;
use crate::peers::Promise;
use crate::report::Results;
use crate::workload::{KEY_BYTES, RECORD_BYTES, Random, Record, indices_by_key, key_of};

/// Keys of a `get_many`.
const GET_MANY_KEYS: usize = 64;
/// Records of a batch.
pub(super) const BATCH_RECORDS: usize = 1_000;

const LOADS: [&str; 3] = ["load-sorted", "load-random", "file-random"];
const READS: [&str; 7] = [
    "get-1",
    "get-2",
    "get-4",
    "get-many",
    "range-10",
    "range-100",
    "scan",
];
const WRITES: [&str; 3] = ["put-buffered-1", "batch-buffered", "put-pipelined"];
const MIXES: [(&str, Mix, u64); 10] = [
    ("ycsb-c-1", Mix::C, 1),
    ("ycsb-c-16", Mix::C, 16),
    ("ycsb-b-1", Mix::B, 1),
    ("ycsb-b-16", Mix::B, 16),
    ("ycsb-a-1", Mix::A, 1),
    ("ycsb-a-16", Mix::A, 16),
    ("ycsb-f-1", Mix::F, 1),
    ("ycsb-f-16", Mix::F, 16),
    ("ycsb-e-1", Mix::E, 1),
    ("ycsb-e-16", Mix::E, 16),
];
const DELETE: &str = "delete-half";

/// Runs the group's rows that are wanted.
///
/// # Errors
/// The first failure of an engine.
pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let settings = &context.settings;
    let mixes: Vec<&str> = MIXES.iter().map(|(row, ..)| *row).collect();
    let open_rows = [&READS[..], &WRITES[..], &mixes[..], &[DELETE]].concat();
    if settings.wants("load-sorted") {
        load_sorted(context, results)?;
    }
    if !settings.wants_any(&LOADS[1..]) && !settings.wants_any(&open_rows) {
        return Ok(());
    }
    let stores = load_random(context, results)?;
    if settings.wants_any(&open_rows) {
        reads(context, results, &stores)?;
        writes(context, results, &stores)?;
        mixed(context, results, &stores)?;
        if settings.wants(DELETE) {
            delete_half(context, results, &stores)?;
        }
    }
    stores.into_iter().try_for_each(Opened::remove)
}

fn load_sorted(context: &Context, results: &mut Results) -> Result<()> {
    let indices = indices_by_key(context.settings.records);
    for round in 0..context.settings.rounds {
        for engine in context.turn(round) {
            let profile = context.profile_cached(Promise::Buffered);
            let opened = Opened::fresh(context, engine, &profile)?;
            let mut records = indices.iter().map(|&index| context.values.record(index, 0));
            let begun = Instant::now();
            opened.store.load_sorted(&mut records)?;
            let rate = indices.len() as f64 / begun.elapsed().as_secs_f64();
            note(results, "load-sorted", engine, rate);
            opened.store.settle()?;
            opened.note_size(results, "load-sorted")?;
            opened.remove()?;
        }
    }
    Ok(())
}

/// Loads every engine as often as there are rounds and keeps the stores of the last one. A run that
/// doesn't want these figures loads once.
fn load_random(context: &Context, results: &mut Results) -> Result<Vec<Opened>> {
    let wanted = context.settings.wants_any(&LOADS[1..]);
    let rounds = if wanted { context.settings.rounds } else { 1 };
    let records = context.settings.records;
    let mut kept = Vec::new();
    for round in 0..rounds {
        for engine in context.turn(round) {
            let profile = context.profile_cached(Promise::Buffered);
            let opened = Opened::fresh(context, engine, &profile)?;
            let begun = Instant::now();
            opened
                .store
                .load_random(&mut context.values.records(0..records))?;
            let rate = records as f64 / begun.elapsed().as_secs_f64();
            opened.store.settle()?;
            if wanted {
                note(results, "load-random", engine, rate);
                let size = opened.note_size(results, "load-random")?;
                let data_bytes = size.total_bytes.saturating_sub(size.log_bytes);
                let times_raw = data_bytes as f64 / (records * RECORD_BYTES) as f64;
                note(results, "file-random", engine, times_raw);
            }
            if round + 1 == rounds {
                kept.push(opened);
            } else {
                opened.remove()?;
            }
        }
    }
    Ok(kept)
}

/// Goes round the engines, round after round, with one timed operation.
fn go_round(
    context: &Context,
    results: &mut Results,
    stores: &[Opened],
    row: &'static str,
    threads: u64,
    operation: &Operation<'_>,
) -> Result<()> {
    if !context.settings.wants(row) {
        return Ok(());
    }
    for round in 0..context.settings.rounds {
        for opened in turns(context, stores, round) {
            timed(results, row, opened, context.plan(threads, round), operation)?;
        }
    }
    Ok(())
}

/// As [`go_round`] for rows that write: background work ends before the next row begins.
fn go_round_writing(
    context: &Context,
    results: &mut Results,
    stores: &[Opened],
    row: &'static str,
    threads: u64,
    operation: &Operation<'_>,
) -> Result<()> {
    go_round(context, results, stores, row, threads, operation)?;
    if context.settings.wants(row) {
        settle(results, stores, row)?;
    }
    Ok(())
}

fn reads(context: &Context, results: &mut Results, stores: &[Opened]) -> Result<()> {
    let records = context.settings.records;
    for (row, threads) in [("get-1", 1), ("get-2", 2), ("get-4", 4)] {
        go_round(context, results, stores, row, threads, &|session, random| {
            get_checked(session, random.below(records))
        })?;
    }
    go_round(context, results, stores, "get-many", 1, &|session, random| {
        get_many_checked::<GET_MANY_KEYS>(session, || random.below(records))
    })?;
    for (row, limit) in [("range-10", 10), ("range-100", 100)] {
        go_round(context, results, stores, row, 1, &|session, random| {
            let seen = session.scan(&key_of(random.below(records)), limit)?;
            std::hint::black_box(seen);
            Ok(1)
        })?;
    }
    go_round(context, results, stores, "scan", 1, &|session, _| {
        let seen = session.scan(&[0; KEY_BYTES], u64::MAX)?;
        if seen.entries < records {
            return Err(format!("a scan of {records} records saw {}", seen.entries).into());
        }
        Ok(seen.entries)
    })
}

/// `BATCH_RECORDS` updates of records chosen uniformly.
pub(super) fn random_batch(context: &Context, records: u64, random: &mut Random) -> Vec<Record> {
    (0..BATCH_RECORDS)
        .map(|_| context.update(records, random))
        .collect()
}

fn writes(context: &Context, results: &mut Results, stores: &[Opened]) -> Result<()> {
    let records = context.settings.records;
    go_round_writing(context, results, stores, WRITES[0], 1, &|session, random| {
        session.put(&context.update(records, random))?;
        Ok(1)
    })?;
    go_round_writing(context, results, stores, WRITES[1], 1, &|session, random| {
        session.put_batch(&random_batch(context, records, random))?;
        Ok(BATCH_RECORDS as u64)
    })?;
    let row = WRITES[2];
    if !context.settings.wants(row) {
        return Ok(());
    }
    for round in 0..context.settings.rounds {
        for opened in turns(context, stores, round) {
            let mut random = Random::new(u64::from(round));
            let mut updates = (0..records).map(|_| context.update(records, &mut random));
            let mut session = opened.store.session()?;
            let begun = Instant::now();
            session.put_all(&mut updates)?;
            let rate = records as f64 / begun.elapsed().as_secs_f64();
            note(results, row, opened.engine, rate);
            drop(session);
            opened.store.settle()?;
        }
    }
    settle(results, stores, row)
}

fn mixed(context: &Context, results: &mut Results, stores: &[Opened]) -> Result<()> {
    let chooser = Chooser::new(context);
    for (row, mix, threads) in MIXES {
        let go = if mix == Mix::C { go_round } else { go_round_writing };
        go(context, results, stores, row, threads, &|session, random| {
            chooser.operate(mix, session, random)
        })?;
    }
    Ok(())
}

/// Deletes every other record, in the order of the indices: random order of the keys. All but
/// the last round put them back, untimed.
fn delete_half(context: &Context, results: &mut Results, stores: &[Opened]) -> Result<()> {
    let records = context.settings.records;
    let doomed = || (0..records).step_by(2);
    let rounds = context.settings.rounds;
    for round in 0..rounds {
        for opened in turns(context, stores, round) {
            let mut session = opened.store.session()?;
            let begun = Instant::now();
            session.delete_all(&mut doomed().map(key_of))?;
            let rate = doomed().count() as f64 / begun.elapsed().as_secs_f64();
            note(results, DELETE, opened.engine, rate);
            if round + 1 < rounds {
                session.put_all(&mut doomed().map(|index| context.values.record(index, 0)))?;
            }
            drop(session);
            opened.store.settle()?;
        }
    }
    settle(results, stores, DELETE)
}
