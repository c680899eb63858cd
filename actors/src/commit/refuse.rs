//! Refusing what can have no place: answers, pages given back, tips dropped (rule R13).

use treering_engine::ShardId;

use super::messages::Batch;
use super::state::{Commit, Gathered};
use crate::actor::Outbox;
use crate::error::Error;
use crate::flusher::FlusherMessage;
use crate::shard::ShardMessage;
use crate::ticket::Resolution;

impl Commit {
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
    pub(super) fn drop_tip(&mut self, item: &Gathered, cause: &Error, outbox: &mut Outbox) {
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
            Gathered::ChangeTrees { reply, .. } | Gathered::Flush { reply } => {
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
