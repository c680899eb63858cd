//! How long a version lives: one thread, all cases. (The races are in the models.)

use crossbeam_epoch::{Collector, LocalHandle};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use treering_engine::VersionCell;

/// Counts its deaths.
struct Picture(u64, Arc<AtomicU64>);

impl Drop for Picture {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

struct Setup {
    cell: VersionCell<Picture>,
    thread: LocalHandle,
    other: LocalHandle,
    deaths: Arc<AtomicU64>,
}

fn setup() -> Setup {
    let collector = Collector::new();
    let deaths = Arc::new(AtomicU64::new(0));
    let cell = VersionCell::new(collector.clone(), Arc::new(Picture(0, Arc::clone(&deaths))));
    Setup {
        cell,
        thread: collector.register(),
        other: collector.register(),
        deaths,
    }
}

impl Setup {
    fn publish(&self, number: u64) {
        self.cell.publish(
            Arc::new(Picture(number, Arc::clone(&self.deaths))),
            &self.thread.pin(),
        );
    }

    fn deaths(&self) -> u64 {
        for _ in 0..8 {
            self.thread.pin().flush();
        }
        self.deaths.load(Ordering::Relaxed)
    }
}

#[test]
fn a_replaced_version_outlives_the_pins_that_could_see_it() {
    let setup = setup();
    let guard = setup.other.pin();
    let seen = setup.cell.load(&guard);
    setup.publish(1);
    assert_eq!((seen.0, setup.deaths()), (0, 0));
    assert_eq!(
        setup.cell.load(&guard).0,
        1,
        "the same pin sees what is newer when it loads again"
    );
    drop(guard);
    assert_eq!(setup.deaths(), 1);
}

#[test]
fn a_death_is_reported_though_the_publisher_never_comes_back() {
    let setup = setup();
    setup.publish(1);
    for _ in 0..8 {
        setup.other.pin().flush();
    }
    assert_eq!(setup.deaths.load(Ordering::Relaxed), 1);
}

#[test]
fn a_held_version_outlives_the_pin() {
    let setup = setup();
    let held = setup.cell.hold(&setup.other.pin());
    setup.publish(1);
    setup.publish(2);
    assert_eq!((held.0, setup.deaths()), (0, 1), "version 1 was held by nobody");
    drop(held);
    assert_eq!(setup.deaths(), 2);
}

#[test]
fn the_cell_gives_up_its_version_when_it_goes() {
    let setup = setup();
    setup.publish(1);
    let Setup {
        cell,
        thread,
        other,
        deaths,
    } = setup;
    drop(cell);
    drop((thread, other));
    assert_eq!(
        deaths.load(Ordering::Relaxed),
        2,
        "also what was still deferred, when the collector goes"
    );
}

#[test]
#[should_panic(expected = "foreign collector")]
fn a_pin_of_another_collector_is_refused() {
    let setup = setup();
    let _ = setup.cell.load(&crossbeam_epoch::pin());
}
