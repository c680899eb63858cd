//! A sorted map that is copied in O(1) and changed by copying only what the change touches.
//!
//! Entries lie in chunks of up to [`CHUNK_ENTRIES_MAX`], chunks in one list. A change to an entry copies
//! its chunk and the list of chunks, unless nobody else holds them; everything else is shared with the
//! older copies. Small next to a balanced tree, and dense: a lookup is two binary searches.

use std::borrow::Borrow;
use std::sync::Arc;

/// Most entries of a chunk.
pub(super) const CHUNK_ENTRIES_MAX: usize = 64;

/// Neighbours that together hold no more than this are merged: far enough below the maximum that adding
/// and removing one entry does not split and merge for ever.
const CHUNK_ENTRIES_MERGED: usize = CHUNK_ENTRIES_MAX / 2;

type Chunk<K, V> = Arc<[(K, V)]>;

/// The map. No chunk is ever empty.
#[derive(Debug)]
pub(super) struct SortedChunks<K, V> {
    chunks: Arc<[Chunk<K, V>]>,
    length: usize,
}

impl<K, V> Clone for SortedChunks<K, V> {
    fn clone(&self) -> Self {
        SortedChunks {
            chunks: Arc::clone(&self.chunks),
            length: self.length,
        }
    }
}

impl<K, V> Default for SortedChunks<K, V> {
    fn default() -> Self {
        SortedChunks {
            chunks: Arc::from([]),
            length: 0,
        }
    }
}

