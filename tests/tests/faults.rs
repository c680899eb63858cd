//! Disks that fail: never a wrong value, never a panic; and when the faults stop, every request completes.

use treering_io::{FaultKind, FaultRates};
use treering_tests::seeds;
use treering_tests::workload::{Setting, run};

/// Parts per million: with hundreds of operations per run, about one fault in every second run.
const SOME: u32 = 2_000;
/// Several in each run.
const MANY: u32 = 20_000;

fn rates(kinds: &[FaultKind], parts_per_million: u32) -> FaultRates {
    kinds.iter().fold(FaultRates::none(), |rates, kind| {
        rates.with(*kind, parts_per_million)
    })
}

fn reported(faults: Vec<(&'static str, FaultRates)>) {
    let setting = Setting {
        faults,
        ..Setting::default()
    };
    let sum = seeds::run_all(700, |seed| run(seed, &setting));
    assert!(
        sum.refused > 0 || std::env::var_os("TREERING_SIM_SEED").is_some(),
        "no fault has struck"
    );
}

#[test]
fn failing_reads_are_reported_and_pass() {
    reported(vec![("data", rates(&[FaultKind::ReadError], MANY))]);
}

#[test]
fn failing_writes_lose_nothing_that_was_acknowledged() {
    let kinds = [
        FaultKind::WriteErrorLanded,
        FaultKind::WriteErrorNotLanded,
        FaultKind::WriteErrorTorn,
    ];
    reported(vec![("", rates(&kinds, SOME))]);
}

#[test]
fn failing_syncs_lose_nothing_that_was_acknowledged() {
    reported(vec![(
        "",
        rates(&[FaultKind::SyncErrorLost, FaultKind::SyncErrorKept], MANY),
    )]);
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    reported(vec![("", rates(&[FaultKind::NoSpace], SOME))]);
    // The first files fit; what the workload adds doesn't always.
    let setting = Setting {
        capacity_bytes: Some(4 << 20),
        ..Setting::default()
    };
    seeds::run_all(300, |seed| run(seed, &setting));
}

#[test]
fn a_disk_that_lies_is_never_believed() {
    let kinds = [
        FaultKind::BitRot,
        FaultKind::MisdirectedWrite,
        FaultKind::LostWrite,
        FaultKind::StaleRead,
    ];
    for kind in kinds {
        let setting = Setting {
            faults: vec![("data", rates(&[kind], SOME))],
            silent: true,
            ..Setting::default()
        };
        seeds::run_all(400, |seed| run(seed, &setting));
    }
}
