//! Whole runs against the map in memory: clean where it is honest, caught where it lies.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::*;
use crate::cli::{Cli, Command};
use crate::record::{Stamp, encode};
use crate::target::memory::{Lie, MemoryOpener};
use crate::verify::violation::Violation;

/// Length of a run in these tests.
const OPERATIONS: u64 = 20_000;

struct Bench {
    directory: tempfile::TempDir,
    opener: MemoryOpener,
}

impl Bench {
    fn new(opener: MemoryOpener) -> Bench {
        Bench {
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
            opener,
        }
    }

    fn plan(&self, arguments: &str) -> Plan {
        let common = "loadgen run --verify --records 2000 --value-bytes 60 --seconds 60";
        let words = common.split(' ').chain(arguments.split_whitespace());
        let Some(Command::Run(arguments)) = Cli::parse_from(words).command else {
            panic!("run was given")
        };
        let plan = arguments.plan().expect("the plan is sound");
        let operations = (plan.workload != Workload::Load).then_some(OPERATIONS);
        Plan {
            directory: Some(self.directory.path().to_owned()),
            operations,
            ..plan
        }
    }

    fn run(&self, arguments: &str) -> Outcome {
        self.run_plan(&self.plan(arguments))
    }

    fn run_plan(&self, plan: &Plan) -> Outcome {
        execute(&self.opener, plan, &Stop::default(), &Progress::hidden()).expect("the run takes place")
    }

    /// Changes what is "on disk" between two runs.
    fn store(&self, record: u64, version: Option<u64>) {
        let key = crate::record::KeyOrder::Hashed.key(record).to_vec();
        match version {
            None => self.opener.records().remove(&key),
            Some(version) => {
                let mut value = vec![0; 60];
                encode(
                    Stamp {
                        record,
                        version,
                        writer: 9,
                    },
                    &mut value,
                );
                self.opener.records().insert(key, value)
            }
        };
    }
}

fn violations(outcome: &Outcome) -> Vec<Violation> {
    outcome
        .verification
        .as_ref()
        .map(|found| found.listed.clone())
        .unwrap_or_default()
}

fn records_after(outcome: &Outcome) -> u64 {
    outcome
        .verification
        .as_ref()
        .map_or(0, |found| found.records_after)
}

#[test]
fn every_workload_runs_clean_at_any_depth() {
    for &workload in Workload::value_variants() {
        for depth in ["--depth 1", "--depth 16", "--depth 4 --durability buffered"] {
            let bench = Bench::new(MemoryOpener::default());
            let operations = if workload == Workload::Load {
                2000
            } else {
                OPERATIONS
            };
            let plan = bench.plan(&format!("--workload {workload} {depth}"));
            let outcome = bench.run_plan(&plan);
            assert!(
                outcome.is_clean(),
                "{workload} {depth}: {:?} {:?}",
                violations(&outcome),
                outcome.error_messages
            );
            assert_eq!(outcome.totals.operations(), operations, "{workload} {depth}");
            let inserts = outcome
                .totals
                .kinds()
                .find(|(kind, _)| *kind == OperationKind::Insert);
            let inserted = inserts.map_or(0, |(_, histogram)| histogram.len());
            if workload != Workload::Put {
                assert_eq!(records_after(&outcome), 2000 + inserted, "{workload} {depth}");
            }
            assert_eq!(workload.mix().includes(OperationKind::Insert), inserted > 0);
        }
    }
}

#[test]
fn runs_without_verification_work_too() {
    for &workload in Workload::value_variants() {
        let bench = Bench::new(MemoryOpener::default());
        let plan = bench.plan(&format!("--workload {workload}"));
        let plan = Plan {
            verify: false,
            value_bytes: 20,
            ..plan
        };
        let outcome = bench.run_plan(&plan);
        assert!(outcome.is_clean(), "{workload} {:?}", outcome.error_messages);
        assert_eq!(outcome.counters.not_found, 0, "{workload}");
        assert!(outcome.totals.operations() >= 2000);
        assert!(bench.opener.records().values().all(|value| value.len() == 20));
    }
}

