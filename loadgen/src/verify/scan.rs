//! Checks of scans: order, versions, and that nothing was passed by.
//!
//! A scan must show every record that was acknowledged before it began and lies between its first and its last
//! key. For the records that were there when the load began the generator knows the order of all keys
//! ([`ScanOrder`]), and so which ones a scan has to meet; records inserted later are checked when they show
//! up.

use super::ledger::Ledger;
use super::violation::Violation;
use super::{Verifier, judge};
use crate::record::KeyOrder;

/// Positions in key order of the records that were there when it was made, ascending.
#[derive(Debug)]
pub struct ScanOrder {
    positions: Vec<u64>,
}

impl ScanOrder {
    pub(super) fn of(ledger: &Ledger, order: KeyOrder) -> ScanOrder {
        let mut positions: Vec<u64> = (0..ledger.capacity())
            .filter(|&record| ledger.versions(record).acknowledged > 0)
            .map(|record| order.position(record))
            .collect();
        positions.sort_unstable();
        ScanOrder { positions }
    }

    /// The first `limit` known positions from `from` on.
    fn from(&self, from: u64, limit: usize) -> &[u64] {
        let start = self.positions.partition_point(|&position| position < from);
        &self.positions[start..self.positions.len().min(start.saturating_add(limit))]
    }
}

/// One scan under way.
#[derive(Debug)]
pub struct ScanCheck<'a> {
    verifier: &'a Verifier,
    start: u64,
    limit: u64,
    found: u64,
    previous: Vec<u8>,
    /// Known records from the start on: position, and the least version to show.
    expected: Vec<(u64, u64)>,
    next_expected: usize,
}

impl<'a> ScanCheck<'a> {
    /// Notes what a scan of `limit` records from `start` on must show; to be called before it begins.
    #[must_use]
    pub fn begin(verifier: &'a Verifier, start: u64, limit: u64) -> ScanCheck<'a> {
        let known = verifier.scan_order().map_or(&[][..], |order| {
            order.from(
                verifier.order.position(start),
                usize::try_from(limit).unwrap_or(usize::MAX),
            )
        });
        let expected = known
            .iter()
            .map(|&position| (position, verifier.begin_read(verifier.order.record_at(position))))
            .collect();
        let previous = verifier.order.key(start).to_vec();
        ScanCheck {
            verifier,
            start,
            limit,
            found: 0,
            previous,
            expected,
            next_expected: 0,
        }
    }

    /// The scan showed this.
    pub fn meet(&mut self, key: &[u8], value: &[u8]) {
        let violations = &self.verifier.violations;
        let in_order = if self.found == 0 {
            key >= &self.previous[..]
        } else {
            key > &self.previous[..]
        };
        if !in_order {
            violations.add(Violation::OutOfOrder {
                previous: text(&self.previous),
                key: text(key),
            });
        }
        self.found += 1;
        self.previous.clear();
        self.previous.extend_from_slice(key);
        let Some(record) = self.verifier.order.record(key) else {
            violations.add(Violation::ForeignKey { key: text(key) });
            return;
        };
        let position = self.verifier.order.position(record);
        while let Some(&(expected, least)) = self.expected.get(self.next_expected).filter(|e| e.0 < position)
        {
            self.pass_by(expected, least);
        }
        let least = match self.expected.get(self.next_expected) {
            Some(&(expected, least)) if expected == position => {
                self.next_expected += 1;
                least
            }
            // Inserted since: it may be there or not.
            _ => 0,
        };
        let issued = || self.verifier.ledger.versions(record).issued;
        if let Err(violation) = judge(record, least, Some(value), issued) {
            violations.add(violation);
        }
    }

    /// The scan ended without an error.
    pub fn end(mut self) {
        if self.found > self.limit {
            self.verifier.violations.add(Violation::TooMany {
                limit: self.limit,
                found: self.found,
            });
        }
        // It stopped short of its limit, so it must have met everything.
        while self.found < self.limit
            && let Some(&(expected, least)) = self.expected.get(self.next_expected)
        {
            self.pass_by(expected, least);
        }
    }

    fn pass_by(&mut self, position: u64, least: u64) {
        self.next_expected += 1;
        if least > 0 {
            let record = self.verifier.order.record_at(position);
            self.verifier.violations.add(Violation::MissingInScan {
                start: self.start,
                record,
            });
        }
    }
}

pub(super) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
