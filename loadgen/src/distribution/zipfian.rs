//! Zipfian ranks by the method of Gray et al. (SIGMOD 1994).
//!
//! The rank `k` (from 0) of `n` has probability `(k + 1)^-theta / zeta(n)`. Ranks 0 and 1 are drawn with
//! exactly these probabilities; the others by inverting a continuous curve that follows the distribution,
//! which is what makes a draw take constant time and no table. It gives rank 2 nearly
//! a fifth too much and is within three percent from rank 16 on; `tests.rs` bounds it.

use crate::random::Xoshiro256;

/// The skew of YCSB's workloads.
pub const THETA: f64 = 0.99;

/// Number of terms that [`zeta`] sums one by one.
const ZETA_TERMS_EXACT: u64 = 64;

/// The generalised harmonic number: the sum of `k^-theta` for `k` in `1..=items`, for `theta` in (0, 1).
///
/// The first terms are added, the rest is the Euler–Maclaurin formula, exact to 12 digits; so it takes constant
/// time, where YCSB sums for seconds or has the result as a constant.
#[must_use]
pub fn zeta(items: u64, theta: f64) -> f64 {
    let summed = items.min(ZETA_TERMS_EXACT);
    let head: f64 = (1..=summed).map(|k| (k as f64).powf(-theta)).sum();
    if items == summed {
        return head;
    }
    let from = summed as f64;
    let to = items as f64;
    let integral = (to.powf(1.0 - theta) - from.powf(1.0 - theta)) / (1.0 - theta);
    let ends = (to.powf(-theta) - from.powf(-theta)) / 2.0;
    let slopes = theta / 12.0 * (from.powf(-theta - 1.0) - to.powf(-theta - 1.0));
    let third = theta * (theta + 1.0) * (theta + 2.0) / 720.0;
    let curvatures = third * (from.powf(-theta - 3.0) - to.powf(-theta - 3.0));
    head + integral + ends + slopes - curvatures
}

/// Draws zipfian ranks: 0 is the most popular.
#[derive(Clone, Debug)]
pub struct Zipfian {
    items: u64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    /// `u * zeta` below this is rank 0 or 1: the sum of the first two terms.
    first_two: f64,
}

impl Zipfian {
    /// Ranks `0..items` with skew `theta` in (0, 1). Constant time.
    #[must_use]
    pub fn new(items: u64, theta: f64) -> Zipfian {
        let mut zipfian = Zipfian {
            items: 0,
            theta,
            zeta: 0.0,
            alpha: 1.0 / (1.0 - theta),
            eta: 0.0,
            first_two: 1.0 + 0.5f64.powf(theta),
        };
        zipfian.set_items(items);
        zipfian
    }

    /// Number of ranks.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Changes the number of ranks; constant time, about as long as two draws.
    pub fn set_items(&mut self, items: u64) {
        self.items = items.max(1);
        self.zeta = zeta(self.items, self.theta);
        let scaled = (2.0 / self.items as f64).powf(1.0 - self.theta);
        self.eta = (1.0 - scaled) / (1.0 - self.first_two / self.zeta);
    }

    /// Draws a rank in `0..items`.
    pub fn rank(&self, random: &mut Xoshiro256) -> u64 {
        let uniform = random.unit();
        let scaled = uniform * self.zeta;
        if scaled < 1.0 || self.items == 1 {
            return 0;
        }
        if scaled < self.first_two || self.items == 2 {
            return 1;
        }
        let fraction = (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        ((self.items as f64 * fraction) as u64).min(self.items - 1)
    }

    /// The probability that [`rank`](Zipfian::rank) gives exactly with infinitely many draws, ranks below `rank`
    /// taken together: what the tests compare frequencies with.
    #[cfg(test)]
    pub(crate) fn probability_below(&self, rank: u64) -> f64 {
        match rank {
            0 => 0.0,
            1 => 1.0 / self.zeta,
            _ if rank >= self.items => 1.0,
            _ => {
                let fraction = (rank as f64 / self.items as f64).powf(1.0 / self.alpha);
                let inverted = (fraction - 1.0 + self.eta) / self.eta;
                inverted.max(self.first_two / self.zeta)
            }
        }
    }
}
