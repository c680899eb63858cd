//! Requests for several keys: they run alone, so that they can be undone as a whole.

use std::sync::Arc;

use crossbeam_epoch::Guard;
use treering_engine::log::{Record, RecordReader};
use treering_engine::tree::{self, Miss};
use treering_engine::{PageRef, TreeId};

use super::apply::{Notes, apply_record};
use super::messages::{Action, Request};
use super::replay::ReplayJob;
use super::single::Place;
use super::state::{Exclusive, ExclusiveJob, Shard};
use super::store::TipStore;
use super::transaction::Visit;
use crate::actor::Outbox;
use crate::blob::blobs_in;
use crate::client::NodeView;
use crate::error::Error;
use crate::options::Durability;
use crate::pager::{Kept, PagerMessage, Waiter};
use crate::shared::Counter;
use crate::ticket::{Outcome, Resolution};

/// Keys that are looked at for each page that is read ahead: neighbours often share a leaf.
const READ_AHEAD_KEYS: usize = 8;

/// How one write of an exclusive request went.
pub(super) enum Progress {
    Done,
    Ended,
    Missed(Miss),
    Starved,
    Failed(Error),
}

impl Shard {
    /// Whether an all-or-nothing request is half applied, so that the open batch can't be frozen.
    pub(super) fn in_atomic_batch(&self) -> bool {
        self.exclusive
            .as_ref()
            .is_some_and(|exclusive| match exclusive.job {
                ExclusiveJob::Batch(_) => exclusive.next > 0,
                ExclusiveJob::Replay(_) => false,
                ExclusiveJob::Set(_) => true,
            })
    }

    /// Takes up a request for several keys. The open batch is empty.
    pub(super) fn begin_exclusive(&mut self, request: Request, guard: &Guard) {
        let Request {
            tree,
            action,
            durability,
            reply,
            credit,
        } = request;
        let sync = durability == Durability::Sync;
        self.open.sync |= sync;
        let job = match action {
            Action::Batch { records } => ExclusiveJob::Batch(records),
            Action::Replay(part) => ExclusiveJob::Replay(ReplayJob::new(part)),
            Action::PrepareLoad => return self.prepare_load(tree, reply, guard),
            Action::ForgetEmpty => return self.forget_empty(tree, reply),
            Action::Load(loaded) => return self.load_tree(tree, *loaded, durability, reply, guard),
            _ => {
                self.drop_tree(tree, reply, guard);
                return;
            }
        };
        self.exclusive = Some(Exclusive {
            job,
            transaction: None,
            sync,
            reply,
            _credit: credit,
            next: 0,
            waits_for: None,
            held: Vec::new(),
        });
    }

    /// Takes up a transaction that has all its locks, and all its parts here. The open batch is empty.
    pub(super) fn begin_complete(&mut self, visit: Visit) {
        let Visit {
            transaction,
            reply,
            credit,
            ..
        } = visit;
        let sync = transaction.durability == Durability::Sync;
        self.shared.counters.add(Counter::Transactions, 1);
        let records: Vec<&[u8]> = transaction.parts.iter().map(|part| &part.records[..]).collect();
        self.exclusive = Some(Exclusive {
            job: ExclusiveJob::Batch(records.concat()),
            transaction: Some(transaction),
            sync,
            reply,
            _credit: credit,
            next: 0,
            waits_for: None,
            held: Vec::new(),
        });
    }

