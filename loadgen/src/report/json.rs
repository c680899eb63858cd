//! The report as one JSON object.
//!
//! The first eleven fields, `errors` and `seed` are the contract with programs that read it; the others may
//! grow in number.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::measure::Point;
use crate::measure::totals::percentile_us;
use crate::plan::{Durability, Io};
use crate::record::KeyOrder;
use crate::run::Outcome;

/// All numbers of a run. Latencies are in microseconds; in an open loop they count from the moment an operation
/// was due.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the workload.
    pub workload: String,
    /// Threads that generated load.
    pub threads: usize,
    /// Operations that succeeded.
    pub ops: u64,
    /// Length of the measured part in seconds.
    pub seconds: f64,
    /// Operations a second.
    pub ops_per_s: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Longest latency.
    pub max_us: f64,
    /// Disk that the database took at the end of the measured part.
    pub bytes_on_disk: u64,
    /// Resident memory at the same moment, generator included.
    pub rss_bytes: u64,
    /// Failed operations, with failures of loading, flushing and closing.
    pub errors: u64,
    /// Seed of all choices.
    pub seed: u64,

    /// Mean latency.
    pub mean_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99.99th percentile.
    pub p9999_us: f64,
    /// Highest resident memory of the whole run.
    pub rss_peak_bytes: u64,
    /// Records that the load picked from.
    pub records: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// How records lay in key order.
    pub key_order: KeyOrder,
    /// Operations that a thread had under way at most.
    pub depth: usize,
    /// Operations a second that were due; none in a closed loop.
    pub rate: Option<u64>,
    /// What writes promised.
    pub durability: Durability,
    /// I/O backend that was asked for.
    pub io: Io,
    /// Budget of the page cache, if it was given.
    pub cache_bytes: Option<u64>,
    /// Page size, if it was given.
    pub page_bytes: Option<usize>,
    /// Time that opening took, recovery included.
    pub open_seconds: f64,
    /// Records loaded beforehand.
    pub loaded_records: u64,
    /// Time that loading them took.
    pub load_seconds: f64,
    /// Time that closing took.
    pub close_seconds: f64,
    /// Reads that found nothing.
    pub not_found: u64,
    /// Records that scans returned.
    pub scanned_records: u64,
    /// Operations that were due before the end and never sent.
    pub unsent: u64,
    /// Whether the run was interrupted.
    pub interrupted: bool,
    /// What the errors said, with counts.
    pub error_messages: BTreeMap<String, u64>,
    /// What verification found; null in runs without.
    pub verify: Option<VerifyReport>,
    /// Latencies by kind of operation.
    pub kinds: BTreeMap<&'static str, KindReport>,
    /// Course of the run.
    pub series: Vec<Point>,
    /// The database's own counters at the end of the measured part.
    pub stats: Map<String, Value>,
}

/// One kind of operation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KindReport {
    ops: u64,
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

/// What verification found.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// Number of violations.
    violations: u64,
    /// The first hundred, in words.
    listed: Vec<String>,
    /// Records that an earlier run had left, all checked.
    records_before: u64,
    /// Whether that run's journal said what had to be there.
    had_journal: bool,
    /// Whether the load was left out, because that check found something.
    load_skipped: bool,
    /// Records at the end, all checked after reopening.
    records_after: u64,
    /// Points up to which buffered writes were flushed and had to survive.
    flush_points: u64,
}

impl KindReport {
    fn new(histogram: &Histogram<u64>) -> KindReport {
        KindReport {
            ops: histogram.len(),
            mean_us: histogram.mean() / 1000.0,
            p50_us: percentile_us(histogram, 50.0),
            p99_us: percentile_us(histogram, 99.0),
            p999_us: percentile_us(histogram, 99.9),
            max_us: histogram.max() as f64 / 1000.0,
        }
    }
}

impl Report {
    /// The report of a run.
    #[must_use]
    pub fn new(outcome: &Outcome) -> Report {
        let Outcome { plan, totals, .. } = outcome;
        let seconds = outcome.elapsed.as_secs_f64();
        let ops = totals.operations();
        let all = KindReport::new(totals.all());
        Report {
            workload: plan.workload.to_string(),
            threads: plan.threads,
            ops,
            seconds,
            ops_per_s: if seconds > 0.0 { ops as f64 / seconds } else { 0.0 },
            p50_us: all.p50_us,
            p99_us: all.p99_us,
            p999_us: all.p999_us,
            max_us: all.max_us,
            bytes_on_disk: outcome.bytes_on_disk,
            rss_bytes: outcome.memory.resident_bytes,
            errors: outcome.errors,
            seed: plan.seed,
            mean_us: all.mean_us,
            p90_us: percentile_us(totals.all(), 90.0),
            p9999_us: percentile_us(totals.all(), 99.99),
            rss_peak_bytes: outcome.memory.peak_bytes,
            records: plan.records,
            value_bytes: plan.value_bytes,
            key_order: plan.key_order,
            depth: plan.depth,
            rate: plan.rate,
            durability: plan.store.durability,
            io: plan.store.io,
            cache_bytes: plan.store.cache_bytes,
            page_bytes: plan.store.page_bytes,
            open_seconds: outcome.opening.as_secs_f64(),
            loaded_records: outcome.loaded.0,
            load_seconds: outcome.loaded.1.as_secs_f64(),
            close_seconds: outcome.closing.as_secs_f64(),
            not_found: outcome.counters.not_found,
            scanned_records: outcome.counters.scanned,
            unsent: outcome.counters.unsent,
            interrupted: outcome.interrupted,
            error_messages: outcome.error_messages.clone(),
            verify: outcome.verification.as_ref().map(|found| VerifyReport {
                violations: found.violations,
                listed: found.listed.iter().map(ToString::to_string).collect(),
                records_before: found.records_before,
                had_journal: found.had_ledger,
                load_skipped: found.load_skipped,
                records_after: found.records_after,
                flush_points: found.flush_points,
            }),
            kinds: totals
                .kinds()
                .map(|(kind, histogram)| (kind.name(), KindReport::new(histogram)))
                .collect(),
            series: totals.points().to_vec(),
            stats: outcome.stats.clone(),
        }
    }
}
