//! Transactions that overlap, in the simulator: sums that no order may change, at every snapshot and after every crash.
//!
//! `TREERING_SIM_SEEDS`, `TREERING_SIM_FIRST` and `TREERING_SIM_SEED` as in `model.rs`.

use treering::sim::Planted;
use treering_tests::bank::run;
use treering_tests::seeds;

#[test]
fn overlapping_transactions_keep_every_sum() {
    let sum = seeds::run_all(2_000, |seed| run(seed, Planted::Nothing));
    println!("{sum:?}");
    // Trees of the bank are seldom in so many pieces that some are joined: few seeds say nothing about it.
    let joined = sum.joins > 0 || sum.moves < 3_000;
    assert!(
        sum.refused > 0 && sum.moves > 0 && joined || std::env::var_os("TREERING_SIM_SEED").is_some(),
        "what never happens is not tested: {sum:?}"
    );
}
