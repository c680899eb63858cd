//! Runs one operation on some threads for some time and says how often it succeeded.
//!
//! Every thread opens its own session, runs through the warm-up without counting, then counts and
//! times itself from the first operation that began inside the window to the last one it finished.
//! The rates of the threads add up. So an operation that is longer than the window (a full scan)
//! is still measured, once, and stragglers don't distort the rate.

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

fn empty_histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?)
}

/// Runs `operation` on `store` as `plan` says.
///
/// # Errors
/// The first error of any operation; the other threads stop soon after it.
pub fn run(store: &dyn Store, plan: Plan, operation: &Operation<'_>) -> Result<Sample> {
    let phase = AtomicU8::new(WARMING);
    let started = Barrier::new(plan.threads as usize + 1);
    let mut rate = 0.0;
    let mut latency_ns = empty_histogram()?;
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
        std::thread::sleep(plan.window);
        phase.store(STOPPED, Ordering::Relaxed);
        for worker in workers {
            let sample = worker.join().map_err(|_| "a client thread panicked")??;
            rate += sample.rate;
            latency_ns.add(&sample.latency_ns)?;
        }
        Ok(())
    })?;
    Ok(Sample { rate, latency_ns })
}

fn work(
    mut session: Box<dyn Session + '_>,
    thread: u64,
    plan: Plan,
    phase: &AtomicU8,
    operation: &Operation<'_>,
) -> Result<Sample> {
    let mut random = Random::new(plan.seed.wrapping_mul(1_009).wrapping_add(thread));
    let mut latency_ns = empty_histogram()?;
    let mut operations = 0_u64;
    let mut since: Option<Instant> = None;
    loop {
        let begun = plan.latencies.then(Instant::now);
        let counted = operation(&mut *session, &mut random)?;
        let now = phase.load(Ordering::Relaxed);
        match since {
            None if now == WARMING => {}
            // This operation began before the window: the next one is the first that counts.
            None => since = Some(Instant::now()),
            Some(beginning) => {
                operations += counted;
                if let Some(begun) = begun {
                    latency_ns.saturating_record(begun.elapsed().as_nanos() as u64);
                }
                if now == STOPPED {
                    let seconds = beginning.elapsed().as_secs_f64();
                    return Ok(Sample {
                        rate: operations as f64 / seconds,
                        latency_ns,
                    });
                }
            }
        }
    }
}
