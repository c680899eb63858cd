//! A simulator that doesn't find planted bugs would find none: each of them must be caught within some seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use treering::sim::Planted;
use treering_io::{FaultKind, FaultRates};
use treering_tests::bank;
use treering_tests::seeds::words;
use treering_tests::workload::{Outcome, Setting, run};

/// Seeds within which a planted bug must show.
const SEEDS: u64 = 400;

/// How the first failing seed fails.
fn first_failure(run: impl Fn(u64) -> Result<Outcome, String>) -> Option<String> {
    // Runs that can't go on end with a panic, which is a finding too: its message is enough.
    (0..SEEDS).find_map(|seed| match catch_unwind(AssertUnwindSafe(|| run(seed))) {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error),
        Err(panic) => Some(words(&*panic)),
    })
}

fn must_be_caught(setting: &Setting) {
    let found = first_failure(|seed| run(seed, setting));
    println!("{:?} {:?}: {found:?}", setting.planted, setting.faults);
    assert!(
        found.is_some(),
        "{:?} {:?} was not found in {SEEDS} seeds",
        setting.planted,
        setting.faults
    );
}

fn planted(planted: Planted) -> Setting {
    Setting {
        planted,
        ..Setting::default()
    }
}

#[test]
fn a_log_that_is_never_synced_is_caught() {
    must_be_caught(&planted(Planted::SkipLogSync));
}

#[test]
fn an_answer_before_the_sync_is_caught() {
    must_be_caught(&planted(Planted::AcknowledgeBeforeSync));
}

#[test]
fn a_superblock_before_its_pages_are_synced_is_caught() {
    must_be_caught(&planted(Planted::SkipDataSync));
}

#[test]
fn a_checkpoint_beyond_the_durable_log_is_caught() {
    must_be_caught(&planted(Planted::SkipCheckpointLogSync));
}

#[test]
fn pages_that_are_free_too_early_are_caught() {
    must_be_caught(&planted(Planted::FreeRetiredPages));
}

#[test]
fn lost_news_are_caught() {
    must_be_caught(&planted(Planted::LoseLoadedPages));
}

#[test]
fn a_move_that_never_ends_is_caught() {
    must_be_caught(&planted(Planted::LoseHandOver));
}

#[test]
fn a_request_that_is_overtaken_in_a_move_is_caught() {
    must_be_caught(&planted(Planted::OvertakeInMove));
}

/// A disk that loses writes of the log silently, in a run that expects an honest one.
#[test]
fn a_log_that_the_disk_loses_is_caught() {
    let rates = FaultRates::none().with(FaultKind::LostWrite, 50_000);
    // Named as a planted bug of the disk: the model is told of no fault.
    let setting = Setting {
        lies: vec![("log-", rates)],
        ..Setting::default()
    };
    must_be_caught(&setting);
}

/// A bug that one kind of finding is there for must be found as that: by a panic or by something else it would be found
/// by chance.
fn must_be_found_as(bug: Planted, finding: &str) {
    let setting = planted(bug);
    let found = first_failure(|seed| match run(seed, &setting) {
        Err(error) if !error.contains(finding) => Ok(Outcome::default()),
        result => result,
    });
    println!("{bug:?}: {found:?}");
    let right = |error: &String| error.contains(finding);
    assert!(
        found.as_ref().is_some_and(right),
        "{bug:?} in {SEEDS} seeds: {found:?}"
    );
}

#[test]
fn a_subscription_that_leaves_something_out_is_caught() {
    must_be_found_as(Planted::LoseFirstChanges, "a subscription tells");
}

#[test]
fn named_snapshots_that_are_not_kept_are_caught() {
    must_be_found_as(Planted::ForgetNamedSnapshots, "a named snapshot");
}

/// A bug of transactions must make the bank's books wrong; to be found by a panic would say little.
fn must_be_noticed_by_the_bank(planted: Planted, finding: &[&str]) {
    let found = first_failure(|seed| bank::run(seed, planted));
    println!("{planted:?}: {found:?}");
    let right = |error: &String| finding.iter().any(|finding| error.contains(finding));
    assert!(
        found.as_ref().is_some_and(right),
        "{planted:?} in {SEEDS} seeds: {found:?}"
    );
}

#[test]
fn transactions_that_are_not_validated_are_caught() {
    must_be_noticed_by_the_bank(
        Planted::SkipValidation,
        &["add up", "was touched", "on duty", "the journal has"],
    );
}

#[test]
fn locks_that_are_given_back_too_early_are_caught() {
    must_be_noticed_by_the_bank(
        Planted::ReleaseLocksEarly,
        &["add up", "was touched", "on duty", "the journal has"],
    );
}

#[test]
fn a_part_of_a_transaction_that_is_published_alone_is_caught() {
    must_be_noticed_by_the_bank(Planted::PublishPartsEarly, &["add up", "the journal has"]);
}

#[test]
fn transactions_that_are_applied_twice_are_caught() {
    // A large value that was given back and comes again is noticed by the accounts of pages.
    must_be_noticed_by_the_bank(
        Planted::ApplySetsTwice,
        &["add up", "was touched", "the journal has", "still reachable"],
    );
}

#[test]
fn sets_that_wait_for_those_that_overlap_them_are_caught() {
    must_be_noticed_by_the_bank(Planted::ChainSets, &["nothing can run"]);
}

#[test]
fn locks_that_are_taken_by_owner_are_caught() {
    must_be_noticed_by_the_bank(Planted::VisitByOwner, &["nothing can run"]);
}

#[test]
fn versions_that_are_forgotten_while_they_are_held_are_caught() {
    // By the reader that holds one throughout.
    must_be_noticed_by_the_bank(Planted::ForgetOldVersions, &["looking", "held throughout"]);
}
