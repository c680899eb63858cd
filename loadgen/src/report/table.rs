//! The report for people.

use std::fmt::Write;

use super::json::Report;
use super::{bytes_text, duration_text, thousands};
use crate::run::Outcome;

/// All about one run, in lines of a name and what there is to say.
#[must_use]
pub fn table(outcome: &Outcome) -> String {
    let report = Report::new(outcome);
    let mut text = String::new();
    let mut line = |name: &str, content: String| {
        let _ = writeln!(text, "{name:<12}  {content}");
    };
    let loop_kind = match report.rate {
        Some(rate) => format!("open loop, {} op/s due", thousands(rate)),
        None => "closed loop".to_owned(),
    };
    line(
        "workload",
        format!(
            "{}   {} records of {} bytes, {} threads, depth {}, {:?}, {loop_kind}, seed {}",
            report.workload,
            thousands(report.records),
            report.value_bytes,
            report.threads,
            report.depth,
            report.durability,
            report.seed
        ),
    );
    let mut opening = format!("opened in {}", seconds_text(report.open_seconds));
    if report.loaded_records > 0 {
        let rate = (report.loaded_records as f64 / report.load_seconds.max(1e-9)) as u64;
        let _ = write!(
            opening,
            ", {} records loaded in {} ({} a second)",
            thousands(report.loaded_records),
            seconds_text(report.load_seconds),
            thousands(rate)
        );
    }
    let _ = write!(opening, ", closed in {}", seconds_text(report.close_seconds));
    line("database", opening);
    line(
        "operations",
        format!(
            "{} in {}: {} a second",
            thousands(report.ops),
            seconds_text(report.seconds),
            thousands(report.ops_per_s as u64)
        ),
    );
    line(
        "latency",
        latencies(report.p50_us, report.p99_us, report.p999_us, report.max_us),
    );
    if outcome.totals.kinds().count() > 1 {
        for (kind, histogram) in outcome.totals.kinds() {
            let us = |percentile| histogram.value_at_percentile(percentile) as f64 / 1000.0;
            let share = thousands(histogram.len());
            line(
                &format!("  {}", kind.name().replace("read_modify_write", "modify")),
                format!(
                    "{}   {share} times",
                    latencies(us(50.0), us(99.0), us(99.9), us(100.0))
                ),
            );
        }
    }
    if report.scanned_records > 0 {
        line(
            "scanned",
            format!("{} records", thousands(report.scanned_records)),
        );
    }
    if report.not_found > 0 {
        line("not found", format!("{} reads", thousands(report.not_found)));
    }
    if report.unsent > 0 {
        line(
            "unsent",
            format!(
                "{} operations were due and came too late to be sent",
                thousands(report.unsent)
            ),
        );
    }
    line(
        "memory",
        format!(
            "{} resident, {} at most",
            bytes_text(report.rss_bytes),
            bytes_text(report.rss_peak_bytes)
        ),
    );
    line("disk", bytes_text(report.bytes_on_disk));
    line("errors", thousands(report.errors));
    for (message, count) in &report.error_messages {
        line("", format!("{} times: {message}", thousands(*count)));
    }
    if let Some(found) = &outcome.verification {
        let mut checked = String::new();
        if found.records_before > 0 || found.had_ledger {
            let by = if found.had_ledger {
                "against the journal"
            } else {
                "no journal: integrity only"
            };
            let _ = write!(
                checked,
                "{} records found and checked ({by}); ",
                thousands(found.records_before)
            );
        }
        if found.load_skipped {
            checked.push_str("no load, so as not to write over what was found");
        } else {
            let _ = write!(
                checked,
                "{} records at the end, after reopening",
                thousands(found.records_after)
            );
        }
        if found.flush_points > 0 && report.durability == crate::plan::Durability::Buffered {
            let _ = write!(
                checked,
                "; {} flush points (what came after the last may be lost)",
                found.flush_points
            );
        }
        line("checked", checked);
        line("violations", thousands(found.violations));
        for violation in &found.listed {
            line("", violation.to_string());
        }
        let unlisted = found.violations - found.listed.len() as u64;
        if unlisted > 0 {
            line("", format!("and {} more", thousands(unlisted)));
        }
    }
    if report.interrupted {
        line("note", "the run was interrupted".to_owned());
    }
    text
}

/// Several runs, a line each.
#[must_use]
pub fn comparison(outcomes: &[(String, Outcome)]) -> String {
    let width = outcomes
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = format!(
        "{:<width$}  {:>12}  {:>10}  {:>10}  {:>10}  {:>10}  {:>6}\n",
        "", "op/s", "p50", "p99", "p99.9", "max", "errors"
    );
    for (name, outcome) in outcomes {
        let report = Report::new(outcome);
        let _ = writeln!(
            text,
            "{name:<width$}  {:>12}  {:>10}  {:>10}  {:>10}  {:>10}  {:>6}",
            thousands(report.ops_per_s as u64),
            duration_text(report.p50_us),
            duration_text(report.p99_us),
            duration_text(report.p999_us),
            duration_text(report.max_us),
            report.errors
        );
    }
    text
}

fn latencies(p50_us: f64, p99_us: f64, p999_us: f64, max_us: f64) -> String {
    let [p50, p99, p999, max] = [p50_us, p99_us, p999_us, max_us].map(duration_text);
    format!("p50 {p50:>8}   p99 {p99:>8}   p99.9 {p999:>8}   max {max:>8}")
}

fn seconds_text(seconds: f64) -> String {
    duration_text(seconds * 1e6)
}
