//! The ledger's promises, and what single checks must see.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::check::{Expectation, check};
use super::ledger::{JOURNAL_FILE, RECORDS_MAX};
use super::scan::ScanCheck;
use super::*;
use crate::plan::StoreOptions;
use crate::record::Defect;
use crate::target::memory::MemoryOpener;
use crate::target::{Opener, Session};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

fn ledger(directory: &Path, promise_at_once: bool) -> Ledger {
    Ledger::open(directory, KeyOrder::Hashed, promise_at_once)
        .expect("the ledger can be opened")
        .0
}

fn verifier(directory: &Path) -> Verifier {
    Verifier::open(directory, KeyOrder::Ordered, true).expect("the ledger can be opened")
}

fn value(record: u64, version: u64) -> Vec<u8> {
    let mut value = vec![0; 50];
    encode(
        Stamp {
            record,
            version,
            writer: 0,
        },
        &mut value,
    );
    value
}

fn refused() -> Result<(), TargetError> {
    Err(TargetError {
        message: "refused".into(),
        is_final: false,
    })
}

#[test]
fn puts_one_after_the_other_get_ascending_versions() {
    let directory = directory();
    let ledger = ledger(directory.path(), true);
    for expected in 1..=5 {
        assert_eq!(ledger.begin_put(9).expect("it fits"), expected);
        assert_eq!(ledger.versions(9).acknowledged, expected - 1);
        ledger.acknowledge(9, expected);
        assert_eq!(ledger.versions(9).acknowledged, expected);
    }
    assert_eq!(ledger.versions(8), ledger::Versions::default());
}

#[test]
fn overlapping_puts_share_a_version() {
    let directory = directory();
    let ledger = ledger(directory.path(), true);
    let begin = || ledger.begin_put(1).expect("it fits");
    assert_eq!([begin(), begin()], [1, 1]);
    ledger.acknowledge(1, 1);
    // One is still under way, so whatever begins now may be overwritten by it.
    assert_eq!(begin(), 1);
    ledger.acknowledge(1, 1);
    ledger.acknowledge(1, 1);
    assert_eq!(begin(), 2);
}

#[test]
fn an_unknown_outcome_is_under_way_for_ever() {
    let directory = directory();
    let ledger = ledger(directory.path(), true);
    assert_eq!(ledger.begin_put(1).expect("it fits"), 1);
    ledger.abandon(1);
    for _ in 0..3 {
        assert_eq!(ledger.begin_put(1).expect("it fits"), 1);
        ledger.acknowledge(1, 1);
    }
    assert!(ledger.versions(1).uncertain);
    assert!(!ledger.versions(2).uncertain);
}

#[test]
fn updates_count_one_by_one() {
    let directory = directory();
    let ledger = ledger(directory.path(), true);
    ledger.adopt(1, 10).expect("it fits");
    for _ in 0..3 {
        ledger.begin_update(1).expect("it fits");
    }
    for version in [12, 11, 13] {
        ledger.acknowledge(1, version);
    }
    let versions = ledger.versions(1);
    assert_eq!(
        (versions.issued, versions.acknowledged, versions.uncertain),
        (13, 13, false)
    );
}

#[test]
fn the_file_outlives_the_ledger() {
    let directory = directory();
    // In the second chunk and beyond, so that growing is tried too.
    let records = [0, 1, 65_535, 65_536, 200_000];
    let first = ledger(directory.path(), true);
    for record in records {
        for _ in 0..3 {
            let version = first.begin_put(record).expect("it fits");
            first.acknowledge(record, version);
        }
        let _ = first.begin_put(record).expect("it fits");
    }
    // Not closed: what a killed process leaves is what is there now.
    let (second, existed) = Ledger::open(directory.path(), KeyOrder::Hashed, true).expect("it can be opened");
    assert!(existed);
    for record in records {
        let versions = second.versions(record);
        assert_eq!(
            (versions.issued, versions.promised, versions.acknowledged),
            (4, 3, 0),
            "record {record}"
        );
    }
    assert_eq!(second.capacity(), 4 << 16);
    assert_eq!(second.versions(100_000), ledger::Versions::default());
}

