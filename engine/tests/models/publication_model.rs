//! Everything together: a worker replaces a page and publishes, the page of the dead version is taken out and
//! its frame used again, while a reader follows the current version.

use crate::PageId;
use crate::memory::Memory;
use crate::planted::{Mistake, explore};
use crate::sync::{Arc, Collector};
use crate::version::VersionCell;
use loom::thread;
use std::sync::{Arc as Shared, Mutex};

/// A version that names one page, and reports it when it dies.
struct Version {
    page: PageId,
    dead: Shared<Mutex<Vec<PageId>>>,
}

impl Drop for Version {
    fn drop(&mut self) {
        self.dead.lock().expect("not poisoned").push(self.page);
    }
}

#[derive(Clone, Copy)]
enum Removal {
    /// When the version that named the page is dead.
    AtDeath,
    /// When the page is replaced (the bad run of rule R1).
    AtReplacement,
}

fn a_reader_and_a_replacement(removal: Removal, held: bool) {
    const OLD: PageId = PageId(2);
    const NEW: PageId = PageId(3);
    const NEXT: PageId = PageId(4);

    let memory = Shared::new(Memory::new(2));
    let collector = Collector::new();
    let dead = Shared::new(Mutex::new(Vec::new()));
    let version = |page| {
        Arc::new(Version {
            page,
            dead: Shared::clone(&dead),
        })
    };
    assert!(memory.create(OLD).is_some());
    let current = Shared::new(VersionCell::new(collector.clone(), version(OLD)));

    let reader = {
        let (memory, collector, current) =
            (Shared::clone(&memory), collector.clone(), Shared::clone(&current));
        thread::spawn(move || {
            let mut guard = collector.pin();
            if held {
                let version = current.hold(&guard);
                drop(guard);
                // A wait would be here.
                guard = collector.pin();
                assert_eq!(
                    memory.read(version.page, &guard),
                    Some(version.page),
                    "a held version lost its page"
                );
            } else {
                let version = current.load(&guard);
                assert_eq!(
                    memory.read(version.page, &guard),
                    Some(version.page),
                    "the version lost its page"
                );
            }
            drop(guard);
        })
    };

    // The worker, then the commit actor, then the flusher.
    assert!(memory.create(NEW).is_some());
    let take_out = |page| {
        let frame = memory.occupancy.table.remove(page).expect("it was created");
        memory.occupancy.release_deferred(&collector.pin(), [frame]);
    };
    current.publish(version(NEW), &collector.pin());
    match removal {
        Removal::AtDeath => std::mem::take(&mut *dead.lock().expect("not poisoned"))
            .into_iter()
            .for_each(take_out),
        Removal::AtReplacement => take_out(OLD),
    }
    // Gets the frame if nobody can look at it any more.
    memory.create(NEXT);
    reader.join().expect("the reader");
}

#[test]
fn a_loaded_versions_page_is_found() {
    explore(Mistake::None, || {
        a_reader_and_a_replacement(Removal::AtDeath, false)
    });
}

#[test]
fn a_held_versions_page_is_found() {
    explore(Mistake::None, || {
        a_reader_and_a_replacement(Removal::AtDeath, true)
    });
}

#[test]
#[should_panic(expected = "the version lost its page")]
fn removing_a_page_when_it_is_replaced_is_noticed() {
    explore(Mistake::None, || {
        a_reader_and_a_replacement(Removal::AtReplacement, false)
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn versions_that_die_under_a_pin_are_noticed() {
    explore(Mistake::NoGracePeriod, || {
        a_reader_and_a_replacement(Removal::AtDeath, false)
    });
}
