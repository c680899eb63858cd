//! Sets: decided transactions that are applied, logged and published together (rule R20).
//!
//! # States
//! - *decided*: all owners hold its locks; it waits for the next set.
//! - *in the set under way*: all owners were told to apply their parts, and not all have answered. There is one set at
//!   a time.
//! - *applied* ([`Applied`]): all answered with a batch; gathered like any other batch, and as one: its batches and
//!   transactions get into one commit group, or are refused together.
//!
//! # Guarantees
//! - A group holds all parts of a transaction or none: owners change nothing between their part's batch and
//!   [`ShardMessage::SetClosed`], so nothing can come between the parts of a set.
//! - In a group the records of a set come behind those of the batches that its owners froze before; its own batches hold
//!   no records, they only tell recovery which stamps were used.
//! - A transaction that has been with an owner whose tip was dropped since is refused (rule R13).
//! - A transaction comes before a drop of one of its trees, or is refused: trees that it has only read count, too.
//! - A failure to apply takes the set back everywhere. Who caused it is tried again alone, and if that fails, refused;
//!   so every attempt brings one transaction closer to its answer.
//!
//! Absent: locks and waiting, which are the owners' business.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use treering_engine::log::{BATCH_FRAME_BYTES, TRANSACTION_FRAME_BYTES};
use treering_engine::{ShardId, TreeId};

use super::messages::Batch;
use super::state::{Commit, Gathered, Pending};
use crate::actor::Outbox;
use crate::blob::blobs_in;
use crate::error::Error;
use crate::flusher::FlusherMessage;
use crate::options::Durability;
use crate::shard::{ShardMessage, Transaction, Visit};
use crate::shared::Counter;
use crate::ticket::{Outcome, Resolution};

/// Most transactions of one set: a longer one would hold up its owners.
const SET_TRANSACTIONS_MAX: usize = 64;

/// Record bytes of a transaction, with what it costs beyond its changes.
pub(crate) fn logged_bytes(transaction: &Transaction) -> usize {
    let owners = transaction.owners().len();
    transaction.record_bytes() + TRANSACTION_FRAME_BYTES + owners * BATCH_FRAME_BYTES
}

/// A decided transaction.
pub(super) struct Decided {
    visit: Visit,
    /// Whether it made a set fail: it is tried without others.
    alone: bool,
}

/// The set under way.
struct Set {
    number: u64,
    transactions: Vec<Decided>,
    /// What each owner has answered.
    parts: BTreeMap<ShardId, Option<Part>>,
}

enum Part {
    Applied(Box<Batch>),
    /// Which transaction failed, and why.
    Failed(usize, Error),
}

/// A set that was applied everywhere.
pub(super) struct Applied {
    pub transactions: Vec<Visit>,
    pub batches: Vec<Batch>,
}

impl Applied {
    pub fn sync(&self) -> bool {
        let wants = |visit: &Visit| visit.transaction.durability == Durability::Sync;
        self.transactions.iter().any(wants) || self.batches.iter().any(|batch| batch.retires_blobs)
    }

    pub fn record_bytes(&self) -> usize {
        let transactions = self.transactions.iter().map(|visit| &visit.transaction);
        transactions
            .map(|transaction| transaction.record_bytes() + TRANSACTION_FRAME_BYTES)
            .sum::<usize>()
            + self.batches.len() * BATCH_FRAME_BYTES
    }
}

/// All transactions between decision and commit group.
#[derive(Default)]
pub(super) struct Sets {
    /// Bounded by the transactions that shards admit.
    decided: VecDeque<Decided>,
    under_way: Option<Set>,
    next: u64,
}

impl Commit {
    /// A transaction has all its locks.
    pub(super) fn decided(&mut self, visit: Visit) {
        self.sets.decided.push_back(Decided { visit, alone: false });
    }

    /// Whether an owner's tip was dropped since the transaction was there.
    fn is_outdated(&self, visit: &Visit) -> bool {
        visit
            .epochs
            .iter()
            .any(|(shard, epoch)| *epoch < self.tip_epoch(*shard))
    }

