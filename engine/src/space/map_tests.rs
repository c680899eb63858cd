use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{SpaceError, SpaceMap};
use crate::space::blocks::{BLOCK_WORDS, block_words, map_blocks};
use crate::{Extent, PageId};

fn pages(start: u32, pages: u32) -> Extent {
    Extent {
        start: PageId(start),
        pages,
    }
}

fn total(chunk: &[Extent]) -> u32 {
    chunk.iter().map(|extent| extent.pages).sum()
}

#[test]
fn chunks_below_an_id_stay_below_it() {
    let mut map = SpaceMap::new(100);
    let all = map.allocate_chunk(u32::MAX);
    assert_eq!(
        all.iter().map(|extent| extent.pages).sum::<u32>(),
        100 - PageId::FIRST.0
    );
    for start in [10, 40, 90] {
        map.release(Extent {
            start: PageId(start),
            pages: 5,
        })
        .expect("allocated");
    }
    let low = map.allocate_chunk_below(100, PageId(42));
    let ids: Vec<u32> = low
        .iter()
        .flat_map(|extent| extent.ids())
        .map(|id| id.0)
        .collect();
    assert_eq!(ids, [10, 11, 12, 13, 14, 40, 41]);
    assert!(map.allocate_chunk_below(1, PageId(42)).is_empty());
    assert_eq!(map.available_pages(), 8);
}

#[test]
fn runs_below_an_id_are_as_few_as_the_holes_allow() {
    let mut map = SpaceMap::new(1_000);
    let all = map.allocate_chunk(u32::MAX);
    assert_eq!(total(&all), 998);
    for (start, count) in [(10, 5), (40, 4), (60, 3), (500, 12)] {
        assert_eq!(map.release(pages(start, count)), Ok(()));
    }
    // No hole has 7; two have 4 and more.
    assert_eq!(
        map.allocate_runs_below(7, 4, PageId(500)),
        [pages(10, 4), pages(40, 3)]
    );
    // The rest: 1 at 14, 1 at 43, 3 at 60. Twice 2, and once 2 and 1, are not there; what was taken on the way is back.
    assert!(map.allocate_runs_below(4, 2, PageId(500)).is_empty());
    assert_eq!(map.available_pages(), 5 + 12);
    assert_eq!(
        map.allocate_runs_below(4, 4, PageId(500)),
        [pages(14, 1), pages(43, 1), pages(60, 1), pages(61, 1)]
    );
    // The hole behind `below` counts only as far as it lies before it.
    assert!(map.allocate_runs_below(12, 8, PageId(511)).is_empty());
    assert_eq!(map.allocate_runs_below(12, 8, PageId(512)), [pages(500, 12)]);
    assert!(map.allocate_runs_below(0, 8, PageId(512)).is_empty());
}

#[test]
fn a_new_file_is_available_but_for_the_superblocks() {
    let mut map = SpaceMap::new(100);
    assert_eq!(
        (map.file_pages(), map.available_pages(), map.allocated_pages()),
        (100, 98, 0)
    );
    assert_eq!(map.allocate_chunk(1_000), [pages(2, 98)]);
    assert!(map.allocate_chunk(1).is_empty());
    assert_eq!(map.allocate_contiguous(1), None);
    for file_pages in [0, 1, 2] {
        assert_eq!(SpaceMap::new(file_pages).available_pages(), 0);
    }
}

#[test]
fn chunks_go_on_behind_the_last_one_and_wrap_around() {
    let mut map = SpaceMap::new(102);
    assert_eq!(map.allocate_chunk(40), [pages(2, 40)]);
    assert_eq!(map.allocate_chunk(40), [pages(42, 40)]);
    map.release(pages(2, 20)).expect("allocated");
    assert_eq!(
        map.allocate_chunk(30),
        [pages(2, 10), pages(82, 20)],
        "always ascending"
    );
    assert_eq!(
        map.allocate_chunk(30),
        [pages(12, 10)],
        "goes on where it wrapped to"
    );
}

