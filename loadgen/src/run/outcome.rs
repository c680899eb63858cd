//! What comes out of a run.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::measure::Totals;
use crate::measure::process::Memory;
use crate::plan::Plan;
use crate::target::TargetError;
use crate::verify::check::CheckError;
use crate::verify::violation::Violation;

/// Why a run couldn't take place or come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No directory to work in.
    #[error("{path:?}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The database couldn't be opened, or not be read at all.
    #[error("{what}: {source}")]
    Target {
        /// What was attempted.
        what: &'static str,
        /// The database's answer.
        source: TargetError,
    },
    /// The verification journal couldn't be used.
    #[error("the verification journal {path:?}: {source}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: io::Error,
    },
    /// The database's content couldn't be checked.
    #[error("checking the database: {0}")]
    Check(#[from] CheckError),
}

/// What a run found out.
#[derive(Debug)]
pub struct Outcome {
    /// What was asked for.
    pub plan: Plan,
    /// Latencies and course of the measured part.
    pub totals: Totals,
    /// Length of the measured part.
    pub elapsed: Duration,
    /// Time that opening took, recovery included.
    pub opening: Duration,
    /// Records loaded before the measured part, and the time that took.
    pub loaded: (u64, Duration),
    /// Time that closing took.
    pub closing: Duration,
    /// Counts beside the operations.
    pub counters: Counters,
    /// Number of failed operations, and failures of loading, flushing and closing.
    pub errors: u64,
    /// What they said, with counts.
    pub error_messages: BTreeMap<String, u64>,
    /// Disk taken by the database at the end of the measured part.
    pub bytes_on_disk: u64,
    /// Memory at the end of the measured part.
    pub memory: Memory,
    /// The database's own counters at the end of the measured part.
    pub stats: Map<String, Value>,
    /// What verification found, if it was asked for.
    pub verification: Option<Verification>,
    /// Whether the run was interrupted.
    pub interrupted: bool,
}

/// What verification found.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Records checked before the load, in a directory that existed.
    pub records_before: u64,
    /// Records checked at the end.
    pub records_after: u64,
    /// Whether a ledger of an earlier run said what had to be there.
    pub had_ledger: bool,
    /// Whether the run ended after the first check, so as not to write over what was found.
    pub load_skipped: bool,
    /// Points up to which buffered writes were flushed.
    pub flush_points: u64,
    /// Number of violations.
    pub violations: u64,
    /// The first hundred of them.
    pub listed: Vec<Violation>,
}

impl Outcome {
    /// The outcome of a run that did nothing.
    #[must_use]
    pub fn empty(plan: Plan) -> Outcome {
        Outcome {
            plan,
            totals: Totals::default(),
            elapsed: Duration::ZERO,
            opening: Duration::ZERO,
            loaded: (0, Duration::ZERO),
            closing: Duration::ZERO,
            counters: Counters::default(),
            errors: 0,
            error_messages: BTreeMap::new(),
            bytes_on_disk: 0,
            memory: Memory::default(),
            stats: Map::new(),
            verification: None,
            interrupted: false,
        }
    }

    /// Whether nothing failed and nothing was wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors == 0
            && self
                .verification
                .as_ref()
                .is_none_or(|found| found.violations == 0)
    }
}

/// Counts beside the operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Reads that found nothing. Every read of a verified run is judged beyond that.
    pub not_found: u64,
    /// Records that scans returned.
    pub scanned: u64,
    /// Operations that were due before the end and not sent: an open loop that the database couldn't follow.
    pub unsent: u64,
}

impl Counters {
    /// Adds those of another thread.
    pub fn add(&mut self, other: Counters) {
        self.not_found += other.not_found;
        self.scanned += other.scanned;
        self.unsent += other.unsent;
    }
}
