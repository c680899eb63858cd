//! One thread, every transition of a frame and of a page.

use crate::PageId;
use crate::memory::{Class, FrameId, Memory, MemoryError, Participant, Residency};

fn small() -> (Memory, Participant) {
    let memory = Memory::new(64, 512).expect("a small mapping");
    let thread = memory.participant();
    (memory, thread)
}

/// A frame of the page `id`, as read from disk.
fn load(memory: &Memory, id: PageId) -> FrameId {
    let frame = memory.allocate(Class::Reader).expect("a free frame");
    assert!(memory.insert_loading(id, frame));
    memory.finish_loading(id, frame);
    frame
}

fn found(memory: &Memory, thread: &Participant, id: PageId) -> Option<FrameId> {
    memory.lookup(id, &thread.pin()).map(|frame| frame.id)
}

#[test]
fn a_page_is_loaded_rescued_evicted_and_its_frame_comes_back() {
    let (memory, thread) = small();
    let (id, free) = (PageId(7), memory.free_frames());

    let frame = memory.allocate(Class::Reader).expect("a free frame");
    assert!(memory.insert_loading(id, frame));
    assert!(!memory.insert_loading(id, frame), "it is on its way already");
    assert_eq!(memory.state(id), Residency::Loading(frame));
    assert_eq!(found(&memory, &thread, id), None);
    assert!(!memory.begin_evict(frame), "loading pages can't be evicted");
    assert_eq!(memory.remove(id), None, "nor removed");

    memory.finish_loading(id, frame);
    assert_eq!(memory.state(id), Residency::Resident(frame));
    assert!(memory.is_written(frame));
    assert_eq!(memory.page_of(frame), Some(id));

    assert!(!memory.finish_evict(frame), "eviction hasn't begun");
    assert!(memory.begin_evict(frame));
    assert_eq!(memory.state(id), Residency::Evicting(frame));
    assert_eq!(found(&memory, &thread, id), Some(frame));
    assert!(!memory.finish_evict(frame), "the lookup has rescued it");

    assert!(memory.begin_evict(frame));
    assert!(memory.finish_evict(frame));
    assert_eq!(memory.state(id), Residency::Absent);
    memory.release_deferred(&thread.pin(), [frame]);
    assert_eq!((memory.free_frames(), memory.limbo_frames()), (free - 1, 1));
    thread.collect();
    assert_eq!((memory.free_frames(), memory.limbo_frames()), (free, 0));
    assert_eq!(memory.page_of(frame), None);
}

#[test]
fn a_created_page_stays_until_it_is_written() {
    let (memory, thread) = small();
    let (id, frame) = (PageId(9), memory.allocate(Class::Worker).expect("a free frame"));
    // SAFETY: the frame is this test's alone until it is inserted.
    unsafe { memory.frame_ptr(frame).write_bytes(0xA5, memory.page_bytes()) };
    memory.insert_resident(id, frame);
    assert!(
        memory
            .lookup(id, &thread.pin())
            .is_some_and(|page| page.iter().all(|byte| *byte == 0xA5))
    );

    assert!(!memory.is_written(frame));
    assert!(memory.begin_evict(frame));
    assert!(!memory.finish_evict(frame), "dirty");
    memory.set_writing(frame);
    assert!(
        memory.is_writing(frame) && !memory.finish_evict(frame),
        "dirty, being written"
    );
    memory.clear_writing(frame);
    assert!(
        !memory.is_written(frame) && !memory.finish_evict(frame),
        "the write failed"
    );
    memory.set_writing(frame);
    memory.set_written(frame);
    assert!(memory.is_written(frame) && !memory.is_writing(frame));
    assert!(memory.finish_evict(frame));
}

