//! Named snapshots: versions that live until they are dropped, across reopening too (rule R23).
//!
//! Only checkpoints change which there are. One that begins takes all changes that are wanted, in order: a creation
//! names the version that the checkpoint writes, so all pages of a named snapshot are on disk before anybody hears of
//! it. The changes count when the checkpoint is durable, and not at all if it fails; until then the snapshots from
//! before are alive, those that it drops included. So after a crash a dropped snapshot is either there with all of its
//! pages or gone, and its pages are free.
//!
//! The image of a checkpoint holds each snapshot's trees, and the pages that it keeps from being used again.

use std::collections::BTreeMap;
use std::sync::Arc;

use treering_engine::Seq;
use treering_engine::image::{ImageSnapshot, SNAPSHOTS_MAX};

use super::state::Flusher;
use crate::error::{Error, Result};
use crate::shared::Version;

/// Named snapshots by name; those of one commit group share their version.
pub(crate) type Named = BTreeMap<Arc<str>, Arc<Version>>;

/// A change that somebody waits for.
pub(super) enum NamedChange {
    Create {
        name: Arc<str>,
        reply: oneshot::Sender<Result<Arc<Version>>>,
    },
    Drop {
        name: Arc<str>,
        reply: oneshot::Sender<Result<()>>,
    },
}

/// An answer that is given once the checkpoint is durable.
pub(super) enum NamedReply {
    Created {
        result: Result<Arc<Version>>,
        reply: oneshot::Sender<Result<Arc<Version>>>,
    },
    Dropped {
        result: Result<()>,
        reply: oneshot::Sender<Result<()>>,
    },
}

impl NamedReply {
    /// Whether there is anything that a checkpoint would have to make durable.
    pub fn is_change(&self) -> bool {
        match self {
            NamedReply::Created { result, .. } => result.is_ok(),
            NamedReply::Dropped { result, .. } => result.is_ok(),
        }
    }

    /// Answers; with the error of the checkpoint, if that has failed.
    pub fn send(self, outcome: &Result<()>) {
        // Whoever went away needs no answer.
        match self {
            NamedReply::Created { result, reply } => {
                let _ = reply.send(outcome.clone().and(result));
            }
            NamedReply::Dropped { result, reply } => {
                let _ = reply.send(outcome.clone().and(result));
            }
        }
    }
}

impl Flusher {
    /// Carries out the wanted changes on a copy of the present set, as of `version`.
    pub(super) fn plan_named(&mut self, version: &Arc<Version>) -> (Named, Vec<NamedReply>) {
        let mut named = self.named.clone();
        let mut replies = Vec::new();
        for change in std::mem::take(&mut self.named_wanted) {
            replies.push(match change {
                NamedChange::Create { name, reply } => {
                    let result = if named.contains_key(&name) {
                        Err(Error::SnapshotExists {
                            name: name.to_string(),
                        })
                    } else if named.len() >= SNAPSHOTS_MAX {
                        Err(Error::OutOfSpace {
                            what: format!("there are {SNAPSHOTS_MAX} named snapshots"),
                        })
                    } else {
                        named.insert(name, Arc::clone(version));
                        Ok(Arc::clone(version))
                    };
                    NamedReply::Created { result, reply }
                }
                NamedChange::Drop { name, reply } => {
                    let result = named
                        .remove(&name)
                        .map(drop)
                        .ok_or_else(|| Error::SnapshotNotFound {
                            name: name.to_string(),
                        });
                    NamedReply::Dropped { result, reply }
                }
            });
        }
        (named, replies)
    }

    /// The version that was the newest one after commit group `seq`: retained, the present one, or named. Where the
    /// retained ones were thinned, a named one may be nearer than the one before.
    pub(super) fn version_at(&self, seq: Seq) -> Result<Arc<Version>> {
        let newest = self.newest.seq;
        let retained = (seq <= newest).then(|| self.retained.at(seq)).flatten();
        let oldest = retained.as_ref().map_or(seq, |retained| retained.seq);
        let others = self.named.values().chain([&self.newest]);
        let near = others
            .chain(&retained)
            .filter(|version| (oldest..=seq).contains(&version.seq));
        near.max_by_key(|version| version.seq)
            .map(Arc::clone)
            .ok_or_else(|| Error::VersionGone {
                seq: seq.0,
                oldest: self.retained.oldest().unwrap_or(newest).0,
                newest: newest.0,
            })
    }

    /// What the image says about these snapshots. Called with the space map frozen at the checkpoint's version: what
    /// was retired since is reachable there, and needs nobody to keep it; or it came after that version, and is kept by
    /// none of them, though its `born` may be earlier. (Bad run: a blob is put and replaced while the checkpoint is
    /// written; it waits for a snapshot that its `born` is not later than, the image says so, and after a crash the log
    /// has the blob put and replaced again: its pages wait twice, are freed twice, and get two owners.)
    pub(super) fn image_snapshots(&self, named: &Named) -> Vec<ImageSnapshot> {
        let mut snapshots: Vec<ImageSnapshot> = named
            .iter()
            .map(|(name, version)| ImageSnapshot {
                name: Arc::clone(name),
                seq: version.seq,
                directory: version.directory.clone(),
                kept: Vec::new(),
            })
            .collect();
        // Stable: those of one commit group stay in the order of their names.
        snapshots.sort_by_key(|snapshot| snapshot.seq);
        let mut seqs: Vec<Seq> = snapshots.iter().map(|snapshot| snapshot.seq).collect();
        seqs.dedup();
        let kept = self.waiting.kept_by(&seqs, |extent| {
            !self.space.is_frozen_reachable(extent.start) && !self.checkpoint.added.contains(extent.start)
        });
        for (seq, kept) in seqs.into_iter().zip(kept) {
            if let Some(first) = snapshots.iter_mut().find(|snapshot| snapshot.seq == seq) {
                first.kept = kept;
            }
        }
        snapshots
    }
}
