//! Random operations of several clients, power cuts at any step, reopening, and a comparison with the model.
//!
//! `TREERING_SIM_SEEDS` sets how many seeds run (default 10,000), `TREERING_SIM_SEED` runs a single one.

use treering_tests::seeds;
use treering_tests::workload::{Setting, run};

#[test]
fn every_seed_agrees_with_the_model() {
    let setting = Setting::default();
    let done = seeds::run_all(10_000, |seed| run(seed, &setting));
    // What never happens is not tested.
    let is_single = std::env::var_os("TREERING_SIM_SEED").is_some();
    assert!(
        is_single || done.moves > 0 && done.joins > 0 && done.evictions > 0,
        "{done:?}"
    );
}
