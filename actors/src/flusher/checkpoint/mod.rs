//! Checkpoints: a version, completely on disk, and then a superblock that says so.
//!
//! Here: when one begins, how it goes on from stage to stage, and how it ends. What the stages do: [`nodes`] collects and
//! writes the changed nodes, [`image`] writes the catalog and the map of reachable pages, [`superblock`] makes all of it
//! what opening finds.

mod image;
mod nodes;
mod superblock;

use std::collections::BTreeSet;
use std::sync::Arc;

use treering_engine::image::ImageEncoder;
use treering_engine::log::LogPosition;
use treering_engine::memory::FrameId;
use treering_engine::superblock::{Slot, Superblock};
use treering_engine::{Extent, PageId, PageRef};
use treering_io::AlignedBuffer;

use super::compact::{CutReply, tell};
use super::named::{Named, NamedReply};
use super::page_set::PageSet;
use super::state::Flusher;
use crate::actor::{Nanos, Outbox};
use crate::commit::CommitMessage;
use crate::error::{Error, Result};
use crate::pager::{PagerMessage, Transfer, TransferKind, TransferReply};
use crate::shared::{Counter, Version};
use crate::ticket::{Outcome, Reply, Resolution};

/// How long after a failed checkpoint none is begun that nobody asks for: a full disk stays full for a while.
const RETRY_NANOS: Nanos = 1_000_000_000;

/// The checkpoint that is being written, if one is.
pub(super) struct Checkpoint {
    pub stage: Stage,
    /// The version that is written; live until the checkpoint has ended.
    version: Option<Arc<Version>>,
    replies: Vec<Reply>,
    /// The named snapshots that there are once it is durable.
    pub named: Named,
    named_replies: Vec<NamedReply>,
    /// Who has compacted the file and waits for its end to be cut off.
    compacted: Vec<CutReply>,
    /// Changed nodes of the version, in address order once the walk is over.
    nodes: Vec<(PageId, FrameId)>,
    next_node: usize,
    writing: BTreeSet<PageId>,
    /// Inner nodes that are on disk, but not written in the sense of rule R2 before the pass is over.
    inner_done: Vec<(PageId, FrameId)>,
    walk: Vec<PageRef>,
    /// Pages that were brought into trees since the version, if there are named snapshots.
    pub added: PageSet,
    image: Option<ImageEncoder>,
    image_extents: Vec<Extent>,
    /// Whether the file was asked to grow for the image.
    image_wants_growth: bool,
    /// Bytes of the image that are with the pager.
    image_sent: u64,
    transfers: usize,
    /// What answers to this checkpoint carry.
    pub token: u64,
    log_known: Option<LogPosition>,
    next: Option<Superblock>,
    failure: Option<Error>,
    /// Whether this is the last one: the superblock will say that nothing follows.
    closing: bool,
}

/// How far a checkpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Idle,
    Walking,
    Writing,
    Image,
    DataSync,
    LogSync,
    Slot(Slot),
    SlotSync(Slot),
}

impl Checkpoint {
    pub fn idle() -> Checkpoint {
        Checkpoint {
            stage: Stage::Idle,
            version: None,
            replies: Vec::new(),
            named: Named::new(),
            named_replies: Vec::new(),
            compacted: Vec::new(),
            nodes: Vec::new(),
            next_node: 0,
            writing: BTreeSet::new(),
            inner_done: Vec::new(),
            walk: Vec::new(),
            added: PageSet::default(),
            image: None,
            image_extents: Vec::new(),
            image_wants_growth: false,
            image_sent: 0,
            transfers: 0,
            token: 0,
            log_known: None,
            next: None,
            failure: None,
            closing: false,
        }
    }
}

impl Flusher {
    /// Goes on with the checkpoint, or begins one that is wanted.
    pub(super) fn run_checkpoint(&mut self, now: Nanos, outbox: &mut Outbox) {
        if self.checkpoint.stage == Stage::Idle {
            self.begin_checkpoint(now, outbox);
        }
        loop {
            let stage = self.checkpoint.stage;
            if self.checkpoint.failure.is_some() {
                if !self.is_quiet() {
                    return;
                }
                self.end_checkpoint(now, outbox);
                // Who asked for another one meanwhile waits for this moment, and nothing else may call.
                self.begin_checkpoint(now, outbox);
                continue;
            }
            match stage {
                Stage::Walking => self.walk(),
                Stage::Writing => self.write_nodes(outbox),
                Stage::Image => self.write_image(outbox),
                _ => return,
            }
            if self.checkpoint.stage == stage && self.checkpoint.failure.is_none() {
                return;
            }
            if self.checkpoint.stage == Stage::DataSync {
                self.send(TransferKind::Sync, 0, None, outbox);
            }
        }
    }

    /// Whether no answer is outstanding.
    fn is_quiet(&self) -> bool {
        self.checkpoint.writing.is_empty()
            && self.checkpoint.transfers == 0
            && self.checkpoint.stage != Stage::LogSync
    }

    /// Whether the walk has more to look at and nothing to wait for.
    pub(super) fn checkpoint_is_walking(&self) -> bool {
        self.checkpoint.stage == Stage::Walking
    }

