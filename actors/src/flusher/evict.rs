//! Eviction: the clock that keeps frames free.

use std::collections::VecDeque;
use std::sync::Arc;

use treering_engine::memory::{Class, FrameId, Memory, Residency};
use treering_engine::{PageId, page};

use super::state::Flusher;
use super::step::RETRY_NANOS;
use super::{WRITES_MAX, frames_low};
use crate::actor::{Nanos, Outbox};
use crate::error::Error;
use crate::pager::PagerMessage;
use crate::shard::ShardMessage;
use crate::shared::{Counter, collect};

/// Share of the table that one step sweeps, so that a step stays short.
const SWEEP_SHARE: usize = 16;
/// Rounds without a frame gained after which an in-memory database counts as full.
const FRUITLESS_ROUNDS_MAX: u32 = 4 * SWEEP_SHARE as u32;

impl Flusher {
    /// Whether frames are short: below the mark, or somebody waits.
    fn frames_short(&self) -> bool {
        let memory = &self.shared.memory;
        let free = memory.available_frames(Class::Worker);
        free < frames_low(memory.frames()) || self.somebody_starves()
    }

    pub(super) fn somebody_starves(&self) -> bool {
        self.pager_waits || !self.starving_shards.is_empty()
    }

    /// How soon to look again while somebody waits: what is in limbo comes back soon; else nothing may come before the
    /// disk takes writes again.
    pub(super) fn retry_nanos(&self, now: Nanos) -> Nanos {
        if self.shared.memory.limbo_frames() > 0 {
            return RETRY_NANOS;
        }
        self.write_pause.left(now).max(RETRY_NANOS)
    }

    /// One step of the clock, if frames are short; tells those who wait when some are free.
    pub(super) fn evict(&mut self, now: Nanos, outbox: &mut Outbox) {
        if !self.frames_short() {
            self.fruitless_rounds = 0;
            return self.tell_freed(outbox);
        }
        collect(&self.shared.memory);
        let memory = &self.shared.memory;
        // What is in limbo or being written comes back without further ado.
        let target = 2 * frames_low(memory.frames());
        let coming = memory.free_frames() + memory.limbo_frames() + self.evicting.len();
        if !self.shared.settings.in_memory && coming < target.min(memory.frames() / 2) + WRITES_MAX {
            self.sweep(target, now, outbox);
            collect(&self.shared.memory);
        }
        self.tell_freed(outbox);
        if self.somebody_starves() {
            self.fruitless_rounds += 1;
            if self.shared.settings.in_memory
                && self.fruitless_rounds > FRUITLESS_ROUNDS_MAX
                && self.shared.memory.limbo_frames() == 0
            {
                let what = format!(
                    "all {} pages of the in-memory database are in use",
                    memory_pages(self)
                );
                self.tell_exhausted(&Error::OutOfSpace { what }, outbox);
            }
        }
    }

    fn sweep(&mut self, target: usize, now: Nanos, outbox: &mut Outbox) {
        let shared = Arc::clone(&self.shared);
        let memory = &shared.memory;
        let steps = (memory.sweep_steps() / SWEEP_SHARE).max(1);
        let mut cold = Vec::new();
        let mut released = Vec::new();
        for _ in 0..2 * SWEEP_SHARE {
            self.hand = memory.sweep(self.hand, steps, &mut cold);
            for frame in cold.drain(..) {
                if leave(memory, frame) {
                    released.push(frame);
                    continue;
                }
                let may_write = self.writes_under_way() < WRITES_MAX && !self.write_pause.is_on(now);
                if !may_write || memory.holds(frame) > 0 {
                    continue;
                }
                let Some(id) = memory.page_of(frame) else { continue };
                if self.may_write(id) == Some(frame) {
                    self.write(id, frame, outbox);
                }
            }
            if released.len() + self.evicting.len() + memory.free_frames() >= target {
                break;
            }
        }
        shared.counters.add(Counter::Evictions, released.len() as u64);
        self.release_frames(released);
    }

    /// Writes of pages that are under way for eviction.
    fn writes_under_way(&self) -> usize {
        self.evicting.len() + self.cleaning
    }

    /// Writes a changed page so that it can leave, and the changed leaves beside it in the file, which the device takes
    /// together with it as one write. They are about as old, so their turn would come soon; and no leaf is changed
    /// again in its place, so that of these writes only those are wasted whose page dies first.
    fn write(&mut self, id: PageId, frame: FrameId, outbox: &mut Outbox) {
        let room = WRITES_MAX - self.writes_under_way();
        let mut run = VecDeque::from([(id, frame)]);
        let mut before = id;
        while run.len() < room.div_ceil(2) {
            before = PageId(before.0.saturating_sub(1));
            let Some(frame) = self.may_write_beside(before) else {
                break;
            };
            run.push_front((before, frame));
        }
        let mut after = id;
        while run.len() < room {
            after = PageId(after.0.saturating_add(1));
            let Some(frame) = self.may_write_beside(after) else {
                break;
            };
            run.push_back((after, frame));
        }
        self.evicting.insert(frame);
        self.cleaning += run.len() - 1;
        for (id, frame) in run {
            self.shared.memory.set_writing(frame);
            outbox.pager.push(PagerMessage::WritePage { id, frame });
        }
    }

