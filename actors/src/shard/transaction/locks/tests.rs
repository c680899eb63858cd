//! The lock table against its definition: granted exactly if no earlier claim conflicts.

use std::ops::Bound;
use std::sync::Arc;

use treering_engine::log::RecordWriter;
use treering_engine::{ShardId, TreeId};

use super::{Claim, Locks, Order};
use crate::options::Durability;
use crate::shard::messages::Stored;
use crate::shard::transaction::{KeyRange, Part, Transaction};

const TREE: TreeId = TreeId(3);

fn key(locks: &mut Locks, name: &str, exclusive: bool) -> Order {
    locks.claim(Claim::Key {
        tree: TREE,
        key: name.as_bytes().into(),
        exclusive,
    })
}

#[test]
fn claims_of_a_key_are_granted_in_order() {
    let mut locks = Locks::default();
    let first = key(&mut locks, "k", true);
    let second = key(&mut locks, "k", true);
    let other = key(&mut locks, "l", true);
    assert!(locks.is_granted(first) && !locks.is_granted(second) && locks.is_granted(other));
    assert_eq!(locks.release(first), [second]);
    assert!(locks.is_granted(second));
    assert_eq!(locks.release(second), []);
    assert!(locks.names(TREE) && !locks.names(TreeId(4)));
    locks.release(other);
    assert!(locks.is_idle() && !locks.names(TREE));
}

#[test]
fn readers_share_and_overtake_no_writer() {
    let mut locks = Locks::default();
    let readers = [key(&mut locks, "k", false), key(&mut locks, "k", false)];
    let writer = key(&mut locks, "k", true);
    let late = key(&mut locks, "k", false);
    assert!(readers.iter().all(|reader| locks.is_granted(*reader)));
    assert!(!locks.is_granted(writer) && !locks.is_granted(late));
    assert_eq!(locks.release(readers[0]), [readers[1]]);
    assert!(!locks.is_granted(writer));
    assert_eq!(locks.release(readers[1]), [writer]);
    assert!(locks.is_granted(writer) && !locks.is_granted(late));
    assert_eq!(locks.release(writer), [late]);
    assert!(locks.is_granted(late));
}

#[test]
fn a_claim_that_gives_up_lets_the_next_one_in() {
    let mut locks = Locks::default();
    let first = key(&mut locks, "k", true);
    let second = key(&mut locks, "k", true);
    let third = key(&mut locks, "k", true);
    locks.release(second);
    assert!(!locks.is_granted(third));
    assert_eq!(locks.release(first), [third]);
    assert!(locks.is_granted(third));
}

/// A claim of one part.
fn part(locks: &mut Locks, read: &[&str], changed: &[&str], scans_all: bool) -> Order {
    let mut records = Vec::new();
    for key in changed {
        RecordWriter(&mut records).delete(TREE, key.as_bytes());
    }
    let all = KeyRange {
        lower: Bound::Unbounded,
        upper: Bound::Unbounded,
    };
    let part = Part {
        tree: TREE,
        owner: ShardId(0),
        lower: Arc::from([]),
        records,
        expected: read
            .iter()
            .map(|key| (key.as_bytes().to_vec(), Stored::Absent))
            .collect(),
        ranges: if scans_all { vec![all] } else { Vec::new() },
    };
    let transaction = Transaction {
        number: 1,
        parts: vec![part],
        durability: Durability::Sync,
        snapshot: None,
    };
    locks.claim(Claim::Part {
        transaction: Arc::new(transaction),
        part: 0,
    })
}

#[test]
fn who_scans_hears_of_the_end_of_one_who_read_and_changed_a_key() {
    let mut locks = Locks::default();
    let changes = part(&mut locks, &["k"], &["k"], false);
    let scans = part(&mut locks, &[], &[], true);
    assert!(locks.is_granted(changes) && !locks.is_granted(scans));
    assert_eq!(locks.release(changes), [scans]);
    assert!(locks.is_granted(scans));
    let behind = part(&mut locks, &[], &["l"], false);
    assert!(!locks.is_granted(behind));
    assert_eq!(locks.release(scans), [behind]);
    locks.release(behind);
    assert!(locks.is_idle());
}
