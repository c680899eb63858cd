//! Reports of a made-up run.

use std::time::{Duration, Instant};

use super::*;
use crate::cli::{Cli, Command};
use crate::measure::{Samples, Totals};
use crate::run::Outcome;
use crate::workload::OperationKind;
use clap::Parser;

fn outcome(operations: u64) -> Outcome {
    let Some(Command::Run(arguments)) = Cli::parse_from(["loadgen", "run", "--seed", "7"]).command else {
        panic!("run was given");
    };
    let samples = Samples::default();
    let start = Instant::now();
    let mut recorder = samples.recorder(0);
    for n in 1..=operations {
        let kind = if n % 2 == 0 {
            OperationKind::Read
        } else {
            OperationKind::Update
        };
        recorder.record(kind, start, start + Duration::from_micros(n), 1);
    }
    drop(recorder);
    let mut totals = Totals::default();
    totals.gather(&samples, Duration::from_secs(2));
    Outcome {
        totals,
        elapsed: Duration::from_secs(2),
        ..Outcome::empty(arguments.plan().expect("it is sound"))
    }
}

#[test]
fn the_json_object_has_the_fields_of_the_contract() {
    let json = serde_json::to_value(Report::new(&outcome(10_000))).expect("it can be encoded");
    let object = json.as_object().expect("it is an object");
    let contract = [
        "workload",
        "threads",
        "ops",
        "seconds",
        "ops_per_s",
        "p50_us",
        "p99_us",
        "p999_us",
        "max_us",
        "bytes_on_disk",
        "rss_bytes",
        "errors",
        "seed",
    ];
    for field in contract {
        assert!(object.contains_key(field), "{field}");
    }
    assert_eq!(object["workload"], "a");
    assert_eq!(object["ops"], 10_000);
    assert_eq!(object["ops_per_s"], 5000.0);
    assert_eq!(object["seed"], 7);
    assert_eq!(object["kinds"]["read"]["ops"], 5000);
    let near = |field: &str, us: f64| (object[field].as_f64().expect("a number") / us - 1.0).abs() < 0.002;
    assert!(
        near("p50_us", 5000.0) && near("p99_us", 9900.0) && near("max_us", 10_000.0),
        "{json}"
    );
}

#[test]
fn the_percentile_file_has_its_form() {
    let mut bytes = Vec::new();
    write_percentiles(outcome(10_000).totals.all(), &mut bytes).expect("memory takes all");
    let text = String::from_utf8(bytes).expect("it is text");
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .expect("there is a header")
        .split_whitespace()
        .collect();
    assert_eq!(header, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
    let rows: Vec<Vec<f64>> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            line.split_whitespace()
                .map(|word| word.parse().expect("a number"))
                .collect()
        })
        .collect();
    assert!(rows.len() > 20);
    assert!(
        rows.windows(2)
            .all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1] && pair[0][2] <= pair[1][2])
    );
    let last = rows.last().expect("there are rows");
    assert_eq!((last[1], last[2]), (1.0, 10_000.0));
    assert!(
        text.contains("#[Max     =") && text.contains("Total count    =        10000]"),
        "{text}"
    );
    assert!(text.contains("SubBuckets     =         2048]"), "{text}");
}

#[test]
fn the_plot_is_drawn_for_any_run() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    for operations in [0, 1, 10_000] {
        let file = directory.path().join(format!("{operations}.svg"));
        draw(&outcome(operations), &file).expect("it can be drawn");
        let text = std::fs::read_to_string(&file).expect("it is there");
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert_eq!(text.contains("update"), operations > 0);
    }
    assert!(draw(&outcome(1), &directory.path().join("missing/x.svg")).is_err());
}

#[test]
fn the_table_says_it_all() {
    let text = table(&outcome(10_000));
    for part in [
        "workload",
        "10,000 in 2.00 s: 5,000 a second",
        "p99",
        "errors        0",
        "seed 7",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let text = comparison(&[("first".into(), outcome(10)), ("the second".into(), outcome(20))]);
    assert_eq!(text.lines().count(), 3);
    let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|&width| width == widths[0]), "{text}");
}

#[test]
fn numbers_are_readable() {
    assert_eq!(
        [0, 999, 1000, 1_234_567].map(thousands),
        ["0", "999", "1,000", "1,234,567"]
    );
    assert_eq!(
        [0.25, 3.0, 45.0, 999.0, 1500.0, 2_500_000.0].map(duration_text),
        ["250 ns", "3.00 µs", "45.0 µs", "999 µs", "1.50 ms", "2.50 s"]
    );
    assert_eq!(
        [5, 2048, 300 << 20].map(bytes_text),
        ["5 B", "2.0 KiB", "300 MiB"]
    );
}
