//! The open batch: when it is closed, handed to the commit actor, or taken back.

use super::state::{Shard, Starved};
use super::{BATCH_OPERATIONS_MAX, BATCHES_UNDER_WAY, UNPUBLISHED_BATCHES_MAX};
use crate::actor::Outbox;
use crate::commit::{Batch, CommitMessage};
use crate::error::Error;
use crate::flusher::FlusherMessage;
use crate::shared::with_guard;

impl Shard {
    /// Whether the open batch takes no more operations before it can be frozen.
    pub(super) fn is_full(&self) -> bool {
        self.is_ahead() && self.is_bounded()
    }

    /// Whether as much is unpublished as may be: nothing more is frozen before some of it is.
    pub(super) fn is_ahead(&self) -> bool {
        self.unpublished >= UNPUBLISHED_BATCHES_MAX
            || self.unpublished_bytes >= self.shared.settings.unpublished_bytes_max
    }

    /// Whether the open batch has reached one of its bounds.
    pub(super) fn is_bounded(&self) -> bool {
        self.open.operations as usize >= BATCH_OPERATIONS_MAX
            || self.open.pages.created.len() >= self.shared.settings.open_nodes_max
            || self.open.records.len() >= self.shared.settings.batch_record_bytes_max / 2
    }

    /// Whether the open batch should be closed though more could join it. While a batch is under way the commit actor could
    /// only put this one aside: what comes meanwhile had better share its pages, and its place in the next group. It is
    /// closed when the answer comes that the one before is published.
    pub(super) fn should_freeze(&self) -> bool {
        self.unpublished < BATCHES_UNDER_WAY || self.is_bounded() || self.starved != Starved::No
    }

    /// Closes the open batch and sends it to the commit actor, if it holds anything and may be sent.
    pub(super) fn freeze(&mut self, outbox: &mut Outbox) {
        if self.open.is_empty() || self.is_ahead() || self.in_atomic_batch() {
            return;
        }
        let batch = self.close_batch();
        outbox.commit.push(CommitMessage::Batch(batch));
    }

    /// Takes what the open batch holds, and opens another one.
    pub(super) fn close_batch(&mut self) -> Batch {
        let roots = self.tips.freeze();
        let lists = self.empty_lists.pop().unwrap_or_default();
        let open = &mut self.open;
        // The next batch is likely to be about as large as this one.
        let created = Vec::with_capacity(open.pages.created.len());
        let retired = Vec::with_capacity(open.pages.retired.len());
        self.unpublished_bytes += open.records.len();
        let batch = Batch {
            shard: self.id,
            tip_epoch: self.tip_epoch,
            stamp: open.pages.stamp,
            record_bytes: open.records.len(),
            records: std::mem::replace(&mut open.records, lists.records),
            roots,
            created: std::mem::replace(&mut open.pages.created, created),
            retired: std::mem::replace(&mut open.pages.retired, retired),
            retires_blobs: std::mem::take(&mut open.pages.retires_blobs),
            loads: std::mem::take(&mut open.loads),
            extents_added: std::mem::take(&mut open.extents_added),
            extents_unused: std::mem::take(&mut open.extents_unused),
            trees_dropped: std::mem::take(&mut open.trees_dropped),
            trees_forgotten: std::mem::take(&mut open.trees_forgotten),
            partitions: std::mem::take(&mut open.partitions),
            resolutions: std::mem::replace(&mut open.resolutions, lists.resolutions),
            operations: std::mem::take(&mut open.operations),
            sync: std::mem::take(&mut open.sync),
        };
        self.unpublished += 1;
        self.open_batch();
        batch
    }

    /// Takes back what the open batch did to the trees: nodes, roots, records. Replies stay.
    pub(super) fn undo_open(&mut self) {
        for id in self.open.pages.created.drain(..) {
            // Nobody but this shard ever saw these pages: id and frame are free at once.
            if let Some(frame) = self.shared.memory.remove(id) {
                self.supply.frames.push(frame);
            }
            self.supply.give_back(id);
        }
        // A large batch had many: the others need them, too.
        let kept = self.supply.frames.len().min(self.frames_taken());
        self.supply
            .frames
            .drain(kept..)
            .for_each(|frame| self.shared.memory.release_now(frame));
        self.open.pages.retired.clear();
        self.open.pages.retires_blobs = false;
        self.open.records.clear();
        self.open.extents_unused.append(&mut self.open.extents_added);
        self.open.loads = false;
        self.open.trees_dropped.clear();
        self.open.partitions.clear();
        self.tips.undo();
    }

    /// The commit actor refused batches: what this shard built on them is void.
    pub(super) fn drop_tips(&mut self, tip_epoch: u64, cause: &Error, outbox: &mut Outbox) {
        self.abort_exclusive(cause);
        self.undo_open();
        self.forget_validation(cause, outbox);
        self.tips.clear();
        let shared = std::sync::Arc::clone(&self.shared);
        with_guard(&shared.memory, |guard| {
            self.cancel_departure(guard);
            self.restart_reclaiming(guard);
        });
        self.tip_epoch = tip_epoch;
        for resolution in &mut self.open.resolutions {
            resolution.result = Err(cause.clone());
        }
        outbox.resolutions.append(&mut self.open.resolutions);
        self.open.operations = 0;
        self.open.sync = false;
        if !self.open.extents_unused.is_empty() {
            let extents = std::mem::take(&mut self.open.extents_unused);
            outbox.flusher.push(FlusherMessage::Release { extents });
        }
        self.open_batch();
    }
}
