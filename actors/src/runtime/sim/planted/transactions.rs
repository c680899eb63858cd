//! Bugs of transactions over several shards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crossbeam_channel::TrySendError;
use treering_engine::ShardId;

use super::Planted;
use crate::actor::Outbox;
use crate::commit::{Batch, CommitMessage};
use crate::runtime::Runtime;
use crate::shard::{Part, ShardMessage, Transaction};

/// What such a bug has to remember.
#[derive(Default)]
pub(super) struct Memory {
    /// The last set of each shard.
    sets: BTreeMap<ShardId, Arc<[Arc<Transaction>]>>,
    /// Publications that shards must not hear of, since they don't know that batch.
    extra: BTreeMap<ShardId, u32>,
    /// Transactions that are on their way to their owners, by number.
    on_their_way: BTreeSet<u64>,
    /// Parts of a set that is kept open.
    kept_open: Vec<CommitMessage>,
    /// Visits that wait for room.
    waiting: BTreeMap<ShardId, VecDeque<ShardMessage>>,
}

/// Changes what an actor has sent.
pub(super) fn interfere(planted: Planted, runtime: &Runtime, outbox: &mut Outbox, memory: &mut Memory) {
    match planted {
        Planted::SkipValidation => change_visits(outbox, |_, transaction| blind(transaction)),
        Planted::ReleaseLocksEarly => {
            let mut releases = Vec::new();
            for (_, message) in &outbox.shards {
                if let ShardMessage::Visit(visit) = message {
                    for (shard, _) in &visit.epochs {
                        let transaction = Arc::clone(&visit.transaction);
                        releases.push((*shard, ShardMessage::Release(transaction)));
                    }
                }
            }
            outbox.shards.extend(releases);
        }
        Planted::PublishPartsEarly => publish_parts_early(outbox, memory),
        Planted::ApplySetsTwice => {
            for (shard, message) in &mut outbox.shards {
                if let ShardMessage::Apply { transactions, .. } = message {
                    let before = memory.sets.insert(*shard, Arc::clone(transactions));
                    let before = before.iter().flat_map(|set| set.iter());
                    *transactions = transactions.iter().chain(before).cloned().collect();
                }
            }
        }
        Planted::ChainSets => chain_sets(outbox, memory),
        Planted::VisitByOwner => {
            change_visits(outbox, by_owner);
            for (owner, message) in &mut outbox.shards {
                if let ShardMessage::Visit(visit) = message {
                    *owner = visit.transaction.parts[visit.next].owner;
                }
            }
        }
        Planted::VisitByMailbox => visit_by_mailbox(runtime, outbox, memory),
        _ => {}
    }
}

/// Replaces the transactions that are sent on to their next owner; `change` hears which part comes next.
fn change_visits(outbox: &mut Outbox, change: impl Fn(usize, &Transaction) -> Transaction) {
    for (_, message) in &mut outbox.shards {
        if let ShardMessage::Visit(visit) = message {
            visit.transaction = Arc::new(change(visit.next, &visit.transaction));
        }
    }
}

fn copy(part: &Part) -> Part {
    Part {
        tree: part.tree,
        owner: part.owner,
        lower: Arc::clone(&part.lower),
        records: part.records.clone(),
        expected: part.expected.clone(),
        ranges: part.ranges.clone(),
    }
}

/// The transaction without anything that it relies on.
fn blind(transaction: &Transaction) -> Transaction {
    let parts = transaction.parts.iter().map(|part| Part {
        expected: Vec::new(),
        ranges: Vec::new(),
        ..copy(part)
    });
    Transaction {
        number: transaction.number,
        parts: parts.collect(),
        durability: transaction.durability,
        snapshot: None,
    }
}

/// The transaction with the parts that are left in order of their owners.
fn by_owner(next: usize, transaction: &Transaction) -> Transaction {
    let mut parts: Vec<Part> = transaction.parts.iter().map(copy).collect();
    parts[next..].sort_by_key(|part| part.owner);
    if transaction.number % 2 == 1 {
        parts[next..].reverse();
    }
    Transaction {
        number: transaction.number,
        parts,
        durability: transaction.durability,
        snapshot: transaction.snapshot.clone(),
    }
}

/// Keeps the parts of a set back until no other transaction is on its way.
fn chain_sets(outbox: &mut Outbox, memory: &mut Memory) {
    for (_, message) in &outbox.shards {
        match message {
            ShardMessage::Visit(visit) => drop(memory.on_their_way.insert(visit.transaction.number)),
            ShardMessage::Apply { transactions, .. } => {
                for transaction in transactions.iter() {
                    memory.on_their_way.remove(&transaction.number);
                }
            }
            ShardMessage::Release(transaction) => drop(memory.on_their_way.remove(&transaction.number)),
            _ => {}
        }
    }
    let is_part = |message: &mut CommitMessage| matches!(message, CommitMessage::SetPart { .. });
    memory.kept_open.extend(outbox.commit.extract_if(.., is_part));
    if memory.on_their_way.is_empty() {
        outbox.commit.append(&mut memory.kept_open);
    }
}

/// Leaves visits with the requests of clients, where there is room.
fn visit_by_mailbox(runtime: &Runtime, outbox: &mut Outbox, memory: &mut Memory) {
    let is_visit = |(_, message): &mut (ShardId, ShardMessage)| matches!(message, ShardMessage::Visit(_));
    for (shard, visit) in outbox.shards.extract_if(.., is_visit) {
        memory.waiting.entry(shard).or_default().push_back(visit);
    }
    for (shard, waiting) in &mut memory.waiting {
        while let Some(visit) = waiting.pop_front() {
            if let Err(TrySendError::Full(back)) = runtime.shards[usize::from(shard.0)].request(visit) {
                waiting.push_front(back);
                break;
            }
        }
    }
}

/// Sends each part of a set as a batch of its own, and an empty one in its place.
fn publish_parts_early(outbox: &mut Outbox, memory: &mut Memory) {
    for message in std::mem::take(&mut outbox.commit) {
        if let CommitMessage::SetPart {
            set,
            shard,
            result: Ok(batch),
        } = message
        {
            *memory.extra.entry(shard).or_default() += 1;
            let empty = Batch {
                shard,
                tip_epoch: batch.tip_epoch,
                stamp: batch.stamp,
                record_bytes: 0,
                records: Vec::new(),
                roots: Vec::new(),
                created: Vec::new(),
                retired: Vec::new(),
                retires_blobs: false,
                extents_added: Vec::new(),
                extents_unused: Vec::new(),
                trees_dropped: Vec::new(),
                trees_forgotten: Vec::new(),
                partitions: Vec::new(),
                loads: false,
                resolutions: Vec::new(),
                operations: 0,
                sync: false,
            };
            outbox.commit.push(CommitMessage::Batch(*batch));
            outbox.commit.push(CommitMessage::SetPart {
                set,
                shard,
                result: Ok(Box::new(empty)),
            });
        } else {
            outbox.commit.push(message);
        }
    }
    for (shard, message) in &mut outbox.shards {
        if let ShardMessage::Published { batches, .. } = message
            && let Some(extra) = memory.extra.get_mut(shard).filter(|extra| **extra > 0)
        {
            *extra -= 1;
            *batches -= 1;
        }
    }
}
