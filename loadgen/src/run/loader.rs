//! Loading: records in batches, from a few threads, each batch one atomic commit.
//!
//! Threads claim runs of record numbers in turn. In ordered key order with one thread that is a sorted bulk
//! load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Context;
use super::pipeline::Pipeline;
use crate::measure::{Recorder, Samples, Totals};
use crate::record::{KEY_BYTES, Stamp, encode};
use crate::target::{Session, Target, TargetError};
use crate::workload::OperationKind;

/// Most records of a batch.
const BATCH_RECORDS_MAX: usize = 1000;
/// Most bytes of a batch, unless a single record has more.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Threads that fill a database before the load: enough to keep one writer busy, on any machine.
const FILLING_THREADS_MAX: usize = 4;
/// Batches that a filling thread has under way.
const FILLING_DEPTH: usize = 4;
/// Time between two looks at the progress.
const TICK: Duration = Duration::from_millis(250);

/// A batch under way.
struct SentBatch {
    start: Instant,
    /// Records and versions.
    versions: Vec<(u64, u64)>,
}

/// What the loading threads share.
struct Loading<'a, T> {
    context: &'a Context<'a, T>,
    samples: &'a Samples,
    next: AtomicU64,
    depth: usize,
    skip_present: bool,
}

/// Loads the plan's records; with `some_present`, only those that aren't there. Returns how many it loaded, and the
/// time it took.
pub(crate) fn load_missing<T: Target>(context: &Context<'_, T>, some_present: bool) -> (u64, Duration) {
    let samples = Samples::default();
    let mut totals = Totals::default();
    let threads = context.plan.threads.min(FILLING_THREADS_MAX);
    let loading = Loading {
        context,
        samples: &samples,
        next: AtomicU64::new(0),
        depth: FILLING_DEPTH,
        skip_present: some_present,
    };
    let elapsed = loading.run(threads, &mut totals);
    (totals.operations(), elapsed)
}

/// The workload `load`: all records, measured.
pub(crate) fn load_measured<T: Target>(context: &Context<'_, T>, totals: &mut Totals) -> Duration {
    let loading = Loading {
        context,
        samples: context.samples,
        next: AtomicU64::new(0),
        depth: context.plan.depth,
        skip_present: false,
    };
    loading.run(context.plan.threads, totals)
}

impl<T: Target> Loading<'_, T> {
    fn run(&self, threads: usize, totals: &mut Totals) -> Duration {
        let Context {
            progress,
            errors,
            plan,
            ..
        } = self.context;
        progress.start_load(plan.records);
        let start = Instant::now();
        let mut end = start;
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || self.work(thread).map(|()| Instant::now())))
                .collect();
            let mut next_tick = start + TICK;
            while !workers.iter().all(|worker| worker.is_finished()) {
                let now = Instant::now();
                if now < next_tick {
                    thread::sleep((next_tick - now).min(TICK / 25));
                    continue;
                }
                next_tick += TICK;
                let point = totals.gather(self.samples, now - start);
                progress.tick(
                    point,
                    self.next.load(Ordering::Relaxed).min(plan.records),
                    errors.count(),
                );
            }
            for worker in workers {
                match worker.join() {
                    Ok(Ok(ended)) => end = end.max(ended),
                    Ok(Err(error)) => errors.add(&error),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        totals.gather(self.samples, end - start);
        progress.end_run();
        end - start
    }

    fn work(&self, thread: usize) -> Result<(), TargetError> {
        let Context {
            plan,
            target,
            stop,
            errors,
            ..
        } = self.context;
        let session = target.session()?;
        let mut recorder = self.samples.recorder(thread);
        let mut pipeline = Pipeline::new(self.depth);
        let batch_records =
            (BATCH_BYTES_MAX / (KEY_BYTES + plan.value_bytes)).clamp(1, BATCH_RECORDS_MAX) as u64;
        while !stop.is_asked() && !errors.is_final() {
            let first = self.next.fetch_add(batch_records, Ordering::Relaxed);
            if first >= plan.records {
                break;
            }
            let records = first..plan.records.min(first + batch_records);
            while pipeline.is_full() {
                self.end_oldest(&mut pipeline, &mut recorder);
            }
            let start = Instant::now();
            let (versions, batch) = self.batch(&session, records, thread)?;
            if batch.is_empty() {
                continue;
            }
            let sent = SentBatch { start, versions };
            match session.send_batch(batch) {
                Ok(pending) => pipeline.push(pending, sent),
                Err(error) => self.end(sent, &Err(error), &mut recorder),
            }
        }
        while !pipeline.is_empty() {
            self.end_oldest(&mut pipeline, &mut recorder);
        }
        Ok(())
    }

    /// The batch of `records`, and the versions it was given.
    #[expect(
        clippy::type_complexity,
        reason = "two lists of pairs are no clearer under names"
    )]
    fn batch(
        &self,
        session: &T::Session,
        records: std::ops::Range<u64>,
        thread: usize,
    ) -> Result<(Vec<(u64, u64)>, Vec<(Vec<u8>, Vec<u8>)>), TargetError> {
        let Context { plan, verifier, .. } = self.context;
        let writer = u32::try_from(thread).unwrap_or(u32::MAX);
        let mut versions = Vec::new();
        let mut batch = Vec::new();
        for record in records {
            let key = plan.key_order.key(record);
            if self.skip_present && session.get(&key, |value| value.is_some())? {
                continue;
            }
            let version = match verifier {
                None => 1,
                Some(verifier) => verifier.ledger.begin_put(record).map_err(|error| TargetError {
                    message: format!("the verification journal: {error}"),
                    is_final: true,
                })?,
            };
            let mut value = vec![0; plan.value_bytes];
            encode(
                Stamp {
                    record,
                    version,
                    writer,
                },
                &mut value,
            );
            versions.push((record, version));
            batch.push((key.to_vec(), value));
        }
        Ok((versions, batch))
    }

    fn end_oldest(
        &self,
        pipeline: &mut Pipeline<<T::Session as Session>::Pending, SentBatch>,
        recorder: &mut Recorder<'_>,
    ) {
        if let Some((sent, outcome)) = pipeline.wait_oldest() {
            self.end(sent, &outcome, recorder);
        }
    }

    fn end(&self, sent: SentBatch, outcome: &Result<(), TargetError>, recorder: &mut Recorder<'_>) {
        let end = Instant::now();
        if let Some(verifier) = self.context.verifier {
            for &(record, version) in &sent.versions {
                verifier.end_put(record, version, outcome);
            }
        }
        match outcome {
            Ok(()) => recorder.record(OperationKind::Load, sent.start, end, sent.versions.len() as u64),
            Err(error) => self.context.errors.add(error),
        }
    }
}
