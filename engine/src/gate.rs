//! A gate: many may be within at a time, or it is shut and, once all have left, one thing is done with nobody within.
//!
//! ```text
//! passer                                  keeper
//!   if gate.try_enter() {                   if gate.try_shut() {
//!       rely on what the keeper changes         until gate.is_empty(): come back later
//!       gate.leave()                            change it
//!   } else: wait, try again                     gate.open()
//!                                           }
//! ```
//!
//! All of it is one word: who is within, times two, and whether the gate is shut. Whoever enters is counted first and
//! looks then, both by one addition, so that of an attempt and a shutting one comes first: an attempt that comes
//! second leaves again. What it adds meanwhile can make the gate look occupied for a moment, never empty.
//!
//! Waiting is done elsewhere: there are no threads here.

use crate::sync::{AtomicUsize, Ordering};

const SHUT: usize = 1;
const ONE: usize = 2;

/// One gate; open at first.
#[derive(Debug)]
pub struct Gate {
    word: AtomicUsize,
}

impl Gate {
    /// An open gate with nobody within.
    #[must_use]
    pub fn new() -> Gate {
        Gate {
            word: AtomicUsize::new(0),
        }
    }

    /// Passer: goes in, unless the gate is shut. What keepers did before is seen.
    #[must_use = "who has entered must leave"]
    pub fn try_enter(&self) -> bool {
        if self.word.fetch_add(ONE, Ordering::Acquire) & SHUT == 0 {
            return true;
        }
        self.leave();
        false
    }

    /// Passer: goes out.
    pub fn leave(&self) {
        self.word.fetch_sub(ONE, Ordering::Release);
    }

    /// Keeper: shuts the gate, unless another keeper has.
    #[must_use = "who has shut the gate must open it"]
    pub fn try_shut(&self) -> bool {
        self.word.fetch_or(SHUT, Ordering::Acquire) & SHUT == 0
    }

    /// Keeper who has shut the gate: whether all have left; what they did is seen. Nobody enters until the gate is
    /// open, though an attempt to may make this false for a moment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.word.load(Ordering::Acquire) == SHUT
    }

    /// Keeper who has shut the gate: opens it.
    pub fn open(&self) {
        self.word.fetch_and(!SHUT, Ordering::Release);
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::new()
    }
}
