//! What the operations do: draw a record, ask the database, hold the answer against the ledger, take the time.
//!
//! Reads and scans wait for their answer. Writes wait at depth 1; at greater depth they are sent and end in
//! [`Worker::end_write`] when their ticket does.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use super::schedule::Schedule;
use super::worker::Worker;
use crate::record::{Key, Stamp, decode, encode};
use crate::target::{Session, Target, TargetError};
use crate::verify::scan::ScanCheck;
use crate::verify::{UpdateSeen, Verifier, next_version};
use crate::workload::OperationKind;

/// A write under way.
#[derive(Debug)]
pub(crate) struct SentWrite {
    kind: OperationKind,
    record: u64,
    start: Instant,
    expected: Expected,
}

/// What its verification needs at its end.
#[derive(Debug)]
enum Expected {
    Put { version: u64 },
    Update { least: u64, seen: Arc<UpdateSeen> },
}

impl<T: Target> Worker<'_, T> {
    /// Carries out one operation that was due at `start`.
    pub fn operate(&mut self, kind: OperationKind, start: Instant) {
        match kind {
            OperationKind::Read => self.read(start),
            OperationKind::Scan => self.scan(start),
            OperationKind::Insert => {
                let record = self.load.sequence.take();
                self.put(kind, record, start);
            }
            OperationKind::Update | OperationKind::Load => {
                let record = self.choose();
                self.put(kind, record, start);
            }
            OperationKind::ReadModifyWrite => self.read_modify_write(start),
        }
    }

    fn choose(&mut self) -> u64 {
        self.chooser
            .choose(&mut self.random, self.load.sequence.present())
    }

    fn key(&self, record: u64) -> Key {
        self.load.context.plan.key_order.key(record)
    }

    fn read(&mut self, start: Instant) {
        let record = self.choose();
        let verifier = self.load.context.verifier;
        let least = verifier.map_or(0, |verifier| verifier.begin_read(record));
        let answer = self.session.get(&self.key(record), |value| {
            let end = Instant::now();
            (look(verifier, record, least, value), end)
        });
        match answer {
            Ok((is_found, end)) => {
                self.counters.not_found += u64::from(!is_found);
                self.recorder.record(OperationKind::Read, start, end, 1);
            }
            Err(error) => self.load.context.errors.add(&error),
        }
    }

    /// Reads `count` records in one call; the thread's operations from number `begun` on.
    pub fn read_group(&mut self, start: Instant, schedule: &Schedule, begun: u64, count: usize) {
        let verifier = self.load.context.verifier;
        let records: Vec<u64> = (0..count).map(|_| self.choose()).collect();
        let keys: Vec<Key> = records.iter().map(|&record| self.key(record)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let least: Vec<u64> = records
            .iter()
            .map(|&record| verifier.map_or(0, |verifier| verifier.begin_read(record)))
            .collect();
        let mut end = None;
        let mut not_found = 0;
        let answer = self.session.get_many(&keys, |place, value| {
            end.get_or_insert_with(Instant::now);
            not_found += u64::from(!look(verifier, records[place], least[place], value));
        });
        self.counters.not_found += not_found;
        match answer {
            Ok(()) => {
                let end = end.unwrap_or_else(Instant::now);
                for number in begun..begun + count as u64 {
                    // In an open loop the first one waited for nobody, the others for their turn to be due.
                    let due = schedule.due(number).unwrap_or(start);
                    self.recorder.record(OperationKind::Read, due, end, 1);
                }
            }
            Err(error) => self.load.context.errors.add(&error),
        }
    }

    fn scan(&mut self, start: Instant) {
        let context = self.load.context;
        let record = self.choose();
        let limit = 1 + self.random.below(context.plan.scan_length);
        let mut check = context
            .verifier
            .map(|verifier| ScanCheck::begin(verifier, record, limit));
        let mut scanned = 0;
        let answer = self.session.scan(&self.key(record), limit, |key, value| {
            scanned += 1;
            match &mut check {
                Some(check) => check.meet(key, value),
                None => {
                    black_box((key, value));
                }
            }
        });
        let end = Instant::now();
        self.counters.scanned += scanned;
        match answer {
            Ok(()) => {
                if let Some(check) = check {
                    check.end();
                }
                self.recorder.record(OperationKind::Scan, start, end, 1);
            }
            Err(error) => context.errors.add(&error),
        }
    }

    fn put(&mut self, kind: OperationKind, record: u64, start: Instant) {
        let version = match self.load.context.verifier {
            None => {
                self.unverified_versions += 1;
                self.unverified_versions
            }
            Some(verifier) => match verifier.ledger.begin_put(record) {
                Ok(version) => version,
                Err(error) => {
                    if kind == OperationKind::Insert {
                        self.load.sequence.acknowledge(record);
                    }
                    self.journal_failed(&error);
                    return;
                }
            },
        };
        encode(
            Stamp {
                record,
                version,
                writer: self.writer,
            },
            &mut self.value,
        );
        let key = self.key(record);
        let write = SentWrite {
            kind,
            record,
            start,
            expected: Expected::Put { version },
        };
        if self.load.context.plan.depth > 1 {
            self.make_room();
            match self.session.send_put(&key, &self.value) {
                Ok(pending) => self.sent(pending, write),
                Err(error) => self.end_write(write, &Err(error), Instant::now()),
            }
        } else {
            let outcome = match kind {
                OperationKind::Insert => self.session.insert(&key, &self.value),
                _ => self.session.put(&key, &self.value),
            };
            self.end_write(write, &outcome, Instant::now());
        }
    }

    fn read_modify_write(&mut self, start: Instant) {
        let record = self.choose();
        let key = self.key(record);
        let (writer, value_bytes) = (self.writer, self.load.context.plan.value_bytes);
        let Some(verifier) = self.load.context.verifier else {
            let write = SentWrite {
                kind: OperationKind::ReadModifyWrite,
                record,
                start,
                expected: Expected::Put { version: 0 },
            };
            self.update(&key, write, unverified_next(record, writer, value_bytes));
            return;
        };
        let least = verifier.begin_read(record);
        if let Err(error) = verifier.ledger.begin_update(record) {
            self.journal_failed(&error);
            return;
        }
        let seen = Arc::new(UpdateSeen::default());
        let write = SentWrite {
            kind: OperationKind::ReadModifyWrite,
            record,
            start,
            expected: Expected::Update {
                least,
                seen: Arc::clone(&seen),
            },
        };
        self.update(&key, write, next_version(writer, value_bytes, seen));
    }

    fn update(
        &mut self,
        key: &[u8],
        write: SentWrite,
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static,
    ) {
        if self.load.context.plan.depth > 1 {
            self.make_room();
            match self.session.send_update(key, change) {
                Ok(pending) => self.sent(pending, write),
                Err(error) => self.end_write(write, &Err(error), Instant::now()),
            }
        } else {
            let outcome = self.session.update(key, change);
            self.end_write(write, &outcome, Instant::now());
        }
    }

    fn make_room(&mut self) {
        while self.pipeline.is_full() {
            if let Some((write, outcome)) = self.pipeline.wait_oldest() {
                self.end_write(write, &outcome, Instant::now());
            }
        }
    }

    fn sent(&mut self, pending: <T::Session as Session>::Pending, write: SentWrite) {
        self.pipeline.push(pending, write);
        self.end_ended();
    }

    /// A write came to its end, good or bad.
    pub fn end_write(&mut self, write: SentWrite, outcome: &Result<(), TargetError>, end: Instant) {
        let SentWrite {
            kind,
            record,
            start,
            expected,
        } = write;
        let context = self.load.context;
        if let Some(verifier) = context.verifier {
            match expected {
                Expected::Put { version } => verifier.end_put(record, version, outcome),
                Expected::Update { least, seen } => verifier.end_update(record, least, &seen, outcome),
            }
        }
        if kind == OperationKind::Insert {
            self.load.sequence.acknowledge(record);
        }
        match outcome {
            Ok(()) => self.recorder.record(kind, start, end, 1),
            Err(error) => context.errors.add(error),
        }
    }

    /// Without its journal a verified run proves nothing: it ends.
    fn journal_failed(&self, error: &std::io::Error) {
        let message = format!("the verification journal: {error}");
        self.load.context.errors.add(&TargetError {
            message,
            is_final: true,
        });
    }
}

/// Takes an answer as a program would: reads it. Returns whether there was one.
fn look(verifier: Option<&Verifier>, record: u64, least: u64, value: Option<&[u8]>) -> bool {
    match verifier {
        Some(verifier) => verifier.end_read(record, least, value),
        None => {
            black_box(value.and_then(<[u8]>::first));
        }
    }
    value.is_some()
}

/// A read-modify-write whose result nobody checks.
fn unverified_next(
    record: u64,
    writer: u32,
    value_bytes: usize,
) -> impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static {
    move |old| {
        let version = old
            .and_then(|old| decode(old).ok())
            .map_or(1, |stamp| stamp.version.wrapping_add(1));
        let mut value = vec![0; value_bytes];
        encode(
            Stamp {
                record,
                version,
                writer,
            },
            &mut value,
        );
        Some(value)
    }
}
