//! The gate: who is within finds everything as it was when it entered, and sees what was done before.

use crate::gate::Gate;
use crate::planted::{Mistake, explore};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::sync::Arc;

struct Place {
    gate: Gate,
    /// Two words that a keeper changes one after the other: a routing, so to speak.
    owners: [AtomicUsize; 2],
}

/// What the model itself does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Misuse {
    None,
    /// The keeper doesn't wait until all have left.
    ChangeAtOnce,
    /// The passer looks before it enters.
    LookOutside,
}

fn pass(place: &Place, misuse: Misuse) {
    let outside = place.owners[0].load(Ordering::Relaxed);
    if !place.gate.try_enter() {
        return;
    }
    let first = if misuse == Misuse::LookOutside {
        outside
    } else {
        place.owners[0].load(Ordering::Relaxed)
    };
    let second = place.owners[1].load(Ordering::Relaxed);
    assert_eq!(first, second, "it changed on the way");
    place.gate.leave();
}

fn keep(place: &Place, misuse: Misuse) {
    if !place.gate.try_shut() {
        return;
    }
    if misuse == Misuse::ChangeAtOnce || place.gate.is_empty() {
        let next = place.owners[0].load(Ordering::Relaxed) + 1;
        for owner in &place.owners {
            owner.store(next, Ordering::Relaxed);
        }
    }
    place.gate.open();
}

fn passers_and_keepers(misuse: Misuse) {
    let place = Arc::new(Place {
        gate: Gate::new(),
        owners: [AtomicUsize::new(0), AtomicUsize::new(0)],
    });
    let others: Vec<_> = [pass, keep]
        .into_iter()
        .map(|work: fn(&Place, Misuse)| {
            let place = Arc::clone(&place);
            thread::spawn(move || work(&place, misuse))
        })
        .collect();
    keep(&place, misuse);
    pass(&place, misuse);
    for other in others {
        other.join().expect("a thread");
    }
    assert!(place.gate.try_enter(), "it stays shut");
}

#[test]
fn nothing_changes_for_those_within() {
    explore(Mistake::None, || passers_and_keepers(Misuse::None));
}

#[test]
#[should_panic(expected = "it changed on the way")]
fn a_keeper_that_does_not_wait_is_noticed() {
    explore(Mistake::None, || passers_and_keepers(Misuse::ChangeAtOnce));
}

#[test]
#[should_panic(expected = "it changed on the way")]
fn a_passer_that_looks_too_early_is_noticed() {
    explore(Mistake::None, || passers_and_keepers(Misuse::LookOutside));
}
