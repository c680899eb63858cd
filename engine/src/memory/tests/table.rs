//! The residency table by itself: words, overflowing buckets, and a comparison with a map.

use crate::PageId;
use crate::memory::FrameId;
use crate::memory::residency::{Bucket, Residency, ResidencyTable, buckets_for};
use crate::memory::word::{FRAMES_MAX, Word};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Table = ResidencyTable<Vec<Bucket<2>>, 2>;

/// Buckets of two words, so that they overflow soon.
fn table(buckets: usize) -> Table {
    ResidencyTable::new((0..buckets).map(|_| Bucket::new()).collect())
}

/// Ids of different groups whose home buckets are the same or next to each other: multiples of a Fibonacci number,
/// which the golden ratio takes to nearly whole numbers.
fn crowded(number: u32) -> PageId {
    PageId(number * 4 * 2584)
}

#[test]
fn words_keep_their_parts_apart() {
    for id in [1, u32::MAX].map(PageId) {
        for frame in [0, FRAMES_MAX as u32 - 1].map(FrameId) {
            let loading = Word::loading(id, frame);
            let mut word = loading.cold();
            assert!(loading.is_loading() && !loading.is_resident() && !loading.is_evicting());
            assert!(word.is_resident() && !word.is_recent() && !word.is_loading());
            for _ in 0..40 {
                let evicting = word.evicting();
                assert!(evicting.is_evicting() && !evicting.is_resident() && !evicting.is_loading());
                let rescued = evicting.recent();
                assert!(rescued.is_recent() && rescued.is_resident() && !rescued.is_evicting());
                assert_ne!(
                    rescued.cold(),
                    word,
                    "the tag tells the second eviction from the first"
                );
                word = rescued.cold();
                assert_eq!((word.id(), word.frame()), (id, frame));
            }
            assert_ne!(loading, Word::EMPTY);
        }
    }
}

#[test]
fn tables_have_two_slots_for_each_frame() {
    for frames in [1, 7, 8, 64, 1000, 65_536, FRAMES_MAX] {
        let slots = buckets_for(frames) * 7;
        assert!(
            slots >= frames * 2 && slots <= (frames * 5).max(14),
            "{slots} slots for {frames} frames"
        );
    }
}