#[test]
fn long_runs_are_preferred_to_short_ones_nearby() {
    let mut map = SpaceMap::new(1_002);
    map.reserve(pages(2, 1_000)).expect("available");
    for start in (10..100).step_by(10) {
        map.release(pages(start, 3)).expect("allocated");
    }
    map.release(pages(200, 50)).expect("allocated");
    map.cursor = 2;
    assert_eq!(map.allocate_chunk(40), [pages(200, 40)]);
    map.cursor = 2;
    let rest = map.allocate_chunk(100);
    assert_eq!(total(&rest), 37, "short runs are taken when nothing else is left");
    assert!(rest.is_sorted());
}

#[test]
fn contiguous_runs_are_found_across_regions() {
    let file_pages = 5 * 32_768;
    let mut map = SpaceMap::new(file_pages);
    map.reserve(pages(2, file_pages - 2)).expect("available");
    // A run that ends one region, fills another and begins a third.
    map.release(pages(2 * 32_768 - 5, 5 + 32_768 + 7))
        .expect("allocated");
    map.release(pages(100, 50)).expect("allocated");
    assert_eq!(map.allocate_contiguous(32_768 + 13), None);
    assert_eq!(
        map.allocate_contiguous(20),
        Some(pages(100, 20)),
        "the lowest that is long enough"
    );
    assert_eq!(
        map.allocate_contiguous(32_768 + 12),
        Some(pages(2 * 32_768 - 5, 32_768 + 12))
    );
    assert_eq!(map.allocate_contiguous(30), Some(pages(120, 30)));
    assert_eq!(map.available_pages(), 0);
}

#[test]
fn two_owners_of_one_page_are_noticed() {
    let mut map = SpaceMap::new(50);
    let extent = pages(10, 4);
    assert_eq!(map.release(extent), Err(SpaceError::NotAllocated(extent)));
    assert_eq!(map.mark_reachable(extent), Err(SpaceError::NotAllocated(extent)));
    assert_eq!(
        map.unmark_reachable(extent),
        Err(SpaceError::NotReachable(extent))
    );
    map.reserve(extent).expect("available");
    assert_eq!(
        map.reserve(pages(13, 1)),
        Err(SpaceError::NotAvailable(pages(13, 1)))
    );
    map.mark_reachable(extent).expect("allocated");
    assert_eq!(
        map.mark_reachable(pages(12, 1)),
        Err(SpaceError::Reachable(pages(12, 1)))
    );
    assert_eq!(map.release(extent), Err(SpaceError::Reachable(extent)));
    for extent in [
        pages(0, 1),
        pages(1, 2),
        pages(49, 2),
        pages(10, 0),
        pages(u32::MAX, u32::MAX),
    ] {
        assert_eq!(map.reserve(extent), Err(SpaceError::Outside(extent)));
        assert!(!map.is_available(extent) && !map.is_reachable(extent));
    }
}

#[test]
fn the_file_shrinks_only_by_what_is_available() {
    let mut map = SpaceMap::new(100_000);
    map.reserve(pages(70_000, 1)).expect("available");
    assert_eq!(map.trailing_free_pages(), 29_999);
    assert_eq!(
        map.shrink(70_000),
        Err(SpaceError::NotAvailable(pages(70_000, 30_000)))
    );
    map.shrink(70_001).expect("the rest is available");
    assert_eq!((map.file_pages(), map.trailing_free_pages()), (70_001, 0));
    assert_eq!(map.available_pages(), 69_998);
    map.grow(100_000);
    assert_eq!(
        map.allocate_contiguous(29_999).map(|extent| extent.start),
        Some(PageId(2))
    );
    assert_eq!(map.available_pages(), 69_998);
    assert_eq!(SpaceMap::new(0).trailing_free_pages(), 0);
}

#[test]
fn a_frozen_set_does_not_follow_changes() {
    let mut map = SpaceMap::new(70_000);
    map.reserve(pages(2, 60_000)).expect("available");
    map.mark_reachable(pages(32_000, 2_000)).expect("allocated");
    let blocks = |map: &SpaceMap| -> Vec<Vec<u64>> {
        (0..map_blocks(map.frozen_counts().0))
            .map(|index| map.frozen_block(index).to_vec())
            .collect()
    };
    let before = blocks(&map);
    assert_eq!(
        before.iter().map(Vec::len).sum::<usize>(),
        70_000usize.div_ceil(64)
    );
    map.freeze();
    map.unmark_reachable(pages(32_500, 1_000)).expect("reachable");
    map.mark_reachable(pages(5, 5)).expect("allocated");
    map.release(pages(40_000, 20_002)).expect("allocated");
    map.shrink(40_000).expect("available");
    map.grow(200_000);
    map.reserve(pages(69_990, 100)).expect("available");
    map.mark_reachable(pages(69_990, 100)).expect("allocated");
    assert_eq!(blocks(&map), before);
    assert_eq!(map.frozen_counts(), (70_000, 2_000));
    map.thaw();
    assert_ne!(blocks(&map), before);
    assert_eq!(map.frozen_counts(), (200_000, 2_000 - 1_000 + 5 + 100));
}

