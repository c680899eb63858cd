//! Equal seeds give equal runs, to the last byte on the disk; and different seeds don't.

use std::collections::BTreeSet;

use treering_io::{FaultKind, FaultRates};
use treering_tests::workload::{Setting, run};

fn outcomes_agree(setting: &Setting, seeds: std::ops::Range<u64>) {
    let count = seeds.end - seeds.start;
    let mut hashes = BTreeSet::new();
    for seed in seeds {
        let first = run(seed, setting);
        // On another thread: nothing may depend on what this one has done before.
        let second = std::thread::scope(|scope| scope.spawn(|| run(seed, setting)).join());
        let second = second.unwrap_or_else(|_| panic!("seed {seed} panicked the second time"));
        assert_eq!(first, second, "seed {seed}");
        hashes.insert(first.map(|outcome| outcome.trace_hash));
    }
    assert_eq!(hashes.len() as u64, count, "different seeds gave equal runs");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    outcomes_agree(&Setting::default(), 0..40);
}

#[test]
fn the_same_seed_gives_the_same_run_with_faults() {
    let rates = FaultRates::none()
        .with(FaultKind::ReadError, 2_000)
        .with(FaultKind::WriteErrorTorn, 500);
    let setting = Setting {
        faults: vec![("", rates)],
        ..Setting::default()
    };
    outcomes_agree(&setting, 0..20);
}
