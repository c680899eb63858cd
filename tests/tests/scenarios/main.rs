//! The bad runs of the rules, each by a schedule of its own: what has to wait waits, and whose turn it is is said.
//!
//! Every scenario is a function that drives one simulated database into exactly the situation that its rule is about, and
//! tells what was wrong. It has to pass, and it has to find the bug that the rule prevents, planted by the simulator
//! ([`sees`]).
//!
//! | module | rules |
//! |---|---|
//! | [`transactions`] | R20, R21: cuts that never close, write skew, parts published alone, transactions applied twice |
//! | [`moves`] | R22: what is sent while a range moves; R21: deadlock after a move |
//! | [`queues`] | R9, R14: full mailboxes, in a circle too, and what a database takes whose log stands still |
//! | [`stage`] | what they share |

mod moves;
mod queues;
mod stage;
mod transactions;

use std::panic::{AssertUnwindSafe, catch_unwind};

use treering::sim::Planted;
use treering_tests::seeds::words;

/// A scenario: what was wrong, in words.
type Scenario = fn(Planted) -> Result<(), String>;

/// The scenario goes well; with the bug, it doesn't, and says so with this finding.
fn sees(scenario: Scenario, bug: Planted, finding: &str) {
    scenario(Planted::Nothing).unwrap_or_else(|error| panic!("{error}"));
    // A run that can't go on ends with a panic.
    let found = match catch_unwind(AssertUnwindSafe(|| scenario(bug))) {
        Ok(result) => result.err(),
        Err(panic) => Some(words(&*panic)),
    };
    let seen = found.as_ref().is_some_and(|found| found.contains(finding));
    assert!(seen, "{bug:?} was not seen as \"{finding}\": {found:?}");
}