#[test]
fn only_a_written_page_that_nobody_holds_leaves_its_frame_at_once() {
    let (memory, thread) = small();
    let (id, frame) = (PageId(5), load(&memory, PageId(5)));
    assert!(!memory.reuse(PageId(6), frame), "another page");
    assert!(memory.hold(frame));
    assert!(!memory.reuse(id, frame), "held");
    memory.unhold(frame, || thread.pin());
    memory.set_writing(frame);
    assert!(!memory.reuse(id, frame), "being written");
    memory.set_written(frame);
    assert_eq!(
        found(&memory, &thread, id),
        Some(frame),
        "refusals change nothing"
    );
    assert!(
        memory.begin_evict(frame),
        "an eviction that has begun is as good as a rescued page"
    );
    assert!(memory.reuse(id, frame));
    assert!(!memory.finish_evict(frame));
    assert_eq!(
        (memory.state(id), found(&memory, &thread, id)),
        (Residency::Absent, None)
    );

    let next = PageId(50);
    memory.insert_resident(next, frame);
    assert_eq!(found(&memory, &thread, next), Some(frame));
    assert_eq!(memory.page_of(frame), Some(next));
    assert!(!memory.is_written(frame));
    assert!(!memory.reuse(next, frame), "not written");
}

#[test]
fn a_written_page_that_is_written_again_stays_meanwhile() {
    let (memory, _thread) = small();
    let frame = load(&memory, PageId(3));
    memory.set_writing(frame);
    assert!(memory.begin_evict(frame) && !memory.finish_evict(frame));
    memory.set_written(frame);
    assert!(memory.finish_evict(frame));
}

#[test]
fn a_held_page_is_not_evicted() {
    let (memory, thread) = small();
    let frame = load(&memory, PageId(3));
    assert!(memory.hold(frame) && memory.hold(frame));
    assert_eq!(memory.holds(frame), 2);
    assert!(memory.begin_evict(frame) && !memory.finish_evict(frame));
    memory.unhold(frame, || thread.pin());
    assert!(!memory.finish_evict(frame));
    memory.unhold(frame, || thread.pin());
    assert!(memory.finish_evict(frame));
    assert!(!memory.hold(frame), "too late");
}

#[test]
fn a_page_whose_eviction_failed_is_tried_again_though_nobody_looks_at_it() {
    let (memory, thread) = small();
    let frame = load(&memory, PageId(3));
    assert!(memory.hold(frame));
    assert!(memory.begin_evict(frame) && !memory.finish_evict(frame));
    memory.unhold(frame, || thread.pin());
    let mut cold = Vec::new();
    let _ = memory.sweep(0, memory.sweep_steps(), &mut cold);
    assert_eq!(cold, [frame], "the clock would never come back to it");
    assert!(memory.begin_evict(frame) && memory.finish_evict(frame));
}

#[test]
fn the_frame_of_a_page_that_dies_while_held_comes_back_after_the_last_hold() {
    let (memory, thread) = small();
    let free = memory.free_frames();
    let frames = [load(&memory, PageId(3)), load(&memory, PageId(4))];
    assert!(memory.hold(frames[0]) && memory.hold(frames[0]));
    assert_eq!(memory.remove(PageId(3)), Some(frames[0]));
    assert_eq!(memory.remove(PageId(4)), Some(frames[1]));
    memory.release_deferred(&thread.pin(), frames);
    assert_eq!(memory.limbo_frames(), 2);
    thread.collect();
    assert_eq!((memory.free_frames(), memory.limbo_frames()), (free - 1, 1));
    memory.unhold(frames[0], || thread.pin());
    thread.collect();
    assert_eq!((memory.free_frames(), memory.limbo_frames()), (free - 1, 1));
    memory.unhold(frames[0], || thread.pin());
    thread.collect();
    assert_eq!((memory.free_frames(), memory.limbo_frames()), (free, 0));
}

#[test]
fn a_failed_read_leaves_nothing_behind() {
    let (memory, thread) = small();
    let free = memory.free_frames();
    let frame = memory.allocate(Class::Reader).expect("a free frame");
    assert!(memory.insert_loading(PageId(5), frame));
    memory.abandon_loading(PageId(5), frame);
    assert_eq!(memory.state(PageId(5)), Residency::Absent);
    assert_eq!(memory.free_frames(), free);
    load(&memory, PageId(5));
    assert!(found(&memory, &thread, PageId(5)).is_some());
}

