//! One run from the opening of the database to its closing.
//!
//! | stage | function | in verified runs also |
//! |---|---|---|
//! | open | [`execute`] | open the ledger; walk over everything that an earlier run left |
//! | load what is missing | `loader` | |
//! | the load itself, measured | `drive` | every answer checked; flush points if buffered |
//! | close | [`execute`] | walk before; open, walk and close again after |
//!
//! When the first walk finds something wrong the run ends there: nothing is written over the evidence.

mod drive;
mod loader;
mod operations;
mod outcome;
mod pipeline;
mod schedule;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::inserts::InsertSequence;
use crate::measure::process;
use crate::measure::{ErrorTally, Samples, Totals};
use crate::plan::{Durability, Plan};
use crate::progress::Progress;
use crate::stop::Stop;
use crate::target::{Opener, Session, Target, TargetError};
use crate::verify::Verifier;
use crate::verify::check::{Checked, Expectation, check};
use crate::verify::ledger::{JOURNAL_FILE, RECORDS_MAX};
use crate::workload::{OperationKind, Workload};
pub use outcome::{Counters, Outcome, RunError, Verification};

/// What all parts of a run share.
#[derive(Debug)]
pub(crate) struct Context<'a, T> {
    pub plan: &'a Plan,
    pub target: &'a T,
    pub verifier: Option<&'a Verifier>,
    pub stop: &'a Stop,
    pub progress: &'a Progress,
    pub samples: &'a Samples,
    pub errors: &'a ErrorTally,
}

/// Runs `plan`.
///
/// # Errors
/// [`RunError`] when there is nothing to report on. Failed operations are counted in the [`Outcome`] instead.
pub fn execute<O: Opener>(
    opener: &O,
    plan: &Plan,
    stop: &Stop,
    progress: &Progress,
) -> Result<Outcome, RunError> {
    let temporary;
    let directory = match &plan.directory {
        Some(directory) => directory.as_path(),
        None => {
            temporary = tempfile::tempdir().map_err(|source| RunError::Directory {
                path: std::env::temp_dir(),
                source,
            })?;
            temporary.path()
        }
    };
    let began = Instant::now();
    let target = opener
        .open(directory, &plan.store)
        .map_err(|source| failed("opening the database", source))?;
    let opening = began.elapsed();

    let verifier = open_verifier(plan, directory)?;
    let found = survey(plan, &target, verifier.as_ref(), progress)?;
    let mut verification = verifier.as_ref().map(|verifier| Verification {
        records_before: found.records,
        had_ledger: verifier.ledger_existed,
        ..Verification::default()
    });

    let samples = Samples::default();
    let errors = ErrorTally::default();
    let mut totals = Totals::default();
    let mut loaded = (0, Duration::ZERO);
    let mut counters = Counters::default();
    let mut elapsed = Duration::ZERO;
    let is_sound = verifier
        .as_ref()
        .is_none_or(|verifier| verifier.violations.count() == 0);
    if is_sound {
        let context = Context {
            plan,
            target: &target,
            verifier: verifier.as_ref(),
            stop,
            progress,
            samples: &samples,
            errors: &errors,
        };
        if plan.workload.needs_records() && found.below < plan.records {
            loaded = loader::load_missing(&context, found.records > 0);
        }
        if let Some(verifier) = verifier
            .as_ref()
            .filter(|_| plan.workload.mix().includes(OperationKind::Scan))
        {
            verifier.remember_scan_order();
        }
        // What loading left to write is not the load's.
        flush(&context);
        if plan.workload == Workload::Load {
            elapsed = loader::load_measured(&context, &mut totals);
        } else if !plan.duration.is_zero() {
            let present = if plan.workload.mix().includes(OperationKind::Insert) {
                plan.records.max(found.end)
            } else {
                plan.records
            };
            let sequence = InsertSequence::new(present, plan.workload.mix().includes(OperationKind::Insert));
            (elapsed, counters) = drive::drive(&context, &sequence, &mut totals);
        }
    }
    let memory = process::memory();
    let stats = target.stats();
    let bytes_on_disk = process::disk_bytes(directory, JOURNAL_FILE).unwrap_or(0);

    let closing;
    match (&verifier, &mut verification) {
        (Some(verifier), Some(verification)) if is_sound => {
            progress.stage("checking every record");
            check(
                verifier,
                &session(&target)?,
                Expectation::Acknowledged,
                plan.records,
                false,
            )?;
            // A close without an error is the last flush point.
            let began = Instant::now();
            let closed = verifier.ledger.flush_point(|| target.close());
            closing = began.elapsed();
            if let Err(error) = &closed {
                errors.add(error);
            }
            progress.stage("opening again and checking every record");
            let target = opener
                .open(directory, &plan.store)
                .map_err(|source| failed("opening the database again", source))?;
            let expectation = if closed.is_ok() {
                Expectation::Acknowledged
            } else {
                Expectation::Promised
            };
            let after = check(verifier, &session(&target)?, expectation, plan.records, false)?;
            close(target, &errors);
            verification.records_after = after.records;
        }
        _ => closing = close(target, &errors),
    }
    if let (Some(verifier), Some(verification)) = (&verifier, &mut verification) {
        verification.load_skipped = !is_sound;
        verification.flush_points = verifier.ledger.flush_points();
        verification.violations = verifier.violations.count();
        verification.listed = verifier.violations.listed();
    }
    Ok(Outcome {
        plan: plan.clone(),
        totals,
        elapsed,
        opening,
        loaded,
        closing,
        counters,
        errors: errors.count(),
        error_messages: errors.messages(),
        bytes_on_disk,
        memory,
        stats,
        verification,
        interrupted: stop.is_asked(),
    })
}