#[test]
fn blocks_load_what_was_reachable_and_refuse_what_cannot_be() {
    let mut map = SpaceMap::new(40_000);
    map.reserve(pages(2, 39_998)).expect("available");
    for extent in [pages(2, 1), pages(63, 70), pages(32_700, 200), pages(39_999, 1)] {
        map.mark_reachable(extent).expect("allocated");
    }
    let mut loaded = SpaceMap::new(40_000);
    for index in 0..map_blocks(40_000) {
        assert_eq!(map.frozen_block(index).len(), block_words(40_000, index));
        loaded
            .load_block(index, map.frozen_block(index).iter().copied())
            .expect("within the file");
    }
    assert_eq!(
        loaded.reachable_runs().collect::<Vec<_>>(),
        map.reachable_runs().collect::<Vec<_>>()
    );
    assert_eq!((loaded.reachable_pages(), loaded.allocated_pages()), (272, 272));
    assert_eq!(loaded.available_pages(), 39_998 - 272);
    assert!(
        loaded.load_block(0, [1 << 1].into_iter()).is_err(),
        "a superblock slot"
    );
    assert!(
        loaded.load_block(1, [1 << 63].into_iter()).is_err(),
        "loaded already"
    );
    assert!(
        SpaceMap::new(40_000)
            .load_block(1, std::iter::repeat_n(u64::MAX, BLOCK_WORDS))
            .is_err(),
        "outside"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Chunk(u32),
    Contiguous(u32),
    Reserve(u32, u32),
    Release(usize),
    Mark(usize),
    Unmark(usize),
    RunsBelow(u32, u32, u32),
    Grow(u32),
    Shrink,
    Freeze,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u32..60).prop_map(Step::Chunk),
        2 => (1u32..300).prop_map(Step::Contiguous),
        1 => (0u32..80_000, 1u32..30).prop_map(|(start, pages)| Step::Reserve(start, pages)),
        4 => any::<usize>().prop_map(Step::Release),
        2 => any::<usize>().prop_map(Step::Mark),
        2 => any::<usize>().prop_map(Step::Unmark),
        2 => (1u32..60, 1u32..9, 2u32..80_000)
            .prop_map(|(wanted, runs, below)| Step::RunsBelow(wanted, runs, below)),
        1 => (0u32..2_000).prop_map(Step::Grow),
        1 => Just(Step::Shrink),
        1 => Just(Step::Freeze),
    ]
}

