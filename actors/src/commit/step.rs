//! One step of the commit actor: gather, give places in the log, publish what may be seen, write.

use std::collections::BTreeSet;
use std::sync::Arc;

use treering_engine::catalog::{CatalogError, Directory, TreeState};
use treering_engine::log::RecordWriter;
use treering_engine::tree::Root;
use treering_engine::{Lsn, Seq, ShardId, Stamp, TreeId};

use super::messages::{Batch, CommitMessage};
use super::state::{Commit, Gathered, Pending};
use super::{DELTA_PAGES_MAX, DROPPED_PREFIX, GATHERED_BYTES_MAX, LOG_LENGTH_FACTOR_MAX};
use crate::actor::{Actor, Nanos, Outbox};
use crate::error::Error;
use crate::flusher::FlusherMessage;
use crate::shard::{PartitionChange, ShardMessage};
use crate::shared::Counter;
use crate::ticket::{Outcome, Reply, Resolution};

impl Actor for Commit {
    type Message = CommitMessage;

    fn handle(&mut self, message: CommitMessage, now: Nanos, outbox: &mut Outbox) {
        match message {
            CommitMessage::Batch(batch) => {
                self.balance.note(batch.shard, batch.operations);
                self.gathered.push_back(Gathered::Batch(batch));
            }
            CommitMessage::Decided(visit) => self.decided(*visit),
            CommitMessage::SetPart { set, shard, result } => {
                if let Ok(batch) = &result {
                    self.balance.note(shard, batch.operations);
                }
                self.set_part(set, shard, result, outbox);
            }
            CommitMessage::CreateTree {
                name,
                must_be_new,
                reply,
            } => {
                self.gathered.push_back(Gathered::CreateTree {
                    name,
                    must_be_new,
                    reply,
                });
            }
            CommitMessage::RestoreTree { id, name, reply } => {
                self.gathered.push_back(Gathered::RestoreTree { id, name, reply });
            }
            CommitMessage::RestoreDrop { id, reply } => {
                self.gathered.push_back(Gathered::RestoreDrop { id, reply });
            }
            CommitMessage::Flush { reply } => self.gathered.push_back(Gathered::Flush { reply }),
            CommitMessage::SyncForCheckpoint { token } => {
                self.gathered.push_back(Gathered::CheckpointSync { token });
            }
            CommitMessage::LogDone { result, buffer } => self.log_done(result, buffer, now, outbox),
            CommitMessage::SegmentDone { result } => self.segment_done(result),
            CommitMessage::DeltasDone { pages } => self.deltas_outstanding -= pages,
            CommitMessage::Checkpointed { seq, position } => {
                self.checkpoint_requested = false;
                self.checkpoint_failure = None;
                self.log_start = position;
                self.log_seq = seq;
                self.segments.truncate(position.lsn);
            }
            CommitMessage::CheckpointFailed { cause } => {
                self.checkpoint_requested = false;
                self.checkpoint_failure = Some(cause);
            }
            CommitMessage::AskLog { reply } => {
                // Whoever went away needs no answer.
                let _ = reply.send(self.log_range());
            }
            CommitMessage::Subscribe { feed, reply } => {
                self.subscribe(feed, reply);
            }
            CommitMessage::GoLive => {
                self.durable_seq = Seq(self.next_seq.0 - 1);
                self.logging = self.shared.settings.log;
                self.is_live = true;
            }
        }
    }

