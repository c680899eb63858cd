use super::*;

fn small() -> Memory {
    Memory::new(64, 512).expect("a small mapping")
}

#[test]
fn a_page_goes_through_its_whole_life() {
    let memory = small();
    let thread = memory.participant();
    let (id, free) = (PageId(7), memory.free_frames());

    let frame = memory.allocate(Class::Reader).expect("a free frame");
    assert!(memory.insert_loading(id, frame));
    assert!(!memory.insert_loading(id, frame), "it is on its way already");
    assert_eq!(memory.state(id), Residency::Loading(frame));
    assert!(memory.lookup(id, &thread.pin()).is_none());

    memory.finish_loading(id, frame);
    assert_eq!(memory.state(id), Residency::Resident(frame));
    assert!(memory.is_written(frame));
    assert_eq!(memory.page_of(frame), Some(id));

    assert!(memory.begin_evict(frame));
    assert_eq!(memory.state(id), Residency::Evicting(frame));
    assert_eq!(
        memory.lookup(id, &thread.pin()).map(|found| found.id),
        Some(frame)
    );
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
