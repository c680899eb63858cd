//! A step of a compaction: nodes of one partition move to low ids.
//!
//! It is an ordinary request, so it takes its turn among the writes, waits for pages and for ids as they do, and is
//! published like them. Nothing of it is logged: what a crash takes back are ids, not changes.

use treering_engine::tree::{self, Miss, RELOCATED_LEAVES_MAX, Root};
use treering_engine::{Extent, PageId};

use super::state::Shard;
use super::store::TipStore;
use crate::actor::Outbox;
use crate::flusher::FlusherMessage;
use crate::ticket::Outcome;

impl Shard {
    /// A step needs low ids: gives high ones back that came when there were no others. Once more only after some
    /// progress. (Bad run: the flusher has a few low ids left, too few for a step; the shard gives the high ones back that
    /// came with them, asks for low ones, and gets the same, for ever.)
    pub(super) fn prepare_to_relocate(&mut self, below: PageId, outbox: &mut Outbox) {
        if !std::mem::replace(&mut self.high_ids_given_back, true) {
            self.give_high_ids_back(below, outbox);
        }
    }

    /// Gives back ids that aren't below `below`: nodes would go on being created there, also by shards that have nothing
    /// to move.
    pub(super) fn give_high_ids_back(&mut self, below: PageId, outbox: &mut Outbox) {
        // Descending: the high ones come first.
        let high = self.supply.ids.partition_point(|id| *id >= below);
        self.give_first_ids_back(high, outbox);
    }

    /// Gives back what is more than is asked for at a time, the highest ids.
    pub(super) fn give_surplus_back(&mut self, outbox: &mut Outbox) {
        let surplus = self.supply.ids.len().saturating_sub(self.chunk_ids);
        self.give_first_ids_back(surplus, outbox);
    }

    fn give_first_ids_back(&mut self, count: usize, outbox: &mut Outbox) {
        let extents: Vec<Extent> = self.supply.ids.drain(..count).map(Extent::single).collect();
        if !extents.is_empty() {
            outbox.flusher.push(FlusherMessage::Release { extents });
        }
    }

    /// A step has copied something.
    pub(super) fn relocated(&mut self) {
        self.high_ids_given_back = false;
    }
}

/// Copies nodes, if there are low ids for them.
pub(super) fn relocate(
    store: &mut TipStore<'_>,
    root: &mut Root,
    from: &[u8],
    below: PageId,
) -> Result<Outcome, Miss> {
    let nodes = tree::reserve_for(root.height) + RELOCATED_LEAVES_MAX;
    let ids = &store.supply.ids;
    // The last are used first. What a step needs at most is at hand, or the step would not have begun.
    let highest = ids.len().checked_sub(nodes).and_then(|at| ids.get(at));
    if highest.is_none_or(|id| *id >= below) {
        return Ok(Outcome::Relocated(None));
    }
    Ok(Outcome::Relocated(Some(tree::relocate(
        store, root, from, below,
    )?)))
}
