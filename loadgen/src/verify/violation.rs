//! What a check can find wrong, and a bounded list of it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::record::Defect;

/// Most violations that are kept word by word; the others are counted.
const LISTED_MAX: usize = 100;

/// An answer, or a content, that must not be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// A record that was acknowledged isn't there.
    #[error("record {record} is missing; version {least} was acknowledged")]
    Missing {
        /// The record.
        record: u64,
        /// Least version that had to be there.
        least: u64,
    },
    /// A record shows an older version than was acknowledged before the read began.
    #[error("record {record} has version {found}; version {least} was acknowledged")]
    Stale {
        /// The record.
        record: u64,
        /// Version found.
        found: u64,
        /// Least version that had to be there.
        least: u64,
    },
    /// A record shows a version that nobody wrote.
    #[error("record {record} has version {found}; {issued} is the last that was written")]
    NeverWritten {
        /// The record.
        record: u64,
        /// Version found.
        found: u64,
        /// Highest version issued.
        issued: u64,
    },
    /// All updates succeeded, yet their count isn't what the record shows.
    #[error("record {record} has version {found} after {issued} successful updates")]
    UpdatesLost {
        /// The record.
        record: u64,
        /// Version found.
        found: u64,
        /// Number of updates, and so the version that had to be there.
        issued: u64,
    },
    /// Bytes that were never written.
    #[error("record {record}: its value is damaged: {defect}")]
    Damaged {
        /// The record whose key it is.
        record: u64,
        /// What is wrong.
        defect: Defect,
    },
    /// A whole value, of another record.
    #[error("record {record} holds the value of record {found}")]
    Misplaced {
        /// The record whose key it is.
        record: u64,
        /// The record in the value.
        found: u64,
    },
    /// A key that the generator never wrote.
    #[error("key {key:?} is none of the generator's")]
    ForeignKey {
        /// The key, as text where it is text.
        key: String,
    },
    /// A scan went back, or below its start.
    #[error("a scan from {previous:?} on returned {key:?} next")]
    OutOfOrder {
        /// The key before, or the start.
        previous: String,
        /// The key that came.
        key: String,
    },
    /// A scan passed by a record that is there.
    #[error("a scan that began at record {start} left out record {record}")]
    MissingInScan {
        /// Where it began.
        start: u64,
        /// The record left out.
        record: u64,
    },
    /// A scan returned more than it was asked for.
    #[error("a scan for {limit} records returned {found}")]
    TooMany {
        /// Records asked for.
        limit: u64,
        /// Records returned.
        found: u64,
    },
}

/// Where violations go: counted, the first hundred kept. Any thread may add.
#[derive(Debug, Default)]
pub struct Violations {
    count: AtomicU64,
    listed: Mutex<Vec<Violation>>,
}

impl Violations {
    /// Adds one.
    pub fn add(&self, violation: Violation) {
        if self.count.fetch_add(1, Ordering::AcqRel) < LISTED_MAX as u64 {
            self.listed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(violation);
        }
    }

    /// Number of all that were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The first ones.
    #[must_use]
    pub fn listed(&self) -> Vec<Violation> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = self.listed();
        for violation in &listed {
            writeln!(f, "  {violation}")?;
        }
        match self.count() - listed.len() as u64 {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}
