//! YCSB's scrambled zipfian choice of a record.
//!
//! Ranks follow Gray et al., "Quickly generating billion-record synthetic databases" (1994), with
//! YCSB's constant 0.99: rank 1 is drawn most often. Ranks are then scattered over the indices,
//! so that the popular records are not neighbours. (Indices are hashed into keys anyway; the
//! scattering keeps the popular ones from being the first that were loaded.)

use crate::workload::Random;

/// YCSB's skew.
const THETA: f64 = 0.99;
/// A prime beyond any count of records used here: multiplication by it modulo the count permutes
/// the indices.
const SCATTER: u128 = 0xFFFF_FFFF_FFFF_FFC5;

/// Draws indices below a fixed count, some far more often than others.
#[derive(Debug, Clone)]
pub struct Zipfian {
    count: u64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipfian {
    /// For indices `0..count`; O(count) once. A count of 0 is taken as 1.
    #[must_use]
    pub fn new(count: u64) -> Self {
        let count = count.max(1);
        let zeta: f64 = (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum();
        let zeta_two = 1.0 + 0.5_f64.powf(THETA);
        Self {
            count,
            alpha: 1.0 / (1.0 - THETA),
            zeta,
            eta: (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - zeta_two / zeta),
        }
    }

    /// A rank from 0 (most frequent) to count - 1.
    fn rank(&self, random: &mut Random) -> u64 {
        let uniform = random.unit();
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(THETA) {
            1.min(self.count - 1)
        } else {
            let rank = self.count as f64 * (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
            (rank as u64).min(self.count - 1)
        }
    }

    /// The next index.
    pub fn next_index(&self, random: &mut Random) -> u64 {
        let rank = u128::from(self.rank(random));
        (rank * SCATTER % u128::from(self.count)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_follow_the_power_law() {
        let zipfian = Zipfian::new(1_000);
        let mut random = Random::new(3);
        let mut counts = vec![0_u64; 1_000];
        let draws = 1_000_000;
        for _ in 0..draws {
            counts[zipfian.rank(&mut random) as usize] += 1;
        }
        for rank in [1_u64, 2, 10, 100] {
            let expected = draws as f64 / (rank as f64).powf(THETA) / zipfian.zeta;
            let found = counts[rank as usize - 1] as f64;
            // Gray's formula is exact for the first two ranks and an approximation after them.
            assert!(
                (found / expected - 1.0).abs() < 0.15,
                "rank {rank}: {found} instead of {expected}"
            );
        }
    }

    #[test]
    fn scattering_is_a_permutation() {
        let zipfian = Zipfian::new(1_000);
        let mut seen = vec![false; 1_000];
        for rank in 0..1_000_u128 {
            seen[(rank * SCATTER % u128::from(zipfian.count)) as usize] = true;
        }
        assert!(seen.into_iter().all(|found| found));
    }

    #[test]
    fn tiny_counts_stay_in_bounds() {
        for count in 0..4 {
            let zipfian = Zipfian::new(count);
            let mut random = Random::new(9);
            assert!((0..1_000).all(|_| zipfian.next_index(&mut random) < count.max(1)));
        }
    }
}
