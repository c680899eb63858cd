//! Checkpoints: a version, completely on disk, and then a superblock that says so.

use std::collections::BTreeSet;
use std::sync::Arc;

use treering_engine::image::ImageEncoder;
use treering_engine::log::LogPosition;
use treering_engine::memory::{FrameId, Residency};
use treering_engine::superblock::{Slot, Superblock};
use treering_engine::{BLOCK_BYTES, Extent, PageId, PageRef, Stamp, page};
use treering_io::AlignedBuffer;

use super::compact::{CutReply, tell};
use super::named::{Named, NamedReply};
use super::state::Flusher;
use super::{STAMPS_RESERVED, STAMPS_RESERVED_CLOSING, WALK_NODES, WRITES_MAX};
use crate::actor::{Nanos, Outbox};
use crate::commit::CommitMessage;
use crate::error::{Error, Result};
use crate::pager::{PagerMessage, Transfer, TransferKind, TransferReply};
use crate::shared::{Counter, DATA_FILE, Version};
use crate::ticket::{Outcome, Reply, Resolution};

/// Bytes of the checkpoint image written at a time.
const IMAGE_CHUNK_BYTES: usize = 1 << 20;
/// How long after a failed checkpoint none is begun that nobody asks for: a full disk stays full for a while.
const RETRY_NANOS: Nanos = 1_000_000_000;
/// Most image chunks that are under way.
const IMAGE_CHUNKS_MAX: usize = 4;

/// The checkpoint that is being written, if one is.
pub(super) struct Checkpoint {
    pub stage: Stage,
    /// The version that is written; live until the checkpoint has ended.
    version: Option<Arc<Version>>,
    replies: Vec<Reply>,
    /// The named snapshots that there are once it is durable.
    named: Named,
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
    image: Option<ImageEncoder>,
    image_extents: Vec<Extent>,
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
            image: None,
            image_extents: Vec::new(),
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

    /// Collects the changed nodes: by rule R2 they form the connected top of the trees.
    fn walk(&mut self) {
        let memory = &self.shared.memory;
        let checkpoint = &mut self.checkpoint;
        for _ in 0..WALK_NODES {
            let Some(reference) = checkpoint.walk.pop() else {
                checkpoint.nodes.sort_unstable();
                checkpoint.stage = Stage::Writing;
                return;
            };
            let frame = match memory.state(reference.id) {
                Residency::Resident(frame) | Residency::Evicting(frame) => frame,
                // Only written pages leave memory.
                Residency::Absent | Residency::Loading(_) => continue,
            };
            if memory.is_written(frame) {
                continue;
            }
            checkpoint.nodes.push((reference.id, frame));
            // SAFETY: the node belongs to a version that this checkpoint keeps alive, so it is frozen; it isn't
            // written, so it can't have been evicted, and only this actor evicts.
            let bytes = unsafe { std::slice::from_raw_parts(memory.frame_ptr(frame), memory.page_bytes()) };
            checkpoint.walk.extend(page::children(bytes));
        }
    }

    fn write_nodes(&mut self, outbox: &mut Outbox) {
        let memory = &self.shared.memory;
        let checkpoint = &mut self.checkpoint;
        while checkpoint.failure.is_none() && checkpoint.writing.len() < WRITES_MAX {
            let Some(&(id, frame)) = checkpoint.nodes.get(checkpoint.next_node) else {
                break;
            };
            let here =
                matches!(memory.state(id), Residency::Resident(at) | Residency::Evicting(at) if at == frame);
            if here && memory.is_writing(frame) {
                // Being written for eviction: `page_written` will call again.
                break;
            }
            checkpoint.next_node += 1;
            if !here || memory.is_written(frame) {
                continue;
            }
            memory.set_writing(frame);
            checkpoint.writing.insert(id);
            outbox.pager.push(PagerMessage::WritePage { id, frame });
        }
        if checkpoint.next_node == checkpoint.nodes.len() && checkpoint.writing.is_empty() {
            checkpoint.stage = Stage::Image;
        }
    }

