//! Sorting the places of gathered records by tree and key, and leaving the last record of each key.
//!
//! Places are sorted by numbers of their own first: the heads, eight bytes of each key, and where they lie, which is log
//! order. That touches no record. Records are looked at only where heads are equal: mostly they are of one key then. If
//! not, the keys that share a head get new ones from behind all that they share, and so on. So each record is touched a
//! few times, whatever its key looks like.
//!
//! O(n log n), on all cores.

use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSliceMut;
use treering_engine::TreeId;

use super::chunks::Chunks;

/// What is sorted by comparing keys: new heads don't pay.
const COMPARED_MAX: usize = 16;
/// So are keys that go on being equal: each head more is a call within a call.
const DEPTH_MAX: usize = 64;
/// The place of a record whose key has a later one.
const SUPERSEDED: u32 = u32::MAX;

/// Where a record lies, and what it is sorted by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Of the key, behind a prefix that all keys it is compared with share; padded with zeros.
    pub head: u64,
    pub tree: TreeId,
    /// Of [`Chunks`]. Grows in log order.
    pub at: u32,
}

/// Sorts by tree and key, and leaves the last record of each key.
pub(super) fn sort(places: &mut Vec<Place>, chunks: &Chunks) {
    sort_heads(places, chunks, 0);
    places.retain(|place| place.at != SUPERSEDED);
}

fn sort_heads(places: &mut [Place], chunks: &Chunks, depth: usize) {
    places.par_sort_unstable_by_key(|place| (place.tree, place.head, place.at));
    places
        .par_chunk_by_mut(|a, b| (a.tree, a.head) == (b.tree, b.head))
        .filter(|equal| equal.len() > 1)
        .for_each(|equal| settle(equal, chunks, depth));
}

/// Sorts what has equal heads and is in log order.
fn settle(equal: &mut [Place], chunks: &Chunks, depth: usize) {
    let Some((first, others)) = equal.split_first() else {
        return;
    };
    let (head, first) = (first.head, chunks.key(first.at));
    let mut shared = first.len();
    let mut same = true;
    for place in others {
        let key = chunks.key(place.at);
        same &= key == first;
        if !same {
            shared = first[..shared]
                .iter()
                .zip(key)
                .take_while(|(a, b)| a == b)
                .count();
        }
    }
    if same {
        supersede(equal, |_, _| true);
        return;
    }
    if equal.len() > COMPARED_MAX && depth < DEPTH_MAX && take_heads(equal, shared, chunks) {
        sort_heads(equal, chunks, depth + 1);
    } else {
        equal.sort_unstable_by(|a, b| chunks.key(a.at).cmp(chunks.key(b.at)).then(a.at.cmp(&b.at)));
        supersede(equal, |a, b| chunks.key(a.at) == chunks.key(b.at));
    }
    equal.iter_mut().for_each(|place| place.head = head);
}

/// Gives the places heads from behind `shared` bytes of their keys; whether that tells any of them apart. (Keys may
/// differ in zeros at their ends alone.)
fn take_heads(places: &mut [Place], shared: usize, chunks: &Chunks) -> bool {
    let mut differ = false;
    let mut before = None;
    for place in places {
        place.head = head(&chunks.key(place.at)[shared..]);
        differ |= before.is_some_and(|before| before != place.head);
        before = Some(place.head);
    }
    differ
}

/// Of neighbours with the same key only the last remains.
fn supersede(places: &mut [Place], same: impl Fn(&Place, &Place) -> bool) {
    for index in 1..places.len() {
        if same(&places[index - 1], &places[index]) {
            places[index - 1].at = SUPERSEDED;
        }
    }
}

/// The first eight bytes, padded with zeros, as a number in key order.
pub(super) fn head(suffix: &[u8]) -> u64 {
    match suffix.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..suffix.len()].copy_from_slice(suffix);
            u64::from_be_bytes(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::chunks::Kind;
    use super::*;

    const TREE: TreeId = TreeId(1);

    fn check(keys: impl IntoIterator<Item = Vec<u8>>) {
        let (mut chunks, mut places) = (Chunks::default(), Vec::new());
        let mut last = BTreeMap::new();
        for key in keys {
            let at = chunks.push(Kind::Put, &key, b"");
            let head = head(&key);
            places.push(Place { head, tree: TREE, at });
            last.insert(key, at);
        }
        sort(&mut places, &chunks);
        let found: Vec<(Vec<u8>, u32)> = places
            .iter()
            .map(|place| (chunks.key(place.at).to_vec(), place.at))
            .collect();
        assert!(found == last.into_iter().collect::<Vec<_>>());
    }

    /// Numbers in an order that looks random, most of them several times.
    fn numbers(count: u32) -> impl Iterator<Item = u32> {
        (0..count).map(move |number| number.wrapping_mul(0x9E37_79B9) % (count / 3 + 1))
    }

    #[test]
    fn keys_that_share_more_than_a_head_are_told_apart() {
        // A few owners, with long names that begin alike, of many records each.
        check(numbers(5_000).map(|number| {
            let owner = number % 3;
            format!("the same for all/{owner}/and something long behind it/{number:08}").into_bytes()
        }));
    }

    #[test]
    fn keys_that_differ_in_zeros_at_their_ends_are_told_apart() {
        check(numbers(300).map(|number| {
            let mut key = vec![b'k'; 1 + (number % 2) as usize * 9];
            key.resize(key.len() + number as usize % 20, 0);
            key
        }));
    }

    #[test]
    fn one_key_that_is_written_again_and_again_remains_once() {
        check((0..1_000).map(|_| b"the only key there is".to_vec()));
    }
}
