//! A set of page ids, one bit each.

use treering_engine::PageId;

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
}
