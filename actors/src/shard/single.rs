//! Requests for one key: finding whose the key is, applying them, or parking, forwarding and refusing them.

use crossbeam_epoch::Guard;
use treering_engine::tree::{self, Miss, RELOCATED_LEAVES_MAX, Root};
use treering_engine::{ShardId, TreeId};

use super::apply::{Applied, Notes, apply};
use super::messages::{Action, ShardMessage};
use super::state::{ReadyRequest, Shard};
use super::store::TipStore;
use super::tips::{Tip, TipPlace};
use crate::actor::Outbox;
use crate::commit::DROPPED_PREFIX;
use crate::error::Error;
use crate::options::Durability;
use crate::ticket::{Outcome, Resolution};

/// Whose a key is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// This shard's; its tip stands there.
    Here(TipPlace),
    /// Another shard's.
    Elsewhere(ShardId),
    /// It is about to be another shard's.
    Leaving,
    /// This shard's as soon as that move is handed over.
    Coming(u64),
    /// Nobody's: there is no such tree, or it was dropped.
    Nowhere,
}

impl Shard {
    /// Runs a request that names one key, or parks it. `in_turn` says that nobody else's turn for the key comes
    /// before it.
    pub(super) fn run_single(
        &mut self,
        ready: ReadyRequest,
        in_turn: bool,
        guard: &Guard,
        outbox: &mut Outbox,
    ) {
        let mut ready = ready;
        if !in_turn
            && (self.queue_behind_lock(&mut ready.request) || self.queue_behind_parked(&mut ready.request))
        {
            return;
        }
        let tree = ready.request.tree;
        let Some(key) = ready.request.key() else {
            unreachable!("requests for several keys are run by their own code")
        };
        let place = match self.locate(tree, key, guard) {
            Place::Here(place) => place,
            Place::Elsewhere(owner) => {
                let ReadyRequest {
                    request, held, large, ..
                } = ready;
                self.finish(&request, held);
                self.discard_large(large);
                outbox.shards.push((owner, ShardMessage::Forwarded(request)));
                return;
            }
            place @ (Place::Leaving | Place::Coming(_)) => {
                let ReadyRequest {
                    request, held, large, ..
                } = ready;
                self.finish(&request, held);
                self.discard_large(large);
                match place {
                    Place::Coming(moved) => self.moves.queue_arriving(moved, request),
                    _ => self.moves.queue_departing(request),
                }
                return;
            }
            Place::Nowhere => {
                let error = Error::no_tree(tree);
                self.refuse(ready, error);
                return;
            }
        };
        self.moves.note(&self.shared.settings, tree, key);
        let height = self.height(place);
        let creates_nodes = !matches!(ready.request.action, Action::Get { .. });
        let mut nodes = tree::reserve_for(height);
        if let Action::Relocate { below, .. } = ready.request.action {
            nodes += RELOCATED_LEAVES_MAX;
            self.prepare_to_relocate(below, outbox);
        }
        let mut from_reserve = false;
        if creates_nodes && !self.supply_for(nodes, outbox) {
            match self.shortage.clone() {
                Some(_) if self.supply_removal(&ready.request, nodes) => from_reserve = true,
                Some(error) => return self.refuse(ready, error),
                None => {
                    self.parked.count += 1;
                    self.ready.push_front(ready);
                    return;
                }
            }
        }
        let applied = self.change_tip(place, guard, |store, root, notes| {
            apply(store, root, &mut ready.request, ready.large.as_ref(), notes)
        });
        match applied {
            Err(miss) => self.park(ready, miss, outbox),
            Ok(None) => {}
            Ok(Some(Applied::Needs(descriptor))) => {
                ready.large = None;
                self.read_large(ready, descriptor, outbox);
            }
            Ok(Some(Applied::Made { old, new })) => {
                ready.large = None;
                self.write_large(ready, old, new, outbox);
            }
            Ok(Some(Applied::Done(result))) => {
                let ReadyRequest {
                    request,
                    held,
                    missed,
                    ..
                } = ready;
                self.hits += u64::from(!missed);
                if matches!(&result, Ok(Outcome::Relocated(Some(done))) if done.nodes > 0) {
                    self.relocated();
                }
                self.open.operations += 1;
                self.open.sync |= request.durability == Durability::Sync;
                self.finish(&request, held);
                self.open.resolutions.push(Resolution {
                    reply: request.reply,
                    result,
                });
            }
        }
        if from_reserve {
            // What the removal left must not serve the next write.
            self.supply
                .frames
                .drain(..)
                .for_each(|frame| self.shared.memory.release_now(frame));
        }
    }

    /// Runs `change` on a tip and notes whether it changed the tree. `None` if there is no such tip.
    pub(super) fn change_tip<R>(
        &mut self,
        place: TipPlace,
        guard: &Guard,
        change: impl FnOnce(&mut TipStore<'_>, &mut Root, &mut Notes<'_>) -> Result<R, Miss>,
    ) -> Result<Option<R>, Miss> {
        let mut store = TipStore {
            memory: &self.shared.memory,
            guard,
            supply: &mut self.supply,
            open: &mut self.open.pages,
        };
        let mut notes = Notes {
            records: &mut self.open.records,
            extents_added: &mut self.open.extents_added,
            extents_unused: &mut self.open.extents_unused,
        };
        self.tips
            .change(place, |root| change(&mut store, root, &mut notes))
            .transpose()
    }

    /// Answers a request that can't be run, after everything that was applied before it.
    pub(super) fn refuse(&mut self, ready: ReadyRequest, error: Error) {
        let ReadyRequest {
            request, held, large, ..
        } = ready;
        self.finish(&request, held);
        self.open.operations += 1;
        self.open.sync |= request.durability == Durability::Sync;
        self.discard_large(large);
        if let Some(descriptor) = request.action.blob() {
            let extents = crate::blob::blob_extents(descriptor).map(|retired| retired.extent);
            self.open.extents_unused.extend(extents);
        }
        self.open.resolutions.push(Resolution {
            reply: request.reply,
            result: Err(error),
        });
    }

    /// Height of the tree at a place.
    pub(super) fn height(&self, place: TipPlace) -> u8 {
        self.tips.at(place).map_or(0, |tip| tip.root.height)
    }

    /// Whose a key is. If it is this shard's, the tip that holds it is there afterwards: made from the current
    /// version, unless this worker has changed the partition already.
    pub(super) fn locate(&mut self, tree: TreeId, key: &[u8], guard: &Guard) -> Place {
        if self.is_dropped(tree) {
            return Place::Nowhere;
        }
        if let Some(place) = self.tips.find(tree, key) {
            return Place::Here(place);
        }
        if self.moves.departs(tree, key) {
            return Place::Leaving;
        }
        let version = self.shared.current.load(guard);
        // A tree that was dropped has kept its partitions. (Bad run: one of them comes here, and the news of the drop has
        // gone to its former owner.)
        let Some(state) = version
            .directory
            .get(tree)
            .filter(|state| !state.name.starts_with(DROPPED_PREFIX))
        else {
            return Place::Nowhere;
        };
        let index = state.partition_for(key);
        let Some(tip) = Tip::of(state, index) else {
            return Place::Nowhere;
        };
        let partition = &state.partitions[index];
        if partition.owner != self.id {
            return Place::Elsewhere(partition.owner);
        }
        if self.moves.is_awaited(partition) {
            return Place::Coming(partition.moved);
        }
        Place::Here(self.tips.insert(tree, tip))
    }
}
