//! Bugs on demand: a simulator that doesn't find them would find nothing else either.

mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use treering_engine::{Extent, Seq};

use crate::actor::Outbox;
use crate::commit::{Commit, CommitMessage};
use crate::flusher::{Flusher, FlusherMessage};
use crate::runtime::Runtime;
use crate::shard::ShardMessage;
use crate::shared::{Feed, Version, with_guard};

/// Commit groups after which a version counts as old.
const OLD_GROUPS: u64 = 30;
/// Requests that are in an actor's lane, where nothing keeps them from being taken.
const TAKEN_MAX: usize = 500;

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
    /// A range is handed over first, and what was sent for it to its former owner afterwards (rule R22).
    OvertakeInMove,
    /// What was sent to the former owner of a range never comes to the new one.
    LoseHandOver,
    /// Owners after the first don't compare what a transaction has read, nor lock it.
    SkipValidation,
    /// Locks are given back when a transaction leaves for the next owner (rule R21).
    ReleaseLocksEarly,
    /// A shard's part of a set is published as soon as it is applied, without the others (rule R20).
    PublishPartsEarly,
    /// Each shard applies the set before once more behind the next one.
    ApplySetsTwice,
    /// A set stays open while other transactions are on their way (rule R20).
    ChainSets,
    /// Parts are visited by owner instead of by key, by every other transaction in the opposite order, as if it had
    /// begun before ranges moved (rule R21).
    VisitByOwner,
    /// Visits of other shards stand in the mailboxes of clients, and wait there for room (rule R14).
    VisitByMailbox,
    /// Shards take what clients send whether or not they can do anything with it (rule R9).
    TakeWithoutBound,
    /// The first thing that each subscription would tell gets lost.
    LoseFirstChanges,
    /// A version that somebody holds counts as dead once it is old (rule R3).
    ForgetOldVersions,
    /// A named snapshot that nobody has open counts as dead: its pages may be used again (rule R23).
    ForgetNamedSnapshots,
}

/// What a planted bug has to remember.
#[derive(Default)]
pub(super) struct Memory {
    transactions: transactions::Memory,
    /// Subscriptions that have lost something.
    robbed: Vec<Weak<Feed>>,
    /// Versions that were published, until they are dead or old.
    published: BTreeMap<Seq, Weak<Version>>,
    /// Named snapshots whose death was reported.
    forgotten: BTreeSet<Seq>,
}

impl Planted {
    /// Changes what an actor has sent.
    pub(super) fn interfere(self, runtime: &Runtime, outbox: &mut Outbox, memory: &mut Memory) {
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
                                .for_each(|retired| retired.born = Seq(u64::MAX));
                        }
                    }
                }
            }
            Planted::OvertakeInMove => {
                let mut late = Vec::new();
                for (shard, message) in &mut outbox.shards {
                    if let ShardMessage::HandOver { requests, .. } = message {
                        let requests = std::mem::take(requests).into_iter();
                        late.extend(requests.map(|request| (*shard, ShardMessage::Forwarded(request))));
                    }
                }
                outbox.shards.append(&mut late);
            }
            Planted::LoseHandOver => {
                outbox
                    .shards
                    .retain(|(_, message)| !matches!(message, ShardMessage::HandOver { .. }));
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
            Planted::SkipValidation
            | Planted::ReleaseLocksEarly
            | Planted::PublishPartsEarly
            | Planted::ApplySetsTwice
            | Planted::ChainSets
            | Planted::VisitByOwner
            | Planted::VisitByMailbox => {
                transactions::interfere(self, runtime, outbox, &mut memory.transactions);
            }
            Planted::Nothing
            | Planted::SkipLogSync
            | Planted::AcknowledgeBeforeSync
            | Planted::SkipDataSync
            | Planted::LoseFirstChanges
            | Planted::TakeWithoutBound
            | Planted::ForgetOldVersions
            | Planted::ForgetNamedSnapshots => {}
        }
    }

    /// Changes what actors share with others, between two steps.
    pub(super) fn meddle(self, runtime: &Runtime, memory: &mut Memory) {
        match self {
            Planted::LoseFirstChanges => {
                memory.robbed.retain(|feed| feed.strong_count() > 0);
                for feed in runtime.commit.with(Commit::feeds).unwrap_or_default() {
                    let this = Arc::downgrade(&feed);
                    let robbed = memory.robbed.iter().any(|robbed| robbed.ptr_eq(&this));
                    if !robbed && feed.take().is_some() {
                        memory.robbed.push(this);
                    }
                }
            }
            Planted::TakeWithoutBound => {
                for seat in &runtime.shards {
                    while seat.lane_length() < TAKEN_MAX
                        && let Some(request) = seat.take_request()
                    {
                        seat.tell(request);
                    }
                }
            }
            Planted::ForgetOldVersions => {
                let current = with_guard(&runtime.shared.memory, |guard| runtime.shared.current.hold(guard));
                let published = &mut memory.published;
                published.retain(|_, version| version.strong_count() > 0);
                published
                    .entry(current.seq)
                    .or_insert_with(|| Arc::downgrade(&current));
                let is_old = |seq: &Seq| current.seq.0 > seq.0 + OLD_GROUPS;
                while let Some(oldest) = published.first_entry().filter(|oldest| is_old(oldest.key())) {
                    runtime.shared.dead.report(*oldest.key());
                    // Once is enough; its holder keeps it alive.
                    oldest.remove();
                }
            }
            Planted::ForgetNamedSnapshots => {
                let named = runtime.flusher.with(Flusher::named_versions).unwrap_or_default();
                for version in named {
                    // The flusher's and this one.
                    let is_open = Arc::strong_count(&version) > 2;
                    if !is_open && memory.forgotten.insert(version.seq) {
                        runtime.shared.dead.report(version.seq);
                    }
                }
            }
            _ => {}
        }
    }
}
