//! Frames and ids for what a request may create, before it runs (rule R11).

use treering_engine::memory::Class;

use super::FRAMES_TAKEN;
use super::messages::{Action, Request};
use super::state::{Shard, Starved};
use crate::actor::Outbox;
use crate::flusher::FlusherMessage;

impl Shard {
    /// Frames taken from the pool at a time: few where many shards share a small cache, or they would hoard all of it.
    pub(super) fn frames_taken(&self) -> usize {
        FRAMES_TAKEN.min(self.shared.memory.frames() / 16 / self.shared.settings.shards)
    }

    /// Makes sure of ids and frames for `nodes` creations; asks the flusher where they run out.
    pub(super) fn supply_for(&mut self, nodes: usize, outbox: &mut Outbox) -> bool {
        if self.supply.covers(nodes) {
            return true;
        }
        if self.supply.frames.len() < nodes {
            let wanted = self.frames_taken().max(nodes) - self.supply.frames.len();
            self.shared
                .memory
                .allocate_many(Class::Worker, wanted, &mut self.supply.frames);
        }
        if self.supply.covers(nodes) {
            return true;
        }
        if self.shortage.is_some() {
            return false;
        }
        self.starved = Starved::Waiting;
        if self.supply.frames.len() < nodes && !self.pressure_sent {
            self.pressure_sent = true;
            outbox
                .flusher
                .push(FlusherMessage::Pressure { shard: Some(self.id) });
        }
        if self.supply.ids.len() < nodes {
            self.request_ids(outbox);
        }
        false
    }

    /// Asks the flusher for ids, unless some are on their way.
    pub(super) fn request_ids(&mut self, outbox: &mut Outbox) {
        if !std::mem::replace(&mut self.chunk_requested, true) {
            outbox.flusher.push(FlusherMessage::ChunkRequest {
                shard: self.id,
                pages: self.chunk_ids as u32,
            });
        }
    }

    /// Where memory is all there is and it is full, the reserve lets removals through: they alone make room. No reads
    /// or checkpoints need it there.
    pub(super) fn supply_removal(&mut self, request: &Request, nodes: usize) -> bool {
        if self.shared.settings.in_memory && matches!(request.action, Action::Delete { .. }) {
            let wanted = nodes.saturating_sub(self.supply.frames.len());
            self.shared
                .memory
                .allocate_many(Class::Reserve, wanted, &mut self.supply.frames);
        }
        self.supply.covers(nodes)
    }
}