fn failed(what: &'static str, source: TargetError) -> RunError {
    RunError::Target { what, source }
}

fn session<T: Target>(target: &T) -> Result<T::Session, RunError> {
    target
        .session()
        .map_err(|source| failed("opening the tree", source))
}

/// The verifier of a verified run. Another run's writes make a ledger that lies there void, so it goes.
fn open_verifier(plan: &Plan, directory: &Path) -> Result<Option<Verifier>, RunError> {
    let path = directory.join(JOURNAL_FILE);
    let journal = |source| RunError::Journal {
        path: path.clone(),
        source,
    };
    if !plan.verify {
        if plan.writes() {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(journal(error)),
                _ => {}
            }
        }
        return Ok(None);
    }
    let verifier = Verifier::open(
        directory,
        plan.key_order,
        plan.store.durability == Durability::Sync,
    )
    .map_err(journal)?;
    verifier.ledger.reserve(plan.records).map_err(journal)?;
    Ok(Some(verifier))
}

/// What is there: in verified runs by a walk that checks everything.
fn survey<T: Target>(
    plan: &Plan,
    target: &T,
    verifier: Option<&Verifier>,
    progress: &Progress,
) -> Result<Checked, RunError> {
    let session = session(target)?;
    let records = session
        .len()
        .map_err(|source| failed("counting the records", source))?;
    match verifier {
        Some(verifier) if records > 0 || verifier.ledger_existed => {
            progress.stage("checking what is there");
            let expectation = if verifier.ledger_existed {
                Expectation::Promised
            } else {
                Expectation::Anything
            };
            Ok(check(verifier, &session, expectation, plan.records, true)?)
        }
        // As many as were loaded: taken for those that were, rather than read all of them.
        None if records > 0 && records != plan.records && plan.workload.needs_records() => {
            progress.stage("looking at what is there");
            let mut found = Checked {
                records,
                ..Checked::default()
            };
            session
                .scan(b"", u64::MAX, |key, _| {
                    // In hashed order a foreign key would name a record beyond all that can be.
                    if let Some(record) = plan.key_order.record(key).filter(|&record| record < RECORDS_MAX) {
                        found.below += u64::from(record < plan.records);
                        found.end = found.end.max(record + 1);
                    }
                })
                .map_err(|source| failed("reading the records", source))?;
            Ok(found)
        }
        _ => Ok(Checked {
            records,
            below: records,
            end: records,
        }),
    }
}

/// Makes everything durable; in verified runs a flush point.
pub(crate) fn flush<T: Target>(context: &Context<'_, T>) {
    let flushed = match context.verifier {
        Some(verifier) => verifier.ledger.flush_point(|| context.target.flush()),
        None => context.target.flush(),
    };
    if let Err(error) = flushed {
        context.errors.add(&error);
    }
}

fn close<T: Target>(target: T, errors: &ErrorTally) -> Duration {
    let began = Instant::now();
    if let Err(error) = target.close() {
        errors.add(&error);
    }
    began.elapsed()
}