    /// Has the next set applied, if there is something for it and none is under way.
    pub(super) fn begin_set(&mut self, outbox: &mut Outbox) {
        if self.sets.under_way.is_some() {
            return;
        }
        let mut transactions: Vec<Decided> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.sets.decided.pop_front() {
            if self.is_outdated(&next.visit) {
                let cause = self.shortage();
                refuse_decided(next.visit, &cause, outbox);
                continue;
            }
            let needed = logged_bytes(&next.visit.transaction);
            let full = transactions.len() >= SET_TRANSACTIONS_MAX
                || bytes + needed > self.shared.settings.batch_record_bytes_max
                || next.alone;
            if full && !transactions.is_empty() {
                self.sets.decided.push_front(next);
                break;
            }
            bytes += needed;
            let alone = next.alone;
            transactions.push(next);
            if alone {
                break;
            }
        }
        if transactions.is_empty() {
            return;
        }
        let number = self.sets.next;
        self.sets.next += 1;
        let told: Arc<[Arc<Transaction>]> = transactions
            .iter()
            .map(|decided| Arc::clone(&decided.visit.transaction))
            .collect();
        let mut parts = BTreeMap::new();
        for transaction in told.iter() {
            // Those that were only read, too: what the transaction relies on there may stand in a batch that isn't
            // published yet, and has to come first. They close it, and answer with an empty one.
            parts.extend(transaction.owners().into_iter().map(|owner| (owner, None)));
        }
        for owner in parts.keys() {
            let message = ShardMessage::Apply {
                set: number,
                transactions: Arc::clone(&told),
            };
            outbox.shards.push((*owner, message));
        }
        self.sets.under_way = Some(Set {
            number,
            transactions,
            parts,
        });
    }

    /// An owner has applied its parts, or couldn't.
    pub(super) fn set_part(
        &mut self,
        set: u64,
        shard: ShardId,
        result: Result<Box<Batch>, (usize, Error)>,
        outbox: &mut Outbox,
    ) {
        // None under way: the database was poisoned meanwhile.
        let Some(under_way) = self
            .sets
            .under_way
            .as_mut()
            .filter(|under_way| under_way.number == set)
        else {
            return;
        };
        let part = match result {
            Ok(batch) => Part::Applied(batch),
            Err((transaction, error)) => Part::Failed(transaction, error),
        };
        under_way.parts.insert(shard, Some(part));
        if under_way.parts.values().all(Option::is_some)
            && let Some(set) = self.sets.under_way.take()
        {
            self.close_set(set, outbox);
        }
    }

    fn close_set(&mut self, set: Set, outbox: &mut Outbox) {
        let mut batches = Vec::new();
        let mut failure = None;
        for part in set.parts.into_values().flatten() {
            match part {
                Part::Applied(batch) => batches.push(*batch),
                Part::Failed(transaction, error) => failure = failure.or(Some((transaction, error))),
            }
        }
        let failure = failure.or_else(|| self.names_dropped_tree(&set.transactions));
        // (Bad run: an owner's tip is dropped after it was told to apply a set, and before it does: its batch stands on what
        // is published, and what it has compared for the transaction was taken back.)
        let is_outdated = set
            .transactions
            .iter()
            .any(|decided| self.is_outdated(&decided.visit));
        let happens = failure.is_none() && !is_outdated && !batches.iter().any(|batch| self.is_stale(batch));
        for batch in &batches {
            let message = ShardMessage::SetClosed {
                set: set.number,
                happens,
            };
            outbox.shards.push((batch.shard, message));
        }
        if happens {
            let transactions = set
                .transactions
                .into_iter()
                .map(|decided| decided.visit)
                .collect();
            self.gathered.push_back(Gathered::Set(Box::new(Applied {
                transactions,
                batches,
            })));
            return;
        }
        for (index, mut decided) in set.transactions.into_iter().enumerate().rev() {
            match &failure {
                // Tips that were dropped make failures of their own: not the transaction's.
                Some((culprit, error)) if *culprit == index && !self.is_outdated(&decided.visit) => {
                    if decided.alone {
                        refuse_decided(decided.visit, error, outbox);
                        continue;
                    }
                    decided.alone = true;
                }
                _ => {}
            }
            self.sets.decided.push_front(decided);
        }
    }

