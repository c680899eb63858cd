//! Numbers for new records, and how far they can be asked for.
//!
//! Threads take numbers in turn and acknowledge them in any order; readers ask only for records below the
//! first number that is not acknowledged yet (YCSB's `AcknowledgedCounterGenerator`). Numbers that were taken and
//! not acknowledged lie in a window of fixed size.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Most numbers between the oldest unacknowledged one and the next. Threads times pipelining depth stay below.
pub const WINDOW: usize = 1 << 20;

/// Hands out record numbers.
#[derive(Debug)]
pub struct InsertSequence {
    next: AtomicU64,
    present: AtomicU64,
    /// Whether number `n` was acknowledged, at `n % WINDOW`; made only for workloads that insert.
    acknowledged: Box<[AtomicBool]>,
    advancing: Mutex<()>,
}

impl InsertSequence {
    /// Records below `present` are there. With `growing`, numbers can be taken.
    #[must_use]
    pub fn new(present: u64, growing: bool) -> InsertSequence {
        let window = if growing { WINDOW } else { 0 };
        InsertSequence {
            next: AtomicU64::new(present),
            present: AtomicU64::new(present),
            acknowledged: (0..window).map(|_| AtomicBool::new(false)).collect(),
            advancing: Mutex::new(()),
        }
    }

    /// Every record below this number is there.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.present.load(Ordering::Acquire)
    }

    /// A number that nobody else has; it must be [acknowledged](InsertSequence::acknowledge), whatever becomes of
    /// its insert, or [`present`](InsertSequence::present) stops there.
    #[must_use]
    pub fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The insert of `number` came to its end. Returns whether the window could take it; it always can while
    /// fewer than [`WINDOW`] numbers are out.
    pub fn acknowledge(&self, number: u64) -> bool {
        let window = self.acknowledged.len() as u64;
        if window == 0 || number - self.present() >= window {
            return false;
        }
        self.acknowledged[(number % window) as usize].store(true, Ordering::SeqCst);
        // Whoever holds the lock may have looked at this place already, so it can't be left to them alone.
        let _advancing = self
            .advancing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut present = self.present.load(Ordering::Relaxed);
        while self.acknowledged[(present % window) as usize].swap(false, Ordering::SeqCst) {
            present += 1;
        }
        self.present.store(present, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn present_waits_for_the_oldest() {
        let sequence = InsertSequence::new(10, true);
        let taken: Vec<u64> = (0..4).map(|_| sequence.take()).collect();
        assert_eq!(taken, [10, 11, 12, 13]);
        for (number, present) in [(12, 10), (10, 11), (11, 13), (13, 14)] {
            assert!(sequence.acknowledge(number));
            assert_eq!(sequence.present(), present);
        }
    }

    #[test]
    fn threads_leave_no_gap() {
        let sequence = InsertSequence::new(0, true);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25_000 {
                        let number = sequence.take();
                        assert!(sequence.acknowledge(number));
                    }
                });
            }
        });
        assert_eq!(sequence.present(), 100_000);
        assert_eq!(sequence.take(), 100_000);
    }

    #[test]
    fn a_fixed_sequence_takes_nothing() {
        let sequence = InsertSequence::new(5, false);
        assert!(!sequence.acknowledge(5));
        assert_eq!(sequence.present(), 5);
    }
}
