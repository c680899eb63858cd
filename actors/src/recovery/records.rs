//! The records of a stretch of the log: gathered in log order, then sorted, the last of each key left.
//!
//! What is sorted are [`Place`]s of 16 bytes with the first bytes of the key in which the keys of its tree differ, so
//! that sorting seldom touches the records themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use treering_engine::TreeId;
use treering_engine::page::{self, ValueRef, max_inline_value_bytes, max_key_bytes};
use treering_engine::tree::{AscendingKeys, AscendingPairs};

use super::chunks::{CHUNKS_BYTES_MAX, Change, Chunks, Kind};
use super::sort::{Place, head, sort};

/// Bytes that [`Gathered`] can hold at most.
pub(super) const GATHERED_BYTES_MAX: usize = CHUNKS_BYTES_MAX;

/// The prefix that all keys of a tree share so far.
#[derive(Debug)]
struct Prefix {
    bytes: Vec<u8>,
    /// Heads of places before this one were taken behind a longer prefix.
    since: usize,
}

/// Records in log order.
#[derive(Debug)]
pub(super) struct Gathered {
    chunks: Chunks,
    places: Vec<Place>,
    prefixes: BTreeMap<TreeId, Prefix>,
    /// Blobs by their number in the log, with the places of their records.
    blobs: Vec<(usize, usize)>,
    page_bytes: usize,
}

impl Gathered {
    pub fn new(page_bytes: usize) -> Gathered {
        Gathered {
            chunks: Chunks::default(),
            places: Vec::new(),
            prefixes: BTreeMap::new(),
            blobs: Vec::new(),
            page_bytes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of memory that are in use.
    pub fn bytes(&self) -> usize {
        self.chunks.bytes() + self.places.len() * size_of::<Place>()
    }

    /// Appends a record; `blob` is the blob's number, if the value is one's descriptor. Fails if no node could hold it.
    pub fn push(
        &mut self,
        tree: TreeId,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        blob: usize,
    ) -> Result<(), &'static str> {
        if !(1..=max_key_bytes(self.page_bytes)).contains(&key.len()) {
            return Err("a key of an impossible length");
        }
        if value.len() > max_inline_value_bytes(self.page_bytes) {
            return Err("a value that is too long for a leaf");
        }
        let index = self.places.len();
        let prefix = self.prefixes.entry(tree).or_insert_with(|| Prefix {
            bytes: key.to_vec(),
            since: index,
        });
        if !key.starts_with(&prefix.bytes) {
            let shared = key.iter().zip(&prefix.bytes).take_while(|(a, b)| a == b).count();
            prefix.bytes.truncate(shared);
            prefix.since = index;
        }
        let head = head(&key[prefix.bytes.len()..]);
        if kind == Kind::PutBlob {
            self.blobs.push((blob, index));
        }
        let at = self.chunks.push(kind, key, value);
        self.places.push(Place { head, tree, at });
        Ok(())
    }

    /// Sorts by tree and key, without trees that aren't `wanted`, and leaves the last record of each key. Blobs that are
    /// `superseded` become deletions: their extents belong to somebody else by now.
    ///
    /// O(n log n), on all cores.
    pub fn sort(mut self, superseded: &BTreeSet<usize>, wanted: impl Fn(TreeId) -> bool) -> SortedRecords {
        for (_, index) in self.blobs.iter().filter(|(blob, _)| superseded.contains(blob)) {
            self.chunks.make_deletion(self.places[*index].at);
        }
        let Gathered {
            chunks,
            mut places,
            prefixes,
            ..
        } = self;
        let unsettled = prefixes.values().map(|prefix| prefix.since).max().unwrap_or(0);
        for place in &mut places[..unsettled] {
            let prefix = &prefixes[&place.tree].bytes;
            place.head = head(&chunks.key(place.at)[prefix.len()..]);
        }
        places.retain(|place| wanted(place.tree));
        sort(&mut places, &chunks);
        let prefixes = prefixes.into_iter().map(|(tree, prefix)| (tree, prefix.bytes));
        SortedRecords {
            chunks,
            places,
            prefixes: prefixes.collect(),
        }
    }
}

/// Records by tree and key, one for each key.
#[derive(Debug)]
pub(crate) struct SortedRecords {
    chunks: Chunks,
    places: Vec<Place>,
    /// What all keys of a tree begin with; heads are taken behind it.
    prefixes: BTreeMap<TreeId, Vec<u8>>,
}

/// Some of them, all of one tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordsOfTree<'r> {
    chunks: &'r Chunks,
    places: &'r [Place],
    prefix: &'r [u8],
}

impl SortedRecords {
    /// The record of this index.
    pub fn change(&self, index: usize) -> Change<'_> {
        self.chunks.change(self.places[index].at)
    }

    /// Hints that the record, if there is one, will soon be looked at.
    pub fn prefetch(&self, index: usize) {
        if let Some(place) = self.places.get(index) {
            page::prefetch_record(self.chunks.at(place.at));
        }
    }

    /// Its key.
    pub fn key(&self, index: usize) -> &[u8] {
        self.chunks.key(self.places[index].at)
    }

    /// The records of a range that is not empty and lies in one tree.
    pub fn of_tree(&self, range: Range<usize>) -> RecordsOfTree<'_> {
        RecordsOfTree {
            chunks: &self.chunks,
            prefix: &self.prefixes[&self.places[range.start].tree],
            places: &self.places[range],
        }
    }

    /// The first index of the range, whose records are of one tree, with a key that isn't lower.
    pub fn first_from(&self, key: &[u8], range: Range<usize>) -> usize {
        let places = &self.places[range.clone()];
        range.start + places.partition_point(|place| self.chunks.key(place.at) < key)
    }

    /// Which trees there are records of, and which ones.
    pub fn trees(&self) -> Vec<(TreeId, Range<usize>)> {
        let mut start = 0;
        self.places
            .chunk_by(|a, b| a.tree == b.tree)
            .map(|places| {
                let range = start..start + places.len();
                start = range.end;
                (places[0].tree, range)
            })
            .collect()
    }
}