    /// The first transaction with a tree whose drop comes before the set: it is in a group already, or in line for one.
    /// (Bad run: an owner validates what a transaction has read of a tree, then drops that tree; the drop is told, others
    /// see that the tree is gone and that the transaction has not happened; then it happens.)
    fn names_dropped_tree(&self, transactions: &[Decided]) -> Option<(usize, Error)> {
        let dropping: Vec<TreeId> = self
            .gathered
            .iter()
            .flat_map(|item| match item {
                Gathered::Batch(batch) if !self.is_stale(batch) => &batch.trees_dropped[..],
                _ => &[],
            })
            .copied()
            .collect();
        let is_gone = |tree: TreeId| {
            dropping.contains(&tree) || self.planned.get(tree).is_none() || self.is_dropped(tree)
        };
        transactions.iter().enumerate().find_map(|(index, decided)| {
            let mut parts = decided.visit.transaction.parts.iter();
            let gone = parts.find(|part| is_gone(part.tree))?;
            Some((index, Error::no_tree(gone.tree)))
        })
    }

    /// Gives a set its place in a group.
    pub(super) fn join_set(&mut self, set: Applied, group: &mut Pending) {
        group.changes = true;
        if self.logging {
            for batch in &set.batches {
                self.builder
                    .append_batch(group.seq, batch.shard, batch.stamp, &batch.records);
            }
            for visit in &set.transactions {
                self.builder.writer(group.seq).transaction(group.seq, |writer| {
                    for part in &visit.transaction.parts {
                        writer.0.extend_from_slice(&part.records);
                    }
                });
            }
        }
        for visit in &set.transactions {
            for part in &visit.transaction.parts {
                self.keep_for_feeds(&part.records, group);
            }
        }
        for batch in &set.batches {
            self.plan(|planned| planned.with_roots(&batch.roots));
        }
        let transactions = set.transactions.len() as u64;
        self.shared.counters.add(Counter::Transactions, transactions);
        group.batches.extend(set.batches);
        group
            .resolutions
            .extend(set.transactions.into_iter().map(|visit| Resolution {
                reply: visit.reply,
                result: Ok(Outcome::Done),
            }));
    }

    /// The database is poisoned: no transaction happens any more. Owners that wait for an answer get one.
    pub(super) fn refuse_sets(&mut self, error: &Error, outbox: &mut Outbox) {
        let under_way = self.sets.under_way.take();
        if let Some(set) = &under_way {
            for shard in set.parts.keys() {
                let message = ShardMessage::SetClosed {
                    set: set.number,
                    happens: false,
                };
                outbox.shards.push((*shard, message));
            }
        }
        let in_set = under_way.into_iter().flat_map(|set| set.transactions);
        let decided = std::mem::take(&mut self.sets.decided);
        for decided in in_set.chain(decided) {
            refuse_decided(decided.visit, error, outbox);
        }
    }
}

/// Answers a transaction that doesn't happen after all, and gives back its locks and blobs.
fn refuse_decided(visit: Visit, error: &Error, outbox: &mut Outbox) {
    let Visit {
        transaction, reply, ..
    } = visit;
    let parts = transaction.parts.iter();
    let extents: Vec<_> = parts.flat_map(|part| blobs_in(&part.records)).collect();
    // Poisoned, nothing is given back: tips stay as they are, and may refer to it.
    if !extents.is_empty() && !matches!(error, Error::Poisoned { .. }) {
        outbox.flusher.push(FlusherMessage::Release { extents });
    }
    for shard in transaction.owners() {
        outbox
            .shards
            .push((shard, ShardMessage::Release(Arc::clone(&transaction))));
    }
    outbox.resolutions.push(Resolution {
        reply,
        result: Err(error.clone()),
    });
}
