//! Versions: what is loaded or held is alive, and everything replaced dies once.

use crate::planted::{Mistake, explore};
use crate::sync::{Arc, AtomicUsize, Collector, Ordering};
use crate::version::VersionCell;
use loom::thread;
use std::sync::Arc as Shared;

/// Counts the deaths of each version.
type Deaths = Shared<Vec<AtomicUsize>>;

struct Picture {
    number: usize,
    deaths: Deaths,
}

impl Drop for Picture {
    fn drop(&mut self) {
        self.deaths[self.number].fetch_add(1, Ordering::Relaxed);
    }
}

fn publications_and_a_reader() {
    let deaths: Deaths = Shared::new((0..3).map(|_| AtomicUsize::new(0)).collect());
    let picture = |number| {
        Arc::new(Picture {
            number,
            deaths: Shared::clone(&deaths),
        })
    };
    let collector = Collector::new();
    let cell = Shared::new(VersionCell::new(collector.clone(), picture(0)));
    let reader = {
        let (cell, deaths, collector) = (Shared::clone(&cell), Shared::clone(&deaths), collector.clone());
        thread::spawn(move || {
            let alive = |picture: &Picture| {
                assert_eq!(
                    deaths[picture.number].load(Ordering::Relaxed),
                    0,
                    "a dead version is in use"
                );
                picture.number
            };
            let guard = collector.pin();
            let loaded = alive(cell.load(&guard));
            let held = cell.hold(&guard);
            drop(guard);
            assert!(alive(&held) >= loaded, "versions went backwards");
            drop(held);
        })
    };
    for number in 1..3 {
        cell.publish(picture(number), &collector.pin());
    }
    reader.join().expect("the reader");
    let counts = || -> Vec<usize> { deaths.iter().map(|count| count.load(Ordering::Relaxed)).collect() };
    assert_eq!(counts(), [1, 1, 0], "the replaced ones have died");
    drop(cell);
    assert_eq!(counts(), [1, 1, 1], "the cell gave up the last one");
}

#[test]
fn a_version_lives_as_long_as_somebody_can_see_it() {
    explore(Mistake::None, publications_and_a_reader);
}

#[test]
#[should_panic(expected = "a count was raised from zero")]
fn giving_up_a_replaced_version_at_once_is_noticed() {
    explore(Mistake::NoGracePeriod, publications_and_a_reader);
}