    /// A page write has ended, whoever wanted it.
    pub(super) fn page_written(
        &mut self,
        id: PageId,
        frame: FrameId,
        result: std::io::Result<()>,
        outbox: &mut Outbox,
    ) {
        if !self.checkpoint.writing.remove(&id) {
            self.eviction_written(id, frame, result, outbox);
            return;
        }
        let memory = &self.shared.memory;
        self.shared.counters.add(Counter::Flushes, 1);
        match result {
            Ok(()) => {
                // SAFETY: as in `walk`: frozen, and kept in place while it is marked as being written.
                let bytes =
                    unsafe { std::slice::from_raw_parts(memory.frame_ptr(frame), memory.page_bytes()) };
                if page::level(bytes) == 0 {
                    memory.set_written(frame);
                    self.note_written(id);
                } else {
                    self.checkpoint.inner_done.push((id, frame));
                }
            }
            Err(error) => {
                memory.clear_writing(frame);
                self.fail(Error::io(format!("writing page {} of a checkpoint", id.0), error));
            }
        }
    }

    fn fail(&mut self, error: Error) {
        tracing::warn!(%error, "a checkpoint failed");
        self.checkpoint.failure.get_or_insert(error);
    }

    /// Finds a place for the image; grows the file if there is none.
    fn place_image(&mut self, outbox: &mut Outbox) {
        let Some(version) = &self.checkpoint.version else {
            return;
        };
        let snapshots = self.image_snapshots(&self.checkpoint.named);
        let image = ImageEncoder::new(version.directory.clone(), snapshots, &self.space);
        let page_bytes = self.shared.settings.page_bytes as u64;
        let Ok(pages) = u32::try_from(image.encoded_bytes(&self.space).div_ceil(page_bytes)) else {
            self.fail(Error::OutOfSpace {
                what: "pages for the checkpoint image".into(),
            });
            return;
        };
        if let Some(extent) = self.space.allocate_contiguous(pages) {
            self.checkpoint.image = Some(image);
            self.checkpoint.image_extents = vec![extent];
        } else if let Some(error) = self.growth_failure.clone() {
            self.fail(error);
        } else {
            self.grow(u64::from(pages), outbox);
        }
    }

