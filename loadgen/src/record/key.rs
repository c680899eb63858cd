//! Keys: 24 bytes, `user` and 20 decimal digits, as in YCSB.
//!
//! The digits are the record number, or its image under a bijection of 64-bit numbers, which YCSB calls the
//! insert orders "ordered" and "hashed". Being a bijection, no two records share a key, and any key that a scan
//! returns tells its record. Byte order of keys is the order of the numbers written in them.

use std::ops::Deref;

use crate::random::{mix64, unmix64};

/// Length of every key in bytes.
pub const KEY_BYTES: usize = PREFIX.len() + DIGITS;

const PREFIX: &[u8; 4] = b"user";
/// Decimal digits of `u64::MAX`.
const DIGITS: usize = 20;
/// Keeps record 0 from being key 0: `mix64` maps zero to zero.
const HASH_OFFSET: u64 = 0x9e37_79b9_7f4a_7c15;

/// How record numbers lie in key order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyOrder {
    /// Scattered: records that are written one after the other are far apart (YCSB's default).
    #[default]
    Hashed,
    /// Ascending: record numbers are key order.
    Ordered,
}

impl KeyOrder {
    /// The number that stands in the key of `record`.
    #[must_use]
    pub fn position(self, record: u64) -> u64 {
        match self {
            KeyOrder::Hashed => mix64(record.wrapping_add(HASH_OFFSET)),
            KeyOrder::Ordered => record,
        }
    }

    /// The record whose key holds `position`.
    #[must_use]
    pub fn record_at(self, position: u64) -> u64 {
        match self {
            KeyOrder::Hashed => unmix64(position).wrapping_sub(HASH_OFFSET),
            KeyOrder::Ordered => position,
        }
    }

    /// The key of `record`.
    #[must_use]
    pub fn key(self, record: u64) -> Key {
        let mut bytes = [b'0'; KEY_BYTES];
        bytes[..PREFIX.len()].copy_from_slice(PREFIX);
        let mut rest = self.position(record);
        for digit in bytes[PREFIX.len()..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Key(bytes)
    }

    /// The record that `key` belongs to; `None` if the generator made no such key.
    #[must_use]
    pub fn record(self, key: &[u8]) -> Option<u64> {
        position(key).map(|position| self.record_at(position))
    }
}

/// The number in a key.
fn position(key: &[u8]) -> Option<u64> {
    if key.len() != KEY_BYTES {
        return None;
    }
    key.strip_prefix(PREFIX)?.iter().try_fold(0u64, |number, &digit| {
        let digit = char::from(digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The key of one record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key([u8; KEY_BYTES]);

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_record() {
        for order in [KeyOrder::Hashed, KeyOrder::Ordered] {
            for record in (0..10_000).chain([u64::MAX, u64::MAX / 2]) {
                assert_eq!(order.record(&order.key(record)), Some(record), "{order:?}");
            }
        }
    }

    #[test]
    fn byte_order_is_the_order_of_positions() {
        for order in [KeyOrder::Hashed, KeyOrder::Ordered] {
            let mut records: Vec<u64> = (0..5_000).collect();
            records.sort_by_key(|&record| order.position(record));
            assert!(
                records
                    .windows(2)
                    .all(|pair| order.key(pair[0]) < order.key(pair[1]))
            );
        }
    }

    #[test]
    fn hashing_scatters_neighbours() {
        let ascending = (0..1000)
            .filter(|&r| KeyOrder::Hashed.key(r) < KeyOrder::Hashed.key(r + 1))
            .count();
        assert!((400..600).contains(&ascending), "{ascending}");
    }

    #[test]
    fn foreign_keys_have_no_record() {
        let foreign: [&[u8]; 6] = [
            b"",
            b"user",
            b"user0000000000000000000x",
            b"user99999999999999999999",
            b"xser00000000000000000001",
            b"user000000000000000000001",
        ];
        for key in foreign {
            assert_eq!(KeyOrder::Ordered.record(key), None, "{key:?}");
        }
    }
}