    fn end_batch(&mut self, now: Nanos, outbox: &mut Outbox) {
        if let Some(cause) = self.shared.status.cause() {
            if self.in_flight.is_none() {
                self.abandon_pending(&Error::OutcomeUnknown { cause }, outbox);
            }
            self.refuse_all(outbox);
            self.answer_subscribers();
            return;
        }
        self.begin_set(outbox);
        self.take_checkpoint_syncs();
        self.publish_ready(outbox);
        if !self.gathered.is_empty() {
            self.gathering_since.get_or_insert(now);
        }
        while !self.waits_for_more(now) && self.may_form_group() {
            let gathered = self.gathered.len();
            self.form_group(now, outbox);
            self.publish_ready(outbox);
            if self.gathered.len() == gathered {
                break;
            }
        }
        if self.gathered.is_empty() {
            self.gathering_since = None;
        }
        self.write_log(now, outbox);
        self.answer_subscribers();
        self.balance(outbox);
        self.prepare_segments(outbox);
        if self.logging
            && !self.checkpoint_requested
            && self.checkpoint_failure.is_none()
            && self.has_news()
            && self.log_length() >= self.shared.settings.checkpoint_log_bytes
        {
            self.checkpoint_requested = true;
            outbox
                .flusher
                .push(FlusherMessage::Checkpoint { reply: Reply::none() });
        }
        self.shared.counters.set(
            Counter::LogLengthBytes,
            if self.logging { self.log_length() } else { 0 },
        );
    }

    fn deadline(&self, now: Nanos) -> Option<Nanos> {
        if self.in_flight.is_some() || self.shared.status.is_poisoned() {
            return None;
        }
        let due = |since: Nanos| since.saturating_add(self.shared.settings.flush_interval_nanos);
        let flush = self.unsynced_since.map(|since| due(since).saturating_sub(now));
        let gathered = self.gathering_left(now).filter(|left| *left > 0);
        flush.into_iter().chain(gathered).min()
    }
}

impl Commit {
    /// Gives checkpoints' wishes for a sync their place at once. The version that a checkpoint writes is published, so
    /// they need nothing that is still gathered; and what is gathered may be waiting for that very checkpoint. (Bad
    /// run: the log is as long as it may get, batches wait for a checkpoint, and its sync waits behind them.)
    fn take_checkpoint_syncs(&mut self) {
        let mut tokens = Vec::new();
        self.gathered.retain(|item| match item {
            Gathered::CheckpointSync { token } => {
                tokens.push(*token);
                false
            }
            _ => true,
        });
        if tokens.is_empty() {
            return;
        }
        self.pending.push_back(Pending {
            seq: Seq(self.next_seq.0 - 1),
            changes: false,
            sync: self.logging,
            position: self.position,
            directory: self.planned.clone(),
            batches: Vec::new(),
            resolutions: Vec::new(),
            checkpoint_syncs: tokens,
            told: Vec::new(),
            reclaims: Vec::new(),
        });
    }

    /// How long what is gathered waits for more, if it does (an option, off by default): only the first of a group, and
    /// only what is synced.
    fn gathering_left(&self, now: Nanos) -> Option<Nanos> {
        let delay = self.shared.settings.gather_delay_nanos;
        if delay == 0 || !self.logging || !self.gathered.iter().any(Gathered::sync) {
            return None;
        }
        let since = self.gathering_since?;
        Some(since.saturating_add(delay).saturating_sub(now))
    }

    pub(super) fn waits_for_more(&self, now: Nanos) -> bool {
        let bytes = || self.gathered.iter().map(record_bytes).sum::<usize>();
        self.gathering_left(now).is_some_and(|left| left > 0) && bytes() < GATHERED_BYTES_MAX
    }

    fn may_form_group(&self) -> bool {
        if self.gathered.is_empty() || self.deltas_outstanding >= DELTA_PAGES_MAX {
            return false;
        }
        if !self.logging {
            return true;
        }
        if self.log_is_full() && self.checkpoint_requested {
            return false;
        }
        let idle = self.in_flight.is_none();
        let buffered = self.pending.is_empty() && !self.gathered.iter().any(Gathered::sync);
        idle || (buffered && self.builder.record_bytes() < GATHERED_BYTES_MAX)
    }

    /// Whether a checkpoint would shorten the log. (Bad run: the newest group alone is longer than the log should be, and
    /// one checkpoint follows the other.)
    fn has_news(&self) -> bool {
        self.next_seq.0 > self.log_seq.0 + 1
    }

