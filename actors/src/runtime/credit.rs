//! A bound on the bytes of what clients have under way.
//!
//! Mailboxes are bounded by the number of messages. That bounds the memory of small requests, but not that of large
//! values and batches, nor of the buffers through which clients write and read blobs: 64 clients with four pieces of
//! 1 MiB each would take four times what a database may take beside its cache. So whoever sends more than
//! [`CREDIT_FREE_BYTES`] takes credit for it first, and waits while there is none.
//!
//! # Guarantees
//! - At most as many bytes are out as [`Credits::new`] was told, and beyond that the rest of the last one that was let
//!   in: nothing is too large to be let in at all.
//! - Credit comes back when its [`Credit`] is dropped, wherever that happens. Nobody who holds some may wait for more
//!   (clients that transfer pieces give theirs back first), so those who wait are never waited for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Requests up to this size need no credit: mailboxes and batches bound their number, and they stay as fast as they are.
pub(crate) const CREDIT_FREE_BYTES: usize = 256;

/// The bytes that may be out, and how many are.
#[derive(Debug)]
pub(crate) struct Credits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes_out: usize,
    waiting: usize,
}

/// The right to have some bytes under way; dropped when they are not any more.
#[derive(Debug)]
#[must_use = "credit lasts as long as this does"]
pub(crate) struct Credit {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Credits {
    /// All of so many bytes are there to be taken.
    pub fn new(bytes_max: usize) -> Credits {
        Credits(Arc::new(Shared {
            bytes_max,
            state: Mutex::default(),
            returned: Condvar::new(),
        }))
    }

    /// Credit for so many bytes, if there is some.
    pub fn take(&self, bytes: usize) -> Option<Credit> {
        self.take_locked(&mut self.0.state(), bytes)
    }

    /// Credit for so many bytes, waiting for it at most this long.
    pub fn take_within(&self, bytes: usize, timeout: Duration) -> Option<Credit> {
        let mut state = self.0.state();
        if let Some(credit) = self.take_locked(&mut state, bytes) {
            return Some(credit);
        }
        state.waiting += 1;
        let (mut state, _) = self
            .0
            .returned
            .wait_timeout_while(state, timeout, |state| state.bytes_out >= self.0.bytes_max)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        self.take_locked(&mut state, bytes)
    }

    fn take_locked(&self, state: &mut State, bytes: usize) -> Option<Credit> {
        if state.bytes_out >= self.0.bytes_max {
            return None;
        }
        state.bytes_out += bytes;
        Some(Credit {
            shared: Arc::clone(&self.0),
            bytes,
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.state();
            state.bytes_out -= self.bytes;
            state.waiting > 0 && state.bytes_out < self.shared.bytes_max
        };
        if waiting {
            self.shared.returned.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_credit_until_the_bytes_are_out() {
        let credits = Credits::new(100);
        let half = credits.take(50).expect("nothing is out");
        let large = credits.take(300).expect("half of it is left");
        assert!(credits.take(1).is_none(), "the bound is passed");
        assert!(credits.take_within(1, Duration::ZERO).is_none());
        drop(half);
        assert!(credits.take(1).is_none(), "the large one is still out");
        drop(large);
        let rest = credits.take(1).expect("all came back");
        assert_eq!(credits.0.state().bytes_out, 1);
        drop(rest);
        assert_eq!(credits.0.state().bytes_out, 0);
    }

    #[test]
    fn who_waits_is_called() {
        let credits = Credits::new(100);
        let all = credits.take(100).expect("nothing is out");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| credits.take_within(1, Duration::from_secs(600)).is_some());
            while credits.0.state().waiting == 0 {
                std::thread::yield_now();
            }
            drop(all);
            assert!(waiting.join().expect("it doesn't panic"));
        });
    }
}
