//! Samples of the whole run, and its course.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::recorder::{KindHistograms, Samples, new_histogram};
use crate::workload::OperationKind;

/// One stretch of the run.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
pub struct Point {
    /// Its end, in seconds from the run's start.
    pub seconds: f64,
    /// Operations a second in it.
    pub ops_per_s: f64,
    /// 99th percentile of its latencies in microseconds.
    pub p99_us: f64,
}

/// All that was gathered.
#[derive(Debug)]
pub struct Totals {
    all: Histogram<u64>,
    kinds: KindHistograms,
    points: Vec<Point>,
}

impl Default for Totals {
    fn default() -> Totals {
        Totals {
            all: new_histogram(),
            kinds: KindHistograms::default(),
            points: Vec::new(),
        }
    }
}

impl Totals {
    /// Takes what the threads have poured since the last call, the run being `elapsed` old, and adds a point to
    /// its course. Returns the point.
    pub fn gather(&mut self, samples: &Samples, elapsed: Duration) -> Point {
        let mut interval = new_histogram();
        samples.drain(|kind, histogram| {
            // Adding fails only where the sum can't be held; both sides resize themselves.
            let _ = interval.add(histogram);
            let _ = self.kinds[kind as usize]
                .get_or_insert_with(new_histogram)
                .add(histogram);
        });
        let _ = self.all.add(&interval);
        let seconds = elapsed.as_secs_f64();
        let length = seconds - self.points.last().map_or(0.0, |point| point.seconds);
        let ops_per_s = if length > 0.0 {
            interval.len() as f64 / length
        } else {
            0.0
        };
        let point = Point {
            seconds,
            ops_per_s,
            p99_us: percentile_us(&interval, 99.0),
        };
        self.points.push(point);
        point
    }

    /// Number of operations.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.all.len()
    }

    /// Latencies of all operations, in nanoseconds.
    #[must_use]
    pub fn all(&self) -> &Histogram<u64> {
        &self.all
    }

    /// Latencies by kind, of those kinds that occurred.
    pub fn kinds(&self) -> impl Iterator<Item = (OperationKind, &Histogram<u64>)> {
        OperationKind::ALL
            .into_iter()
            .zip(&self.kinds)
            .filter_map(|(kind, histogram)| Some((kind, histogram.as_ref()?)))
    }

    /// The run's course.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }
}

/// A percentile of a histogram of nanoseconds, in microseconds; 0 of an empty one.
#[must_use]
pub fn percentile_us(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn samples_of_all_threads_arrive() {
        let samples = Samples::default();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..20 {
                let mut recorder = samples.recorder(thread);
                scope.spawn(move || {
                    for n in 1..=1000u64 {
                        let kind = if n % 2 == 0 {
                            OperationKind::Read
                        } else {
                            OperationKind::Update
                        };
                        recorder.record(kind, start, start + Duration::from_micros(n), 1);
                    }
                });
            }
        });
        let mut totals = Totals::default();
        let point = totals.gather(&samples, Duration::from_secs(2));
        assert_eq!(totals.operations(), 20_000);
        assert!((point.ops_per_s - 10_000.0).abs() < 1e-6);
        assert!((percentile_us(totals.all(), 50.0) - 500.0).abs() < 1.0);
        assert!((point.p99_us - 990.0).abs() < 2.0);
        let kinds: Vec<(OperationKind, u64)> = totals.kinds().map(|(kind, h)| (kind, h.len())).collect();
        assert_eq!(
            kinds,
            [(OperationKind::Read, 10_000), (OperationKind::Update, 10_000)]
        );
        // What was gathered is gone from the threads' side.
        assert_eq!(totals.gather(&samples, Duration::from_secs(3)).ops_per_s, 0.0);
        assert_eq!(totals.operations(), 20_000);
    }

    #[test]
    fn batches_count_all_their_operations() {
        let samples = Samples::default();
        let start = Instant::now();
        samples
            .recorder(0)
            .record(OperationKind::Load, start, start + Duration::from_millis(3), 1000);
        let mut totals = Totals::default();
        totals.gather(&samples, Duration::from_secs(1));
        assert_eq!(totals.operations(), 1000);
    }
}