    /// Goes on with the exclusive request; true when it has ended.
    pub(super) fn run_exclusive(&mut self, guard: &Guard, outbox: &mut Outbox) -> bool {
        let Some(mut exclusive) = self.exclusive.take() else {
            return true;
        };
        let is_sent = matches!(&exclusive.job, ExclusiveJob::Set(job) if job.is_sent());
        if is_sent || exclusive.waits_for.is_some() {
            self.exclusive = Some(exclusive);
            return false;
        }
        loop {
            let progress = match &mut exclusive.job {
                ExclusiveJob::Set(job) => match (job.failure.clone(), job.current(), self.open_limit()) {
                    (Some(error), ..) | (None, Some(_), Some(error)) => Progress::Failed(error),
                    (None, None, _) => Progress::Ended,
                    (None, Some((transaction, part)), None) => {
                        let transaction = Arc::clone(transaction);
                        let records = &transaction.parts[part].records;
                        self.run_record(records, &mut exclusive.next, guard, outbox)
                    }
                },
                ExclusiveJob::Batch(records) => match self.batch_limit(records) {
                    Some(error) => Progress::Failed(error),
                    None => self.run_record(records, &mut exclusive.next, guard, outbox),
                },
                ExclusiveJob::Replay(job) => {
                    if self.freeze_replayed(outbox) {
                        self.run_replayed(job, guard, outbox)
                    } else {
                        Progress::Starved
                    }
                }
            };
            match progress {
                // What was loaded for this part has served it. (Bad run: a replay of thousands of records holds
                // every page that it had to bring, until nothing can leave memory any more.)
                Progress::Done => {
                    let held = std::mem::take(&mut exclusive.held);
                    held.into_iter().for_each(|frame| self.unhold(frame));
                }
                Progress::Ended => {
                    if let ExclusiveJob::Set(job) = &mut exclusive.job {
                        if job.current().is_some() {
                            job.part_done();
                            exclusive.next = 0;
                            continue;
                        }
                        self.send_set(job, outbox);
                        exclusive.held.drain(..).for_each(|frame| self.unhold(frame));
                        self.exclusive = Some(exclusive);
                        return false;
                    }
                    if let ExclusiveJob::Batch(records) = &exclusive.job {
                        self.open.records.extend_from_slice(records);
                    }
                    self.end_exclusive(exclusive, Ok(Outcome::Done));
                    return true;
                }
                Progress::Failed(error) => {
                    if let ExclusiveJob::Set(job) = &exclusive.job {
                        self.fail_set(job, error, outbox);
                        exclusive.held.drain(..).for_each(|frame| self.unhold(frame));
                        return true;
                    }
                    self.undo_exclusive(&exclusive.job);
                    self.end_exclusive(exclusive, Err(error));
                    return true;
                }
                Progress::Missed(Miss(reference)) => {
                    self.shared.counters.add(Counter::Parked, 1);
                    exclusive.waits_for = Some(reference.id);
                    outbox.pager.push(PagerMessage::Fetch {
                        reference,
                        waiter: Waiter::Shard(self.id),
                    });
                    match &mut exclusive.job {
                        ExclusiveJob::Batch(records) => {
                            self.read_ahead(records, exclusive.next, reference, guard, outbox);
                        }
                        ExclusiveJob::Replay(job) => self.read_ahead_replayed(job, guard, outbox),
                        ExclusiveJob::Set(job) => {
                            if let Some((transaction, part)) = job.current() {
                                let records = &transaction.parts[part].records;
                                self.read_ahead(records, exclusive.next, reference, guard, outbox);
                            }
                        }
                    }
                    self.exclusive = Some(exclusive);
                    return false;
                }
                Progress::Starved => {
                    self.exclusive = Some(exclusive);
                    return false;
                }
            }
        }
    }

    /// Asks for the pages that the next changes will need beside the one that is waited for: one read after the other
    /// would make large batches as slow as the device's latency.
    fn read_ahead(&self, records: &[u8], next: usize, missed: PageRef, guard: &Guard, outbox: &mut Outbox) {
        let mut changes = RecordReader::resume(records, next).map_while(|record| match record {
            Ok(
                Record::Put { tree, key, .. }
                | Record::PutBlob { tree, key, .. }
                | Record::Delete { tree, key },
            ) => Some((tree, key)),
            _ => None,
        });
        let Some((tree, first)) = changes.next() else {
            return;
        };
        let Some(tip) = self.tips.get(tree, first) else {
            return;
        };
        let mut keys = vec![first];
        let count = self.shared.settings.fetched_max * READ_AHEAD_KEYS;
        keys.extend(
            changes
                .take_while(|(next, key)| *next == tree && tip.holds(key))
                .take(count)
                .map(|(_, key)| key),
        );
        let view = NodeView::new(self.shared.memory.view(guard));
        let mut found = vec![Ok(None); keys.len()];
        tree::get_many(&view, &tip.root, &keys, &mut found);
        let mut ahead: Vec<PageRef> = found
            .into_iter()
            .filter_map(|found| found.err().map(|miss| miss.0))
            .collect();
        ahead.dedup();
        ahead.retain(|reference| reference.id != missed.id);
        ahead.truncate(self.shared.settings.fetched_max);
        // What is missing was published: pages of batches that aren't don't leave memory.
        let kept: Kept = self.shared.current.hold(guard);
        let fetch = |reference| PagerMessage::Fetch {
            reference,
            waiter: Waiter::Nobody {
                kept: Arc::clone(&kept),
            },
        };
        outbox.pager.extend(ahead.into_iter().map(fetch));
    }

    /// Ends the exclusive request with an error, undoing what it did.
    pub(super) fn abort_exclusive(&mut self, error: &Error) {
        let Some(mut exclusive) = self.exclusive.take() else {
            return;
        };
        if let ExclusiveJob::Set(job) = &mut exclusive.job {
            if !job.is_sent() {
                // Told when it runs next. What it did is taken back at once: the tips may be about to be dropped.
                self.undo_set();
                job.failure.get_or_insert_with(|| error.clone());
                exclusive.waits_for = None;
            }
            self.exclusive = Some(exclusive);
            return;
        }
        self.undo_exclusive(&exclusive.job);
        self.end_exclusive(exclusive, Err(error.clone()));
    }

