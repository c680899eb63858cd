//! Batches and sets as the commit actor meets them, message by message.

use std::sync::Arc;

use treering_engine::log::{RecordWriter, SegmentSet};
use treering_engine::{ShardId, Stamp, TreeId};
use treering_io::SimDirectory;

use super::{Batch, Commit, CommitMessage};
use crate::actor::{Actor, Outbox};
use crate::error::Error;
use crate::options::{Durability, Options};
use crate::runtime::SimOptions;
use crate::shard::{Part, ShardMessage, Transaction, Visit};
use crate::shared::with_guard;
use crate::ticket::{Outcome, Reply, Resolution};

/// What an owner answers that has applied its parts and changed nothing by that.
fn applied(shard: ShardId, tip_epoch: u64) -> Batch {
    Batch {
        shard,
        tip_epoch,
        stamp: Stamp(0),
        records: Vec::new(),
        record_bytes: 0,
        roots: Vec::new(),
        created: Vec::new(),
        retired: Vec::new(),
        retires_blobs: false,
        loads: false,
        extents_added: Vec::new(),
        extents_unused: Vec::new(),
        trees_dropped: Vec::new(),
        trees_forgotten: Vec::new(),
        partitions: Vec::new(),
        resolutions: Vec::new(),
        operations: 1,
        sync: false,
    }
}

const OWNERS: [ShardId; 2] = [ShardId(0), ShardId(1)];

/// A database of two shards, with a tree for each.
fn two_trees() -> (crate::Db, [TreeId; 2]) {
    let disk = SimDirectory::new(1);
    let options = Options::new().shards(2).cache_bytes(1024 * 4096);
    let db = crate::sim::open(&disk, &options, SimOptions::default()).expect("it opens");
    for name in ["one", "two"] {
        db.client().tree(name).expect("a tree");
    }
    crate::sim::settle(&db);
    let shared = &db.inner.runtime.shared;
    let trees = with_guard(&shared.memory, |guard| {
        let directory = &shared.current.load(guard).directory;
        ["one", "two"].map(|name| directory.by_name(name).expect("there").id)
    });
    (db, trees)
}

/// A transaction that has been with the owners of both trees.
fn decided(commit: &Commit, trees: [TreeId; 2]) -> CommitMessage {
    let part = |(tree, owner): (TreeId, ShardId)| Part {
        tree,
        owner,
        lower: Arc::from([]),
        records: Vec::new(),
        expected: Vec::new(),
        ranges: Vec::new(),
    };
    let transaction = Arc::new(Transaction {
        number: 1,
        parts: trees.into_iter().zip(OWNERS).map(part).collect(),
        durability: Durability::Sync,
        snapshot: None,
    });
    CommitMessage::Decided(Box::new(Visit {
        transaction,
        reply: Reply::none(),
        credit: None,
        next: 2,
        epochs: OWNERS.map(|owner| (owner, commit.tip_epoch(owner))).to_vec(),
    }))
}

/// The set that the owners were told to apply.
fn set_told(outbox: &mut Outbox) -> u64 {
    let set = outbox.shards.drain(..).find_map(|(_, message)| match message {
        ShardMessage::Apply { set, .. } => Some(set),
        _ => None,
    });
    set.expect("both were told to apply it")
}

/// Both owners answer that they have applied the set.
fn apply_by_all(commit: &mut Commit, set: u64, outbox: &mut Outbox) {
    for shard in OWNERS {
        let result = Ok(Box::new(applied(shard, commit.tip_epoch(shard))));
        commit.handle(CommitMessage::SetPart { set, shard, result }, 0, outbox);
    }
}

/// Both owners answer that they have applied the set; whether it happens.
fn apply_everywhere(commit: &mut Commit, set: u64, outbox: &mut Outbox) -> bool {
    apply_by_all(commit, set, outbox);
    let closed = outbox.shards.drain(..).map(|(_, message)| match message {
        ShardMessage::SetClosed { happens, .. } => happens,
        other => panic!("{other:?}"),
    });
    let closed: Vec<bool> = closed.collect();
    assert!(closed.len() == 2 && closed[0] == closed[1]);
    closed[0]
}

/// An owner hears that it shall apply a set and that its tip is dropped, in this order, and then applies the set: to what
/// is published. What it has compared for the transaction stood on the tip (rule R13).
#[test]
fn a_set_does_not_happen_if_a_tip_was_dropped_before_it_was_applied() {
    let (db, trees) = two_trees();
    {
        let mut commit = db.inner.runtime.commit.lock();
        let mut outbox = Outbox::default();
        let message = decided(&commit, trees);
        commit.handle(message, 0, &mut outbox);
        commit.end_batch(0, &mut outbox);
        let set = set_told(&mut outbox);

        commit.tip_epochs[0] += 1;
        assert!(!apply_everywhere(&mut commit, set, &mut outbox));
        commit.end_batch(0, &mut outbox);
        assert!(
            matches!(
                &outbox.resolutions[..],
                [told] if matches!(told.result, Err(Error::OutOfSpace { .. }))
            ),
            "the transaction is refused"
        );
    }
    crate::sim::crash(db);
}