#[test]
fn a_pin_keeps_frames_from_being_handed_out() {
    let (memory, thread) = small();
    let reader = memory.participant();
    let id = PageId(11);
    let frame = load(&memory, id);
    let pin = reader.pin();
    let page = memory.lookup(id, &pin).expect("it is resident");
    let removed = memory.remove(id).expect("it is resident");
    memory.release_deferred(&thread.pin(), [removed]);
    for _ in 0..10 {
        thread.collect();
    }
    assert_eq!(memory.limbo_frames(), 1);
    let mut others = Vec::new();
    memory.allocate_many(Class::Reserve, usize::MAX, &mut others);
    assert!(!others.contains(&frame), "handed out under a pin");
    assert_eq!(page.bytes.len(), 512);
    drop(pin);
    thread.collect();
    assert_eq!(memory.allocate(Class::Reserve), Some(frame));
}

#[test]
fn frames_come_back_though_the_thread_that_gave_them_never_does() {
    let (memory, thread) = small();
    let other = memory.participant();
    let free = memory.free_frames();
    let _ = load(&memory, PageId(3));
    let frame = memory.remove(PageId(3)).expect("it is resident");
    memory.release_deferred(&thread.pin(), [frame]);
    other.collect();
    assert_eq!((memory.free_frames(), memory.limbo_frames()), (free, 0));

    let frame = load(&memory, PageId(4));
    assert!(memory.hold(frame));
    assert_eq!(memory.remove(PageId(4)), Some(frame));
    memory.release_deferred(&other.pin(), [frame]);
    memory.unhold(frame, || thread.pin());
    other.collect();
    assert_eq!((memory.free_frames(), memory.limbo_frames()), (free, 0));
}

#[test]
fn the_clock_gives_what_was_not_used_for_a_round() {
    let (memory, thread) = small();
    let frames: Vec<FrameId> = (2..12).map(|id| load(&memory, PageId(id))).collect();
    let used = PageId(5);
    let mut hand = 0;
    let mut round = |memory: &Memory| {
        let mut cold = Vec::new();
        // Uneven steps: the hand goes on where it stopped, and over the end.
        for _ in 0..memory.sweep_steps() {
            hand = memory.sweep(hand, 1, &mut cold);
        }
        cold.sort();
        cold
    };
    assert_eq!(
        round(&memory),
        frames,
        "loaded pages are cold until they are used"
    );
    let rest: Vec<FrameId> = frames
        .iter()
        .copied()
        .filter(|frame| *frame != frames[3])
        .collect();
    assert!(found(&memory, &thread, used).is_some());
    assert_eq!(round(&memory), rest);
    assert_eq!(round(&memory), frames);
    assert!(memory.begin_evict(frames[0]));
    assert_eq!(
        round(&memory),
        frames,
        "an eviction that has begun may have come to nothing"
    );
}

#[test]
fn sizes_out_of_range_are_refused() {
    let frames = |frames| Memory::new(frames, 4096).err();
    assert!(matches!(frames(0), Some(MemoryError::Frames { frames: 0 })));
    assert!(matches!(frames((1 << 26) + 1), Some(MemoryError::Frames { .. })));
    for page_bytes in [0, 256, 513, 131_072] {
        let error = Memory::new(64, page_bytes).expect_err("no page size");
        assert!(matches!(error, MemoryError::PageBytes { .. }), "{error}");
        assert!(error.to_string().contains(&page_bytes.to_string()));
    }
}

#[test]
fn large_arenas_start_on_huge_page_boundaries() {
    let memory = Memory::new(1024, 4096).expect("4 MiB");
    assert_eq!(memory.frame_ptr(FrameId(0)).addr() % (2 << 20), 0);
    for frame in [FrameId(0), FrameId(1023)] {
        // SAFETY: nobody else uses the frames of this test's memory.
        unsafe { memory.frame_ptr(frame).write_bytes(1, 4096) };
    }
}

#[test]
#[should_panic(expected = "returned twice")]
fn returning_a_frame_twice_is_noticed() {
    let (memory, _thread) = small();
    let frame = memory.allocate(Class::Worker).expect("a free frame");
    memory.release_now(frame);
    memory.release_now(frame);
}

#[test]
#[should_panic(expected = "foreign collector")]
fn pins_of_other_memories_are_refused() {
    let (memory, _thread) = small();
    let (_other, other_thread) = small();
    let _ = memory.lookup(PageId(2), &other_thread.pin());
}

#[test]
#[should_panic(expected = "no frame 64")]
fn frames_out_of_range_have_no_address() {
    let (memory, _thread) = small();
    let _ = memory.frame_ptr(FrameId(64));
}
