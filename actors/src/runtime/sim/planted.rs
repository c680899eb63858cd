//! Bugs on demand: a simulator that doesn't find them would find nothing else either.

use treering_engine::Extent;

use crate::actor::Outbox;
use crate::commit::CommitMessage;
use crate::flusher::FlusherMessage;
use crate::runtime::Runtime;
use crate::shard::ShardMessage;
use crate::shared::with_guard;

/// A bug that the driver brings in, between actors that are right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// The log is never synced, but its writers are told that it was.
    SkipLogSync,
    /// Writers of the log are told of a sync before it has happened.
    AcknowledgeBeforeSync,
    /// The data file is never synced, but checkpoints are told that it was.
    SkipDataSync,
    /// A checkpoint is told that the log is durable up to its version, whether or not it is (rule R17).
    SkipCheckpointLogSync,
    /// Retired pages are free at once, whoever still looks at them (rules R1, R3).
    FreeRetiredPages,
    /// The news of loaded pages get lost.
    LoseLoadedPages,
}

impl Planted {
    /// Changes what an actor has sent.
    pub(super) fn interfere(self, runtime: &Runtime, outbox: &mut Outbox) {
        match self {
            Planted::FreeRetiredPages => {
                let mut early: Vec<Extent> = Vec::new();
                for message in &mut outbox.flusher {
                    if let FlusherMessage::Published { pages, .. } = message {
                        for batch in pages {
                            early.extend(batch.retired.iter().map(|retired| retired.extent));
                            // Never waiting, and so free as soon as the publication is noted.
                            batch
                                .retired
                                .iter_mut()
                                .for_each(|retired| retired.born = treering_engine::Seq(u64::MAX));
                        }
                    }
                }
            }
            Planted::LoseLoadedPages => {
                outbox
                    .shards
                    .retain(|(_, message)| !matches!(message, ShardMessage::Loaded { .. }));
            }
            Planted::SkipCheckpointLogSync => {
                let position = with_guard(&runtime.shared.memory, |guard| {
                    runtime.shared.current.load(guard).position
                });
                let tokens: Vec<u64> = outbox
                    .commit
                    .extract_if(.., |message| {
                        matches!(message, CommitMessage::SyncForCheckpoint { .. })
                    })
                    .filter_map(|message| match message {
                        CommitMessage::SyncForCheckpoint { token } => Some(token),
                        _ => None,
                    })
                    .collect();
                for token in tokens {
                    outbox.flusher.push(FlusherMessage::LogSynced {
                        token,
                        result: Ok(position),
                    });
                }
            }
            Planted::Nothing
            | Planted::SkipLogSync
            | Planted::AcknowledgeBeforeSync
            | Planted::SkipDataSync => {}
        }
    }
}
