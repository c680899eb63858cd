//! Real threads on everything at once: readers, a pager, a flusher and a worker share a memory that is much
//! smaller than what they use. Whatever a reader finds must be the page it looked for, and stay so.

use crate::memory::{Class, FrameId, Memory, Residency};
use crate::{PageId, VersionCell};
use crossbeam_epoch::Guard;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const FRAMES: usize = 48;
const PAGES: u32 = 64;
const PAGE_BYTES: usize = 512;

/// Pseudo-random numbers that need no state to be shared.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(limit)) as u32
    }
}

/// Writes a page that is its id all over.
fn fill(memory: &Memory, frame: FrameId, id: PageId) {
    let words = memory.frame_ptr(frame).cast::<u32>();
    for index in 0..PAGE_BYTES / 4 {
        // SAFETY: the frame was allocated and not inserted yet, so it is the caller's alone; it is aligned and
        // has this many words.
        unsafe { words.add(index).write(id.0) };
    }
}

fn is_page(bytes: &[u8], id: PageId) -> bool {
    bytes.chunks_exact(4).all(|word| word == id.0.to_ne_bytes())
}

#[test]
fn readers_find_nothing_but_what_they_look_for() {
    let memory = Memory::new(FRAMES, PAGE_BYTES).expect("a small mapping");
    let (done, wanted) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| pager(&memory, &wanted, &done));
        scope.spawn(|| flusher(&memory, &done));
        for seed in 1..=2 {
            let (memory, wanted, done) = (&memory, &wanted, &done);
            scope.spawn(move || reader(memory, Random(seed), wanted, done));
        }
    });
    // Every frame is accounted for.
    memory.participant().collect();
    let resident = (2..2 + PAGES)
        .filter(|id| memory.state(PageId(*id)) != Residency::Absent)
        .count();
    assert_eq!(memory.limbo_frames(), 0);
    assert_eq!(memory.free_frames() + resident, FRAMES);
}

/// Stops the other threads when its own has finished, or panics.
struct StopOthers<'t>(&'t AtomicBool);

impl Drop for StopOthers<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn reader(memory: &Memory, mut random: Random, wanted: &AtomicU32, done: &AtomicBool) {
    let _stop = StopOthers(done);
    let thread = memory.participant();
    let (mut found, mut missed) = (0, 0_u32);
    while found < 10_000 && !done.load(Ordering::Relaxed) {
        let id = PageId(2 + random.below(PAGES));
        let guard = thread.pin();
        let Some(page) = memory.lookup(id, &guard) else {
            wanted.store(id.0, Ordering::Relaxed);
            missed += 1;
            if missed % 16 == 0 {
                drop(guard);
                std::thread::yield_now();
            }
            continue;
        };
        assert!(is_page(page.bytes, id), "page {} in frame {}", id.0, page.id.0);
        if random.below(32) == 0 {
            // Long enough for others to evict the page and to wish to use its frame.
            std::thread::yield_now();
            assert!(
                is_page(page.bytes, id),
                "page {} in frame {}, later",
                id.0,
                page.id.0
            );
        }
        found += 1;
    }
}

/// Loads what readers missed, sometimes in vain.
fn pager(memory: &Memory, wanted: &AtomicU32, done: &AtomicBool) {
    let _stop = StopOthers(done);
    let mut random = Random(77);
    while !done.load(Ordering::Relaxed) {
        let id = PageId(wanted.swap(0, Ordering::Relaxed));
        if id == PageId::NONE {
            std::thread::yield_now();
            continue;
        }
        let Some(frame) = memory.allocate(Class::Reader) else {
            continue;
        };
        if !memory.insert_loading(id, frame) {
            memory.release_now(frame);
        } else if random.below(8) == 0 {
            memory.abandon_loading(id, frame);
        } else {
            fill(memory, frame, id);
            memory.finish_loading(id, frame);
        }
    }
}

/// Keeps frames free by the clock, and now and then removes a page as if it had died.
fn flusher(memory: &Memory, done: &AtomicBool) {
    let _stop = StopOthers(done);
    let thread = memory.participant();
    let (mut hand, mut random) = (0, Random(99));
    let (mut cold, mut evicting, mut free) = (Vec::new(), Vec::new(), Vec::new());
    while !done.load(Ordering::Relaxed) {
        if memory.free_frames() > FRAMES * 3 / 4 {
            std::thread::yield_now();
            continue;
        }
        free.extend(evicting.drain(..).filter(|frame| memory.finish_evict(*frame)));
        hand = memory.sweep(hand, 2, &mut cold);
        evicting.extend(cold.drain(..).filter(|frame| memory.begin_evict(*frame)));
        if random.below(16) == 0 {
            let id = PageId(2 + random.below(PAGES));
            evicting.retain(|frame| memory.page_of(*frame) != Some(id));
            free.extend(memory.remove(id));
        }
        memory.release_deferred(&thread.pin(), free.drain(..));
        thread.collect();
    }
    free.extend(evicting.drain(..).filter(|frame| memory.finish_evict(*frame)));
    memory.release_deferred(&thread.pin(), free.drain(..));
    thread.collect();
}