    fn write_image(&mut self, outbox: &mut Outbox) {
        if self.checkpoint.failure.is_some() {
            return;
        }
        if self.checkpoint.image.is_none() && !self.growing {
            self.place_image(outbox);
        }
        let page_bytes = self.shared.settings.page_bytes as u64;
        let Some(extent) = self.checkpoint.image_extents.first().copied() else {
            return;
        };
        loop {
            let Some(image) = self.checkpoint.image.as_mut() else {
                return;
            };
            if image.summary().is_some() {
                break;
            }
            if self.checkpoint.transfers >= IMAGE_CHUNKS_MAX {
                return;
            }
            let mut buffer = AlignedBuffer::zeroed(IMAGE_CHUNK_BYTES);
            let filled = image.fill(&self.space, &mut buffer);
            if filled == 0 {
                continue;
            }
            let offset = u64::from(extent.start.0) * page_bytes + self.checkpoint.image_sent;
            self.checkpoint.image_sent += filled as u64;
            let whole = AlignedBuffer::copy_of(&buffer[..filled.next_multiple_of(BLOCK_BYTES)]);
            self.send(TransferKind::Write, offset, Some(whole), outbox);
        }
        if self.checkpoint.transfers == 0 {
            self.checkpoint.stage = Stage::DataSync;
        }
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

    /// A transfer of the checkpoint has ended.
    pub(super) fn transferred(&mut self, result: std::io::Result<()>, now: Nanos, outbox: &mut Outbox) {
        self.checkpoint.transfers -= 1;
        let stage = self.checkpoint.stage;
        if result.is_ok()
            && let Some(cause) = self.shared.status.cause()
        {
            // A failed sync, whoever asked for it, may have lost what this checkpoint has written; its own syncs may
            // succeed all the same. (Bad run: a blob's sync fails and takes a page with it, the checkpoint's sync
            // succeeds, and a superblock names the page.)
            self.fail(Error::Poisoned { cause });
            return;
        }
        if let Err(error) = result {
            if let Stage::Slot(_) | Stage::SlotSync(_) = stage {
                // Nobody knows which superblock is on disk now (rule R17).
                self.shared.status.poison(&Arc::new(error));
                let cause = self
                    .shared
                    .status
                    .cause()
                    .unwrap_or_else(|| Arc::new(std::io::Error::other("?")));
                self.fail(Error::Poisoned { cause });
            } else {
                self.fail(Error::io(format!("writing a checkpoint to {DATA_FILE}"), error));
            }
            return;
        }
        match stage {
            Stage::DataSync => {
                self.checkpoint.stage = Stage::LogSync;
                if self.shared.settings.log {
                    let token = self.checkpoint.token;
                    outbox.commit.push(CommitMessage::SyncForCheckpoint { token });
                } else if let Some(version) = &self.checkpoint.version {
                    let position = version.position;
                    self.log_synced(Ok(position), outbox);
                }
            }
            Stage::Slot(slot) => {
                self.checkpoint.stage = Stage::SlotSync(slot);
                self.send(TransferKind::Sync, 0, None, outbox);
            }
            Stage::SlotSync(Slot::A) => self.write_slot(Slot::B, outbox),
            Stage::SlotSync(Slot::B) => self.end_checkpoint(now, outbox),
            Stage::Idle | Stage::Walking | Stage::Writing | Stage::Image | Stage::LogSync => {}
        }
    }

    /// What the next superblock reserves: until the one after it, no stamp reaches that.
    fn reserved_stamps(&self, closing: bool) -> Stamp {
        let reserved = if closing {
            STAMPS_RESERVED_CLOSING
        } else {
            STAMPS_RESERVED
        };
        Stamp(self.next_stamp + reserved)
    }

    /// Whether half of the stamps that the superblock reserves is used up: then it is time for the next one, however
    /// little there is to write.
    fn stamps_run_out(&self, now: Nanos) -> bool {
        self.next_stamp + STAMPS_RESERVED / 2 > self.superblock.next_stamp.0
            && !self.shared.settings.in_memory
            && !self.superblock.clean
            && now >= self.retry_at
    }

    /// The log is durable up to the version (rule R17): the superblock may name it.
    pub(super) fn log_synced(&mut self, result: Result<LogPosition>, outbox: &mut Outbox) {
        if self.checkpoint.stage != Stage::LogSync {
            return;
        }
        let Some(version) = self.checkpoint.version.clone() else {
            return;
        };
        match result {
            Err(error) => {
                self.fail(error);
                self.checkpoint.stage = Stage::Writing;
            }
            Ok(known) => {
                self.checkpoint.log_known = Some(known);
                let Some(image) = self.checkpoint.image.as_ref().and_then(ImageEncoder::summary) else {
                    return;
                };
                let next = Superblock {
                    write_number: self.superblock.write_number + 1,
                    checkpoint_seq: version.seq,
                    log_start: version.position,
                    log_known: known,
                    next_stamp: self.reserved_stamps(self.checkpoint.closing),
                    file_pages: self.space.frozen_counts().0,
                    next_tree: version.next_tree,
                    // Who closes has drained and synced everything, and refuses what comes.
                    clean: self.checkpoint.closing,
                    image_extents: self.checkpoint.image_extents.clone(),
                    image_bytes: image.bytes,
                    image_crc: image.crc,
                    ..self.superblock.clone()
                };
                // What contradicts itself could not be opened again.
                if let Err(defect) = next.validate() {
                    self.fail(Error::io("making a superblock", std::io::Error::other(defect)));
                    self.checkpoint.stage = Stage::Writing;
                    return;
                }
                self.checkpoint.next = Some(next);
                self.write_slot(Slot::A, outbox);
            }
        }
    }

    fn write_slot(&mut self, slot: Slot, outbox: &mut Outbox) {
        let Some(superblock) = &self.checkpoint.next else {
            return;
        };
        let buffer = AlignedBuffer::copy_of(&superblock.encode());
        let offset = match slot {
            Slot::A => 0,
            Slot::B => self.shared.settings.page_bytes as u64,
        };
        self.checkpoint.stage = Stage::Slot(slot);
        self.send(TransferKind::Write, offset, Some(buffer), outbox);
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