#[test]
fn lies_are_caught() {
    let lies = [
        (Lie::LosePuts, "--workload a"),
        (Lie::LosePuts, "--workload a --depth 8"),
        (Lie::LosePuts, "--workload load"),
        (Lie::FlipBits, "--workload c"),
        (Lie::FlipBits, "--workload c --depth 8"),
        (Lie::HideRecords, "--workload b"),
        (Lie::LoseUpdates, "--workload f"),
        (Lie::LoseUpdates, "--workload f --depth 8"),
        (Lie::SkipInScans, "--workload e"),
        (Lie::Misplace, "--workload a"),
    ];
    for (lie, arguments) in lies {
        let bench = Bench::new(MemoryOpener::lying(lie));
        let outcome = bench.run(arguments);
        assert!(
            !outcome.is_clean() && !violations(&outcome).is_empty(),
            "{lie:?} in {arguments}"
        );
    }
}

#[test]
fn a_single_lost_put_is_found_at_the_end() {
    let bench = Bench::new(MemoryOpener::default());
    assert!(bench.run("--workload a").is_clean());
    bench.store(77, None);
    let outcome = bench.run("--workload c");
    let [Violation::Missing { record: 77, least }] = violations(&outcome)[..] else {
        panic!("{:?}", violations(&outcome));
    };
    assert!(least >= 1);
    // The evidence is left alone: no load, no adoption.
    assert_eq!(outcome.totals.operations(), 0);
    assert_eq!(violations(&bench.run("--workload c")).len(), 1);
}

#[test]
fn what_an_earlier_run_left_is_checked_against_its_journal() {
    let bench = Bench::new(MemoryOpener::default());
    assert!(bench.run("--workload f").is_clean());
    assert!(bench.run("--workload f --seed 2").is_clean());
    bench.store(5, Some(0));
    bench.store(6, Some(1_000_000));
    bench.store(2_000, Some(1));
    bench.opener.records().insert(b"other".to_vec(), Vec::new());
    let found = violations(&bench.run("--workload f"));
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().any(|v| matches!(
        v,
        Violation::Stale {
            record: 5,
            found: 0,
            ..
        }
    )));
    assert!(found.iter().any(|v| matches!(
        v,
        Violation::NeverWritten {
            record: 6,
            found: 1_000_000,
            ..
        }
    )));
    assert!(found.iter().any(|v| matches!(
        v,
        Violation::NeverWritten {
            record: 2_000,
            found: 1,
            issued: 0
        }
    )));
    assert!(found.iter().any(|v| matches!(v, Violation::ForeignKey { .. })));
}

#[test]
fn a_journal_without_its_database_accuses_it() {
    let bench = Bench::new(MemoryOpener::default());
    assert!(bench.run("--workload a").is_clean());
    bench.opener.records().clear();
    let outcome = bench.run("--workload a");
    assert_eq!(outcome.verification.map(|found| found.violations), Some(2000));
}

#[test]
fn a_database_without_a_journal_is_checked_for_integrity() {
    let bench = Bench::new(MemoryOpener::default());
    let mut plan = bench.plan("--workload f");
    plan.verify = false;
    assert!(bench.run_plan(&plan).is_clean());
    let outcome = bench.run("--workload f");
    assert!(outcome.is_clean(), "{:?}", violations(&outcome));
    // Writing without verification makes the journal void, so it is gone.
    assert!(bench.directory.path().join(JOURNAL_FILE).exists());
    assert!(bench.run_plan(&plan).is_clean());
    assert!(!bench.directory.path().join(JOURNAL_FILE).exists());
    bench
        .opener
        .records()
        .values_mut()
        .for_each(|value| value[40] ^= 1);
    assert!(!bench.run("--workload c").is_clean());
}