    fn begin_checkpoint(&mut self, now: Nanos, outbox: &mut Outbox) {
        // Pages that only older versions reach don't count: no checkpoint makes them clean. (Bad run: each backup keeps one
        // unwritten copy of every page that changes meanwhile, and so calls for a checkpoint, back to back.)
        let dirty = self.dirty_pages_newest >= self.shared.settings.dirty_pages_max as u64
            && self.newest.seq > self.durable.seq
            && now >= self.retry_at;
        let closing = self.close_wanted;
        let wanted = self.checkpoint_wanted || dirty || closing || self.stamps_run_out(now);
        if !self.live || (!wanted && self.named_wanted.is_empty()) {
            return;
        }
        let cause = self.shared.status.cause();
        let refusal = cause.map(|cause| Error::Poisoned { cause });
        let version = Arc::clone(&self.newest);
        let (named, named_replies) = self.plan_named(&version);
        let in_memory = self.shared.settings.in_memory;
        let nothing_new = !wanted && !named_replies.iter().any(NamedReply::is_change);
        if in_memory || refusal.is_some() || nothing_new {
            let outcome = refusal.map_or(Ok(()), Err);
            if in_memory && outcome.is_ok() {
                self.named = named;
                self.note_deaths();
            }
            named_replies.into_iter().for_each(|reply| reply.send(&outcome));
            if outcome.is_err() {
                tell(self.take_moved(), &outcome);
            }
            self.checkpoint_wanted = false;
            self.close_wanted = false;
            answer(std::mem::take(&mut self.checkpoint_replies), &outcome, outbox);
            return;
        }
        self.checkpoint_wanted = false;
        self.close_wanted = false;
        let replies = std::mem::take(&mut self.checkpoint_replies);
        let roots: Vec<PageRef> = version
            .directory
            .iter()
            .flat_map(|tree| tree.partitions.iter().map(|partition| partition.root.reference))
            .filter(|root| !root.is_none())
            .collect();
        // The newest version that this actor has taken note of: the reachable set is exactly its pages.
        self.space.freeze();
        self.next_token += 1;
        self.checkpoint = Checkpoint {
            stage: Stage::Walking,
            version: Some(version),
            replies,
            named,
            named_replies,
            compacted: self.take_moved(),
            walk: roots,
            token: self.next_token,
            closing,
            ..Checkpoint::idle()
        };
    }

    fn fail(&mut self, error: Error) {
        tracing::warn!(%error, "a checkpoint failed");
        self.checkpoint.failure.get_or_insert(error);
    }

    fn send(&mut self, kind: TransferKind, offset: u64, buffer: Option<AlignedBuffer>, outbox: &mut Outbox) {
        self.checkpoint.transfers += 1;
        let token = self.checkpoint.token;
        let reply = TransferReply::Flusher { token };
        outbox.pager.push(PagerMessage::Transfer(Transfer {
            kind,
            offset,
            buffer,
            reply,
        }));
    }

    /// The checkpoint is durable, or has failed: answers, and gives up what is not needed any more.
    fn end_checkpoint(&mut self, now: Nanos, outbox: &mut Outbox) {
        let checkpoint = std::mem::replace(&mut self.checkpoint, Checkpoint::idle());
        self.space.thaw();
        let result = match (checkpoint.failure, checkpoint.next, checkpoint.version) {
            (None, Some(superblock), Some(version)) => {
                for (id, frame) in checkpoint.inner_done {
                    self.shared.memory.set_written(frame);
                    self.note_written(id);
                }
                let previous_image = std::mem::take(&mut self.superblock.image_extents);
                self.superblock = superblock;
                self.unsaved_loads.retain(|load| load.seq > version.seq);
                self.durable = version;
                // What it dropped may die now, and the pages that only that held are free.
                self.named = checkpoint.named;
                self.unread_seen = 0;
                self.note_deaths();
                // What was replaced while the checkpoint was written.
                self.drop_unread();
                self.free(previous_image);
                self.shared.counters.add(Counter::Checkpoints, 1);
                self.shared
                    .counters
                    .set(Counter::CheckpointSeq, self.durable.seq.0);
                self.shared.counters.set(Counter::CheckpointAtNanos, now);
                outbox.commit.push(CommitMessage::Checkpointed {
                    seq: self.superblock.checkpoint_seq,
                    position: self.superblock.log_start,
                });
                self.cut_tail(checkpoint.compacted, outbox);
                Ok(())
            }
            (failure, _, version) => {
                for (_, frame) in checkpoint.inner_done {
                    self.shared.memory.clear_writing(frame);
                }
                // A superblock that may be on disk may name this image and these pages: then they have to stay (rule
                // R17).
                if self.shared.status.is_poisoned() {
                    self.perhaps_durable = version;
                } else {
                    self.free(checkpoint.image_extents);
                }
                let error = failure.unwrap_or(Error::Closed);
                tell(checkpoint.compacted, &Err(error.clone()));
                self.retry_at = now.saturating_add(RETRY_NANOS);
                outbox
                    .commit
                    .push(CommitMessage::CheckpointFailed { cause: error.clone() });
                Err(error)
            }
        };
        for reply in checkpoint.named_replies {
            reply.send(&result);
        }
        answer(checkpoint.replies, &result, outbox);
    }
}

fn answer(replies: Vec<Reply>, result: &Result<()>, outbox: &mut Outbox) {
    for reply in replies {
        let result = result.clone().map(|()| Outcome::Done);
        outbox.resolutions.push(Resolution { reply, result });
    }
}
