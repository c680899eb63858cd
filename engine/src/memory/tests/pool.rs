//! Who may have how many frames, and that no frame is ever in two hands.

use crate::memory::{Class, FrameId, Memory};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn the_reserve_is_kept_from_those_who_may_not_have_it() {
    let memory = Memory::new(320, 512).expect("a small mapping");
    let mut frames = Vec::new();
    assert_eq!(memory.allocate_many(Class::Worker, 1000, &mut frames), 310);
    assert_eq!(memory.allocate(Class::Worker), None);
    assert_eq!(memory.available_frames(Class::Worker), 0);
    assert_eq!(memory.allocate_many(Class::Reader, 1000, &mut frames), 5);
    assert_eq!(memory.allocate(Class::Reader), None);
    assert_eq!(memory.allocate_many(Class::Reserve, 1000, &mut frames), 5);
    assert_eq!(memory.allocate(Class::Reserve), None);
    assert_eq!(memory.free_frames(), 0);

    frames.sort();
    assert_eq!(
        frames,
        (0..320).map(FrameId).collect::<Vec<_>>(),
        "each frame once"
    );
    frames.drain(..).for_each(|frame| memory.release_now(frame));
    assert_eq!(memory.free_frames(), 320);
}

#[test]
fn the_smallest_pools_have_frames_for_everybody() {
    let memory = Memory::new(Memory::FRAMES_MIN, 512).expect("a small mapping");
    assert!(memory.available_frames(Class::Worker) >= Memory::FRAMES_MIN / 2);
    assert!(memory.available_frames(Class::Reader) > memory.available_frames(Class::Worker));
    assert!(memory.available_frames(Class::Reserve) > memory.available_frames(Class::Reader));
}

#[test]
fn frames_come_back_last_first() {
    let memory = Memory::new(64, 512).expect("a small mapping");
    let frames: Vec<FrameId> = (0..3).filter_map(|_| memory.allocate(Class::Worker)).collect();
    frames.iter().for_each(|frame| memory.release_now(*frame));
    let again: Vec<FrameId> = (0..3).filter_map(|_| memory.allocate(Class::Worker)).collect();
    assert!(again.iter().eq(frames.iter().rev()), "{again:?} after {frames:?}");
}

#[test]
fn no_frame_is_in_two_hands() {
    const FRAMES: usize = 64;
    let memory = Memory::new(FRAMES, 512).expect("a small mapping");
    let in_use: Vec<AtomicBool> = (0..FRAMES).map(|_| AtomicBool::new(false)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (memory, in_use) = (&memory, &in_use);
            scope.spawn(move || {
                let participant = memory.participant();
                let mut frames = Vec::new();
                for round in 0..20_000_u32 {
                    let wanted = (round.wrapping_mul(0x9E37_79B1) >> 28) as usize + thread as usize;
                    memory.allocate_many(Class::Worker, wanted, &mut frames);
                    for frame in &frames {
                        let taken = in_use[frame.0 as usize].swap(true, Ordering::Relaxed);
                        assert!(!taken, "frame {} was handed out twice", frame.0);
                    }
                    for frame in &frames {
                        in_use[frame.0 as usize].store(false, Ordering::Relaxed);
                    }
                    if round % 3 == 0 {
                        memory.release_deferred(&participant.pin(), frames.drain(..));
                        participant.collect();
                    } else {
                        frames.drain(..).for_each(|frame| memory.release_now(frame));
                    }
                }
            });
        }
    });
    let last = memory.participant();
    last.collect();
    assert_eq!((memory.free_frames(), memory.limbo_frames()), (FRAMES, 0));
    let mut all = Vec::new();
    assert_eq!(memory.allocate_many(Class::Reserve, FRAMES, &mut all), FRAMES);
}
