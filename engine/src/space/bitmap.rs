//! A bitmap with summaries: finding a set bit costs a few words however large and however empty it is.
//!
//! Level 0 holds the bits. Bit `i` of level `n + 1` says whether word `i` of level `n` is not zero, up to
//! a level of one word. 2^32 bits need five summary levels above the words, 1/63 more memory.

/// Bits in a word.
const WORD_BITS: usize = 64;

/// A bitmap of fixed length that finds set bits fast. Ranges are `start .. start + count` and must lie
/// within the length; callers check that.
#[derive(Clone, Debug)]
pub(super) struct Bitmap {
    length: usize,
    /// `levels[0]` are the bits themselves; never empty.
    levels: Vec<Vec<u64>>,
}

impl Bitmap {
    /// All clear.
    pub(super) fn new(length: usize) -> Bitmap {
        let mut bitmap = Bitmap {
            length: 0,
            levels: vec![Vec::new()],
        };
        bitmap.grow(length);
        bitmap
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Lengthens to `length`, the new bits clear. Never shortens.
    pub(super) fn grow(&mut self, length: usize) {
        self.length = self.length.max(length);
        let mut words = self.length.div_ceil(WORD_BITS).max(1);
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                // A new top: its single word summarises what was the top until now.
                let below = &self.levels[level - 1];
                let summary = below
                    .iter()
                    .take(WORD_BITS)
                    .enumerate()
                    .fold(0, |bits, (index, &word)| bits | u64::from(word != 0) << index);
                self.levels.push(vec![summary]);
            }
            self.levels[level].resize(words, 0);
            if words == 1 {
                return;
            }
            words = words.div_ceil(WORD_BITS);
            level += 1;
        }
    }

    /// Shortens to `length`. What is cut off must be clear already, so that no summary changes.
    pub(super) fn shorten(&mut self, length: usize) {
        self.length = self.length.min(length);
        let mut words = self.length.div_ceil(WORD_BITS).max(1);
        for level in &mut self.levels {
            level.truncate(words);
            words = words.div_ceil(WORD_BITS);
        }
        // Levels above one of a single word would only repeat it.
        let top = self.levels.iter().position(|level| level.len() == 1).unwrap_or(0);
        self.levels.truncate(top + 1);
    }

    /// Sets every bit of the range.
    pub(super) fn set(&mut self, start: usize, count: usize) {
        for (index, mask) in masks(start, count) {
            let before = self.levels[0][index];
            self.levels[0][index] = before | mask;
            if before == 0 {
                self.summarise_set(index);
            }
        }
    }

    /// Clears every bit of the range.
    pub(super) fn clear(&mut self, start: usize, count: usize) {
        for (index, mask) in masks(start, count) {
            let after = self.levels[0][index] & !mask;
            self.levels[0][index] = after;
            if after == 0 {
                self.summarise_clear(index);
            }
        }
    }

    /// Whether every bit of the range is set.
    pub(super) fn all_set(&self, start: usize, count: usize) -> bool {
        masks(start, count).all(|(index, mask)| self.levels[0][index] & mask == mask)
    }

    /// Whether no bit of the range is set.
    pub(super) fn none_set(&self, start: usize, count: usize) -> bool {
        masks(start, count).all(|(index, mask)| self.levels[0][index] & mask == 0)
    }

    /// The first set bit at or after `from`. O(levels).
    pub(super) fn next_set(&self, from: usize) -> Option<usize> {
        if from >= self.length {
            return None;
        }
        let (mut index, mut bit) = (from / WORD_BITS, from % WORD_BITS);
        let mut level = 0;
        loop {
            let word = self.levels[level].get(index).copied().unwrap_or(0) & (u64::MAX << bit);
            if word != 0 {
                let mut found = index * WORD_BITS + word.trailing_zeros() as usize;
                for below in self.levels[..level].iter().rev() {
                    found = found * WORD_BITS + below[found].trailing_zeros() as usize;
                }
                return Some(found);
            }
            // Nothing more in this word: go on behind it, one level up.
            level += 1;
            if level == self.levels.len() {
                return None;
            }
            (index, bit) = ((index + 1) / WORD_BITS, (index + 1) % WORD_BITS);
        }
    }

    /// How many bits from `start` on are set without a gap, at most `limit`. O(result / 64).
    pub(super) fn run_length(&self, start: usize, limit: usize) -> usize {
        let mut length = 0;
        let mut position = start;
        while length < limit {
            let Some(&word) = self.levels[0].get(position / WORD_BITS) else {
                break;
            };
            let bit = position % WORD_BITS;
            let ones = (word >> bit).trailing_ones() as usize;
            length += ones;
            position += ones;
            if ones < WORD_BITS - bit {
                break;
            }
        }
        length.min(limit)
    }

    /// How many bits at the very end are set without a gap. O(result / 64).
    pub(super) fn trailing_run(&self) -> usize {
        let mut length = 0;
        while length < self.length {
            let last = self.length - length - 1;
            let (index, bit) = (last / WORD_BITS, last % WORD_BITS);
            let ones = (self.levels[0][index] << (WORD_BITS - 1 - bit)).leading_ones() as usize;
            length += ones;
            if ones < bit + 1 {
                break;
            }
        }
        length
    }

    /// The words that hold bits `64 * first ..`, at most `count` of them.
    pub(super) fn words(&self, first: usize, count: usize) -> &[u64] {
        let words = &self.levels[0];
        let first = first.min(words.len());
        &words[first..words.len().min(first + count)]
    }

    /// Word `index`; 0 behind the end.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.levels[0].get(index).copied().unwrap_or(0)
    }

    /// Replaces word `index`, which exists; the caller sets no bit behind the end.
    pub(super) fn store_word(&mut self, index: usize, word: u64) {
        self.levels[0][index] = word;
        if word == 0 {
            self.summarise_clear(index);
        } else {
            self.summarise_set(index);
        }
    }

    fn summarise_set(&mut self, mut index: usize) {
        for level in &mut self.levels[1..] {
            let word = &mut level[index / WORD_BITS];
            let before = *word;
            *word |= 1 << (index % WORD_BITS);
            if before != 0 {
                return;
            }
            index /= WORD_BITS;
        }
    }

    fn summarise_clear(&mut self, mut index: usize) {
        for level in &mut self.levels[1..] {
            let word = &mut level[index / WORD_BITS];
            *word &= !(1 << (index % WORD_BITS));
            if *word != 0 {
                return;
            }
            index /= WORD_BITS;
        }
    }
}