#[test]
fn buffered_acknowledgements_are_promised_at_flush_points() {
    let directory = directory();
    let ledger = ledger(directory.path(), false);
    let put = |record| {
        let version = ledger.begin_put(record).expect("it fits");
        ledger.acknowledge(record, version);
    };
    put(1);
    assert_eq!(ledger.versions(1).promised, 0);
    let failed: Result<(), &str> = ledger.flush_point(|| Err("no"));
    assert_eq!(
        (failed, ledger.versions(1).promised, ledger.flush_points()),
        (Err("no"), 0, 0)
    );
    let flushed: Result<(), &str> = ledger.flush_point(|| {
        // Acknowledged while the flush is under way: it may not be covered.
        put(1);
        put(2);
        Ok(())
    });
    assert_eq!((flushed, ledger.flush_points()), (Ok(()), 1));
    assert_eq!(
        (ledger.versions(1).promised, ledger.versions(1).acknowledged),
        (1, 2)
    );
    assert_eq!(ledger.versions(2).promised, 0);
}

#[test]
fn files_that_are_no_ledger_are_refused() {
    let directory = directory();
    drop(ledger(directory.path(), true));
    let other = Ledger::open(directory.path(), KeyOrder::Ordered, true);
    assert_eq!(
        other.expect_err("the order differs").kind(),
        io::ErrorKind::InvalidData
    );
    std::fs::write(directory.path().join(JOURNAL_FILE), vec![7; 100_000]).expect("it can be written");
    let foreign = Ledger::open(directory.path(), KeyOrder::Hashed, true);
    assert_eq!(
        foreign.expect_err("it is foreign").kind(),
        io::ErrorKind::InvalidData
    );
    // A header that was never finished is no ledger at all.
    std::fs::write(directory.path().join(JOURNAL_FILE), vec![0; 1000]).expect("it can be written");
    let (_, existed) = Ledger::open(directory.path(), KeyOrder::Hashed, true).expect("it starts anew");
    assert!(!existed);
}

#[test]
fn records_beyond_the_limit_are_refused() {
    let directory = directory();
    let ledger = ledger(directory.path(), true);
    assert!(ledger.begin_put(RECORDS_MAX).is_err());
    assert_eq!(ledger.versions(u64::MAX), ledger::Versions::default());
}

#[test]
fn threads_never_see_a_version_go_back() {
    let directory = directory();
    let ledger = ledger(directory.path(), true);
    // The database is one word: a put stores its version, whichever comes last stays.
    let database = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let version = ledger.begin_put(0).expect("it fits");
                    database.store(version, Ordering::SeqCst);
                    ledger.acknowledge(0, version);
                    let least = ledger.versions(0).acknowledged;
                    let found = database.load(Ordering::SeqCst);
                    assert!((least..=ledger.versions(0).issued).contains(&found));
                }
            });
        }
    });
    assert_eq!(database.load(Ordering::SeqCst), ledger.versions(0).acknowledged);
}

#[test]
fn reads_are_held_against_the_versions() {
    let directory = directory();
    let verifier = verifier(directory.path());
    verifier.ledger.adopt(5, 3).expect("it fits");
    let _ = verifier.ledger.begin_put(5).expect("it fits");
    let least = verifier.begin_read(5);
    for version in [3, 4] {
        verifier.end_read(5, least, Some(&value(5, version)));
    }
    verifier.end_read(6, verifier.begin_read(6), None);
    assert_eq!(verifier.violations.count(), 0);

    verifier.end_read(5, least, None);
    verifier.end_read(5, least, Some(&value(5, 2)));
    verifier.end_read(5, least, Some(&value(5, 5)));
    verifier.end_read(5, least, Some(&value(6, 3)));
    verifier.end_read(5, least, Some(&value(5, 3)[..49]));
    let expected = [
        Violation::Missing { record: 5, least: 3 },
        Violation::Stale {
            record: 5,
            found: 2,
            least: 3,
        },
        Violation::NeverWritten {
            record: 5,
            found: 5,
            issued: 4,
        },
        Violation::Misplaced { record: 5, found: 6 },
        Violation::Damaged {
            record: 5,
            defect: Defect::Length {
                found: 49,
                written: 50,
            },
        },
    ];
    assert_eq!(verifier.violations.listed(), expected);
}

