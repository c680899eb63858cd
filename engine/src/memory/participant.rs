//! A thread's membership in the epoch.

use crossbeam_epoch::{Guard, LocalHandle};
use std::fmt;

/// How often a collection pins anew: an epoch has to advance twice before what was deferred in it runs, and
/// two more rounds are for the bags that one round leaves.
const COLLECT_ROUNDS: usize = 4;

/// One thread's membership in a [`Memory`](super::Memory)'s epoch. Each thread that reads nodes or gives frames
/// back has one; it can't be sent to another.
pub struct Participant {
    handle: LocalHandle,
}

impl Participant {
    pub(super) fn new(handle: LocalHandle) -> Participant {
        Participant { handle }
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

impl fmt::Debug for Participant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Participant")
            .field("pinned", &self.is_pinned())
            .finish()
    }
}
