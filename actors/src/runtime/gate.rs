//! The gate between requests for several keys and ranges that move (rule R22).
//!
//! A range changes its owner while requests for single keys go on: they queue with it. A request for several keys
//! would find some of them gone; sent after those that are left, or to somebody else, it could be overtaken by what its
//! client sends next. So the two keep out of each other's way. Who sends a request for several keys, or for none (a
//! batch, a transaction, a whole tree), takes a [`Passage`] before it looks up any owner; the request keeps it until it
//! is answered. A shard that wants to give a range away shuts the gate ([`Shut`]) and waits until all passages are
//! over; the gate opens when the range is with its new owner.
//!
//! # Guarantees
//! - As long as somebody has a passage, no partition is cut, joined or given away. Everything that moved before is in the
//!   version that its holder loads. (What was joined before may not be yet; but both parts have one owner, who knows.)
//! - Passages and shuttings end when they are dropped, wherever that happens.
//! - No actor waits here. Clients do, for a move at most, or, before it, for as long as a shard waits for passages
//!   to end (`shard/moves`).
//! - There is one shutting at a time, so at most one range is on its way in the whole database.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use treering_engine::Gate;

/// The gate, and who waits before it.
#[derive(Debug, Default)]
pub(crate) struct MovesGate {
    gate: Gate,
    waiting: Mutex<()>,
    opened: Condvar,
}

/// The right to rely on the routing.
#[derive(Debug)]
#[must_use = "the routing stays as it is for as long as this lives"]
pub(crate) struct Passage(Arc<MovesGate>);

/// A shut gate, which opens when this is dropped.
#[derive(Debug)]
#[must_use = "the gate is shut for as long as this lives"]
pub(crate) struct Shut(Arc<MovesGate>);

impl MovesGate {
    /// A passage, if the gate is open.
    pub fn enter(self: &Arc<Self>) -> Option<Passage> {
        self.gate.try_enter().then(|| Passage(Arc::clone(self)))
    }

    /// A passage, waiting for it at most this long.
    pub fn enter_within(self: &Arc<Self>, timeout: Duration) -> Option<Passage> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever opens the gate does so before it takes the lock to call: one of the two is seen.
        if let Some(passage) = self.enter() {
            return Some(passage);
        }
        (waiting, _) = self
            .opened
            .wait_timeout(waiting, timeout)
            .unwrap_or_else(PoisonError::into_inner);
        drop(waiting);
        self.enter()
    }

    /// Shuts the gate, unless it is shut.
    pub fn shut(self: &Arc<Self>) -> Option<Shut> {
        self.gate.try_shut().then(|| Shut(Arc::clone(self)))
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

impl Shut {
    /// Whether all passages are over. From then on nobody has one, though an attempt to enter may look like it for a
    /// moment.
    pub fn is_quiet(&self) -> bool {
        self.0.gate.is_empty()
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        self.0.gate.open();
        drop(self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.opened.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Even on a machine that does other things for a while. Who is not called waits for longer.
    const CALLED_WITHIN: Duration = Duration::from_secs(120);

    #[test]
    fn a_shut_gate_lets_nobody_in_and_is_quiet_when_all_have_left() {
        let gate = Arc::new(MovesGate::default());
        let passage = gate.enter().expect("it is open");
        let shut = gate.shut().expect("nobody has shut it");
        assert!(gate.shut().is_none(), "shut twice");
        assert!(gate.enter().is_none() && gate.enter_within(Duration::ZERO).is_none());
        assert!(!shut.is_quiet());
        drop(passage);
        assert!(shut.is_quiet());
        drop(shut);
        drop(gate.enter().expect("it is open again"));
        assert!(gate.shut().expect("it can be shut again").is_quiet());
    }

    #[test]
    fn who_waits_is_called() {
        let gate = Arc::new(MovesGate::default());
        let shut = gate.shut().expect("nobody has shut it");
        let (told, heard) = channel();
        std::thread::spawn(move || told.send(gate.enter_within(10 * CALLED_WITHIN).is_some()));
        std::thread::sleep(Duration::from_millis(20));
        drop(shut);
        assert_eq!(heard.recv_timeout(CALLED_WITHIN), Ok(true), "nobody was called");
    }
}
