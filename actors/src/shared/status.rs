//! Whether the database takes requests: running, poisoned by a failed write, or closed.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};

const RUNNING: u8 = 0;
const POISONED: u8 = 1;
const CLOSED: u8 = 2;

/// Moves only forward: running → poisoned → closed.
#[derive(Debug, Default)]
pub(crate) struct Status {
    state: AtomicU8,
    cause: OnceLock<Arc<io::Error>>,
}

impl Status {
    /// Refuses all writes from here on. The first cause stays.
    pub fn poison(&self, cause: &Arc<io::Error>) {
        let _ = self.cause.set(Arc::clone(cause));
        let _ = self
            .state
            .compare_exchange(RUNNING, POISONED, Ordering::AcqRel, Ordering::Acquire);
        tracing::error!(%cause, "a write failed; the database refuses writes until it is reopened");
    }

    /// Refuses everything from here on.
    pub fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
    }

    /// The failure that poisoned the database, if one did.
    pub fn cause(&self) -> Option<Arc<io::Error>> {
        self.cause.get().cloned()
    }

    /// Whether writes may be sent.
    pub fn check_write(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            RUNNING => Ok(()),
            POISONED => Err(self.poisoned()),
            _ => Err(Error::Closed),
        }
    }

    /// Whether reads may run.
    pub fn check_read(&self) -> Result<()> {
        if self.state.load(Ordering::Acquire) == CLOSED {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Whether a write failed in a way that only reopening mends.
    pub fn is_poisoned(&self) -> bool {
        self.cause.get().is_some()
    }

    fn poisoned(&self) -> Error {
        let cause = self
            .cause()
            .unwrap_or_else(|| Arc::new(io::Error::other("unknown")));
        Error::Poisoned { cause }
    }
}
