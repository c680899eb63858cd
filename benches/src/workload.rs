//! The records, and the randomness that picks among them.
//!
//! Record `i` has a 24-byte key that is a hash of `i`, so ascending indices are keys in random
//! order, and a 150-byte value that starts with `i`, so that a reader can tell a right answer from
//! a wrong one. Values are otherwise random bytes: an engine that compresses gains nothing.

use std::ops::Range;

/// Bytes of every key.
pub const KEY_BYTES: usize = 24;
/// Bytes of every value.
pub const VALUE_BYTES: usize = 150;
/// Bytes of a record as the user sees it: what the files' sizes are compared with.
pub const RECORD_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

/// A key.
pub type Key = [u8; KEY_BYTES];
/// A value.
pub type Value = [u8; VALUE_BYTES];

/// A key with its value.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// The key, a hash of the record's index.
    pub key: Key,
    /// The value; its first eight bytes are the record's index, little endian.
    pub value: Value,
}

/// One step of splitmix64 (Steele, Lea, Flood 2014): a bijection, so distinct indices give
/// distinct keys.
#[inline]
fn mix(index: u64) -> u64 {
    let mut hash = index.wrapping_add(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// The key of record `index`. Keys sort as the first eight bytes do, read big endian.
#[inline]
#[must_use]
pub fn key_of(index: u64) -> Key {
    let first = mix(index);
    let second = mix(first);
    let third = mix(second);
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..16].copy_from_slice(&second.to_be_bytes());
    key[16..].copy_from_slice(&third.to_be_bytes());
    key
}

/// The indices `0..records` in the order of their keys. O(n log n).
#[must_use]
pub fn indices_by_key(records: u64) -> Vec<u64> {
    let mut indices: Vec<u64> = (0..records).collect();
    indices.sort_unstable_by_key(|&index| mix(index));
    indices
}

/// A small fast generator: splitmix64 over a counter.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator whose sequence follows from `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    /// 64 uniform bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// Uniform in `0..bound` by multiplication (Lemire); 0 when `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `0.0..1.0`.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }
}

/// Makes values: slices of one pool of random bytes, stamped with the record's index.
#[derive(Debug)]
pub struct Values {
    pool: Vec<u8>,
}

/// Large enough that neighbouring records don't share bytes within a page, small enough to stay in
/// the processor's second-level cache.
const POOL_BYTES: usize = 256 << 10;

impl Default for Values {
    fn default() -> Self {
        let mut random = Random::new(0x5EED);
        let mut pool = Vec::with_capacity(POOL_BYTES + VALUE_BYTES);
        while pool.len() < POOL_BYTES + VALUE_BYTES {
            pool.extend_from_slice(&random.next_u64().to_le_bytes());
        }
        Self { pool }
    }
}

impl Values {
    /// Value of record `index` in its `version`-th writing.
    #[inline]
    #[must_use]
    pub fn value_of(&self, index: u64, version: u64) -> Value {
        let start = (mix(index ^ version.rotate_left(32)) % POOL_BYTES as u64) as usize;
        let mut value = [0; VALUE_BYTES];
        value.copy_from_slice(&self.pool[start..start + VALUE_BYTES]);
        value[..8].copy_from_slice(&index.to_le_bytes());
        value
    }

    /// Record `index` in its `version`-th writing.
    #[inline]
    #[must_use]
    pub fn record(&self, index: u64, version: u64) -> Record {
        Record {
            key: key_of(index),
            value: self.value_of(index, version),
        }
    }

    /// The records of a range of indices: keys in random order.
    pub fn records(&self, indices: Range<u64>) -> impl Iterator<Item = Record> + '_ {
        indices.map(|index| self.record(index, 0))
    }
}

/// The index that a value of [`Values`] belongs to.
#[inline]
#[must_use]
pub fn index_of(value: &Value) -> u64 {
    let mut index = [0; 8];
    index.copy_from_slice(&value[..8]);
    u64::from_le_bytes(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_indices_give_ascending_keys() {
        let keys: Vec<Key> = indices_by_key(10_000).into_iter().map(key_of).collect();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn ascending_indices_give_keys_in_random_order() {
        let ascents = (0..10_000)
            .filter(|&index| key_of(index) < key_of(index + 1))
            .count();
        assert!((4_700..5_300).contains(&ascents), "{ascents}");
    }

    #[test]
    fn a_value_tells_its_index_and_changes_with_its_version() {
        let values = Values::default();
        for index in 0..1_000 {
            assert_eq!(index_of(&values.value_of(index, 7)), index);
            assert_ne!(values.value_of(index, 7), values.value_of(index, 8));
        }
    }

    #[test]
    fn below_is_uniform_and_bounded() {
        let mut random = Random::new(1);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[random.below(10) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
        assert_eq!(random.below(0), 0);
    }
}
