//! The reachable set as checkpoints store it: in blocks, and as it was at one moment.
//!
//! A checkpoint takes long to write, and groups are published meanwhile. So the set is frozen first: a block
//! that is about to change is copied once, all others are shared with the present set.

use std::collections::BTreeMap;

use super::map::{SpaceError, SpaceMap, extent};
use super::runs::REGION_PAGES;
use crate::PageId;

/// Words of one block of the map, as checkpoints store it: one region.
pub(super) const BLOCK_WORDS: usize = REGION_PAGES / 64;

/// Number of blocks that the map of a file consists of.
pub(crate) fn map_blocks(file_pages: u32) -> usize {
    (file_pages as usize).div_ceil(REGION_PAGES)
}

/// Number of words in block `index` of the map of a file; fewer in the last one.
pub(crate) fn block_words(file_pages: u32, index: usize) -> usize {
    file_pages
        .div_ceil(64)
        .saturating_sub((index * BLOCK_WORDS) as u32)
        .min(BLOCK_WORDS as u32) as usize
}

/// The reachable set as it was when it was frozen.
#[derive(Debug)]
pub(super) struct Frozen {
    file_pages: u32,
    reachable_pages: u64,
    /// Blocks that changed since, as they were; no block that did not.
    saved: BTreeMap<usize, Vec<u64>>,
}

impl SpaceMap {
    /// Keeps the reachable set as it is now for a checkpoint, until [`thaw`](SpaceMap::thaw). O(1). A set
    /// that was frozen before is forgotten.
    pub fn freeze(&mut self) {
        self.frozen = Some(Frozen {
            file_pages: self.file_pages(),
            reachable_pages: self.reachable_pages(),
            saved: BTreeMap::new(),
        });
    }

    /// Forgets the frozen set.
    pub fn thaw(&mut self) {
        self.frozen = None;
    }

    /// Pages of the file and reachable pages when the set was frozen; the present ones if it is not.
    #[must_use]
    pub fn frozen_counts(&self) -> (u32, u64) {
        match &self.frozen {
            Some(frozen) => (frozen.file_pages, frozen.reachable_pages),
            None => (self.file_pages(), self.reachable_pages()),
        }
    }

    /// The words of block `index` of the frozen set (of the present set if none is frozen); shorter than
    /// a whole block at the end of the file.
    pub(crate) fn frozen_block(&self, index: usize) -> &[u64] {
        match self.frozen.as_ref().and_then(|frozen| frozen.saved.get(&index)) {
            Some(saved) => saved,
            None => {
                let words = block_words(self.frozen_counts().0, index);
                self.reachable.words(index * BLOCK_WORDS, words)
            }
        }
    }

    /// Whether the page is in the frozen set (in the present one if none is frozen).
    #[must_use]
    pub fn is_frozen_reachable(&self, id: PageId) -> bool {
        let (index, bit) = (id.0 as usize / REGION_PAGES, id.0 as usize % REGION_PAGES);
        id.0 < self.frozen_counts().0
            && self
                .frozen_block(index)
                .get(bit / 64)
                .is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    /// Marks what a checkpoint's block `index` of the map names as allocated and reachable. For a new map
    /// that nothing was allocated from.
    ///
    /// # Errors
    /// If the block names pages outside the file or pages in use.
    pub(crate) fn load_block(
        &mut self,
        index: usize,
        words: impl Iterator<Item = u64>,
    ) -> Result<(), SpaceError> {
        let file_pages = self.available.length();
        for (position, word) in words.enumerate() {
            let position = index * BLOCK_WORDS + position;
            let first = position * 64;
            let within = match file_pages.saturating_sub(first) {
                0 => 0,
                count => u64::MAX >> (64 - count.min(64)),
            };
            let slots = if first == 0 { (1 << PageId::FIRST.0) - 1 } else { 0 };
            let usable = within & !slots;
            if word & !usable != 0 {
                return Err(SpaceError::Outside(extent(first, 64)));
            }
            if word == 0 {
                continue;
            }
            if self.available.word(position) != usable {
                return Err(SpaceError::NotAvailable(extent(first, 64)));
            }
            self.available.store_word(position, usable & !word);
            self.reachable.store_word(position, word);
            self.available_pages -= word.count_ones() as usize;
            self.reachable_pages += word.count_ones() as usize;
            self.index.touch(first, 1);
        }
        Ok(())
    }

    /// Keeps the blocks of a range as they are, if the set is frozen and they aren't kept yet.
    pub(super) fn save_blocks(&mut self, start: usize, count: usize) {
        let Some(frozen) = &mut self.frozen else { return };
        for index in start / REGION_PAGES..=(start + count - 1) / REGION_PAGES {
            if index * REGION_PAGES < frozen.file_pages as usize {
                frozen.saved.entry(index).or_insert_with(|| {
                    let words = block_words(frozen.file_pages, index);
                    self.reachable.words(index * BLOCK_WORDS, words).to_vec()
                });
            }
        }
    }
}
