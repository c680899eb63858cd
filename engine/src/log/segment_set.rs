//! The life of segment files.
//!
//! ```text
//!            Create{n}: prefill zeros, header, sync, directory sync
//! (absent) ──────────────────────────────────────────────────────▶ ready ──append reaches it──▶ in use
//!     ▲                                                              ▲                             │
//!     │ Remove{n}                   Recycle{from, n}: rename, header,│                  truncate(lsn)
//!     └───────────────────────────────────────────────── sync, directory sync ── obsolete ◀────────┘
//! ```
//!
//! [`SegmentSet`] says what to do next and is told when it was done; it does no I/O. A recycled file is
//! not zeroed: a group says where it stands, so what the file held before can't be mistaken for a part
//! of the log (see the [log](super)), and blocks that were written once are cheap to write again. The
//! header says which positions a file was prepared for: one that was renamed but not finished when the
//! machine stopped is found by it and removed.

use std::collections::{BTreeMap, BTreeSet};

use super::SegmentLayout;
use crate::Lsn;

/// One thing to do with segment files. Each must be durable, with the directory, before it is reported
/// as done (rule R17).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentJob {
    /// Make a new file full of zeros, then write its header.
    Create {
        /// Its number.
        number: u64,
    },
    /// Rename a file that is no longer needed, then write its header.
    Recycle {
        /// The file to rename.
        from: u64,
        /// Its new number.
        number: u64,
    },
    /// Delete a file that is no longer needed.
    Remove {
        /// Its number.
        number: u64,
    },
}

/// Which segment files there are, and what to do next so that the log never waits for one.
///
/// One job is out at a time. The caller asks for it ([`next_job`](SegmentSet::next_job)), does it, and says
/// how it went ([`job_done`](SegmentSet::job_done), [`job_failed`](SegmentSet::job_failed)).
#[derive(Clone, Debug)]
pub struct SegmentSet {
    layout: SegmentLayout,
    /// How many ready segments to keep beyond the one that is appended to.
    ahead: u64,
    /// Segment that holds the end of the log.
    current: u64,
    /// First segment that is still needed.
    first: u64,
    /// Files that hold log or are prepared for it.
    ready: BTreeSet<u64>,
    /// Files that are needed no more and can be recycled.
    obsolete: BTreeSet<u64>,
    /// How many obsolete files are kept for that: as many as the log needed from one truncation to the next.
    obsolete_kept: usize,
    /// Files that were found half prepared: not even their length can be relied on.
    broken: BTreeSet<u64>,
    running: Option<SegmentJob>,
}

impl SegmentSet {
    /// The files found when a log is opened that starts (for replay) at `start` and ends at `end`.
    ///
    /// `found` says of each file whether its header names this log and the file's own number, and the file
    /// has its full length. Those that don't, and hold no log, are removed.
    #[must_use]
    pub fn new(
        layout: SegmentLayout,
        ahead: u64,
        start: Lsn,
        end: Lsn,
        found: &BTreeMap<u64, bool>,
    ) -> SegmentSet {
        let first = layout.number_before(start);
        let current = layout.number_before(end).max(first);
        let mut set = SegmentSet {
            layout,
            ahead,
            current,
            first,
            ready: BTreeSet::new(),
            obsolete: BTreeSet::new(),
            obsolete_kept: found.len(),
            broken: BTreeSet::new(),
            running: None,
        };
        for (&number, &prepared) in found {
            // Between start and end the scan has found groups: a damaged header there changes nothing.
            if (first..=current).contains(&number) || (number > current && prepared) {
                set.ready.insert(number);
            } else if prepared {
                set.obsolete.insert(number);
            } else {
                set.broken.insert(number);
            }
        }
        set
    }

    /// Whether segment `number` may be written to.
    #[must_use]
    pub fn is_ready(&self, number: u64) -> bool {
        self.ready.contains(&number)
    }

    /// The log ends at `end` now.
    pub fn advance(&mut self, end: Lsn) {
        self.current = self.current.max(self.layout.number_before(end));
    }

    /// Nothing before `start` is needed any more: a superblock that says so is durable.
    pub fn truncate(&mut self, start: Lsn) {
        self.obsolete_kept = (self.current - self.first + 1) as usize;
        self.first = self.first.max(self.layout.number_before(start)).min(self.current);
        let kept = self.ready.split_off(&self.first);
        let freed = std::mem::replace(&mut self.ready, kept);
        self.obsolete.extend(freed);
    }

    /// Numbers of the files that hold log, or are prepared to.
    pub fn ready_numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.ready.iter().copied()
    }

    /// Bytes of all segment files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        (self.ready.len() + self.obsolete.len() + self.broken.len()) as u64 * self.layout.segment_bytes()
    }

    /// What to do next, if anything and nothing is being done: first make segments ready, out of obsolete
    /// files if there are any, then delete what is left over beyond what the next round will recycle.
    pub fn next_job(&mut self) -> Option<SegmentJob> {
        if self.running.is_some() {
            return None;
        }
        // A half prepared file may stand in the way of the one to be made.
        if let Some(&number) = self.broken.first() {
            self.running = Some(SegmentJob::Remove { number });
            return self.running;
        }
        let missing = (self.current..=self.current + self.ahead).find(|number| !self.ready.contains(number));
        self.running = match (missing, self.obsolete.first().copied()) {
            (Some(number), Some(from)) => Some(SegmentJob::Recycle { from, number }),
            (Some(number), None) => Some(SegmentJob::Create { number }),
            (None, Some(number)) if self.obsolete.len() > self.obsolete_kept => {
                Some(SegmentJob::Remove { number })
            }
            (None, _) => None,
        };
        self.running
    }

    /// The job is done and durable. Returns it, `None` if there was none.
    pub fn job_done(&mut self) -> Option<SegmentJob> {
        let job = self.running.take()?;
        match job {
            SegmentJob::Create { number } => {
                self.ready.insert(number);
            }
            SegmentJob::Recycle { from, number } => {
                self.obsolete.remove(&from);
                self.ready.insert(number);
            }
            SegmentJob::Remove { number } => {
                self.obsolete.remove(&number);
                self.broken.remove(&number);
            }
        }
        Some(job)
    }

    /// The job failed; what is still needed will be proposed again. A file that may have been renamed or
    /// deleted counts no more until the directory is read again by the next open; `Create` and `Recycle`
    /// replace whatever stands under the new name.
    pub fn job_failed(&mut self) {
        match self.running.take() {
            Some(SegmentJob::Recycle { from, .. } | SegmentJob::Remove { number: from }) => {
                self.obsolete.remove(&from);
                self.broken.remove(&from);
            }
            Some(SegmentJob::Create { .. }) | None => {}
        }
    }
}

#[cfg(test)]
#[path = "segment_set_tests.rs"]
mod tests;
