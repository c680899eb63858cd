//! Distributions, as statistics show them.

use std::fmt;

/// How often which value occurred. Values are told apart to two digits.
#[derive(Clone)]
pub struct Histogram(pub(crate) hdrhistogram::Histogram<u64>);

impl Histogram {
    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The smallest value; 0 if there is none.
    #[must_use]
    pub fn min(&self) -> u64 {
        self.0.min()
    }

    /// The largest value; 0 if there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// The average; 0 if there is no value.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// The value that a share of `quantile` (0 to 1) of all values doesn't exceed; 0 if there is none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The values that occurred, ascending, each with how often it did. What can't be told apart counts as the largest of
    /// its kind.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0
            .iter_recorded()
            .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        match hdrhistogram::Histogram::new(2) {
            Ok(empty) => Histogram(empty),
            Err(_) => unreachable!("two digits are within what histograms can tell apart"),
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_tells_what_was_recorded() {
        assert_eq!(Histogram::default().quantile(0.5), 0);
        let mut histogram = Histogram::default();
        for (value, times) in [(1, 6), (10, 3), (1000, 1)] {
            histogram.0.record_n(value, times).expect("a value in range");
        }
        assert_eq!((histogram.count(), histogram.min()), (10, 1));
        assert_eq!((histogram.quantile(0.5), histogram.quantile(0.9)), (1, 10));
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets[..2], [(1, 6), (10, 3)]);
        assert!((1000..1010).contains(&buckets[2].0) && buckets[2].1 == 1);
        assert_eq!(histogram.max(), buckets[2].0);
    }
}
