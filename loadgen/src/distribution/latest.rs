//! Latest: the newer a record, the more often it is asked for.
//!
//! YCSB's `SkewedLatestGenerator`: the distance from the newest record is zipfian over all records that are
//! there. It follows inserts at once.

use super::zipfian::{THETA, Zipfian};
use crate::random::Xoshiro256;

/// Draws record numbers close to the newest.
#[derive(Clone, Debug)]
pub struct Latest {
    zipfian: Zipfian,
}

impl Latest {
    /// A generator for `present` records.
    #[must_use]
    pub fn new(present: u64) -> Latest {
        Latest {
            zipfian: Zipfian::new(present, THETA),
        }
    }

    /// A record number below `present`, 0 when there is none. Constant time.
    pub fn choose(&mut self, random: &mut Xoshiro256, present: u64) -> u64 {
        if present == 0 {
            return 0;
        }
        // The curve hardly moves while the count grows by a thousandth; the newest record is always in reach
        // because the distance is taken from `present` itself.
        if present < self.zipfian.items() || present - self.zipfian.items() > self.zipfian.items() / 1024 {
            self.zipfian.set_items(present);
        }
        present - 1 - self.zipfian.rank(random)
    }
}