/// What lookups cost is the lines that they touch: with all frames in use by pages that follow one another, as after
/// a load, nearly every word must lie in the line, and most in the place, that a lookup looks at first.
#[test]
fn sequential_pages_share_lines_and_stay_at_home() {
    for frames in [1000, 8192, 262_144] {
        let buckets = (0..buckets_for(frames)).map(|_| Bucket::new()).collect();
        let table: ResidencyTable<Vec<Bucket<7>>, 7> = ResidencyTable::new(buckets);
        for number in 0..frames as u32 {
            table.insert(Word::resident(PageId(number + 2), FrameId(number)));
        }
        let passed: u64 = table.passed_counts().sum();
        assert!(
            passed * 50 <= frames as u64,
            "{passed} of {frames} words not at home"
        );
        let lines = |group: u32| {
            let lines = (0..4).map(|id| std::ptr::from_ref(table.home_bucket(PageId(4 * group + id))));
            lines.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert!((1..frames as u32 / 4).all(|group| lines(group) == 1));
    }
}

#[test]
fn what_overflows_its_bucket_is_found_behind_it_until_it_goes() {
    let table = table(4);
    // Eight words for one bucket, in eight slots.
    let pages: Vec<PageId> = (2..10).map(crowded).collect();
    for (frame, id) in pages.iter().enumerate() {
        table.insert(Word::resident(*id, FrameId(frame as u32)));
    }
    for (frame, id) in pages.iter().enumerate() {
        assert_eq!(table.find(*id), Some(FrameId(frame as u32)));
    }
    assert!(table.passed_counts().any(|passed| passed > 2), "they do crowd");
    assert_eq!(table.find(crowded(10)), None, "a full circle ends");
    for (frame, id) in pages.iter().enumerate() {
        assert_eq!(table.remove(*id), Some(FrameId(frame as u32)));
        assert_eq!(table.find(*id), None);
        for (frame, id) in pages.iter().enumerate().skip(frame + 1) {
            assert_eq!(table.find(*id), Some(FrameId(frame as u32)));
        }
    }
    assert!(
        table.passed_counts().all(|passed| passed == 0),
        "counters go back to zero"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Create(u32),
    Load(u32),
    Arrive(u32),
    Abandon(u32),
    Find(u32),
    Begin(u32),
    Finish(u32),
    Remove(u32),
}

fn step() -> impl Strategy<Value = Step> {
    (0..8, 2..14_u32).prop_map(|(kind, id)| match kind {
        0 => Step::Create(id),
        1 => Step::Load(id),
        2 => Step::Arrive(id),
        3 => Step::Abandon(id),
        4 => Step::Find(id),
        5 => Step::Begin(id),
        6 => Step::Finish(id),
        _ => Step::Remove(id),
    })
}

proptest! {
    #[test]
    fn agrees_with_a_map(steps in prop::collection::vec(step(), 1..200)) {
        let table = table(8);
        let mut model: BTreeMap<u32, Residency> = BTreeMap::new();
        for step in steps {
            // One frame for each page: what a page's frame is doesn't matter to the table.
            let parts = |id: u32| (crowded(id), FrameId(id + 100));
            match step {
                Step::Create(id) | Step::Load(id) if model.contains_key(&id) => {}
                Step::Create(id) => {
                    let (page, frame) = parts(id);
                    table.insert(Word::resident(page, frame));
                    model.insert(id, Residency::Resident(frame));
                }
                Step::Load(id) => {
                    let (page, frame) = parts(id);
                    table.insert(Word::loading(page, frame));
                    model.insert(id, Residency::Loading(frame));
                }
                Step::Arrive(id) => {
                    let (page, frame) = parts(id);
                    let loading = model.get(&id) == Some(&Residency::Loading(frame));
                    prop_assert_eq!(table.finish_loading(page, frame), loading);
                    if loading {
                        model.insert(id, Residency::Resident(frame));
                    }
                }
                Step::Abandon(id) => {
                    let (page, frame) = parts(id);
                    let loading = model.get(&id) == Some(&Residency::Loading(frame));
                    prop_assert_eq!(table.take_loading(page, frame), loading);
                    if loading {
                        model.remove(&id);
                    }
                }
                Step::Find(id) => {
                    let (page, frame) = parts(id);
                    let there = matches!(model.get(&id), Some(Residency::Resident(_) | Residency::Evicting(_)));
                    prop_assert_eq!(table.find(page), there.then_some(frame));
                    if there {
                        model.insert(id, Residency::Resident(frame));
                    }
                }
                Step::Begin(id) => {
                    let (page, frame) = parts(id);
                    let there = matches!(model.get(&id), Some(Residency::Resident(_) | Residency::Evicting(_)));
                    prop_assert!(!table.begin_evict(page, FrameId(0)), "not that page's frame");
                    prop_assert_eq!(table.begin_evict(page, frame), there);
                    if there {
                        model.insert(id, Residency::Evicting(frame));
                    }
                }
                Step::Finish(id) => {
                    let (page, frame) = parts(id);
                    let evicting = model.get(&id) == Some(&Residency::Evicting(frame));
                    prop_assert_eq!(table.finish_evict(page, frame), evicting);
                    if evicting {
                        model.remove(&id);
                    }
                }
                Step::Remove(id) => {
                    let (page, frame) = parts(id);
                    let there = matches!(model.get(&id), Some(Residency::Resident(_) | Residency::Evicting(_)));
                    prop_assert_eq!(table.remove(page), there.then_some(frame));
                    if there {
                        model.remove(&id);
                    }
                }
            }
            for id in 2..14 {
                prop_assert_eq!(table.state(crowded(id)), model.get(&id).copied().unwrap_or(Residency::Absent));
            }
        }
        for (id, state) in model {
            if let Residency::Loading(frame) = state {
                prop_assert!(table.take_loading(crowded(id), frame));
            } else {
                prop_assert!(table.remove(crowded(id)).is_some());
            }
        }
        prop_assert!(table.passed_counts().all(|passed| passed == 0));
    }
}