    /// Whether the log is so long that commits wait for a checkpoint.
    fn log_is_full(&self) -> bool {
        self.log_length()
            >= self
                .shared
                .settings
                .checkpoint_log_bytes
                .saturating_mul(LOG_LENGTH_FACTOR_MAX)
    }

    /// Gives gathered batches one sequence number and a place in the open log group, as many as fit.
    fn form_group(&mut self, now: Nanos, outbox: &mut Outbox) {
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
                next => self.has_place(record_bytes(next)),
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
            Gathered::CreateTree {
                name,
                must_be_new,
                reply,
            } => {
                let present = self.planned.by_name(&name).is_some();
                let result = if present && must_be_new {
                    Err(Error::TreeExists { name: name.clone() })
                } else {
                    Ok(Outcome::Done)
                };
                if !present {
                    let id = self.next_tree;
                    group.changes = true;
                    if self.logging {
                        let mut records = Vec::new();
                        RecordWriter(&mut records).tree_create(id, &name);
                        self.builder
                            .append_batch(group.seq, self.owner_of(id), Stamp(0), &records);
                    }
                    self.add_tree(id, &name);
                }
                group.resolutions.push(Resolution { reply, result });
            }
            Gathered::RestoreTree { id, name, reply } => {
                group.changes = true;
                self.add_tree(id, &name);
                group.resolutions.push(Resolution {
                    reply,
                    result: Ok(Outcome::Done),
                });
            }
            Gathered::RestoreDrop { id, reply } => {
                group.changes = true;
                self.hide_tree(id);
                group.resolutions.push(Resolution {
                    reply,
                    result: Ok(Outcome::Done),
                });
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

    fn add_tree(&mut self, id: TreeId, name: &str) {
        self.next_tree = self.next_tree.max(TreeId(id.0 + 1));
        let owner = self.owner_of(id);
        self.plan(|planned| planned.with_tree(TreeState::new(id, name, Root::default(), owner)));
    }

    fn owner_of(&self, tree: TreeId) -> ShardId {
        // At most 256 shards.
        ShardId((tree.0 as usize % self.shared.settings.shards) as u16)
    }

    /// Changes the directory. A contradiction there means that a shard and this actor disagree about what trees
    /// there are: stop before it reaches the disk.
    pub(super) fn plan(&mut self, change: impl FnOnce(&Directory) -> Result<Directory, CatalogError>) {
        match change(&self.planned) {
            Ok(planned) => self.planned = planned,
            Err(error) => self.shared.status.poison(&Arc::new(std::io::Error::other(error))),
        }
    }

    /// A dropped tree keeps its roots, under a name that nobody can ask for, until its pages are retired (rule R8).
    fn hide_tree(&mut self, id: TreeId) {
        let Some(state) = self.planned.get(id) else { return };
        let hidden = TreeState {
            id,
            name: Arc::from(format!("{DROPPED_PREFIX}{}", id.0)),
            partitions: Arc::clone(&state.partitions),
        };
        self.plan(|planned| planned.without_tree(id)?.with_tree(hidden));
    }

    fn is_dropped(&self, tree: TreeId) -> bool {
        let state = self.planned.get(tree);
        state.is_some_and(|state| state.name.starts_with(DROPPED_PREFIX))
    }

    /// Who has parts of a tree.
    fn owners(&self, tree: TreeId) -> impl Iterator<Item = ShardId> {
        let partitions = self.planned.get(tree).map(|state| Arc::clone(&state.partitions));
        let owners: BTreeSet<ShardId> = partitions
            .iter()
            .flat_map(|all| all.iter())
            .map(|part| part.owner)
            .collect();
        owners.into_iter()
    }

    /// Whether no part of a tree has any nodes.
    fn is_empty(&self, tree: TreeId) -> bool {
        self.planned.get(tree).is_some_and(|state| {
            state
                .partitions
                .iter()
                .all(|partition| partition.root.reference.is_none())
        })
    }

    fn has_place(&self, record_bytes: usize) -> Place {
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
            return Place::Here;
        }
        match &self.segment_shortage {
            Some(error) if self.builder.is_empty() => Place::Never(error.clone()),
            _ => Place::Later,
        }
    }

    pub(super) fn tip_epoch(&self, shard: ShardId) -> u64 {
        self.tip_epochs[usize::from(shard.0)]
    }

    /// Whether the batch stands on a tip that was dropped since (rule R13).
    pub(super) fn is_stale(&self, batch: &Batch) -> bool {
        batch.tip_epoch < self.tip_epoch(batch.shard)
    }

    /// Why tips were dropped.
    pub(super) fn shortage(&self) -> Error {
        self.segment_shortage
            .clone()
            .unwrap_or_else(|| Error::OutOfSpace {
                what: "the log".into(),
            })
    }

    /// The batch's shard has to go back to what is published.
    fn drop_tip(&mut self, item: &Gathered, cause: &Error, outbox: &mut Outbox) {
        let batches = match item {
            Gathered::Batch(batch) => std::slice::from_ref(batch),
            Gathered::Set(set) => &set.batches,
            _ => &[],
        };
        for batch in batches {
            if self.is_stale(batch) {
                continue;
            }
            let epoch = batch.tip_epoch + 1;
            self.tip_epochs[usize::from(batch.shard.0)] = epoch;
            let message = ShardMessage::TipsDropped {
                tip_epoch: epoch,
                cause: cause.clone(),
            };
            outbox.shards.push((batch.shard, message));
        }
    }

    /// Answers an item with an error and gives its pages back.
    pub(super) fn refuse(&mut self, item: Gathered, error: &Error, outbox: &mut Outbox) {
        match item {
            Gathered::Set(set) => {
                for visit in set.transactions {
                    outbox.resolutions.push(Resolution {
                        reply: visit.reply,
                        result: Err(error.clone()),
                    });
                }
                for batch in set.batches {
                    self.refuse(Gathered::Batch(batch), error, outbox);
                }
            }
            Gathered::Batch(batch) => {
                for mut resolution in batch.resolutions {
                    resolution.result = Err(error.clone());
                    outbox.resolutions.push(resolution);
                }
                let mut extents = batch.extents_unused;
                extents.extend(batch.created.iter().copied().map(treering_engine::Extent::single));
                extents.extend(batch.extents_added);
                let record_bytes = batch.record_bytes;
                outbox.shards.push((
                    batch.shard,
                    ShardMessage::Refused {
                        extents,
                        record_bytes,
                    },
                ));
            }
            Gathered::CreateTree { reply, .. }
            | Gathered::RestoreTree { reply, .. }
            | Gathered::RestoreDrop { reply, .. }
            | Gathered::Flush { reply } => {
                outbox.resolutions.push(Resolution {
                    reply,
                    result: Err(error.clone()),
                });
            }
            Gathered::CheckpointSync { token } => {
                outbox.flusher.push(FlusherMessage::LogSynced {
                    token,
                    result: Err(error.clone()),
                });
            }
        }
    }

    /// The database is poisoned: nothing more is taken.
    pub(super) fn refuse_all(&mut self, outbox: &mut Outbox) {
        let error = self
            .shared
            .status
            .cause()
            .map_or(Error::Closed, |cause| Error::Poisoned { cause });
        while let Some(item) = self.gathered.pop_front() {
            self.refuse(item, &error, outbox);
        }
        self.refuse_sets(&error, outbox);
    }
}

/// Whether records of a given length can be appended to the open log group.
enum Place {
    Here,
    Later,
    Never(Error),
}

fn record_bytes(item: &Gathered) -> usize {
    match item {
        Gathered::Batch(Batch { records, .. }) => records.len(),
        Gathered::Set(set) => set.record_bytes(),
        Gathered::CreateTree { name, .. } => name.len() + 16,
        _ => 0,
    }
}