/// The owner of a tree has validated what a transaction read there, and then drops the tree; the set closes when the drop
/// is in line for a group, or published.
#[test]
fn a_transaction_does_not_happen_after_the_drop_of_a_tree_that_it_has_read() {
    for is_published in [false, true] {
        let (db, trees) = two_trees();
        {
            let mut commit = db.inner.runtime.commit.lock();
            let mut outbox = Outbox::default();
            commit.logging = false;
            let message = decided(&commit, trees);
            commit.handle(message, 0, &mut outbox);
            commit.end_batch(0, &mut outbox);
            let set = set_told(&mut outbox);

            let batch = Batch {
                trees_dropped: vec![trees[0]],
                ..applied(OWNERS[0], commit.tip_epoch(OWNERS[0]))
            };
            commit.handle(CommitMessage::Batch(batch), 0, &mut outbox);
            if is_published {
                commit.end_batch(0, &mut outbox);
                outbox.shards.clear();
            }
            assert!(!apply_everywhere(&mut commit, set, &mut outbox));
            // Once more, alone, and then it is refused.
            commit.end_batch(0, &mut outbox);
            let set = set_told(&mut outbox);
            apply_by_all(&mut commit, set, &mut outbox);
            assert!(
                matches!(
                    &outbox.resolutions[..],
                    [told] if matches!(told.result, Err(Error::TreeNotFound { .. }))
                ),
                "the transaction is refused"
            );
        }
        crate::sim::crash(db);
    }
}

/// The log is full, and no checkpoint can shorten it: a batch is refused as soon as what came before it is published. That
/// needs no write of the log: nobody will call.
#[test]
fn a_batch_that_waits_for_a_publication_is_refused_after_it() {
    let disk = SimDirectory::new(1);
    let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
    crate::sim::settle(&db);
    {
        let mut commit = db.inner.runtime.commit.lock();
        let mut outbox = Outbox::default();
        commit.checkpoint_failure = Some(Error::Closed);
        commit.position.lsn.0 += 4 * commit.shared.settings.checkpoint_log_bytes;
        // The last group was published without records, and so without a sync.
        commit.next_seq = commit.next_seq.next();
        let answer = || Resolution {
            reply: Reply::none(),
            result: Ok(Outcome::Done),
        };
        let mut records = Vec::new();
        RecordWriter(&mut records).put(TreeId(1), b"k", b"v");
        for records in [Vec::new(), records] {
            let batch = Batch {
                record_bytes: records.len(),
                records,
                resolutions: vec![answer()],
                sync: true,
                ..applied(ShardId(0), 0)
            };
            commit.handle(CommitMessage::Batch(batch), 0, &mut outbox);
        }
        commit.end_batch(0, &mut outbox);
        assert!(
            matches!(
                &outbox.resolutions[..],
                [told, refused] if told.result.is_ok() && refused.result.is_err()
            ),
            "{} answers",
            outbox.resolutions.len()
        );
        // So that nothing is written there.
        commit.logging = false;
    }
    crate::sim::crash(db);
}

/// The log is at its longest, a checkpoint is to shorten it, and the disk is full.
#[test]
fn a_segment_that_cannot_be_made_is_not_tried_again_while_batches_wait_for_something_else() {
    let disk = SimDirectory::new(1);
    let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
    crate::sim::settle(&db);
    {
        let mut commit = db.inner.runtime.commit.lock();
        let (start, end) = (commit.log_start.lsn, commit.position.lsn);
        let found = [(commit.layout.number_before(end), true)].into();
        commit.segments = SegmentSet::new(commit.layout, Commit::segments_ahead(), start, end, &found);
        commit.position.lsn.0 += 4 * commit.shared.settings.checkpoint_log_bytes;
        commit.checkpoint_requested = true;
        let mut records = Vec::new();
        RecordWriter(&mut records).put(TreeId(1), b"k", b"v");
        let batch = Batch {
            record_bytes: records.len(),
            records,
            ..applied(ShardId(0), 0)
        };
        let mut outbox = Outbox::default();
        commit.handle(CommitMessage::Batch(batch), 0, &mut outbox);
        commit.end_batch(0, &mut outbox);
        assert_eq!(outbox.file_tasks.len(), 1, "one attempt");
        outbox.file_tasks.clear();
        let result = Err(std::io::ErrorKind::StorageFull.into());
        commit.handle(CommitMessage::SegmentDone { result }, 0, &mut outbox);
        commit.end_batch(0, &mut outbox);
        assert!(outbox.file_tasks.is_empty(), "{:?}", outbox.file_tasks);
        assert_eq!(commit.gathered.len(), 1, "it waits");
        // So that nothing is written there.
        commit.logging = false;
    }
    crate::sim::crash(db);
}
