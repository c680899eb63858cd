//! Runs one operation on some threads for some time and says how often it succeeded.
//!
//! Every thread opens its own session and runs through the warm-up without counting. Several threads
//! count what they finish inside the window: what they are in the middle of at either end cancels
//! out. A single thread instead times itself from its first completion inside the window to its
//! first one after it, so that an operation that is longer than the window (a full scan) is
//! still measured.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;
use crate::peers::{Session, Store};
use crate::workload::Random;

/// One operation; returns how many it counts for (a batch of 1,000 counts for 1,000).
pub type Operation<'a> = dyn Fn(&mut dyn Session, &mut Random) -> Result<u64> + Sync + 'a;

/// How a row is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Client threads.
    pub threads: u64,
    /// Time before counting begins.
    pub warm_up: Duration,
    /// Time that counts.
    pub window: Duration,
    /// Seed of the threads' choices.
    pub seed: u64,
    /// Whether to time every operation: two clock readings, so not for rows below a microsecond.
    pub latencies: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Sample {
    /// Counted operations a second, all threads together.
    pub rate: f64,
    /// Nanoseconds of every counted operation, when [`Plan::latencies`] asked for them.
    pub latency_ns: Histogram<u64>,
}

const WARMING: u8 = 0;
const COUNTING: u8 = 1;
const STOPPED: u8 = 2;

/// Latencies above this are recorded as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Without latencies it is as small as can be: it would count in the rows that look at memory.
fn empty_histogram(plan: Plan) -> Result<Histogram<u64>> {
    Ok(if plan.latencies {
        Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?
    } else {
        Histogram::new_with_bounds(1, 2, 0)?
    })
}

/// Runs `operation` on `store` as `plan` says.
///
/// # Errors
/// The first error of any operation; the other threads stop soon after it.
pub fn run(store: &dyn Store, plan: Plan, operation: &Operation<'_>) -> Result<Sample> {
    let phase = AtomicU8::new(WARMING);
    let started = Barrier::new(plan.threads as usize + 1);
    let mut latency_ns = empty_histogram(plan)?;
    let mut total = Counted::default();
    let mut window_seconds = 0.0;
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let (phase, started) = (&phase, &started);
                scope.spawn(move || {
                    let session = store.session();
                    started.wait();
                    let outcome = session.and_then(|session| work(session, thread, plan, phase, operation));
                    if outcome.is_err() {
                        phase.store(STOPPED, Ordering::Relaxed);
                    }
                    outcome
                })
            })
            .collect();
        started.wait();
        std::thread::sleep(plan.warm_up);
        // A worker that failed has already said stop; don't start it again.
        let _ = phase.compare_exchange(WARMING, COUNTING, Ordering::Relaxed, Ordering::Relaxed);
        let begun = Instant::now();
        std::thread::sleep(plan.window);
        phase.store(STOPPED, Ordering::Relaxed);
        window_seconds = begun.elapsed().as_secs_f64();
        for worker in workers {
            let (counted, own_latency_ns) = worker.join().map_err(|_| "a client thread panicked")??;
            total.inside_window += counted.inside_window;
            total.own += counted.own;
            total.own_seconds += counted.own_seconds;
            latency_ns.add(&own_latency_ns)?;
        }
        Ok(())
    })?;
    let rate = if plan.threads == 1 {
        total.own as f64 / total.own_seconds
    } else {
        total.inside_window as f64 / window_seconds
    };
    Ok(Sample { rate, latency_ns })
}

/// What a thread has done.
#[derive(Debug, Default)]
struct Counted {
    /// Operations finished inside the window.
    inside_window: u64,
    /// Operations that began after one had finished inside the window, up to the first that
    /// finished after it.
    own: u64,
    /// The time they took.
    own_seconds: f64,
}

fn work(
    mut session: Box<dyn Session + '_>,
    thread: u64,
    plan: Plan,
    phase: &AtomicU8,
    operation: &Operation<'_>,
) -> Result<(Counted, Histogram<u64>)> {
    let mut random = Random::new(plan.seed.wrapping_mul(1_009).wrapping_add(thread));
    let mut latency_ns = empty_histogram(plan)?;
    let mut counted = Counted::default();
    let mut since: Option<Instant> = None;
    loop {
        let begun = plan.latencies.then(Instant::now);
        let operations = operation(&mut *session, &mut random)?;
        let now = phase.load(Ordering::Relaxed);
        if now == WARMING {
            continue;
        }
        if let Some(begun) = begun {
            latency_ns.saturating_record(begun.elapsed().as_nanos() as u64);
        }
        if now == COUNTING {
            counted.inside_window += operations;
        }
        match since {
            None => since = Some(Instant::now()),
            Some(_) => counted.own += operations,
        }
        // A single thread must have something to divide by; of several, those that are late go.
        if let (STOPPED, Some(since)) = (now, since)
            && (counted.own > 0 || plan.threads > 1)
        {
            counted.own_seconds = since.elapsed().as_secs_f64();
            return Ok((counted, latency_ns));
        }
    }
}

#[cfg(test)]
mod tests;
