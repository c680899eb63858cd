//! What runs without arguments: a few workloads in a temporary directory, a table in the end, in less than a
//! minute.

use std::time::Duration;

use crate::plan::{Durability, Plan, StoreOptions};
use crate::progress::Progress;
use crate::record::KeyOrder;
use crate::report::{bytes_text, comparison, thousands};
use crate::run::{self, Outcome, RunError};
use crate::stop::Stop;
use crate::target::Opener;
use crate::workload::Workload;

const RECORDS: u64 = 200_000;
const VALUE_BYTES: usize = 150;
const THREADS: usize = 16;
const SEED: u64 = 1;

/// What is shown: name, workload, durability, seconds.
const STAGES: [(&str, Workload, Durability, u64); 6] = [
    ("load, batches of 1,000", Workload::Load, Durability::Sync, 0),
    ("a: half updates, durable", Workload::A, Durability::Sync, 5),
    ("a: half updates, buffered", Workload::A, Durability::Buffered, 5),
    ("c: reads", Workload::C, Durability::Sync, 5),
    ("e: scans of 1 to 100", Workload::E, Durability::Sync, 5),
    (
        "f: atomic modifications, durable, verified",
        Workload::F,
        Durability::Sync,
        6,
    ),
];

/// Runs all stages in one temporary directory and prints what they showed; ends early when `stop` asks. Returns whether
/// all was clean.
///
/// # Errors
/// [`RunError`] of the first stage that couldn't run.
pub fn run<O: Opener>(opener: &O, stop: &Stop, progress: &Progress) -> Result<bool, RunError> {
    let directory = tempfile::Builder::new()
        .prefix("treering-loadgen-")
        .tempdir()
        .map_err(|source| RunError::Directory {
            path: std::env::temp_dir(),
            source,
        })?;
    println!(
        "{} records of {VALUE_BYTES} bytes, {THREADS} threads, in a temporary directory; loadgen run --help tells more",
        thousands(RECORDS)
    );
    let mut outcomes: Vec<(String, Outcome)> = Vec::new();
    for (name, workload, durability, seconds) in STAGES {
        if stop.is_asked() {
            break;
        }
        let plan = Plan {
            workload,
            records: RECORDS,
            value_bytes: VALUE_BYTES,
            key_order: KeyOrder::Hashed,
            scan_length: 100,
            threads: THREADS,
            depth: 1,
            duration: Duration::from_secs(seconds),
            operations: None,
            rate: None,
            directory: Some(directory.path().to_owned()),
            seed: SEED,
            verify: workload == Workload::F,
            store: StoreOptions {
                durability,
                ..StoreOptions::default()
            },
        };
        outcomes.push((name.to_owned(), run::execute(opener, &plan, stop, progress)?));
    }
    progress.end_run();
    print!("{}", comparison(&outcomes));
    if let Some((_, last)) = outcomes.last() {
        let disk = bytes_text(last.bytes_on_disk);
        println!(
            "disk {disk}, resident memory {} at most",
            bytes_text(last.memory.peak_bytes)
        );
    }
    for (name, outcome) in &outcomes {
        for (message, count) in &outcome.error_messages {
            println!("{name}: {} times: {message}", thousands(*count));
        }
        let listed = outcome.verification.iter().flat_map(|found| &found.listed);
        listed.for_each(|violation| println!("{name}: {violation}"));
    }
    Ok(outcomes.iter().all(|(_, outcome)| outcome.is_clean()))
}
