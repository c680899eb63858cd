//! Errors: counted, told apart by what they say, never more of them kept than can be read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::target::TargetError;

/// Different messages that are kept.
const MESSAGES_MAX: usize = 16;

/// Counts failures of any thread.
#[derive(Debug, Default)]
pub struct ErrorTally {
    count: AtomicU64,
    is_final: AtomicBool,
    messages: Mutex<BTreeMap<String, u64>>,
}

impl ErrorTally {
    /// Counts one.
    pub fn add(&self, error: &TargetError) {
        self.count.fetch_add(1, Ordering::AcqRel);
        if error.is_final {
            self.is_final.store(true, Ordering::Release);
        }
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = messages.get_mut(&error.message) {
            *count += 1;
        } else if messages.len() < MESSAGES_MAX {
            messages.insert(error.message.clone(), 1);
        }
    }

    /// Number of all errors.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Whether one of them said that there is no use in going on.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_final.load(Ordering::Acquire)
    }

    /// Messages with their counts: the first sixteen different ones.
    #[must_use]
    pub fn messages(&self) -> BTreeMap<String, u64> {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_few_are_kept() {
        let tally = ErrorTally::default();
        for n in 0..100u64 {
            tally.add(&TargetError {
                message: format!("error {}", n % 50),
                is_final: false,
            });
        }
        assert_eq!(tally.count(), 100);
        assert_eq!(tally.messages().len(), MESSAGES_MAX);
        assert!(tally.messages().values().all(|&count| count == 2));
        assert!(!tally.is_final());
        tally.add(&TargetError {
            message: "poisoned".into(),
            is_final: true,
        });
        assert!(tally.is_final());
    }
}
