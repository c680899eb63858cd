//! A shard's part in a set: applied to a batch of its own, and kept so that it can be taken back until the commit
//! actor has heard from all owners.
//!
//! States: *due* ([`Shard::sets_due`]) → *applying* (the exclusive request of the shard) → *sent* (nothing changes until
//! the answer) → over. In *applying*, a failure takes everything back and is told; in *sent*, the answer may say so.

use std::sync::Arc;

use treering_engine::tree::Root;
use treering_engine::{PageId, TreeId};

use super::Transaction;
use crate::actor::Outbox;
use crate::commit::CommitMessage;
use crate::error::Error;
use crate::shard::state::{Exclusive, ExclusiveJob, Shard};
use crate::ticket::Reply;

/// A set under way at one of its owners.
pub(crate) struct SetJob {
    pub number: u64,
    pub transactions: Arc<[Arc<Transaction>]>,
    /// This shard's parts: index of the transaction, index of the part. In the order of the set.
    parts: Vec<(usize, usize)>,
    /// The part that is being applied.
    at: usize,
    /// What would have to be taken back, once the batch is sent.
    sent: Option<Sent>,
    /// Why it can't go on.
    pub failure: Option<Error>,
}

struct Sent {
    tip_epoch: u64,
    roots_before: Vec<(TreeId, Arc<[u8]>, Root)>,
    created: Vec<PageId>,
}

impl SetJob {
    /// The changes that are being applied, if some are left.
    pub fn current(&self) -> Option<(&Arc<Transaction>, usize)> {
        let (transaction, part) = *self.parts.get(self.at)?;
        Some((&self.transactions[transaction], part))
    }

    /// On to the next part.
    pub fn part_done(&mut self) {
        self.at += 1;
    }

    /// Whether the batch is with the commit actor.
    pub fn is_sent(&self) -> bool {
        self.sent.is_some()
    }

    /// The transaction that is being applied: who is to blame for a failure.
    fn culprit(&self) -> usize {
        self.parts.get(self.at).map_or(0, |(transaction, _)| *transaction)
    }
}

impl Shard {
    /// Takes up the next set, if there is one. False: it has to wait.
    pub(in crate::shard) fn begin_set(&mut self, outbox: &mut Outbox) -> bool {
        if self.is_ahead() {
            return false;
        }
        let Some((number, transactions)) = self.sets_due.pop_front() else {
            return true;
        };
        self.freeze(outbox);
        let mut parts = Vec::new();
        for (index, transaction) in transactions.iter().enumerate() {
            for (part, of) in transaction.parts.iter().enumerate() {
                if of.owner == self.id && of.writes() {
                    parts.push((index, part));
                }
            }
        }
        let job = SetJob {
            number,
            transactions,
            parts,
            at: 0,
            sent: None,
            failure: None,
        };
        self.exclusive = Some(Exclusive {
            job: ExclusiveJob::Set(job),
            transaction: None,
            // The commit actor sees to that, for all parts.
            sync: false,
            reply: Reply::none(),
            _credit: None,
            next: 0,
            waits_for: None,
            held: Vec::new(),
        });
        true
    }

    /// All parts are applied: they go to the commit actor, and this shard waits.
    pub(in crate::shard) fn send_set(&mut self, job: &mut SetJob, outbox: &mut Outbox) {
        let roots_before = self.tips.roots_before();
        // Answers to requests that were refused meanwhile are no part of the set.
        let resolutions = std::mem::take(&mut self.open.resolutions);
        let extents_unused = std::mem::take(&mut self.open.extents_unused);
        let (operations, sync) = (std::mem::take(&mut self.open.operations), self.open.sync);
        self.open.sync = false;
        let mut batch = self.close_batch();
        batch.operations = job.parts.len() as u32;
        self.open.resolutions = resolutions;
        self.open.extents_unused = extents_unused;
        self.open.operations = operations;
        self.open.sync = sync;
        job.sent = Some(Sent {
            tip_epoch: self.tip_epoch,
            roots_before,
            created: batch.created.clone(),
        });
        outbox.commit.push(CommitMessage::SetPart {
            set: job.number,
            shard: self.id,
            result: Ok(Box::new(batch)),
        });
    }

    /// A part can't be applied: all of this shard's are taken back, and the commit actor is told.
    pub(in crate::shard) fn fail_set(&mut self, job: &SetJob, error: Error, outbox: &mut Outbox) {
        self.undo_set();
        outbox.commit.push(CommitMessage::SetPart {
            set: job.number,
            shard: self.id,
            result: Err((job.culprit(), error)),
        });
    }

    /// Takes back what was applied of a set. Its blobs stay with their transactions, which may be tried again.
    pub(in crate::shard) fn undo_set(&mut self) {
        self.open.extents_added.clear();
        self.undo_open();
    }

    /// The commit actor has heard from all owners: the set happens, or not.
    pub(in crate::shard) fn set_closed(&mut self, set: u64, happens: bool) {
        let is_this = |job: &ExclusiveJob| matches!(job, ExclusiveJob::Set(job) if job.number == set);
        if !self.exclusive.as_ref().is_some_and(|e| is_this(&e.job)) {
            // It had failed here, or the database was poisoned.
            return;
        }
        let Some(Exclusive {
            job: ExclusiveJob::Set(job),
            ..
        }) = self.exclusive.take()
        else {
            return;
        };
        if happens {
            for transaction in job.transactions.iter() {
                if transaction.owners().contains(&self.id) {
                    self.release_transaction(transaction);
                }
            }
        } else if let Some(sent) = job.sent {
            self.take_back(sent);
        }
    }

    fn take_back(&mut self, sent: Sent) {
        self.unpublished -= 1;
        for id in sent.created {
            // Only this shard has ever seen these pages.
            if let Some(frame) = self.shared.memory.remove(id) {
                self.shared.memory.release_now(frame);
            }
            self.supply.give_back(id);
        }
        // Tips that were dropped meanwhile are older than that.
        if sent.tip_epoch == self.tip_epoch {
            for (tree, lower, root) in sent.roots_before {
                self.tips.restore(tree, &lower, root);
            }
        }
    }
}
