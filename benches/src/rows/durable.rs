//! The rows where a write counts when it is on the device.
//!
//! All engines are open at once on the same randomly loaded records and take turns; the device
//! itself, one synced block after another, takes its turn in the row with one thread.

use super::cached::{BATCH_RECORDS, random_batch};
use super::ycsb::{Chooser, Mix};
use super::{Context, Opened, note, settle, timed, turns};
use crate::Result;
use crate::device::RawFile;
use crate::measure::Plan;
use crate::peers::Promise;
use crate::report::{Contender, Results};

/// Rows of single puts: rate, its p99, threads.
const PUTS: [(&str, &str, u64); 4] = [
    ("put-durable-1", "put-durable-1-p99", 1),
    ("put-durable-16", "put-durable-16-p99", 16),
    ("put-durable-64", "put-durable-64-p99", 64),
    ("put-durable-256", "put-durable-256-p99", 256),
];
const BATCH: &str = "batch-durable";
const MIX: &str = "ycsb-a-durable";

/// Runs the group's rows that are wanted.
///
/// # Errors
/// The first failure of an engine or of the device.
pub fn run(context: &Context, results: &mut Results) -> Result<()> {
    let settings = &context.settings;
    let puts: Vec<_> = PUTS
        .into_iter()
        .filter(|(rate, p99, _)| settings.wants_any(&[rate, p99]))
        .collect();
    if puts.is_empty() && !settings.wants_any(&[BATCH, MIX]) {
        return Ok(());
    }
    let stores = load(context)?;
    for (row, p99, threads) in puts {
        singles(context, results, &stores, row, p99, threads)?;
    }
    if settings.wants(BATCH) {
        batches(context, results, &stores)?;
    }
    if settings.wants(MIX) {
        mixed(context, results, &stores)?;
    }
    stores.into_iter().try_for_each(Opened::remove)
}

fn load(context: &Context) -> Result<Vec<Opened>> {
    context
        .engines
        .iter()
        .map(|&engine| {
            let profile = context.profile_cached(Promise::Synced);
            let opened = Opened::fresh(context, engine, &profile)?;
            let mut records = context.values.records(0..context.settings.records);
            opened.store.load_random(&mut records)?;
            opened.store.settle()?;
            Ok(opened)
        })
        .collect()
}

fn singles(
    context: &Context,
    results: &mut Results,
    stores: &[Opened],
    row: &'static str,
    p99: &'static str,
    threads: u64,
) -> Result<()> {
    let records = context.settings.records;
    let device_path = context.settings.directory.join("raw-log");
    let device = match threads {
        1 => Some(RawFile::create_log(&device_path)?),
        _ => None,
    };
    for round in 0..context.settings.rounds {
        if let Some(device) = &device {
            let rate = device.durable_writes(context.settings.row_time)?;
            note(results, row, Contender::Device, rate);
        }
        for opened in turns(context, stores, round) {
            let plan = Plan {
                latencies: true,
                ..context.plan(threads, round)
            };
            let sample = timed(results, row, opened, plan, &|session, random| {
                session.put(&context.update(records, random))?;
                Ok(1)
            })?;
            let p99_ms = sample.latency_ns.value_at_quantile(0.99) as f64 / 1e6;
            note(results, p99, opened.engine, p99_ms);
        }
    }
    if device.is_some() {
        std::fs::remove_file(device_path)?;
    }
    settle(results, stores, row)
}

fn batches(context: &Context, results: &mut Results, stores: &[Opened]) -> Result<()> {
    let records = context.settings.records;
    for round in 0..context.settings.rounds {
        for opened in turns(context, stores, round) {
            let plan = context.plan(1, round);
            timed(results, BATCH, opened, plan, &|session, random| {
                session.put_batch(&random_batch(context, records, random))?;
                Ok(BATCH_RECORDS as u64)
            })?;
        }
    }
    settle(results, stores, BATCH)
}

fn mixed(context: &Context, results: &mut Results, stores: &[Opened]) -> Result<()> {
    const THREADS: u64 = 16;
    let chooser = Chooser::new(context);
    for round in 0..context.settings.rounds {
        for opened in turns(context, stores, round) {
            let plan = context.plan(THREADS, round);
            timed(results, MIX, opened, plan, &|session, random| {
                chooser.operate(Mix::A, session, random)
            })?;
        }
    }
    settle(results, stores, MIX)
}
