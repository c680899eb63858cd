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
    assert!(lists.filed_under(Seq(3)).is_empty() && lists.filed_under(Seq(4)).is_empty());
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
    assert_eq!(lists.filed_under(Seq(1)), [page(102, 1)]);
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

#[test]
fn what_named_versions_keep_is_joined_and_filed() {
    let mut lists = WaitingLists::new();
    let mut freed = Vec::new();
    for seq in [3, 5, 7, 9] {
        assert!(lists.publish(Seq(seq)));
    }
    for (id, born, retired) in [
        (10, 1, 10),
        (11, 2, 8),
        (12, 4, 8),
        (13, 5, 10),
        (20, 6, 8),
        (30, 1, 4),
        (40, 1, 10),
    ] {
        lists.retire(page(id, born), Seq(retired), &mut freed);
    }
    let run = |start, pages, born| Retired {
        extent: Extent {
            start: PageId(start),
            pages,
        },
        born: Seq(born),
    };
    let kept = lists.kept_by(&[Seq(3), Seq(5)], |extent| extent.start != PageId(40));
    assert_eq!(
        kept,
        [vec![run(30, 1, 3)], vec![run(10, 2, 3), run(12, 2, 5)]],
        "20 is seen by version 7 alone"
    );
    assert!(lists.kept_by(&[], |_| true).is_empty());
    assert!(freed.is_empty());
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
    fn what_is_stored_and_restored_is_what_the_death_of_all_others_leaves(
        seqs in prop::collection::btree_set(1u64..60, 1..12),
        kept in prop::collection::vec(any::<bool>(), 12),
        entries in prop::collection::vec((0u64..60, 1u64..60), 0..60),
    ) {
        let (mut lists, mut freed) = (WaitingLists::new(), Vec::new());
        for &seq in &seqs {
            prop_assert!(lists.publish(Seq(seq)));
        }
        for (number, (born, age)) in entries.into_iter().enumerate() {
            lists.retire(page(2 + number as u32, born), Seq(born + age), &mut freed);
        }
        let kept: Vec<Seq> = seqs.iter().zip(kept).filter(|(_, kept)| *kept).map(|(seq, _)| Seq(*seq)).collect();
        let stored = lists.kept_by(&kept, |_| true);
        for &seq in seqs.iter().rev().filter(|seq| !kept.contains(&Seq(**seq))) {
            prop_assert!(lists.version_died(Seq(seq), &mut freed));
        }
        let mut restored = WaitingLists::new();
        for &seq in &kept {
            prop_assert!(restored.publish(seq));
        }
        for (seq, entries) in kept.iter().zip(&stored) {
            restored.retire_all(entries, seq.next(), &mut Vec::new());
        }
        let pages = |lists: &WaitingLists| {
            let mut pages: Vec<_> = lists
                .iter()
                .flat_map(|(seq, entry)| entry.extent.ids().map(move |id| (id, seq)))
                .collect();
            pages.sort_unstable();
            pages
        };
        prop_assert_eq!(pages(&restored), pages(&lists));
        // And whichever dies first from here on, the same is free.
        for (turn, &seq) in kept.iter().enumerate().filter(|(turn, _)| turn % 2 == 0).chain(kept.iter().enumerate().filter(|(turn, _)| turn % 2 == 1)) {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            prop_assert!(lists.version_died(seq, &mut left));
            prop_assert!(restored.version_died(seq, &mut right));
            let ids = |extents: Vec<Extent>| extents.into_iter().flat_map(Extent::ids).collect::<BTreeSet<_>>();
            prop_assert_eq!(ids(left), ids(right), "turn {}", turn);
        }
        prop_assert_eq!(restored.entries_waiting(), 0);
    }

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
