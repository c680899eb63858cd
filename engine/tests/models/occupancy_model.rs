//! Residency: readers, eviction, rescue, holds, and frames that are used again.

use crate::PageId;
use crate::memory::Memory;
use crate::memory::residency::Residency;
use crate::planted::{Mistake, explore};
use crate::sync::Collector;
use loom::thread;
use std::sync::Arc;

/// The page that is there at the beginning, and the one that would like to have its frame. Their home bucket
/// is the same.
const OLD: PageId = PageId(2584);
const NEW: PageId = PageId(2 * 2584);

/// How the model's flusher goes about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Eviction {
    Right,
    /// Doesn't look whether the page was rescued or is held.
    Forced,
}

/// A memory of one frame, which `OLD` has.
fn one_frame() -> (Arc<Memory>, Collector) {
    let memory = Memory::new(1);
    assert!(memory.load(OLD).is_some());
    (Arc::new(memory), Collector::new())
}

/// Evicts `OLD` and, if its frame comes back, loads `NEW` into it.
fn replace_old(memory: &Memory, collector: &Collector, eviction: Eviction) {
    let occupancy = &memory.occupancy;
    let Residency::Resident(frame) = occupancy.table.state(OLD) else {
        panic!("nobody else evicts")
    };
    assert!(occupancy.begin_evict(frame));
    let evicted = match eviction {
        Eviction::Right => occupancy.finish_evict(frame),
        Eviction::Forced => occupancy.table.remove(OLD).is_some(),
    };
    if evicted {
        occupancy.release_deferred(&collector.pin(), [frame]);
        memory.load(NEW);
    }
}

fn readers_and_an_eviction() {
    let (memory, collector) = one_frame();
    let readers: Vec<_> = [[OLD, NEW], [NEW, OLD]]
        .map(|pages| {
            let (memory, collector) = (Arc::clone(&memory), collector.clone());
            thread::spawn(move || {
                for id in pages {
                    let guard = collector.pin();
                    if let Some(found) = memory.read(id, &guard) {
                        assert_eq!(found, id, "a reader found another page");
                    }
                }
            })
        })
        .into();
    replace_old(&memory, &collector, Eviction::Right);
    readers
        .into_iter()
        .for_each(|reader| reader.join().expect("a reader"));
}

#[test]
fn a_reader_finds_its_page_or_none() {
    explore(Mistake::None, readers_and_an_eviction);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn frames_that_come_back_at_once_are_noticed() {
    explore(Mistake::NoGracePeriod, readers_and_an_eviction);
}

fn a_hold_and_an_eviction(eviction: Eviction) {
    let (memory, collector) = one_frame();
    let holder = {
        let (memory, collector) = (Arc::clone(&memory), collector.clone());
        thread::spawn(move || {
            let guard = collector.pin();
            let held = memory
                .occupancy
                .table
                .find(OLD)
                .filter(|frame| memory.occupancy.frames.hold(*frame));
            drop(guard);
            let Some(frame) = held else { return };
            // Unpinned, and still there.
            assert_eq!(memory.content(frame), OLD, "the held page has left");
            let state = memory.occupancy.table.state(OLD);
            let there = state == Residency::Resident(frame) || state == Residency::Evicting(frame);
            assert!(there, "the held page has left");
            memory.occupancy.unhold(frame, || collector.pin());
        })
    };
    replace_old(&memory, &collector, eviction);
    holder.join().expect("the holder");
    // Whoever was first, the frame is somewhere.
    let resident = [OLD, NEW].map(|id| memory.occupancy.table.state(id) != Residency::Absent);
    assert!(
        memory.occupancy.pool.free() == 1 || resident.contains(&true),
        "the frame is lost"
    );
}

#[test]
fn a_held_page_stays() {
    explore(Mistake::None, || a_hold_and_an_eviction(Eviction::Right));
}

#[test]
#[should_panic(expected = "the held page has left")]
fn evicting_held_pages_is_noticed() {
    explore(Mistake::None, || a_hold_and_an_eviction(Eviction::Forced));
}

/// A page dies while somebody holds its frame: the frame comes back, once, after both.
#[test]
fn a_held_page_that_dies_leaves_its_frame_to_the_last_holder() {
    explore(Mistake::None, || {
        let (memory, collector) = one_frame();
        let Residency::Resident(frame) = memory.occupancy.table.state(OLD) else {
            panic!("it was loaded")
        };
        assert!(memory.occupancy.frames.hold(frame));
        let holder = {
            let (memory, collector) = (Arc::clone(&memory), collector.clone());
            thread::spawn(move || {
                assert_eq!(memory.content(frame), OLD);
                memory.occupancy.unhold(frame, || collector.pin());
                // Perhaps it is free by now.
                memory.load(NEW);
            })
        };
        assert_eq!(memory.occupancy.table.remove(OLD), Some(frame));
        memory.occupancy.release_deferred(&collector.pin(), [frame]);
        holder.join().expect("the holder");
        let in_use = usize::from(memory.occupancy.table.state(NEW) != Residency::Absent);
        assert_eq!(memory.occupancy.pool.free() + in_use, 1);
        assert_eq!(memory.occupancy.pool.limbo(), 0);
    });
}

/// A reader that comes while the page arrives.
fn an_arrival(bytes_first: bool) {
    let memory = Arc::new(Memory::new(1));
    let reader = {
        let memory = Arc::clone(&memory);
        thread::spawn(move || {
            let guard = Collector::new().pin();
            if let Some(found) = memory.read(NEW, &guard) {
                assert_eq!(found, NEW, "found before it was there");
            }
        })
    };
    let frame = memory.allocate().expect("all frames are free");
    assert!(memory.occupancy.insert_loading(NEW, frame));
    if bytes_first {
        memory.fill(frame, NEW);
        memory.occupancy.finish_loading(NEW, frame);
    } else {
        memory.occupancy.finish_loading(NEW, frame);
        memory.fill(frame, NEW);
    }
    reader.join().expect("the reader");
}

#[test]
fn a_page_is_found_when_its_bytes_are_there() {
    explore(Mistake::None, || an_arrival(true));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn announcing_a_page_before_its_bytes_is_noticed() {
    explore(Mistake::None, || an_arrival(false));
}

/// More pages than a bucket holds: two threads take them out, in front of and behind it, and a page that lies
/// behind it must be found throughout.
#[test]
fn a_page_behind_a_full_bucket_is_found_while_others_come_and_go() {
    explore(Mistake::None, || {
        let memory = Arc::new(Memory::new(4));
        let pages = [1, 2, 3, 4].map(|number| PageId(number * 2584));
        for id in &pages[..3] {
            assert!(memory.create(*id).is_some());
        }
        let reader = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || assert!(memory.occupancy.table.find(pages[2]).is_some(), "it never left"))
        };
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || assert!(memory.occupancy.table.remove(pages[0]).is_some()))
        };
        assert!(memory.create(pages[3]).is_some());
        assert!(memory.occupancy.table.find(pages[3]).is_some());
        assert!(memory.occupancy.table.remove(pages[3]).is_some());
        reader.join().expect("the reader");
        other.join().expect("the other");
        assert!(memory.occupancy.table.find(pages[2]).is_some());
    });
}
