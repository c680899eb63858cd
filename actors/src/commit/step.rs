//! One step of the commit actor: gather, give places in the log, publish what may be seen, write.

use treering_engine::Seq;

use super::messages::CommitMessage;
use super::state::{Commit, Gathered, Pending};
use super::{DELTA_PAGES_MAX, GATHERED_BYTES_MAX, LOG_LENGTH_FACTOR_MAX};
use crate::actor::{Actor, Nanos, Outbox};
use crate::error::Error;
use crate::flusher::FlusherMessage;
use crate::shared::Counter;
use crate::ticket::Reply;

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
            CommitMessage::ChangeTrees { change, reply } => {
                self.gathered.push_back(Gathered::ChangeTrees { change, reply });
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
                self.checkpoint_again_bytes = 0;
                self.log_start = position;
                self.log_seq = seq;
                self.segments.truncate(position.lsn);
            }
            CommitMessage::CheckpointFailed { cause } => {
                self.checkpoint_failed(cause);
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
        loop {
            self.form_groups(now, outbox);
            if !self.write_log(now, outbox) {
                break;
            }
        }
        if self.gathered.is_empty() {
            self.gathering_since = None;
        }
        self.answer_subscribers();
        self.balance(outbox);
        self.prepare_segments(outbox);
        if self.logging && !self.checkpoint_requested && self.wants_checkpoint() {
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

    /// Gives what is gathered its place, as far as there is any.
    fn form_groups(&mut self, now: Nanos, outbox: &mut Outbox) {
        while !self.waits_for_more(now) && self.may_form_group() {
            let gathered = self.gathered.len();
            self.form_group(now, outbox);
            self.publish_ready(outbox);
            if self.gathered.len() == gathered {
                return;
            }
        }
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
        let bytes = || self.gathered.iter().map(Gathered::record_bytes).sum::<usize>();
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

    /// Whether the log is so long that a checkpoint should shorten it.
    fn wants_checkpoint(&self) -> bool {
        let wanted_bytes = self.shared.settings.checkpoint_log_bytes;
        let is_long = self.log_length() >= wanted_bytes.max(self.checkpoint_again_bytes);
        self.checkpoint_failure.is_none() && self.has_news() && (is_long || self.log_is_full())
    }

    /// A checkpoint has failed. What has failed may succeed a little later: it is tried again when the log has grown by a
    /// quarter of what is between two checkpoints. (Bad run: the disk is full for a moment, no other checkpoint is asked
    /// for before the log is as long as it may get, and then writes are refused for that moment's sake.)
    fn checkpoint_failed(&mut self, cause: Error) {
        self.checkpoint_requested = false;
        if self.log_is_full() {
            self.checkpoint_failure = Some(cause);
        } else {
            self.checkpoint_again_bytes = self.log_length() + self.shared.settings.checkpoint_log_bytes / 4;
        }
    }

    /// Whether a checkpoint would shorten the log. (Bad run: the newest group alone is longer than the log should be, and
    /// one checkpoint follows the other.)
    fn has_news(&self) -> bool {
        self.next_seq.0 > self.log_seq.0 + 1
    }

    /// Whether the log is so long that commits wait for a checkpoint.
    pub(super) fn log_is_full(&self) -> bool {
        self.log_length()
            >= self
                .shared
                .settings
                .checkpoint_log_bytes
                .saturating_mul(LOG_LENGTH_FACTOR_MAX)
    }
}
