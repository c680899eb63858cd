//! The sleeping flag: how a thread goes to sleep on "nothing to do" without missing the message that
//! arrives just then, and how senders wake only a thread that sleeps.
//!
//! Waking a thread costs tens of microseconds, so senders must not do it to a thread that is awake, and
//! one of many senders must do it for a thread that is not.
//!
//! ```text
//! sleeper                                   sender
//!   flag.prepare_sleep()                      push the message
//!   look at the queues once more              if flag.claim_wake() { wake the thread }
//!   nothing: block until !flag.is_asleep()
//!   something: flag.cancel(), work
//! ```
//!
//! Why no wake-up is lost: each side writes, fences sequentially consistent, then reads what the other
//! wrote. Of two such fences one comes first; the side whose fence is second sees the other's write. So
//! either the sleeper finds the message, or the sender finds the flag. Sequentially consistent *accesses*
//! would not do in place of the fences, because the queue's own accesses are weaker.
//!
//! Why one waker: the flag is cleared by compare-and-swap, and only the sender that cleared it wakes.
//! Clearing it with a plain store could wipe out a flag that the sleeper has set anew for its next sleep.

use crate::sync::{AtomicBool, Ordering, fence};

/// Says whether one particular thread sleeps, or is about to. One sleeper, any number of wakers.
#[derive(Debug)]
pub struct SleepFlag {
    asleep: AtomicBool,
}

impl SleepFlag {
    /// A flag of a thread that is awake.
    #[must_use]
    pub fn new() -> SleepFlag {
        SleepFlag {
            asleep: AtomicBool::new(false),
        }
    }

    /// Sleeper: announces that it will sleep. Between this and blocking it must look at everything that
    /// could give it work once more, and call [`cancel`](Self::cancel) if there is any.
    pub fn prepare_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Sleeper: doesn't sleep after all, or has been woken by something else than a claimed wake.
    ///
    /// Returns whether a waker had already claimed the wake: its wake-up call (an unpark, a counter in an
    /// eventfd) arrives or has arrived, and whoever counts them has to expect one.
    pub fn cancel(&self) -> bool {
        !self.asleep.swap(false, Ordering::Acquire)
    }

    /// Sleeper: whether nobody has claimed its wake yet. A thread that returns from blocking while this
    /// holds was woken by accident (or by a timeout).
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Acquire)
    }

    /// Sender, after it has pushed its message: whether it is the one that must wake the thread. Costs a
    /// fence and a load while the thread is awake.
    #[must_use]
    pub fn claim_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        // The load first: the flag's cache line stays shared between senders as long as nobody sleeps.
        self.asleep.load(Ordering::Relaxed)
            && self
                .asleep
                .compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

impl Default for SleepFlag {
    fn default() -> SleepFlag {
        SleepFlag::new()
    }
}
