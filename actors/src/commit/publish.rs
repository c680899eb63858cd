//! Making groups visible: the pointer swap, the replies, and the news for shards and flusher.

use std::sync::Arc;

use treering_engine::Seq;

use super::messages::Batch;
use super::state::{Commit, Pending};
use crate::actor::Outbox;
use crate::flusher::{FlusherMessage, PublishedPages};
use crate::shard::{EmptyLists, ShardMessage};
use crate::shared::{Counter, Version, with_guard};

impl Commit {
    /// Publishes all pending groups, in order, that may be seen.
    pub(super) fn publish_ready(&mut self, outbox: &mut Outbox) {
        while let Some(group) = self.pending.front() {
            if group.sync && !self.is_durable(group.seq) {
                return;
            }
            if let Some(group) = self.pending.pop_front() {
                self.publish(group, outbox);
            }
        }
    }

    /// Whether everything up to and including this group is on disk.
    fn is_durable(&self, seq: Seq) -> bool {
        !self.logging || self.durable_seq >= seq
    }

    fn publish(&mut self, group: Pending, outbox: &mut Outbox) {
        let Pending {
            seq,
            changes,
            position,
            directory,
            mut batches,
            mut resolutions,
            checkpoint_syncs,
            reclaims,
            told,
            ..
        } = group;
        outbox.resolutions.append(&mut resolutions);
        let operations: u64 = batches.iter().map(|batch| u64::from(batch.operations)).sum();
        self.shared.counters.add(Counter::CommittedOperations, operations);
        for batch in &mut batches {
            if batch.resolutions.capacity() == 0 {
                std::mem::swap(&mut batch.resolutions, &mut resolutions);
            }
            outbox.shards.push((batch.shard, published(batch)));
        }
        if changes {
            self.shared.counters.add(Counter::CommitGroups, 1);
            self.shared.group_sizes.record(operations);
            let version = Arc::new(Version {
                seq,
                position,
                directory,
                // Perhaps that of a later group: higher does no harm.
                next_tree: self.next_tree,
                dead: Arc::clone(&self.shared.dead),
            });
            with_guard(&self.shared.memory, |guard| {
                self.shared.current.publish(Arc::clone(&version), guard);
            });
            self.feed(seq, &told, &version, outbox);
            let pages: Vec<PublishedPages> = batches
                .into_iter()
                .map(|batch| PublishedPages {
                    created: batch.created,
                    retired: batch.retired,
                    loads: batch.loads,
                    extents_added: batch.extents_added,
                    extents_unused: batch.extents_unused,
                    stamp: batch.stamp,
                })
                .collect();
            self.deltas_outstanding += PublishedPages::count(&pages);
            outbox.flusher.push(FlusherMessage::Published { version, pages });
        } else {
            let extents: Vec<_> = batches
                .into_iter()
                .flat_map(|batch| batch.extents_unused)
                .collect();
            if !extents.is_empty() {
                outbox.flusher.push(FlusherMessage::Release { extents });
            }
        }
        for token in checkpoint_syncs {
            outbox.flusher.push(FlusherMessage::LogSynced {
                token,
                result: Ok(self.durable),
            });
        }
        for (shard, tree) in reclaims {
            outbox.shards.push((shard, ShardMessage::TreeDropped { tree }));
        }
    }

    /// The log failed after these groups were submitted: nobody knows what of them is on disk.
    pub(super) fn abandon_pending(&mut self, error: &crate::error::Error, outbox: &mut Outbox) {
        for mut group in self.pending.drain(..) {
            for batch in &mut group.batches {
                outbox.shards.push((batch.shard, published(batch)));
            }
            for mut resolution in group.resolutions {
                // Refusals and values, too: they tell of a tip that nobody may have seen (rule R12).
                resolution.result = Err(error.clone());
                outbox.resolutions.push(resolution);
            }
            for token in group.checkpoint_syncs {
                outbox.flusher.push(FlusherMessage::LogSynced {
                    token,
                    result: Err(error.clone()),
                });
            }
        }
    }
}

/// What a shard is told of a batch that is over: its records are in the log, its answers on their way.
fn published(batch: &mut Batch) -> ShardMessage {
    ShardMessage::Published {
        batches: 1,
        record_bytes: batch.record_bytes,
        lists: EmptyLists {
            records: std::mem::take(&mut batch.records),
            resolutions: std::mem::take(&mut batch.resolutions),
        },
    }
}