/// A version that names pages, and reports its death.
struct Version {
    seq: u32,
    named: [PageId; Version::NAMED],
    dead: Arc<Mutex<BTreeSet<u32>>>,
}

impl Version {
    const NAMED: usize = 8;
}

impl Drop for Version {
    fn drop(&mut self) {
        self.dead.lock().expect("nobody panics with it").insert(self.seq);
    }
}

#[test]
fn what_a_live_version_names_is_found_and_what_only_dead_ones_name_is_reused() {
    let memory = Memory::new(FRAMES, PAGE_BYTES).expect("a small mapping");
    let named = std::array::from_fn(|index| PageId(2 + index as u32));
    for id in named {
        create(&memory, id, memory.allocate(Class::Worker).expect("a free frame"));
    }
    let dead = Arc::new(Mutex::new(BTreeSet::new()));
    let first = Arc::new(Version {
        seq: 0,
        named,
        dead: Arc::clone(&dead),
    });
    let current = VersionCell::new(memory.collector().clone(), first);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..=2 {
            let (memory, current, done) = (&memory, &current, &done);
            scope.spawn(move || follow(memory, current, Random(seed), done));
        }
        replace_pages(&memory, &current, &dead, named, &done);
    });
    drop(current);
    memory.participant().collect();
    let dead = dead.lock().expect("nobody panics with it");
    assert_eq!(dead.len() as u32, BATCHES + 1, "every version has died");
}

const BATCHES: u32 = 5_000;

fn create(memory: &Memory, id: PageId, frame: FrameId) {
    fill(memory, frame, id);
    memory.insert_resident(id, frame);
}

/// Reads pages of the current version, or for a while of one that it holds.
fn follow(memory: &Memory, current: &VersionCell<Version>, mut random: Random, done: &AtomicBool) {
    let _stop = StopOthers(done);
    let thread = memory.participant();
    let read = |version: &Version, guard: &Guard, place: u32| {
        let id = version.named[place as usize];
        let page = memory.lookup(id, guard).expect("a page of a live version");
        assert!(is_page(page.bytes, id), "page {} in frame {}", id.0, page.id.0);
    };
    while !done.load(Ordering::Relaxed) {
        let guard = thread.pin();
        read(current.load(&guard), &guard, random.below(8));
        if random.below(16) == 0 {
            let held = current.hold(&guard);
            drop(guard);
            for _ in 0..4 {
                std::thread::yield_now();
                read(&held, &thread.pin(), random.below(8));
            }
        }
    }
}

/// Publishes a version per batch with one page replaced, and takes replaced pages out when the versions that
/// name them are dead. Ids are used again, like frames.
fn replace_pages(
    memory: &Memory,
    current: &VersionCell<Version>,
    dead: &Arc<Mutex<BTreeSet<u32>>>,
    mut named: [PageId; Version::NAMED],
    done: &AtomicBool,
) {
    let _stop = StopOthers(done);
    let thread = memory.participant();
    let mut random = Random(5);
    let mut free_ids: Vec<PageId> = (100..140).map(PageId).collect();
    // Pages with the version that did without them for the first time.
    let mut retired: VecDeque<(u32, PageId)> = VecDeque::new();
    let mut oldest_live = 0;
    let mut seq = 0;
    while seq < BATCHES && !done.load(Ordering::Relaxed) {
        while dead.lock().expect("nobody panics with it").contains(&oldest_live) {
            oldest_live += 1;
        }
        let mut frames = Vec::new();
        while let Some((_, id)) = retired.pop_front_if(|(retired, _)| *retired <= oldest_live) {
            frames.push(memory.remove(id).expect("a page that was created"));
            free_ids.push(id);
        }
        memory.release_deferred(&thread.pin(), frames);
        thread.collect();
        let Some(frame) = memory.allocate(Class::Worker) else {
            continue;
        };
        let Some(id) = free_ids.pop() else {
            memory.release_now(frame);
            continue;
        };
        create(memory, id, frame);
        seq += 1;
        let replaced = std::mem::replace(&mut named[random.below(8) as usize], id);
        retired.push_back((seq, replaced));
        current.publish(
            Arc::new(Version {
                seq,
                named,
                dead: Arc::clone(dead),
            }),
            &thread.pin(),
        );
    }
}
