//! Running many seeds on a few threads, and saying which one failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::workload::Outcome;

/// Threads that share the seeds. Each run is a single thread of its own.
const THREADS: u64 = 2;
/// Failures that are told.
const FAILURES_MAX: usize = 5;

/// How much of the log an opening with this seed replays at a time: half of them all of it, the others each group by
/// itself, or a few. (What simulations write has room in what recovery gathers before it applies anything.)
pub(crate) fn replayed_bytes(seed: u64) -> Option<usize> {
    match seed % 4 {
        0 => Some(0),
        // Beyond the memory that the first record takes.
        1 => Some((4 << 20) + 2_000),
        _ => None,
    }
}

/// Runs `count` seeds (or what the environment asks for: `TREERING_SIM_SEEDS` as many, from `TREERING_SIM_FIRST` on, or
/// `TREERING_SIM_SEED` alone), and sums up what they did.
///
/// # Panics
/// With the seeds that failed, and why.
pub fn run_all(count: u64, run: impl Fn(u64) -> Result<Outcome, String> + Sync) -> Outcome {
    let asked = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let seeds = match asked("TREERING_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            // Of tests with fewer seeds than the largest, a share.
            let count = asked("TREERING_SIM_SEEDS").map_or(count, |asked| (asked * count).div_ceil(10_000));
            let first = asked("TREERING_SIM_FIRST").unwrap_or(0);
            first..first.saturating_add(count)
        }
    };
    let next = AtomicU64::new(seeds.start);
    let failures: Mutex<Vec<String>> = Mutex::default();
    let sum: Mutex<Outcome> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || lock(&failures).len() >= FAILURES_MAX {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                        Ok(Ok(outcome)) => lock(&sum).add(&outcome),
                        Ok(Err(error)) => lock(&failures).push(error),
                        Err(panic) => {
                            lock(&failures).push(format!("seed {seed} panicked: {}", words(&*panic)))
                        }
                    }
                }
            });
        }
    });
    let failures = lock(&failures);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let sum = *lock(&sum);
    println!("{} seeds: {sum:?}", seeds.end - seeds.start);
    sum
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a panic said.
#[must_use]
pub fn words(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "something".into())
}
