//! A walk over the whole database while nobody writes: everything promised is there, nothing else is.
//!
//! One scan from the first key to the last checks order, keys, values and versions. A record that the scan
//! didn't show although it must be there is read once more by its key, so that the report tells a lost
//! record from a scan that passed it by.

use std::io;

use super::ledger::RECORDS_MAX;
use super::scan::text;
use super::violation::Violation;
use super::{Verifier, judge};
use crate::target::{Session, TargetError};

/// Which versions a walk insists on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expectation {
    /// After opening: what an earlier run was promised, up to what it issued.
    Promised,
    /// At the end of a run: what was acknowledged, and exactly what was issued if no write failed.
    Acknowledged,
    /// After opening a directory without a ledger: whole values, any version.
    Anything,
}

/// What a walk found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Records met.
    pub records: u64,
    /// Those of them below the number that was asked for.
    pub below: u64,
    /// One more than the highest record number met.
    pub end: u64,
}

/// Why a walk came to no result.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The database refused to be read.
    #[error("reading the database: {0}")]
    Target(#[from] TargetError),
    /// The ledger couldn't grow to what was found.
    #[error("the verification journal: {0}")]
    Ledger(#[from] io::Error),
}

/// Walks the database; violations go to the verifier's list. Records below `count_below` are counted apart. With `adopt`, the ledger starts over from what was
/// found, unless something was wrong. Takes one scan, and one bit for each record in memory (16 bytes with `adopt`).
///
/// # Errors
/// [`CheckError`].
pub fn check<S: Session>(
    verifier: &Verifier,
    session: &S,
    expectation: Expectation,
    count_below: u64,
    adopt: bool,
) -> Result<Checked, CheckError> {
    let before = verifier.violations.count();
    let mut walk = Walk {
        verifier,
        expectation,
        count_below,
        checked: Checked::default(),
        previous: Vec::new(),
        seen: vec![0; verifier.ledger.capacity().div_ceil(64) as usize],
        found: adopt.then(Vec::new),
    };
    session.scan(b"", u64::MAX, |key, value| walk.meet(key, value))?;
    let Walk {
        checked, seen, found, ..
    } = walk;

    let capacity = verifier.ledger.capacity();
    let is_seen = |record: u64| seen[(record / 64) as usize] >> (record % 64) & 1 == 1;
    for record in (0..capacity).filter(|&record| !is_seen(record)) {
        let (least, _) = bounds(verifier, expectation, record);
        if least == 0 {
            continue;
        }
        let judged = session.get(&verifier.order.key(record), |value| {
            judge(record, least, value, || u64::MAX)
        })?;
        verifier.violations.add(match judged {
            Ok(_) => Violation::MissingInScan { start: 0, record },
            Err(violation) => violation,
        });
    }
    if let Some(found) = found.filter(|_| verifier.violations.count() == before) {
        for record in (0..capacity).filter(|&record| !is_seen(record)) {
            verifier.ledger.adopt(record, 0)?;
        }
        for (record, version) in found {
            verifier.ledger.adopt(record, version)?;
        }
    }
    Ok(checked)
}

/// Least and greatest version that a record may have.
fn bounds(verifier: &Verifier, expectation: Expectation, record: u64) -> (u64, u64) {
    let versions = verifier.ledger.versions(record);
    match expectation {
        Expectation::Promised => (versions.promised, versions.issued),
        Expectation::Acknowledged => (versions.acknowledged, versions.issued),
        Expectation::Anything => (0, u64::MAX),
    }
}

struct Walk<'a> {
    verifier: &'a Verifier,
    expectation: Expectation,
    count_below: u64,
    checked: Checked,
    previous: Vec<u8>,
    /// A bit for each record; longer than the ledger if there was none.
    seen: Vec<u64>,
    found: Option<Vec<(u64, u64)>>,
}

impl Walk<'_> {
    fn meet(&mut self, key: &[u8], value: &[u8]) {
        let violations = &self.verifier.violations;
        if key <= &self.previous[..] {
            violations.add(Violation::OutOfOrder {
                previous: text(&self.previous),
                key: text(key),
            });
        }
        self.previous.clear();
        self.previous.extend_from_slice(key);
        self.checked.records += 1;
        // In hashed order any 20 digits name some record, nearly always one beyond all that can be.
        let Some(record) = self
            .verifier
            .order
            .record(key)
            .filter(|&record| record < RECORDS_MAX)
        else {
            violations.add(Violation::ForeignKey { key: text(key) });
            return;
        };
        self.checked.below += u64::from(record < self.count_below);
        self.checked.end = self.checked.end.max(record + 1);
        let word = (record / 64) as usize;
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        self.seen[word] |= 1 << (record % 64);
        let (least, greatest) = bounds(self.verifier, self.expectation, record);
        match judge(record, least, Some(value), || greatest) {
            Err(violation) => violations.add(violation),
            Ok(version) => {
                let versions = self.verifier.ledger.versions(record);
                let exact = self.expectation == Expectation::Acknowledged && !versions.uncertain;
                if exact && version != versions.issued {
                    let issued = versions.issued;
                    violations.add(Violation::UpdatesLost {
                        record,
                        found: version,
                        issued,
                    });
                }
                if let Some(found) = &mut self.found {
                    found.push((record, version));
                }
            }
        }
    }
}