#[test]
fn buffered_writes_may_go_back_to_a_flush_point_but_no_further() {
    let bench = Bench::new(MemoryOpener::default());
    let outcome = bench.run("--workload a --durability buffered");
    assert!(outcome.is_clean());
    let flush_points = outcome.verification.map_or(0, |found| found.flush_points);
    assert!(flush_points >= 2, "after loading and at closing");
    // A process that dies after these acknowledgements, before the next flush point.
    let verifier = Verifier::open(bench.directory.path(), crate::record::KeyOrder::Hashed, false)
        .expect("the ledger is there");
    let before = verifier.ledger.versions(3).promised;
    let version = verifier.ledger.begin_put(3).expect("it fits");
    verifier.ledger.acknowledge(3, version);
    drop(verifier);
    bench.store(3, Some(before));
    assert!(bench.run("--workload c --durability buffered").is_clean());
    bench.store(3, Some(before - 1));
    assert!(!bench.run("--workload c --durability buffered").is_clean());
}

#[test]
fn missing_records_are_loaded_and_no_others() {
    let bench = Bench::new(MemoryOpener::default());
    let outcome = bench.run_plan(&Plan {
        operations: Some(500),
        ..bench.plan("--workload put")
    });
    let present = records_after(&outcome);
    assert!((300..=500).contains(&present));
    let outcome = bench.run("--workload c");
    assert_eq!(outcome.loaded.0, 2000 - present);
    assert!(outcome.is_clean());
    assert_eq!(bench.run("--workload c").loaded.0, 0);
}

#[test]
fn inserts_go_on_where_an_earlier_run_ended() {
    for verify in [true, false] {
        let bench = Bench::new(MemoryOpener::default());
        let mut plan = bench.plan("--workload d");
        plan.verify = verify;
        assert!(bench.run_plan(&plan).is_clean());
        let records = bench.opener.records().len();
        let outcome = bench.run_plan(&plan);
        assert!(outcome.is_clean(), "{:?}", outcome.error_messages);
        assert!(bench.opener.records().len() > records);
    }
}

#[test]
fn errors_are_counted_and_prove_nothing() {
    let bench = Bench::new(MemoryOpener::lying(Lie::RefusePuts));
    let outcome = bench.run("--workload put");
    assert!(outcome.errors > 100 && !outcome.is_clean());
    assert_eq!(outcome.error_messages.get("refused"), Some(&outcome.errors));
    assert_eq!(violations(&outcome), []);
    assert_eq!(outcome.totals.operations() + outcome.errors, OPERATIONS);
}

#[test]
fn an_open_loop_sends_what_is_due() {
    let bench = Bench::new(MemoryOpener::default());
    let mut plan = bench.plan("--workload a --rate 10000");
    plan.operations = None;
    plan.duration = Duration::from_millis(300);
    let outcome = bench.run_plan(&plan);
    assert!(outcome.is_clean());
    assert_eq!(outcome.totals.operations() + outcome.counters.unsent, 3000);
}

#[test]
fn a_stop_ends_the_run_with_a_report() {
    let bench = Bench::new(MemoryOpener::default());
    let stop = Stop::default();
    stop.ask();
    let plan = bench.plan("--workload a");
    let outcome = execute(&bench.opener, &plan, &stop, &Progress::hidden()).expect("the run takes place");
    assert!(outcome.interrupted && outcome.is_clean());
    assert_eq!(outcome.totals.operations(), 0);
}

#[test]
fn one_seed_gives_one_sequence() {
    let content = |seed: &str| {
        let bench = Bench::new(MemoryOpener::default());
        let outcome = bench.run(&format!("--workload put --threads 1 --seed {seed}"));
        assert!(outcome.is_clean());
        bench.opener.records().clone()
    };
    assert_eq!(content("5"), content("5"));
    assert_ne!(content("5"), content("6"));
}