impl AscendingKeys for RecordsOfTree<'_> {
    fn count(&self) -> usize {
        self.places.len()
    }

    fn key(&self, index: usize) -> &[u8] {
        self.chunks.key(self.places[index].at)
    }

    fn is_below(&self, index: usize, bound: &[u8]) -> bool {
        let own = self.places[index].head;
        match bound.strip_prefix(self.prefix).map(head) {
            Some(other) if own != other => own < other,
            _ => self.key(index) < bound,
        }
    }
}

impl AscendingPairs for RecordsOfTree<'_> {
    fn value(&self, index: usize) -> Option<ValueRef<'_>> {
        let Change { kind, value, .. } = self.chunks.change(self.places[index].at);
        match kind {
            Kind::Put => Some(ValueRef::Inline(value)),
            Kind::PutBlob => Some(ValueRef::Blob(value)),
            Kind::Delete => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::chunks::CHUNK_BYTES;
    use super::*;

    const PAGE_BYTES: usize = 4096;

    /// Few letters, long shared prefixes, keys that begin like others or differ in zeros at their ends only.
    fn key(random: &mut impl FnMut(u64) -> u64) -> Vec<u8> {
        let mut key = vec![b'p'; 7 * random(3) as usize];
        key.extend((0..1 + random(11)).map(|_| random(3) as u8));
        key
    }

    #[test]
    fn the_last_record_of_each_key_remains_in_key_order() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..300 {
            let unwanted = random(4) as u32;
            let mut gathered = Gathered::new(PAGE_BYTES);
            let mut model = BTreeMap::new();
            for _ in 0..random(200) {
                let (tree, key) = (TreeId(random(3) as u32), key(&mut random));
                let (kind, value) = match random(3) {
                    0 => (Kind::Delete, vec![]),
                    _ => (Kind::Put, vec![random(256) as u8]),
                };
                gathered.push(tree, kind, &key, &value, 0).unwrap();
                if tree.0 != unwanted {
                    model.insert((tree, key), (kind, value));
                }
            }
            let sorted = gathered.sort(&BTreeSet::new(), |tree| tree.0 != unwanted);
            let mut found = Vec::new();
            for (tree, range) in sorted.trees() {
                for index in range {
                    let Change { kind, key, value } = sorted.change(index);
                    assert_eq!(key, sorted.key(index));
                    found.push(((tree, key.to_vec()), (kind, value.to_vec())));
                }
            }
            assert_eq!(found, model.into_iter().collect::<Vec<_>>());
            for (_, range) in sorted.trees() {
                let records = sorted.of_tree(range);
                for _ in 0..20 {
                    let bound = key(&mut random);
                    for index in 0..records.count() {
                        assert_eq!(records.is_below(index, &bound), records.key(index) < &bound[..]);
                    }
                }
            }
        }
    }

    #[test]
    fn superseded_blobs_become_deletions() {
        let mut gathered = Gathered::new(PAGE_BYTES);
        let tree = TreeId(1);
        gathered.push(tree, Kind::PutBlob, b"a", b"first", 0).unwrap();
        gathered.push(tree, Kind::PutBlob, b"b", b"second", 1).unwrap();
        let sorted = gathered.sort(&BTreeSet::from([0]), |_| true);
        assert_eq!(sorted.change(0).kind, Kind::Delete);
        assert_eq!(sorted.change(1).kind, Kind::PutBlob);
        assert_eq!(sorted.change(1).value, b"second");
    }

    #[test]
    fn what_no_leaf_can_hold_is_refused() {
        let mut gathered = Gathered::new(PAGE_BYTES);
        let mut push = |key: &[u8], value: &[u8]| gathered.push(TreeId(1), Kind::Put, key, value, 0);
        assert!(push(b"", b"").is_err());
        assert!(push(&[1; PAGE_BYTES / 2], b"").is_err());
        assert!(push(b"k", &[1; PAGE_BYTES / 2]).is_err());
        assert!(push(b"k", b"v").is_ok());
    }

    #[test]
    fn records_lie_in_chunks_that_are_full_to_the_last_record() {
        let mut gathered = Gathered::new(PAGE_BYTES);
        let count = 3 * CHUNK_BYTES / 900;
        for number in 0..count as u32 {
            gathered
                .push(
                    TreeId(1),
                    Kind::Put,
                    &number.to_be_bytes(),
                    &[number as u8; 900],
                    0,
                )
                .unwrap();
        }
        assert!(gathered.bytes() >= 3 * CHUNK_BYTES);
        let sorted = gathered.sort(&BTreeSet::new(), |_| true);
        assert_eq!(sorted.trees(), [(TreeId(1), 0..count)]);
        assert_eq!(sorted.first_from(&77u32.to_be_bytes(), 0..count), 77);
        assert_eq!(sorted.first_from(&77u32.to_be_bytes(), 100..count), 100);
        assert_eq!(sorted.first_from(b"\xFF", 5..count), count);
        for number in [0, count / 3, count - 1] {
            assert_eq!(sorted.key(number), (number as u32).to_be_bytes());
            assert_eq!(sorted.change(number).value, [number as u8; 900]);
        }
    }
}
