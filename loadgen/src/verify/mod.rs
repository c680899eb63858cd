//! Verification: every answer is held against what was written.
//!
//! - [`ledger`]: the versions issued, acknowledged and promised of every record, in a file that outlives a
//!   killed process;
//! - this file: checks of single answers while the load runs;
//! - [`scan`]: checks of scans, completeness included;
//! - [`check`]: a walk over the whole database, after opening, at the end, and after closing and reopening;
//! - [`violation`]: what can be wrong.
//!
//! A read that began when version v was acknowledged and ended when version w was issued must show a version in
//! v..=w, in a value whose every byte is as it was written.

pub mod check;
pub mod ledger;
mod mapping;
pub mod scan;
#[cfg(test)]
mod tests;
pub mod violation;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::record::{Defect, KeyOrder, Stamp, decode, encode};
use crate::target::TargetError;
use ledger::Ledger;
use scan::ScanOrder;
use violation::{Violation, Violations};

/// Checks answers; shared by all threads.
#[derive(Debug)]
pub struct Verifier {
    /// The versions.
    pub ledger: Ledger,
    /// What was wrong.
    pub violations: Violations,
    /// How keys lie.
    pub order: KeyOrder,
    /// Whether a ledger of an earlier run was there.
    pub ledger_existed: bool,
    scan_order: OnceLock<ScanOrder>,
}

impl Verifier {
    /// Opens the ledger of `directory`; see [`Ledger::open`].
    ///
    /// # Errors
    /// Those of [`Ledger::open`].
    pub fn open(directory: &Path, order: KeyOrder, promise_at_once: bool) -> io::Result<Verifier> {
        let (ledger, ledger_existed) = Ledger::open(directory, order, promise_at_once)?;
        Ok(Verifier {
            ledger,
            violations: Violations::default(),
            order,
            ledger_existed,
            scan_order: OnceLock::new(),
        })
    }

    /// Remembers the key order of the records that are acknowledged now, so that scans can be checked for
    /// completeness; 8 bytes a record. Done once.
    pub fn remember_scan_order(&self) {
        self.scan_order
            .get_or_init(|| ScanOrder::of(&self.ledger, self.order));
    }

    /// The remembered order, if scans are checked.
    #[must_use]
    pub fn scan_order(&self) -> Option<&ScanOrder> {
        self.scan_order.get()
    }

    /// Least version that a read of `record` which begins now must show; 0: it may be missing.
    #[must_use]
    pub fn begin_read(&self, record: u64) -> u64 {
        self.ledger.versions(record).acknowledged
    }

    /// Holds an answer against what is known, where `least` is what [`begin_read`](Verifier::begin_read) said.
    pub fn end_read(&self, record: u64, least: u64, value: Option<&[u8]>) {
        if let Err(violation) = self.judge(record, least, value) {
            self.violations.add(violation);
        }
    }

    /// Ends a put that [`Ledger::begin_put`] began.
    pub fn end_put(&self, record: u64, version: u64, outcome: &Result<(), TargetError>) {
        match outcome {
            Ok(()) => self.ledger.acknowledge(record, version),
            Err(_) => self.ledger.abandon(record),
        }
    }

    /// Ends an update that [`Ledger::begin_update`] began; `least` is what [`begin_read`](Verifier::begin_read) said
    /// before it.
    pub fn end_update(&self, record: u64, least: u64, seen: &UpdateSeen, outcome: &Result<(), TargetError>) {
        let written = seen.written.load(Ordering::Acquire);
        match outcome {
            Err(_) => self.ledger.abandon(record),
            Ok(()) if written == 0 => {
                // The closure met a value that it couldn't read and left it alone; a read says what is wrong
                // with it. The version that was issued for it will never be there.
                self.ledger.abandon(record);
                self.violations.add(match seen.defect() {
                    Some(defect) => Violation::Damaged { record, defect },
                    None => Violation::Missing { record, least },
                });
            }
            Ok(()) => {
                // It must have followed on everything that was acknowledged before it was sent.
                if written <= least {
                    self.violations.add(Violation::Stale {
                        record,
                        found: written - 1,
                        least,
                    });
                }
                self.ledger.acknowledge(record, written);
            }
        }
    }

    fn judge(&self, record: u64, least: u64, value: Option<&[u8]>) -> Result<u64, Violation> {
        judge(record, least, value, || self.ledger.versions(record).issued)
    }
}

/// Holds one value against its record and the versions that it may have. `issued` is asked after the value was
/// read. Returns the version found, 0 for a record that may be missing and is.
pub(crate) fn judge(
    record: u64,
    least: u64,
    value: Option<&[u8]>,
    issued: impl FnOnce() -> u64,
) -> Result<u64, Violation> {
    let Some(value) = value else {
        return if least == 0 {
            Ok(0)
        } else {
            Err(Violation::Missing { record, least })
        };
    };
    let stamp = decode(value).map_err(|defect| Violation::Damaged { record, defect })?;
    if stamp.record != record {
        return Err(Violation::Misplaced {
            record,
            found: stamp.record,
        });
    }
    if stamp.version < least {
        return Err(Violation::Stale {
            record,
            found: stamp.version,
            least,
        });
    }
    let issued = issued();
    if stamp.version > issued {
        return Err(Violation::NeverWritten {
            record,
            found: stamp.version,
            issued,
        });
    }
    Ok(stamp.version)
}

/// What an update's closure tells the thread that sent it.
#[derive(Debug, Default)]
pub struct UpdateSeen {
    /// Version written; 0 if the closure wrote nothing.
    written: AtomicU64,
    defect: OnceLock<Defect>,
}

impl UpdateSeen {
    fn defect(&self) -> Option<Defect> {
        self.defect.get().copied()
    }
}

/// The closure of a read-modify-write: the next version of whatever is there, in a value of `value_bytes`. A missing
/// record or one that can't be read stays as it is.
pub fn next_version(
    writer: u32,
    value_bytes: usize,
    seen: Arc<UpdateSeen>,
) -> impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static {
    move |old| {
        let old = old?;
        match decode(old) {
            Ok(stamp) => {
                let version = stamp.version + 1;
                let mut value = vec![0; value_bytes];
                encode(
                    Stamp {
                        version,
                        writer,
                        ..stamp
                    },
                    &mut value,
                );
                seen.written.store(version, Ordering::Release);
                Some(value)
            }
            Err(defect) => {
                let _ = seen.defect.set(defect);
                Some(old.to_vec())
            }
        }
    }
}
