//! Scrambled zipfian: the popular records lie anywhere in the key space.
//!
//! As in YCSB, ranks are drawn from a zipfian of ten billion items, whatever the number of records is, hashed
//! with 64-bit FNV-1a, and taken modulo the number of records. The most popular record therefore gets 1/26.5
//! of the requests (a little more where other ranks fall on it), and neighbours in popularity are no neighbours
//! in key order.

use super::zipfian::{THETA, Zipfian};
use crate::random::Xoshiro256;

/// Number of items of the zipfian below the hash, YCSB's `ITEM_COUNT`.
const RANKS: u64 = 10_000_000_000;

/// 64-bit FNV-1a over the eight bytes of `number`, lowest first, its sign bit cleared by negation: YCSB's
/// `Utils.hash`.
#[must_use]
pub fn fnv_hash64(number: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in number.to_le_bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    hash.cast_signed().unsigned_abs()
}

/// Draws record numbers of which few are popular.
#[derive(Clone, Debug)]
pub struct ScrambledZipfian {
    zipfian: Zipfian,
    space: u64,
}

impl ScrambledZipfian {
    /// Draws from `0..space`. A workload that inserts gives a space a little larger than the number of records at
    /// the start, as YCSB does: were it to grow, every record's popularity would change with each insert.
    #[must_use]
    pub fn new(space: u64) -> ScrambledZipfian {
        ScrambledZipfian {
            zipfian: Zipfian::new(RANKS, THETA),
            space: space.max(1),
        }
    }

    /// A record number below `present`: numbers of the space that are not there yet are drawn again.
    pub fn choose(&mut self, random: &mut Xoshiro256, present: u64) -> u64 {
        if present == 0 {
            return 0;
        }
        if present.saturating_mul(2) < self.space {
            // Rejection would take long (a space of a million, three records there): settle for the remainder.
            return fnv_hash64(self.zipfian.rank(random)) % present;
        }
        loop {
            let record = fnv_hash64(self.zipfian.rank(random)) % self.space;
            if record < present {
                return record;
            }
        }
    }
}
