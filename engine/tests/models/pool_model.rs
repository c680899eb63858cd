//! The pool: frames are in one hand at a time, and none is lost.

use crate::memory::Memory;
use crate::memory::pool::Class;
use crate::planted::{Mistake, explore};
use crate::sync::Collector;
use crate::{FrameId, PageId};
use loom::thread;
use std::sync::Arc;

/// Takes up to `wanted` frames and writes to each: loom notices when somebody else does so as well.
fn take(memory: &Memory, wanted: usize, owner: u32) -> Vec<FrameId> {
    let mut frames = Vec::new();
    memory
        .occupancy
        .allocate(Class::Reserve, wanted, |frame| frames.push(frame));
    frames.iter().for_each(|frame| memory.fill(*frame, PageId(owner)));
    frames
}

#[test]
fn takers_and_givers_never_share_a_frame() {
    explore(Mistake::None, || {
        let memory = Arc::new(Memory::new(3));
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                // The top goes, the next goes too, the old top comes back: the tag's case.
                let first = take(&memory, 1, 1);
                let second = take(&memory, 1, 1);
                first
                    .into_iter()
                    .for_each(|frame| memory.occupancy.release_now(frame));
                second
            })
        };
        let mine = take(&memory, 1, 2);
        let more = take(&memory, 1, 2);
        let theirs = other.join().expect("the other taker");
        let mut all: Vec<FrameId> = mine.into_iter().chain(more).chain(theirs).collect();
        all.extend(take(&memory, 3, 3));
        all.sort();
        assert_eq!(all, [0, 1, 2].map(FrameId), "a frame is lost or in two hands");
    });
}

#[test]
fn several_are_taken_while_some_come_back_through_limbo() {
    explore(Mistake::None, || {
        let memory = Arc::new(Memory::new(3));
        let collector = Collector::new();
        let mine = take(&memory, 2, 1);
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || take(&memory, 2, 2))
        };
        memory.occupancy.release_deferred(&collector.pin(), mine);
        let theirs = other.join().expect("the other taker");
        assert_eq!(memory.occupancy.pool.limbo(), 0);
        assert_eq!(memory.occupancy.pool.free() + theirs.len(), 3);
        assert_eq!(take(&memory, 3, 3).len() + theirs.len(), 3);
    });
}
