//! Counts that every reader adds to: each thread has its own, so that nobody's adding disturbs anybody.
//!
//! A shared counter would cost each read a cache line that travels between cores. Here a thread adds to a line of its
//! own, with plain loads and stores since it is the only writer, and whoever wants the sum asks all threads.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counter of one thread. Written by that thread alone.
#[derive(Debug, Default)]
#[repr(align(128))] // Two lines: processors fetch them in pairs.
pub(super) struct Tally(AtomicU64);

impl Tally {
    /// Adds, from the thread that the tally belongs to.
    #[inline]
    pub fn add(&self, count: u64) {
        let value = self.0.load(Ordering::Relaxed);
        self.0.store(value.wrapping_add(count), Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Known {
    living: Vec<Arc<Tally>>,
    /// What the threads counted that are gone.
    ended: u64,
}

/// All tallies of one memory.
#[derive(Default)]
pub(super) struct Tallies(Mutex<Known>);

impl Tallies {
    /// A tally for the calling thread.
    pub fn open(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        self.known().living.push(Arc::clone(&tally));
        tally
    }

    /// Keeps what the tally counted, and forgets the thread. O(threads).
    pub fn end(&self, tally: &Arc<Tally>) {
        let mut known = self.known();
        known.ended = known.ended.wrapping_add(tally.value());
        known.living.retain(|living| !Arc::ptr_eq(living, tally));
    }

    /// What all threads have counted. O(threads).
    pub fn sum(&self) -> u64 {
        let known = self.known();
        known
            .living
            .iter()
            .fold(known.ended, |sum, tally| sum.wrapping_add(tally.value()))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tallies").field(&self.sum()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_gone_have_counted_all_the_same() {
        let tallies = Tallies::default();
        let mine = tallies.open();
        let others = [tallies.open(), tallies.open()];
        others.iter().for_each(|tally| tally.add(20));
        mine.add(7);
        assert_eq!(tallies.sum(), 47);
        tallies.end(&others[0]);
        others[1].add(1);
        assert_eq!(tallies.sum(), 48);
        tallies.end(&others[1]);
        tallies.end(&mine);
        assert_eq!(tallies.sum(), 48);
        assert!(tallies.known().living.is_empty());
    }
}
