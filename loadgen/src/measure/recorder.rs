//! Latencies on their way from the threads that meet them to the totals.
//!
//! A thread collects samples in a buffer of its own and pours it, about a hundred at a time, into one of a few
//! shared histograms; which one is fixed for the thread. So a sample costs a few nanoseconds, the memory taken
//! doesn't grow with the number of threads (it is part of the resident memory that a report shows), and whoever
//! watches sees samples at most a few milliseconds late.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::workload::OperationKind;

/// Shared histograms; more threads than this share one.
const STRIPES: usize = 8;
/// Samples that a thread holds back at most.
const BUFFER_SAMPLES: usize = 128;
/// How long it holds them back at most, as long as operations end.
const BUFFER_AGE_MAX: Duration = Duration::from_millis(20);

/// Histograms of latency in nanoseconds with three significant digits, one per kind of operation.
pub type KindHistograms = [Option<Histogram<u64>>; OperationKind::ALL.len()];

/// A histogram that grows with its values: three significant digits, from a nanosecond up.
///
/// # Panics
/// Never: three is a valid number of digits.
#[must_use]
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three is between zero and five")
}

/// Where samples wait to be gathered.
#[derive(Debug, Default)]
pub struct Samples {
    stripes: [Mutex<KindHistograms>; STRIPES],
}

impl Samples {
    /// The recorder of one thread.
    #[must_use]
    pub fn recorder(&self, thread: usize) -> Recorder<'_> {
        Recorder {
            stripe: &self.stripes[thread % STRIPES],
            buffer: Vec::with_capacity(BUFFER_SAMPLES),
            poured: Instant::now(),
        }
    }

    /// Moves everything that has been poured so far to `gather`.
    pub fn drain(&self, mut gather: impl FnMut(OperationKind, &Histogram<u64>)) {
        for stripe in &self.stripes {
            let mut histograms = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            for (kind, histogram) in OperationKind::ALL.into_iter().zip(histograms.iter_mut()) {
                if let Some(histogram) = histogram.as_mut().filter(|histogram| !histogram.is_empty()) {
                    gather(kind, histogram);
                    histogram.reset();
                }
            }
        }
    }
}

/// Takes the samples of one thread. What it holds is poured when it is dropped.
#[derive(Debug)]
pub struct Recorder<'a> {
    stripe: &'a Mutex<KindHistograms>,
    buffer: Vec<(OperationKind, u64, u64)>,
    poured: Instant,
}

impl Recorder<'_> {
    /// An operation, counting as `operations`, that was due at `start` ended at `end`.
    pub fn record(&mut self, kind: OperationKind, start: Instant, end: Instant, operations: u64) {
        let latency = end.saturating_duration_since(start).as_nanos();
        self.buffer
            .push((kind, u64::try_from(latency).unwrap_or(u64::MAX), operations));
        if self.buffer.len() >= BUFFER_SAMPLES || end.saturating_duration_since(self.poured) > BUFFER_AGE_MAX
        {
            self.poured = end;
            self.pour();
        }
    }

    fn pour(&mut self) {
        let mut histograms = self.stripe.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, latency, operations) in self.buffer.drain(..) {
            let histogram = histograms[kind as usize].get_or_insert_with(new_histogram);
            // Fails only for values that no histogram can hold: centuries.
            let _ = histogram.record_n(latency.max(1), operations);
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        self.pour();
    }
}