    fn end_exclusive(&mut self, exclusive: Exclusive, result: crate::error::Result<Outcome>) {
        exclusive.held.iter().for_each(|frame| self.unhold(*frame));
        if let Some(transaction) = &exclusive.transaction {
            self.release_transaction(transaction);
        }
        self.open.operations += 1;
        // Not when it began: while it waited for its first page, the open batch may have been closed with answers of others.
        self.open.sync |= exclusive.sync;
        self.open.resolutions.push(Resolution {
            reply: exclusive.reply,
            result,
        });
    }

    /// Takes back what an exclusive request did. The blobs of a failed batch are free, those that were applied and
    /// those that weren't: they are counted once, from the writes.
    fn undo_exclusive(&mut self, job: &ExclusiveJob) {
        if let ExclusiveJob::Batch(records) = job {
            self.open.extents_added.clear();
            self.open.extents_unused.extend(blobs_in(records));
        }
        self.undo_open();
    }

    /// Why a batch can't go on: it is larger than what one commit may take.
    fn batch_limit(&self, records: &[u8]) -> Option<Error> {
        let settings = &self.shared.settings;
        if records.len() <= settings.batch_record_bytes_max {
            return self.open_limit();
        }
        Some(Error::TransactionTooLarge {
            needed: records.len() as u64,
            limit: settings.batch_record_bytes_max as u64,
            unit: "bytes of log",
        })
    }

    /// Why an open batch that can't be sent in parts can't go on: it holds all the nodes that it may.
    fn open_limit(&self) -> Option<Error> {
        let limit = self.shared.settings.open_nodes_max;
        (self.open.pages.created.len() >= limit).then(|| Error::TransactionTooLarge {
            needed: self.open.pages.created.len() as u64 + 1,
            limit: limit as u64,
            unit: "pages",
        })
    }

    /// Replay needs no atomicity of its own, since the log had it: a batch that has grown large is sent. False while
    /// that isn't possible.
    fn freeze_replayed(&mut self, outbox: &mut Outbox) -> bool {
        if self.open.pages.created.len() >= self.shared.settings.open_nodes_max {
            self.freeze(outbox);
            return self.open.is_empty();
        }
        true
    }

    fn run_record(
        &mut self,
        records: &[u8],
        offset: &mut usize,
        guard: &Guard,
        outbox: &mut Outbox,
    ) -> Progress {
        if *offset == records.len() {
            return Progress::Ended;
        }
        let mut reader = RecordReader::resume(records, *offset);
        let record = match reader.next() {
            None | Some(Ok(Record::BatchEnd)) => return Progress::Ended,
            Some(Ok(record)) => record,
            Some(Err(defect)) => {
                return Progress::Failed(Error::Corrupt {
                    file: "log".into(),
                    offset: *offset as u64,
                    page: None,
                    reason: defect.to_string(),
                });
            }
        };
        let behind = reader.offset();
        let Some((tree, key)) = record.change() else {
            *offset = behind;
            return Progress::Done;
        };
        let progress = self.run_part(tree, key, guard, outbox, |store, root, notes| {
            apply_record(store, root, &record, notes.extents_added)
        });
        if matches!(progress, Progress::Done) {
            *offset = behind;
        }
        progress
    }

    pub(super) fn run_part(
        &mut self,
        tree: TreeId,
        key: &[u8],
        guard: &Guard,
        outbox: &mut Outbox,
        change: impl FnOnce(&mut TipStore<'_>, &mut tree::Root, &mut Notes<'_>) -> Result<(), Miss>,
    ) -> Progress {
        let place = match self.locate(tree, key, guard) {
            Place::Here(place) => place,
            // Nothing moves while requests for several keys are under way (`runtime/gate.rs`).
            Place::Elsewhere(_) | Place::Leaving | Place::Coming(_) => {
                return Progress::Failed(Error::Conflict);
            }
            Place::Nowhere => {
                return Progress::Failed(Error::no_tree(tree));
            }
        };
        self.moves.note(&self.shared.settings, tree, key);
        if !self.supply_for(tree::reserve_for(self.height(place)), outbox) {
            return self.shortage.clone().map_or(Progress::Starved, Progress::Failed);
        }
        match self.change_tip(place, guard, change) {
            Err(miss) => Progress::Missed(miss),
            Ok(None) => Progress::Ended,
            Ok(Some(())) => Progress::Done,
        }
    }
}

#[cfg(test)]
#[path = "exclusive_tests.rs"]
mod tests;
