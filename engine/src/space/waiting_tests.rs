use std::collections::BTreeSet;

use proptest::prelude::*;

use super::WaitingLists;
use crate::{Extent, PageId, Retired, Seq};

fn page(id: u32, born: u64) -> Retired {
    Retired {
        extent: Extent::single(PageId(id)),
        born: Seq(born),
    }
}

#[test]
fn an_entry_nobody_sees_is_free_at_once() {
    let mut lists = WaitingLists::new();
    let mut freed = Vec::new();
    lists.retire(page(5, 1), Seq(2), &mut freed);
    assert_eq!(freed.len(), 1, "no live version at all");
    assert!(lists.publish(Seq(3)));
    lists.retire(page(6, 4), Seq(5), &mut freed);
    assert_eq!(freed.len(), 2, "the only live version is older than its birth");
    lists.retire(page(7, 1), Seq(3), &mut freed);
    assert_eq!(freed.len(), 3, "the only live version is the one that retires it");
    assert_eq!(lists.entries_waiting(), 0);
}

#[test]
fn a_long_snapshot_keeps_one_copy_however_much_is_written() {
    let mut lists = WaitingLists::new();
    let mut freed = Vec::new();
    assert!(lists.publish(Seq(1)));
    // Page `n` is born with group `n` and replaced by group `n + 1`; version 1 stays.
    for seq in 2..1_000 {
        assert!(lists.publish(Seq(seq)));
        lists.retire(page(seq as u32 + 100, seq - 1), Seq(seq), &mut freed);
        if seq > 2 {
            assert!(lists.version_died(Seq(seq - 1), &mut freed));
        }
    }
    assert_eq!(lists.pages_waiting(), 1, "only what version 1 shows waits");
    assert_eq!(
        lists.versions().collect::<Vec<_>>(),
        vec![(Seq(1), 1), (Seq(999), 0)]
    );
    assert!(lists.version_died(Seq(1), &mut freed));
    assert_eq!((lists.pages_waiting(), lists.entries_waiting()), (0, 0));
    assert_eq!(freed.len(), 998);
}

#[test]
fn versions_come_in_order_and_die_once() {
    let mut lists = WaitingLists::new();
    let mut freed = Vec::new();
    assert!(lists.publish(Seq(4)));
    assert!(!lists.publish(Seq(4)));
    assert!(!lists.publish(Seq(3)));
    assert!(!lists.version_died(Seq(3), &mut freed));
    assert!(lists.version_died(Seq(4), &mut freed));
    assert!(!lists.version_died(Seq(4), &mut freed));
    assert_eq!((lists.oldest(), lists.newest()), (None, None));
}

#[derive(Clone, Debug)]
enum Step {
    Publish { gap: u64 },
    Retire { age: u64, pages: u32, before: u64 },
    Die { index: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1u64..3).prop_map(|gap| Step::Publish { gap }),
        4 => (0u64..12, 1u32..4, 0u64..5)
            .prop_map(|(age, pages, before)| Step::Retire { age, pages, before }),
        2 => any::<usize>().prop_map(|index| Step::Die { index }),
    ]
}

/// The rule itself: an entry waits exactly as long as a live version lies in `[born, retired)`.
#[derive(Default)]
struct Model {
    live: BTreeSet<u64>,
    waiting: Vec<(Extent, u64, u64)>,
}

impl Model {
    fn take_free(&mut self) -> Vec<Extent> {
        let live = &self.live;
        let (kept, free): (Vec<_>, Vec<_>) = self
            .waiting
            .drain(..)
            .partition(|&(_, born, retired)| live.range(born..retired.max(born)).next().is_some());
        self.waiting = kept;
        free.into_iter().map(|(extent, ..)| extent).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn frees_exactly_what_no_live_version_sees(steps in prop::collection::vec(step(), 1..120)) {
        let mut lists = WaitingLists::new();
        let mut model = Model::default();
        let mut newest = 10u64;
        let mut next_page = 2u32;
        for step in steps {
            let mut freed = Vec::new();
            match step {
                Step::Publish { gap } => {
                    newest += gap;
                    prop_assert!(lists.publish(Seq(newest)));
                    model.live.insert(newest);
                }
                Step::Retire { age, pages, before } => {
                    let retired = newest + 1 - before;
                    let born = retired.saturating_sub(age);
                    let extent = Extent { start: PageId(next_page), pages };
                    next_page += pages;
                    lists.retire(Retired { extent, born: Seq(born) }, Seq(retired), &mut freed);
                    model.waiting.push((extent, born, retired));
                }
                Step::Die { index } => {
                    if !model.live.is_empty() {
                        let victim = *model.live.iter().nth(index % model.live.len()).expect("in range");
                        prop_assert!(lists.version_died(Seq(victim), &mut freed));
                        model.live.remove(&victim);
                    }
                }
            }
            let mut expected = model.take_free();
            expected.sort_unstable();
            freed.sort_unstable();
            prop_assert_eq!(freed, expected);
            prop_assert_eq!(lists.entries_waiting(), model.waiting.len());
            prop_assert_eq!(lists.iter().count(), model.waiting.len());
            let pages: u64 = model.waiting.iter().map(|(extent, ..)| u64::from(extent.pages)).sum();
            prop_assert_eq!(lists.pages_waiting(), pages);
            prop_assert_eq!(lists.versions().map(|(_, pages)| pages).sum::<u64>(), pages);
            prop_assert_eq!(lists.oldest(), model.live.first().map(|&seq| Seq(seq)));
            prop_assert_eq!(lists.newest(), model.live.last().map(|&seq| Seq(seq)));
            for seq in 8..newest + 2 {
                prop_assert_eq!(lists.is_live(Seq(seq)), model.live.contains(&seq));
                prop_assert_eq!(lists.predecessor(Seq(seq)), model.live.range(..seq).next_back().map(|&seq| Seq(seq)));
            }
        }
    }
}