impl<K: Ord + Clone, V: Clone> SortedChunks<K, V> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The value under `key`. O(log entries).
    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, entry) = self.find(key).ok()?;
        Some(&self.chunks[chunk][entry].1)
    }

    /// The value under `key`, to be changed. Copies what is shared: O(64 + entries / 64).
    pub(super) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (chunk, entry) = self.find(key).ok()?;
        let chunk = &mut Arc::make_mut(&mut self.chunks)[chunk];
        Some(&mut Arc::make_mut(chunk)[entry].1)
    }

    /// Puts `value` under `key`. O(64 + entries / 64).
    pub(super) fn insert(&mut self, key: K, value: V) {
        let (chunk, entry) = match self.find(&key) {
            Ok((chunk, entry)) => {
                let chunk = &mut Arc::make_mut(&mut self.chunks)[chunk];
                Arc::make_mut(chunk)[entry].1 = value;
                return;
            }
            Err(place) => place,
        };
        self.length += 1;
        let Some(old) = self.chunks.get(chunk) else {
            self.replace_chunks(chunk, 0, &[Arc::from([(key, value)])]);
            return;
        };
        let is_last = chunk + 1 == self.chunks.len() && entry == old.len();
        if old.len() < CHUNK_ENTRIES_MAX {
            let larger = old[..entry]
                .iter()
                .cloned()
                .chain([(key, value)])
                .chain(old[entry..].iter().cloned());
            let larger = larger.collect();
            self.replace_chunks(chunk, 1, &[larger]);
        } else if is_last {
            // Ids grow, so this is the usual place: leave full chunks behind.
            self.replace_chunks(chunk + 1, 0, &[Arc::from([(key, value)])]);
        } else {
            let mut entries = old.to_vec();
            entries.insert(entry, (key, value));
            let right = entries.split_off(entries.len() / 2);
            self.replace_chunks(chunk, 1, &[entries.into(), right.into()]);
        }
    }

    /// Takes out what is under `key`. O(64 + entries / 64).
    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (chunk, entry) = self.find(key).ok()?;
        self.length -= 1;
        let old = &self.chunks[chunk];
        let removed = old[entry].1.clone();
        let without = |old: &Chunk<K, V>| [&old[..entry], &old[entry + 1..]].concat();
        let remaining = old.len() - 1;
        let mergeable = |index: usize| {
            self.chunks
                .get(index)
                .is_some_and(|other| other.len() + remaining <= CHUNK_ENTRIES_MERGED)
        };
        if remaining == 0 {
            self.replace_chunks(chunk, 1, &[]);
        } else if mergeable(chunk + 1) {
            let merged = [&without(old)[..], &self.chunks[chunk + 1]].concat();
            self.replace_chunks(chunk, 2, &[merged.into()]);
        } else if chunk > 0 && mergeable(chunk - 1) {
            let merged = [&self.chunks[chunk - 1], &without(old)[..]].concat();
            self.replace_chunks(chunk - 1, 2, &[merged.into()]);
        } else {
            let smaller = without(old).into();
            self.replace_chunks(chunk, 1, &[smaller]);
        }
        Some(removed)
    }

    /// All entries in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The first entry whose key is greater than `key`. O(log entries).
    pub(super) fn first_after<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&(K, V)>
    where
        K: Borrow<Q>,
    {
        let (chunk, entry) = match self.find(key) {
            Ok((chunk, entry)) => (chunk, entry + 1),
            Err(place) => place,
        };
        let here = self.chunks.get(chunk)?.get(entry);
        here.or_else(|| self.chunks.get(chunk + 1)?.first())
    }

    /// The first entry of all.
    pub(super) fn first(&self) -> Option<&(K, V)> {
        self.chunks.first()?.first()
    }

    /// Chunk and entry of `key`, or where it would be put.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<(usize, usize), (usize, usize)>
    where
        K: Borrow<Q>,
    {
        let behind = self.chunks.partition_point(|chunk| chunk[0].0.borrow() <= key);
        let chunk = behind.saturating_sub(1);
        let Some(entries) = self.chunks.get(chunk) else {
            return Err((0, 0));
        };
        match entries.binary_search_by(|(other, _)| other.borrow().cmp(key)) {
            Ok(entry) => Ok((chunk, entry)),
            Err(entry) => Err((chunk, entry)),
        }
    }

    fn replace_chunks(&mut self, index: usize, removed: usize, added: &[Chunk<K, V>]) {
        self.chunks = [&self.chunks[..index], added, &self.chunks[index + removed..]]
            .concat()
            .into();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{CHUNK_ENTRIES_MAX, SortedChunks};

    fn entries(map: &SortedChunks<u16, u32>) -> Vec<(u16, u32)> {
        map.iter().copied().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn behaves_like_a_sorted_map_and_leaves_old_copies_alone(
            initial in 0u16..400,
            steps in prop::collection::vec((0u8..4, 0u16..600), 1..300),
        ) {
            let mut map = SortedChunks::default();
            let mut model = BTreeMap::new();
            for key in 0..initial {
                map.insert(key, 0);
                model.insert(key, 0);
            }
            let mut copies = Vec::new();
            for (index, &(kind, key)) in steps.iter().enumerate() {
                let value = index as u32 + 1;
                if index % 50 == 0 {
                    copies.push((map.clone(), model.clone()));
                }
                match kind {
                    0 => {
                        map.insert(key, value);
                        model.insert(key, value);
                    }
                    1 | 2 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    _ => {
                        prop_assert_eq!(map.get_mut(&key).is_some(), model.contains_key(&key));
                        if let (Some(entry), Some(expected)) = (map.get_mut(&key), model.get_mut(&key)) {
                            (*entry, *expected) = (value, value);
                        }
                    }
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.get(&key), model.get(&key));
                let after = model.range(key + 1..).next().map(|(&key, &value)| (key, value));
                prop_assert_eq!(map.first_after(&key).copied(), after);
                prop_assert!(map.chunks.iter().all(|chunk| (1..=CHUNK_ENTRIES_MAX).contains(&chunk.len())));
            }
            copies.push((map, model));
            for (map, model) in copies {
                prop_assert_eq!(entries(&map), model.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn ascending_keys_fill_their_chunks_and_emptying_merges_them() {
        let mut map = SortedChunks::default();
        for key in 0..10_000u16 {
            map.insert(key, 0u32);
        }
        assert_eq!(map.chunks.len(), 10_000usize.div_ceil(CHUNK_ENTRIES_MAX));
        for key in (0..10_000).filter(|key| key % 50 != 0) {
            map.remove(&key);
        }
        assert_eq!(map.len(), 200);
        assert!(
            map.chunks.len() <= 20,
            "{} chunks for 200 entries",
            map.chunks.len()
        );
    }
}
