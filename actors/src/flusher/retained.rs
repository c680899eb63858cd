//! Time travel: a ring of past versions that are kept alive for a while (rule R23).
//!
//! A version is kept as long as [`Retention`] says, counted from the moment when a later one replaced it. The ring is
//! thinned to [`RETAINED_MAX`] versions, at even distances, and holds nothing beside them; it doesn't survive reopening.
//! The newest version of the ring is the newest that the flusher knows of, so what is kept begins at the oldest one and
//! has no end.

use std::collections::VecDeque;
use std::sync::Arc;

use treering_engine::Seq;

use crate::actor::Nanos;
use crate::options::Retention;
use crate::shared::Version;

/// Most versions in the ring.
const RETAINED_MAX: usize = 4096;

/// The ring.
#[derive(Debug)]
pub(super) struct Retained<V = Version> {
    retention: Retention,
    /// Ascending, each with the time when it was published.
    ring: VecDeque<(Nanos, Arc<V>)>,
    max: usize,
}

/// What the ring needs to know of a version.
pub(super) trait Numbered {
    /// Its commit group.
    fn seq(&self) -> Seq;
}

impl Numbered for Version {
    fn seq(&self) -> Seq {
        self.seq
    }
}

impl<V: Numbered> Retained<V> {
    pub fn new(retention: Retention) -> Retained<V> {
        Retained {
            retention,
            ring: VecDeque::new(),
            max: RETAINED_MAX,
        }
    }

    /// Takes note of the version that is the newest from now on. O(1), amortized.
    pub fn note(&mut self, version: &Arc<V>, now: Nanos) {
        if self.retention == Retention::None {
            return;
        }
        self.ring.push_back((now, Arc::clone(version)));
        if self.ring.len() > self.max {
            self.thin();
        }
    }

    /// Gives up what is past its time.
    pub fn expire(&mut self, now: Nanos) {
        while let Some((replaced_at, next)) = self.ring.get(1) {
            let gone = match self.retention {
                Retention::None => true,
                Retention::Last(duration) => replaced_at.saturating_add(nanos(duration)) <= now,
                Retention::Versions(count) => {
                    let newest = self.ring.back().map_or(0, |(_, newest)| newest.seq().0);
                    // The one before `next` was the newest until then: it is one of the last `count` if fewer
                    // versions have come since.
                    newest.saturating_sub(next.seq().0) + 1 >= count.max(1)
                }
            };
            if !gone {
                return;
            }
            self.ring.pop_front();
        }
    }

    /// When the next version is past its time, nanoseconds from `now`.
    pub fn deadline(&self, now: Nanos) -> Option<Nanos> {
        let Retention::Last(duration) = self.retention else {
            return None;
        };
        let (replaced_at, _) = self.ring.get(1)?;
        Some(replaced_at.saturating_add(nanos(duration)).saturating_sub(now))
    }

    /// The newest version that is not newer than `seq`; `None` if that isn't kept any more.
    pub fn at(&self, seq: Seq) -> Option<Arc<V>> {
        let after = self.ring.partition_point(|(_, version)| version.seq() <= seq);
        let (_, version) = self.ring.get(after.checked_sub(1)?)?;
        Some(Arc::clone(version))
    }

    /// The oldest version that is kept.
    pub fn oldest(&self) -> Option<Seq> {
        self.ring.front().map(|(_, version)| version.seq())
    }

    /// Keeps the first version of each of as many equal spans as half the ring has places, and the newest one.
    fn thin(&mut self) {
        let place = |(time, version): &(Nanos, Arc<V>)| match self.retention {
            Retention::Last(_) => *time,
            Retention::None | Retention::Versions(_) => version.seq().0,
        };
        let (Some(first), Some(last)) = (self.ring.front().map(place), self.ring.back().map(place)) else {
            return;
        };
        let span = (last - first) / (self.max as u64 / 2) + 1;
        let newest = self.ring.len() - 1;
        let mut taken = None;
        let mut kept = VecDeque::with_capacity(self.ring.len());
        for (index, entry) in self.ring.iter().enumerate() {
            let slot = (place(entry) - first) / span;
            if taken.replace(slot) != Some(slot) || index == newest {
                kept.push_back((entry.0, Arc::clone(&entry.1)));
            }
        }
        self.ring = kept;
    }
}

fn nanos(duration: std::time::Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    impl Numbered for u64 {
        fn seq(&self) -> Seq {
            Seq(*self)
        }
    }

    fn ring(retention: Retention, max: usize) -> Retained<u64> {
        Retained {
            max,
            ..Retained::new(retention)
        }
    }

    fn seqs(ring: &Retained<u64>) -> Vec<u64> {
        ring.ring.iter().map(|(_, seq)| **seq).collect()
    }

    #[test]
    fn the_last_versions_are_kept() {
        let mut ring = ring(Retention::Versions(3), 100);
        for seq in 10..20 {
            ring.note(&Arc::new(seq), 0);
            ring.expire(0);
        }
        assert_eq!(seqs(&ring), [17, 18, 19]);
        assert_eq!(ring.oldest(), Some(Seq(17)));
        assert_eq!(ring.at(Seq(16)), None);
        assert_eq!(ring.at(Seq(18)).as_deref(), Some(&18));
        assert_eq!(ring.at(Seq(99)).as_deref(), Some(&19));
    }

    #[test]
    fn a_version_is_kept_for_its_time_after_it_was_replaced() {
        let mut ring = ring(Retention::Last(Duration::from_nanos(100)), 100);
        for (seq, time) in [(1, 0), (2, 500), (3, 510)] {
            ring.note(&Arc::new(seq), time);
            ring.expire(time);
        }
        assert_eq!(seqs(&ring), [1, 2, 3], "at 410 version 1 was the newest");
        assert_eq!(ring.deadline(520), Some(80));
        ring.expire(599);
        assert_eq!(seqs(&ring), [1, 2, 3]);
        ring.expire(600);
        assert_eq!(seqs(&ring), [2, 3]);
        ring.expire(10_000);
        assert_eq!(seqs(&ring), [3], "the newest one has no end");
        assert_eq!(ring.deadline(10_000), None);
    }

    #[test]
    fn a_full_ring_is_thinned_evenly() {
        let mut ring = ring(Retention::Last(Duration::from_nanos(100_000)), 16);
        for seq in 1..=100_000 {
            ring.note(&Arc::new(seq), seq);
            ring.expire(seq);
            assert!(ring.ring.len() <= 16);
            assert_eq!(seqs(&ring).last(), Some(&seq));
        }
        let kept = seqs(&ring);
        assert!(kept.len() >= 6, "{kept:?}");
        assert_eq!(kept[0], 1);
        // No stretch of what is kept is without a version for long.
        assert!(
            kept.windows(2).all(|pair| pair[1] - pair[0] <= 100_000 / 3),
            "{kept:?}"
        );
    }

    #[test]
    fn without_retention_nothing_is_kept() {
        let mut ring = ring(Retention::None, 16);
        ring.note(&Arc::new(1), 0);
        assert_eq!(seqs(&ring), []);
    }
}
