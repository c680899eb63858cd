//! Forming commit groups: a sequence number and a place in the log for what was gathered.

use treering_engine::{Lsn, Seq};

use super::state::{Commit, Gathered, Pending};
use crate::actor::{Nanos, Outbox};
use crate::error::Error;
use crate::shard::PartitionChange;
use crate::ticket::{Outcome, Resolution};

/// Whether records of a given length can be appended to the open log group.
enum Place {
    Here,
    Later,
    Never(Error),
}

impl Commit {
    /// Gives gathered batches one sequence number and a place in the open log group, as many as fit.
    pub(super) fn form_group(&mut self, now: Nanos, outbox: &mut Outbox) {
        let mut group = Pending {
            seq: self.next_seq,
            changes: false,
            sync: false,
            position: self.position,
            directory: self.planned.clone(),
            batches: Vec::new(),
            resolutions: Vec::new(),
            checkpoint_syncs: Vec::new(),
            told: Vec::new(),
            reclaims: Vec::new(),
        };
        let mut refused = false;
        while let Some(next) = self.gathered.pop_front() {
            if let Gathered::Batch(batch) = &next
                && self.is_stale(batch)
            {
                let cause = self.shortage();
                self.refuse(next, &cause, outbox);
                continue;
            }
            let place = match &next {
                // Its other owners have gone on from it: they have to go back, too.
                Gathered::Set(set) if set.batches.iter().any(|batch| self.is_stale(batch)) => {
                    Place::Never(self.shortage())
                }
                next => self.has_place(next.record_bytes()),
            };
            match place {
                Place::Here => {}
                Place::Later => {
                    self.gathered.push_front(next);
                    break;
                }
                Place::Never(_) if !group.batches.is_empty() || !self.pending.is_empty() => {
                    // Its shard goes back to what is published: what comes before it must be that first. (Bad run: the
                    // shard goes on from a version without its own batch that is in this group, and takes it back.)
                    self.gathered.push_front(next);
                    break;
                }
                Place::Never(error) => {
                    refused = true;
                    self.segment_wanted = true;
                    self.segment_awaited = false;
                    self.drop_tip(&next, &error, outbox);
                    self.refuse(next, &error, outbox);
                    continue;
                }
            }
            group.sync |= next.sync() && self.logging;
            self.join(next, &mut group);
        }
        if refused {
            // The next one deserves a new attempt.
            self.checkpoint_failure = None;
        }
        if group.batches.is_empty() && group.resolutions.is_empty() && group.checkpoint_syncs.is_empty() {
            return;
        }
        if group.changes {
            self.next_seq = self.next_seq.next();
            if self.logging && self.unsynced_since.is_none() {
                self.unsynced_since = Some(now);
            }
        } else {
            // Nothing new to see or to log; what waits for durability waits for the group before.
            group.seq = Seq(self.next_seq.0 - 1);
        }
        group.directory = self.planned.clone();
        self.pending.push_back(group);
    }

    /// Appends the records and applies the roots of one gathered item.
    fn join(&mut self, item: Gathered, group: &mut Pending) {
        match item {
            Gathered::Batch(mut batch) => {
                group.changes |= !batch.roots.is_empty()
                    || !batch.records.is_empty()
                    || !batch.retired.is_empty()
                    || !batch.trees_dropped.is_empty()
                    || !batch.trees_forgotten.is_empty()
                    || !batch.partitions.is_empty();
                if self.logging && !batch.records.is_empty() {
                    self.builder
                        .append_batch(group.seq, batch.shard, batch.stamp, &batch.records);
                }
                // The records are in the log's buffer now; the list goes back to the shard.
                self.keep_for_feeds(&batch.records, group);
                batch.records.clear();
                for change in &batch.partitions {
                    let PartitionChange {
                        tree,
                        replaced,
                        partitions,
                    } = change;
                    self.plan(|planned| planned.with_partitions(*tree, replaced, partitions));
                    // Its new owner must hear of a tree that was dropped meanwhile, too.
                    let others = partitions.iter().filter(|part| part.owner != batch.shard);
                    if self.is_dropped(*tree) {
                        group.reclaims.extend(others.map(|part| (part.owner, *tree)));
                    }
                }
                self.plan(|planned| planned.with_roots(&batch.roots));
                for tree in &batch.trees_dropped {
                    self.hide_tree(*tree);
                    let owners = self.owners(*tree).filter(|owner| *owner != batch.shard);
                    group.reclaims.extend(owners.map(|owner| (owner, *tree)));
                }
                for tree in &batch.trees_forgotten {
                    if self.is_empty(*tree) {
                        self.plan(|planned| planned.without_tree(*tree));
                    }
                }
                if group.resolutions.is_empty() {
                    std::mem::swap(&mut group.resolutions, &mut batch.resolutions);
                } else {
                    group.resolutions.append(&mut batch.resolutions);
                }
                group.batches.push(batch);
            }
            Gathered::Set(set) => self.join_set(*set, group),
            Gathered::ChangeTrees { change, reply } => {
                let result = self.change_trees(change, group).map(|()| Outcome::Done);
                group.resolutions.push(Resolution { reply, result });
            }
            Gathered::Flush { reply } => {
                group.resolutions.push(Resolution {
                    reply,
                    result: Ok(Outcome::Done),
                });
            }
            Gathered::CheckpointSync { token } => group.checkpoint_syncs.push(token),
        }
    }

    fn has_place(&mut self, record_bytes: usize) -> Place {
        if !self.logging || record_bytes == 0 {
            return Place::Here;
        }
        if let Some(cause) = &self.checkpoint_failure
            && self.log_is_full()
        {
            return Place::Never(Error::OutOfSpace {
                what: format!("the log can't be truncated: {cause}"),
            });
        }
        // With room for the records that open and close the batch.
        let record_bytes = self.builder.record_bytes() + record_bytes + 64;
        let bytes = treering_engine::log::encoded_bytes(record_bytes);
        let Some(Lsn(start)) = self.layout.place(self.position.lsn, bytes) else {
            // More than a segment: fits once the open group is sealed.
            if !self.builder.is_empty() {
                return Place::Later;
            }
            let limit = self.layout.record_bytes_max() as u64;
            let unit = "bytes of log";
            return Place::Never(Error::TransactionTooLarge {
                needed: record_bytes as u64,
                limit,
                unit,
            });
        };
        if self.segments.is_ready(self.layout.number(Lsn(start))) {
            self.segment_awaited = false;
            return Place::Here;
        }
        if !self.builder.is_empty() {
            return Place::Later;
        }
        if !std::mem::replace(&mut self.segment_awaited, true) {
            // What failed ahead of need, however long ago, is tried once more.
            self.segment_shortage = None;
        }
        self.segment_shortage.clone().map_or(Place::Later, Place::Never)
    }
}
