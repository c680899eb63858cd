//! The measured part: all threads at work, and one that watches.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::outcome::Counters;
use super::worker::{Load, work};
use super::{Context, flush};
use crate::inserts::InsertSequence;
use crate::measure::Totals;
use crate::plan::Durability;
use crate::progress::time_position;
use crate::target::Target;

/// Length of the stretches that the run's course is made of.
const TICK: Duration = Duration::from_millis(250);
/// Time between flush points of verified buffered runs.
const FLUSH_POINT_INTERVAL: Duration = Duration::from_secs(1);

/// An answer that comes later than this after the end is worth a word while it is waited for.
const OVERDUE_AFTER: Duration = Duration::from_secs(10);

/// Lets all threads work until the time is over, the operations are done, or the end is asked for. Returns how long
/// that took, and what was counted.
pub(crate) fn drive<T: Target>(
    context: &Context<'_, T>,
    sequence: &InsertSequence,
    totals: &mut Totals,
) -> (Duration, Counters) {
    let plan = context.plan;
    context
        .progress
        .start_run(&plan.workload.to_string(), plan.duration);
    let start = Instant::now();
    let load = Load {
        context,
        sequence,
        start,
        end: start + plan.duration,
    };
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut workers: Vec<_> = Vec::with_capacity(plan.threads);
        for thread in 0..plan.threads {
            let load = &load;
            match thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn_scoped(scope, move || work(load, thread))
            {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    let message = format!("starting thread {thread}: {error}");
                    context.errors.add(&crate::target::TargetError {
                        message,
                        is_final: true,
                    });
                }
            }
        }
        let flushes = context.verifier.is_some() && plan.store.durability == Durability::Buffered;
        let finished = &finished;
        let flusher = flushes.then(|| scope.spawn(|| flush_points(context, start, finished)));

        let mut next_tick = start + TICK;
        let mut is_overdue = false;
        while !workers.iter().all(|worker| worker.is_finished()) {
            let now = Instant::now();
            if now < next_tick {
                // Short, for the end of the last thread is not announced.
                thread::sleep((next_tick - now).min(TICK / 25));
                continue;
            }
            next_tick += TICK;
            if !is_overdue && now > load.end + OVERDUE_AFTER {
                is_overdue = true;
                let waiting = workers.iter().filter(|worker| !worker.is_finished()).count();
                context.progress.say(&format!(
                    "{waiting} threads still wait for an answer, long after the end"
                ));
            }
            let point = totals.gather(context.samples, now - start);
            context
                .progress
                .tick(point, time_position(now - start), context.errors.count());
        }
        let mut last_end = start;
        let mut counters = Counters::default();
        for worker in workers {
            match worker.join() {
                Ok(Ok((counted, end))) => {
                    counters.add(counted);
                    last_end = last_end.max(end);
                }
                Ok(Err(error)) => context.errors.add(&error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        finished.store(true, Ordering::Release);
        if let Some(flusher) = flusher {
            flusher.thread().unpark();
            if let Err(panic) = flusher.join() {
                std::panic::resume_unwind(panic);
            }
        }
        let elapsed = last_end - start;
        totals.gather(context.samples, elapsed);
        context.progress.end_run();
        (elapsed, counters)
    })
}

/// Flushes again and again, so that a killed run has promises to be held against.
fn flush_points<T: Target>(context: &Context<'_, T>, start: Instant, finished: &AtomicBool) {
    let mut next = start + FLUSH_POINT_INTERVAL;
    while !finished.load(Ordering::Acquire) && !context.errors.is_final() {
        let now = Instant::now();
        if now < next {
            thread::park_timeout(next - now);
            continue;
        }
        flush(context);
        next = Instant::now() + FLUSH_POINT_INTERVAL;
    }
}