fn ids(extents: &[Extent]) -> BTreeSet<u32> {
    extents
        .iter()
        .flat_map(|extent| extent.ids())
        .map(|id| id.0)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Against plain sets: nothing is given twice, nothing is lost, and what is reported is so.
    #[test]
    fn behaves_like_sets(
        file_pages in prop_oneof![2u32..400, 32_700u32..33_000, 65_000u32..70_000],
        prefill in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut map = SpaceMap::new(file_pages);
        let mut available: BTreeSet<u32> = (2..file_pages).collect();
        let mut held: Vec<Extent> = Vec::new();
        let mut reachable: Vec<Extent> = Vec::new();
        let mut frozen: Option<(BTreeSet<u32>, u32)> = None;
        if prefill && file_pages > 300 {
            // Nearly full, with scattered holes: the case in which finding space is hard.
            let extent = pages(2, file_pages - 2);
            prop_assert_eq!(map.reserve(extent), Ok(()));
            available.clear();
            for start in (5..file_pages - 5).step_by(37) {
                prop_assert_eq!(map.release(pages(start, 3)), Ok(()));
                available.extend(start..start + 3);
            }
        }
        for step in steps {
            match step {
                Step::Chunk(wanted) => {
                    let chunk = map.allocate_chunk(wanted);
                    prop_assert_eq!(total(&chunk), wanted.min(available.len() as u32));
                    for id in ids(&chunk) {
                        prop_assert!(available.remove(&id));
                    }
                    held.extend(chunk);
                }
                Step::Contiguous(wanted) => {
                    let mut lowest = None;
                    let (mut start, mut run) = (0, 0);
                    for &id in &available {
                        (start, run) = if run > 0 && start + run == id { (start, run + 1) } else { (id, 1) };
                        if run == wanted {
                            lowest = Some(start);
                            break;
                        }
                    }
                    let extent = map.allocate_contiguous(wanted);
                    prop_assert_eq!(extent, lowest.map(|start| pages(start, wanted)));
                    if let Some(extent) = extent {
                        available.retain(|id| !(extent.start.0..extent.start.0 + wanted).contains(id));
                        held.push(extent);
                    }
                }
                Step::RunsBelow(wanted, runs_max, below) => {
                    let taken = map.allocate_runs_below(wanted, runs_max, PageId(below));
                    prop_assert!(taken.len() <= runs_max as usize);
                    if taken.is_empty() {
                        // At least one run of that length is not there.
                        let free = |start: &&u32| (**start..**start + wanted).all(|id| id < below && available.contains(&id));
                        prop_assert_eq!(available.iter().find(free), None);
                    } else {
                        prop_assert_eq!(total(&taken), wanted);
                    }
                    for id in ids(&taken) {
                        prop_assert!(id < below && available.remove(&id));
                    }
                    held.extend(taken);
                }
                Step::Reserve(start, count) => {
                    let extent = pages(start, count);
                    let free = (start..start + count).all(|id| available.contains(&id));
                    prop_assert_eq!(map.is_available(extent), free);
                    prop_assert_eq!(map.reserve(extent).is_ok(), free);
                    if free {
                        available.retain(|id| !(start..start + count).contains(id));
                        held.push(extent);
                    }
                }
                Step::Release(index) if !held.is_empty() => {
                    let extent = held.swap_remove(index % held.len());
                    prop_assert_eq!(map.release(extent), Ok(()));
                    available.extend(extent.ids().map(|id| id.0));
                }
                Step::Mark(index) if !held.is_empty() => {
                    let extent = held.swap_remove(index % held.len());
                    prop_assert_eq!(map.mark_reachable(extent), Ok(()));
                    reachable.push(extent);
                }
                Step::Unmark(index) if !reachable.is_empty() => {
                    let extent = reachable.swap_remove(index % reachable.len());
                    prop_assert_eq!(map.unmark_reachable(extent), Ok(()));
                    held.push(extent);
                }
                Step::Release(_) | Step::Mark(_) | Step::Unmark(_) => {}
                Step::Grow(more) => {
                    let before = map.file_pages();
                    map.grow(before + more);
                    available.extend(before.max(2)..before + more);
                }
                Step::Shrink => {
                    let trailing = map.trailing_free_pages();
                    prop_assert_eq!(map.shrink(map.file_pages() - trailing), Ok(()));
                    let end = map.file_pages();
                    available.retain(|&id| id < end);
                    prop_assert!(end == 0 || !available.contains(&(end - 1)));
                }
                Step::Freeze => {
                    map.freeze();
                    frozen = Some((ids(&reachable), map.file_pages()));
                }
            }
            prop_assert_eq!(map.available_pages(), available.len() as u64);
        }
        prop_assert_eq!(ids(&map.available_runs().collect::<Vec<_>>()), available);
        prop_assert_eq!(ids(&map.reachable_runs().collect::<Vec<_>>()), ids(&reachable));
        prop_assert_eq!(map.reachable_pages(), ids(&reachable).len() as u64);
        let (expected, pages) = frozen.unwrap_or((ids(&reachable), map.file_pages()));
        let mut stored = BTreeSet::new();
        for index in 0..map_blocks(pages) {
            prop_assert_eq!(map.frozen_block(index).len(), block_words(pages, index));
            for (position, word) in map.frozen_block(index).iter().enumerate() {
                let base = ((index * BLOCK_WORDS + position) * 64) as u32;
                stored.extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| base + bit));
            }
        }
        prop_assert_eq!(&stored, &expected);
        for id in 0..map.file_pages() + 70 {
            prop_assert_eq!(map.is_frozen_reachable(PageId(id)), expected.contains(&id));
        }
    }
}
