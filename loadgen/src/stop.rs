//! The wish to end: asked by Ctrl-C, seen by every loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a process that a second Ctrl-C ends at once: 128 and the signal's number, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// A flag that is set once. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
}

impl Stop {
    /// Asks every loop to end.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Ctrl-C and SIGTERM ask; a second one ends the process without a report. To be called once a process.
    ///
    /// # Errors
    /// When the handler can't be installed.
    pub fn on_interrupt(&self) -> Result<(), ctrlc::Error> {
        let stop = self.clone();
        ctrlc::set_handler(move || {
            if stop.is_asked() {
                std::process::exit(EXIT_INTERRUPTED);
            }
            stop.ask();
        })
    }
}
