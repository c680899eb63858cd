//! A thread's membership in the epoch.

use super::tally::{Tallies, Tally};
use crossbeam_epoch::{Guard, LocalHandle};
use std::fmt;
use std::sync::Arc;

/// How often a collection pins anew: an epoch has to advance twice before what was deferred in it runs, and
/// two more rounds are for the bags that one round leaves.
const COLLECT_ROUNDS: usize = 4;

/// One thread's membership in a [`Memory`](super::Memory)'s epoch. Each thread that reads nodes or gives frames
/// back has one; it can't be sent to another.
pub struct Participant {
    handle: LocalHandle,
    hits: Arc<Tally>,
    tallies: Arc<Tallies>,
}

impl Participant {
    pub(super) fn new(handle: LocalHandle, tallies: &Arc<Tallies>) -> Participant {
        Participant {
            handle,
            hits: tallies.open(),
            tallies: Arc::clone(tallies),
        }
    }

    /// Counts lookups that found what they needed in memory. Writes to no cache line that other threads write.
    #[inline]
    pub fn add_hits(&self, count: u64) {
        self.hits.add(count);
    }

    /// Pins the epoch: what is reachable now stays in place until the guard is dropped. For one descent only,
    /// never across user code or waiting: a pin that stays holds up every frame's way back.
    #[inline]
    #[must_use]
    pub fn pin(&self) -> Guard {
        self.handle.pin()
    }

    /// Whether this thread has a guard now.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.handle.is_pinned()
    }

    /// Hands over what this thread has deferred and runs what has become due, whoever deferred it. Call it
    /// unpinned: under a guard of its own the thread holds the epoch back.
    ///
    /// Workers call it between batches, the flusher when frames are short, and idle loops; nothing else drives
    /// the collection (rule R11).
    pub fn collect(&self) {
        for _ in 0..COLLECT_ROUNDS {
            self.handle.pin().flush();
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.tallies.end(&self.hits);
    }
}

impl fmt::Debug for Participant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Participant")
            .field("pinned", &self.is_pinned())
            .finish()
    }
}