    /// The frame of a page that is changed and can be written now. Pages of open and unpublished batches are left alone,
    /// those that a checkpoint is writing too.
    fn may_write(&self, id: PageId) -> Option<FrameId> {
        if !self.published.contains(id) {
            return None;
        }
        let memory = &self.shared.memory;
        match memory.state(id) {
            Residency::Resident(frame) | Residency::Evicting(frame)
                if !memory.is_written(frame) && !memory.is_writing(frame) && self.children_written(frame) =>
            {
                Some(frame)
            }
            _ => None,
        }
    }

    /// As `may_write`, for leaves: inner nodes are copied with nearly every batch, and written in vain.
    fn may_write_beside(&self, id: PageId) -> Option<FrameId> {
        let frame = self.may_write(id)?;
        let memory = &self.shared.memory;
        // SAFETY: as in `children_written`.
        let bytes = unsafe { std::slice::from_raw_parts(memory.frame_ptr(frame), memory.page_bytes()) };
        (page::level(bytes) == 0).then_some(frame)
    }

    /// Whether everything below a published node is on disk (rule R2).
    fn children_written(&self, frame: FrameId) -> bool {
        let memory = &self.shared.memory;
        // SAFETY: the frame holds a published page (checked by the caller), which is frozen; only this actor evicts
        // or frees frames of such pages, so it stays what it is during this call.
        let bytes = unsafe { std::slice::from_raw_parts(memory.frame_ptr(frame), memory.page_bytes()) };
        page::children(bytes).all(|child| match memory.state(child.id) {
            Residency::Absent | Residency::Loading(_) => true,
            Residency::Resident(frame) | Residency::Evicting(frame) => memory.is_written(frame),
        })
    }

    /// A page that was to be evicted is on disk, or could not be written.
    pub(super) fn eviction_written(
        &mut self,
        id: PageId,
        frame: FrameId,
        result: std::io::Result<()>,
        now: Nanos,
        outbox: &mut Outbox,
    ) {
        let leaves = self.evicting.remove(&frame);
        if !leaves {
            self.cleaning -= 1;
        }
        let memory = &self.shared.memory;
        match result {
            Ok(()) => {
                self.write_pause.succeeded();
                memory.set_written(frame);
                self.note_written(id);
                self.shared.counters.add(Counter::BackgroundFlushes, 1);
                if leaves && leave(&self.shared.memory, frame) {
                    self.shared.counters.add(Counter::Evictions, 1);
                    self.release_frames(vec![frame]);
                }
            }
            Err(error) => {
                memory.clear_writing(frame);
                let error = Error::io(format!("writing page {} for eviction", id.0), error);
                if self.write_pause.failed(now) {
                    tracing::warn!(%error, "a page could not be written; of what fails soon after it nothing is told");
                }
                self.tell_exhausted(&error, outbox);
            }
        }
    }

    fn tell_freed(&mut self, outbox: &mut Outbox) {
        if !self.somebody_starves() {
            return;
        }
        let memory = &self.shared.memory;
        if memory.available_frames(Class::Worker) >= (frames_low(memory.frames()) / 2).max(1) {
            self.fruitless_rounds = 0;
            for shard in std::mem::take(&mut self.starving_shards) {
                outbox.shards.push((shard, ShardMessage::FramesFreed));
            }
        }
        if self.pager_waits && memory.available_frames(Class::Reader) > 0 {
            self.pager_waits = false;
            outbox.pager.push(PagerMessage::FramesFreed);
        }
    }

    fn tell_exhausted(&mut self, error: &Error, outbox: &mut Outbox) {
        for shard in std::mem::take(&mut self.starving_shards) {
            outbox
                .shards
                .push((shard, ShardMessage::FramesExhausted { cause: error.clone() }));
        }
        self.fruitless_rounds = 0;
    }
}

/// Takes a cold page out of memory if it is on disk, nobody holds it and nobody has used it meanwhile.
pub(super) fn leave(memory: &Memory, frame: FrameId) -> bool {
    memory.is_written(frame) && memory.begin_evict(frame) && memory.finish_evict(frame)
}

fn memory_pages(flusher: &Flusher) -> usize {
    flusher.shared.memory.frames()
}
