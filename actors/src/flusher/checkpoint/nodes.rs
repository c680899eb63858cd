//! Stages *walking* and *writing*: the changed nodes of the version, on disk.

use treering_engine::memory::{FrameId, Residency};
use treering_engine::{PageId, page};

use super::{Flusher, Stage};
use crate::actor::{Nanos, Outbox};
use crate::error::Error;
use crate::flusher::{WALK_NODES, WRITES_MAX};
use crate::pager::PagerMessage;
use crate::shared::Counter;

impl Flusher {
    /// Collects the changed nodes: by rule R2 they form the connected top of the trees.
    pub(super) fn walk(&mut self) {
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

    pub(super) fn write_nodes(&mut self, outbox: &mut Outbox) {
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
    pub(in crate::flusher) fn page_written(
        &mut self,
        id: PageId,
        frame: FrameId,
        result: std::io::Result<()>,
        now: Nanos,
        outbox: &mut Outbox,
    ) {
        if !self.checkpoint.writing.remove(&id) {
            self.eviction_written(id, frame, result, now, outbox);
            return;
        }
        let memory = &self.shared.memory;
        self.shared.counters.add(Counter::Flushes, 1);
        match result {
            Ok(()) => {
                self.write_pause.succeeded();
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
}
