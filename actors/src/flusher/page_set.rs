//! A set of page ids, one bit each.

use treering_engine::{Extent, PageId};

/// Grows to the largest id that was ever inserted: 32 bytes for each MiB of a file of 4 KiB pages.
#[derive(Debug, Default)]
pub(super) struct PageSet(Vec<u64>);

impl PageSet {
    pub fn insert(&mut self, id: PageId) {
        let word = id.0 as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id.0 % 64);
    }

    pub fn remove(&mut self, id: PageId) {
        if let Some(word) = self.0.get_mut(id.0 as usize / 64) {
            *word &= !(1 << (id.0 % 64));
        }
    }

    pub fn contains(&self, id: PageId) -> bool {
        self.0
            .get(id.0 as usize / 64)
            .is_some_and(|word| word & (1 << (id.0 % 64)) != 0)
    }

    /// Whether nothing was ever inserted.
    pub fn is_unused(&self) -> bool {
        self.0.is_empty()
    }

    /// What is in it, in ascending runs.
    pub fn into_runs(self) -> Vec<Extent> {
        let mut runs: Vec<Extent> = Vec::new();
        for (index, mut word) in self.0.into_iter().enumerate() {
            while word != 0 {
                let first = word.trailing_zeros();
                let pages = (word >> first).trailing_ones();
                // Ids have 32 bits, so words are at most that many.
                let start = PageId(index as u32 * 64 + first);
                match runs.last_mut() {
                    Some(last) if last.start.0 + last.pages == start.0 => last.pages += pages,
                    _ => runs.push(Extent { start, pages }),
                }
                word &= u64::MAX.checked_shl(first + pages).unwrap_or(0);
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_inserted_and_not_removed() {
        let mut set = PageSet::default();
        assert!(!set.contains(PageId(7)));
        set.remove(PageId(1_000));
        set.insert(PageId(64));
        set.insert(PageId(63));
        assert!(set.contains(PageId(63)) && set.contains(PageId(64)) && !set.contains(PageId(65)));
        set.remove(PageId(64));
        assert!(set.contains(PageId(63)) && !set.contains(PageId(64)));
    }

    #[test]
    fn runs_are_whatever_was_inserted_side_by_side() {
        let run = |start, pages| Extent {
            start: PageId(start),
            pages,
        };
        for runs in [
            vec![run(2, 1), run(5, 59), run(70, 200)],
            vec![run(63, 2)],
            vec![run(0, 64), run(65, 63), run(500, 1)],
            vec![],
        ] {
            let mut set = PageSet::default();
            runs.iter()
                .flat_map(|run| run.ids())
                .for_each(|id| set.insert(id));
            set.insert(PageId(1_000));
            set.remove(PageId(1_000));
            assert_eq!(set.into_runs(), runs);
        }
    }
}
