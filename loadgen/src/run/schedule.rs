//! When operations are due.
//!
//! In a closed loop an operation is due when the one before has ended, so that a database that stalls is asked
//! less: the stall shows in one latency instead of in all those that would have met it ("coordinated omission",
//! Gil Tene). In an open loop operations are due at fixed moments whatever the database does, and latency counts
//! from the moment an operation was due, not from the moment it could at last be sent.

use std::time::{Duration, Instant};

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// The moments at which one thread's operations are due.
#[derive(Clone, Copy, Debug)]
pub enum Schedule {
    /// At once.
    Closed,
    /// At equal intervals; threads take turns.
    Open {
        /// When the first thread's first operation is due.
        start: Instant,
        /// Operations a second over all threads.
        rate: u64,
        /// Number of threads.
        threads: u64,
        /// This thread's place among them.
        thread: u64,
    },
}

impl Schedule {
    /// When operation `number` (from 0) of the thread is due; `None`: now.
    #[must_use]
    pub fn due(&self, number: u64) -> Option<Instant> {
        match *self {
            Schedule::Closed => None,
            Schedule::Open {
                start,
                rate,
                threads,
                thread,
            } => {
                let turn = u128::from(number) * u128::from(threads) + u128::from(thread);
                let nanoseconds = turn * NANOSECONDS_PER_SECOND / u128::from(rate.max(1));
                // 584 years are as good as never.
                Some(start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
            }
        }
    }

    /// Number of the thread's operations that are due before `end`; 0 in a closed loop.
    #[must_use]
    pub fn due_before(&self, end: Instant) -> u64 {
        match *self {
            Schedule::Closed => 0,
            Schedule::Open {
                start,
                rate,
                threads,
                thread,
            } => {
                let length = end.saturating_duration_since(start).as_nanos();
                let turns = (length * u128::from(rate)).div_ceil(NANOSECONDS_PER_SECOND);
                let own = turns
                    .saturating_sub(u128::from(thread))
                    .div_ceil(u128::from(threads.max(1)));
                u64::try_from(own).unwrap_or(u64::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_turns_at_the_rate() {
        let start = Instant::now();
        let schedule = |thread| Schedule::Open {
            start,
            rate: 1000,
            threads: 4,
            thread,
        };
        let mut due: Vec<Duration> = (0..4)
            .flat_map(|thread| (0..250).filter_map(move |number| schedule(thread).due(number)))
            .map(|at| at - start)
            .collect();
        due.sort_unstable();
        let even: Vec<Duration> = (0..1000).map(Duration::from_millis).collect();
        assert_eq!(due, even);
    }

    #[test]
    fn counts_agree_with_moments() {
        let start = Instant::now();
        for (rate, threads) in [(1000, 4), (7, 3), (1_000_003, 5), (1, 2)] {
            for thread in 0..threads {
                let schedule = Schedule::Open {
                    start,
                    rate,
                    threads,
                    thread,
                };
                for end in [0, 1, 999_999, 1_000_000, 3_000_000_000] {
                    let end = start + Duration::from_nanos(end);
                    let count = schedule.due_before(end);
                    assert!(schedule.due(count).is_some_and(|due| due >= end), "{schedule:?}");
                    assert!(
                        count == 0 || schedule.due(count - 1).is_some_and(|due| due < end),
                        "{schedule:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_closed_loop_has_no_moments() {
        assert_eq!(Schedule::Closed.due(5), None);
        assert_eq!(Schedule::Closed.due_before(Instant::now()), 0);
    }
}