#[test]
fn updates_must_follow_on_what_was_acknowledged() {
    let directory = directory();
    let verifier = verifier(directory.path());
    verifier.ledger.adopt(5, 3).expect("it fits");
    let update = |old: Option<&[u8]>, outcome| {
        let least = verifier.begin_read(5);
        verifier.ledger.begin_update(5).expect("it fits");
        let seen = Arc::new(UpdateSeen::default());
        let new = next_version(1, 50, Arc::clone(&seen))(old);
        verifier.end_update(5, least, &seen, &outcome);
        new.and_then(|new| decode(&new).ok()).map(|stamp| stamp.version)
    };
    assert_eq!(update(Some(&value(5, 3)), Ok(())), Some(4));
    assert_eq!(verifier.violations.count(), 0);
    assert_eq!(verifier.ledger.versions(5).acknowledged, 4);
    assert_eq!(update(Some(&value(5, 4)), refused()), Some(5));
    assert!(verifier.ledger.versions(5).uncertain);
    assert_eq!(verifier.violations.count(), 0);
    // The update before is forgotten.
    assert_eq!(update(Some(&value(5, 3)), Ok(())), Some(4));
    assert_eq!(update(None, Ok(())), None);
    assert_eq!(update(Some(b"short"), Ok(())), None);
    let expected = [
        Violation::Stale {
            record: 5,
            found: 3,
            least: 4,
        },
        Violation::Missing { record: 5, least: 4 },
        Violation::Damaged {
            record: 5,
            defect: Defect::TooShort { bytes: 5 },
        },
    ];
    assert_eq!(verifier.violations.listed(), expected);
}

#[test]
fn scans_are_held_against_order_and_completeness() {
    let directory = directory();
    let verifier = verifier(directory.path());
    for record in 0..10 {
        verifier.ledger.adopt(record, 1).expect("it fits");
    }
    verifier.remember_scan_order();
    let scan = |start, limit, shown: &[(u64, u64)]| {
        let before = verifier.violations.count() as usize;
        let mut check = ScanCheck::begin(&verifier, start, limit);
        for &(record, version) in shown {
            check.meet(&verifier.order.key(record), &value(record, version));
        }
        check.end();
        verifier.violations.listed()[before..].to_vec()
    };
    assert_eq!(scan(2, 3, &[(2, 1), (3, 1), (4, 1)]), []);
    assert_eq!(scan(8, 5, &[(8, 1), (9, 1)]), []);
    assert_eq!(
        scan(2, 3, &[(2, 1), (4, 1), (5, 1)]),
        [Violation::MissingInScan { start: 2, record: 3 }]
    );
    assert_eq!(
        scan(8, 5, &[(8, 1)]),
        [Violation::MissingInScan { start: 8, record: 9 }]
    );
    assert_eq!(
        scan(8, 1, &[(8, 1), (9, 1)]),
        [Violation::TooMany { limit: 1, found: 2 }]
    );
    assert!(matches!(
        scan(2, 2, &[(2, 1), (2, 1)])[..],
        [Violation::OutOfOrder { .. }, ..]
    ));
    assert!(matches!(
        scan(2, 1, &[(1, 1)])[..],
        [Violation::OutOfOrder { .. }, ..]
    ));
    assert_eq!(
        scan(2, 1, &[(2, 0)]),
        [Violation::Stale {
            record: 2,
            found: 0,
            least: 1
        }]
    );
    // Inserted by somebody else while the scan ran: fine if it was begun, wrong if nobody wrote it.
    let _ = verifier.ledger.begin_put(10).expect("it fits");
    assert_eq!(scan(9, 2, &[(9, 1), (10, 1)]), []);
    assert_eq!(
        scan(9, 2, &[(9, 1), (11, 1)]),
        [Violation::NeverWritten {
            record: 11,
            found: 1,
            issued: 0
        }]
    );
}

#[test]
fn a_walk_counts_updates() {
    let directory = directory();
    let verifier = verifier(directory.path());
    let store = MemoryOpener::default();
    let session = store
        .open(directory.path(), &StoreOptions::default())
        .expect("it opens");
    for record in 0..2 {
        verifier.ledger.adopt(record, 1).expect("it fits");
        // Two updates that overlapped, so that neither could know of the other's version.
        verifier.ledger.begin_update(record).expect("it fits");
        verifier.ledger.begin_update(record).expect("it fits");
    }
    // Of record 0 both read version 1: one of them is lost, and no single answer shows it.
    for (record, written) in [(0, [2, 2]), (1, [2, 3])] {
        for version in written {
            verifier.ledger.acknowledge(record, version);
            session
                .put(&verifier.order.key(record), &value(record, version))
                .expect("it is taken");
        }
    }
    check(&verifier, &session, Expectation::Acknowledged, 2, false).expect("it can be read");
    assert_eq!(
        verifier.violations.listed(),
        [Violation::UpdatesLost {
            record: 0,
            found: 2,
            issued: 3
        }]
    );
}