/// The words that a range touches, each with the mask of the bits concerned.
fn masks(start: usize, count: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = start + count;
    let last = if count == 0 {
        start / WORD_BITS
    } else {
        (end - 1) / WORD_BITS + 1
    };
    (start / WORD_BITS..last).map(move |index| {
        let low = start.saturating_sub(index * WORD_BITS);
        let high = (end - index * WORD_BITS).min(WORD_BITS);
        let mask = (u64::MAX >> (WORD_BITS - (high - low))) << low;
        (index, mask)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Bitmap;

    fn check(bitmap: &Bitmap, model: &BTreeSet<usize>) {
        for from in 0..bitmap.length() + 1 {
            assert_eq!(
                bitmap.next_set(from),
                model.range(from..).next().copied(),
                "from {from}"
            );
        }
        let run = (0..bitmap.length())
            .rev()
            .take_while(|bit| model.contains(bit))
            .count();
        assert_eq!(bitmap.trailing_run(), run);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn behaves_like_a_set(
            length in 1usize..9_000,
            steps in prop::collection::vec((any::<bool>(), any::<u32>(), 0usize..300), 1..30),
            grown in 0usize..5_000,
        ) {
            let mut bitmap = Bitmap::new(length);
            let mut model = BTreeSet::new();
            for (index, &(set, start, count)) in steps.iter().enumerate() {
                if index == steps.len() / 2 {
                    bitmap.grow(length + grown);
                }
                let start = start as usize % bitmap.length();
                let count = count.min(bitmap.length() - start);
                if set {
                    bitmap.set(start, count);
                    model.extend(start..start + count);
                    prop_assert!(bitmap.all_set(start, count));
                } else {
                    bitmap.clear(start, count);
                    model.retain(|bit| !(start..start + count).contains(bit));
                    prop_assert!(bitmap.none_set(start, count));
                }
                let run = (start..bitmap.length()).take_while(|bit| model.contains(bit)).count();
                prop_assert_eq!(bitmap.run_length(start, usize::MAX), run);
                prop_assert_eq!(bitmap.run_length(start, 70), run.min(70));
            }
            check(&bitmap, &model);
            let keep = model.last().map_or(1, |last| last + 1);
            bitmap.shorten(keep);
            check(&bitmap, &model);
            bitmap.grow(length + grown);
            check(&bitmap, &model);
        }
    }

    #[test]
    fn finds_the_last_bit_of_a_large_map() {
        let length = 1 << 28;
        let mut bitmap = Bitmap::new(length);
        bitmap.set(length - 1, 1);
        assert_eq!(bitmap.next_set(0), Some(length - 1));
        bitmap.clear(length - 1, 1);
        assert_eq!(bitmap.next_set(0), None);
    }
}
