//! One step of a shard worker: messages in, one frozen batch out.

use crossbeam_epoch::Guard;
use treering_engine::memory::Class;
use treering_engine::tree::{self, Miss, RELOCATED_LEAVES_MAX, Root};
use treering_engine::{ShardId, TreeId};

use super::apply::{Applied, Notes, apply};
use super::messages::{Action, Request, ShardMessage};
use super::state::{ReadyRequest, Shard, Starved};
use super::store::TipStore;
use super::tips::{Tip, TipPlace};
use super::transaction::LOCK_WAITERS_MAX;
use super::{
    BATCH_OPERATIONS_MAX, BATCHES_UNDER_WAY, CHUNK_IDS, CHUNK_IDS_LOW, EMPTY_LISTS_MAX, FRAMES_TAKEN,
    UNPUBLISHED_BATCHES_MAX,
};
use crate::actor::{Actor, Nanos, Outbox};
use crate::client::NodeView;
use crate::commit::{Batch, CommitMessage, DROPPED_PREFIX};
use crate::error::Error;
use crate::flusher::FlusherMessage;
use crate::options::Durability;
use crate::shared::{Counter, collect, with_guard};
use crate::ticket::{Outcome, Resolution};

/// How often a range that shall leave looks whether those whom it waits for are done.
const MOVE_LOOK_NANOS: Nanos = 200_000;
/// Requests that are looked up side by side before they run, and the number from which that pays.
const WARMED_MAX: usize = 32;
const WARMED_MIN: usize = 4;

impl Actor for Shard {
    type Message = ShardMessage;

    fn handle(&mut self, message: ShardMessage, _now: Nanos, outbox: &mut Outbox) {
        match message {
            ShardMessage::Request(request) => {
                self.moves.request_taken();
                self.incoming.push_back(request);
            }
            ShardMessage::Forwarded(request) => self.incoming.push_back(request),
            ShardMessage::HandOver {
                moved,
                requests,
                shut,
            } => self.adopt(moved, requests, shut),
            ShardMessage::Wanted(wanted) => self.want(wanted),
            ShardMessage::Loaded { reference, result } => self.loaded(reference, result),
            ShardMessage::Published {
                batches,
                record_bytes,
                lists,
            } => {
                if lists.are_useful() && self.empty_lists.len() < EMPTY_LISTS_MAX {
                    self.empty_lists.push(lists);
                }
                self.unpublished -= batches;
                self.unpublished_bytes -= record_bytes;
                self.reclaim_paused = false;
            }
            ShardMessage::Refused {
                extents,
                record_bytes,
            } => {
                self.unpublished -= 1;
                self.unpublished_bytes -= record_bytes;
                // Poisoned, the tips stay and refer to the pages until the database is opened again.
                if !self.shared.status.is_poisoned() {
                    outbox.flusher.push(FlusherMessage::Release { extents });
                }
            }
            ShardMessage::TreeDropped { tree } => self.begin_reclaiming(tree),
            ShardMessage::Visit(visit) => self.visits.arrived.push_back(*visit),
            ShardMessage::Release(transaction) => self.release_transaction(&transaction),
            ShardMessage::Apply { set, transactions } => self.sets_due.push_back((set, transactions)),
            ShardMessage::SetClosed { set, happens } => self.set_closed(set, happens),
            ShardMessage::TipsDropped { tip_epoch, cause } => self.drop_tips(tip_epoch, &cause, outbox),
            ShardMessage::Chunk { extents, shortage } => {
                self.chunk_requested = false;
                self.supply.extend(extents.iter().flat_map(|extent| extent.ids()));
                self.shortage = shortage;
                self.starved = Starved::No;
            }
            ShardMessage::Extents { job, result } => self.extents_came(job, result, outbox),
            ShardMessage::Transferred {
                job,
                piece,
                result,
                buffer,
            } => self.transferred(job, piece, result, buffer, outbox),
            ShardMessage::FramesFreed => {
                self.pressure_sent = false;
                self.starved = Starved::No;
            }
            ShardMessage::GiveHighIdsBack { below } => {
                self.high_ids_given_back = false;
                self.give_high_ids_back(below, outbox);
            }
            ShardMessage::FramesExhausted { cause } => {
                self.pressure_sent = false;
                self.shortage = Some(cause);
                self.starved = Starved::No;
            }
        }
    }

    fn end_batch(&mut self, now: Nanos, outbox: &mut Outbox) {
        self.moves.now = now;
        self.give_up_late_job();
        let shared = std::sync::Arc::clone(&self.shared);
        with_guard(&shared.memory, |guard| {
            self.follow_departure(guard);
            self.end_departure(outbox);
            self.run(guard, outbox);
        });
        if self.moves.waits_for_epoch() {
            collect(&shared.memory);
        }
        let hits = std::mem::take(&mut self.hits);
        shared.counters.add(Counter::ShardHits, hits);
        if self.should_freeze() {
            self.freeze(outbox);
        }
        if self.supply.ids.len() < CHUNK_IDS_LOW && !self.chunk_requested && self.shortage.is_none() {
            self.chunk_requested = true;
            outbox.flusher.push(FlusherMessage::ChunkRequest {
                shard: self.id,
                pages: CHUNK_IDS as u32,
            });
        }
        // A later need deserves a new attempt.
        self.shortage = None;
    }

    fn accepts_requests(&self) -> bool {
        if self.moves.drains() {
            return true;
        }
        self.incoming.len() < BATCH_OPERATIONS_MAX
            && !self.moves.is_full()
            && self.exclusive.is_none()
            && self.starved == Starved::No
            && self.parked.count < self.shared.settings.parked_max
            && self.visits.singles < LOCK_WAITERS_MAX
            && !self.is_full()
    }

    fn deadline(&self, _now: Nanos) -> Option<Nanos> {
        if self.can_reclaim() || self.moves.counts_requests() {
            return Some(0);
        }
        self.moves.waits_for_others().then_some(MOVE_LOOK_NANOS)
    }

    fn counts_requests(&self) -> bool {
        self.moves.counts_requests()
    }

    fn requests_waiting(&mut self, count: usize) {
        self.moves.requests_waiting(count);
    }
}

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
    /// Whether the open batch takes no more operations before it can be frozen.
    fn is_full(&self) -> bool {
        self.is_ahead() && self.is_bounded()
    }

    /// Whether as much is unpublished as may be: nothing more is frozen before some of it is.
    pub(super) fn is_ahead(&self) -> bool {
        self.unpublished >= UNPUBLISHED_BATCHES_MAX
            || self.unpublished_bytes >= self.shared.settings.unpublished_bytes_max
    }

    /// Whether the open batch has reached one of its bounds.
    fn is_bounded(&self) -> bool {
        self.open.operations as usize >= BATCH_OPERATIONS_MAX
            || self.open.pages.created.len() >= self.shared.settings.open_nodes_max
            || self.open.records.len() >= self.shared.settings.batch_record_bytes_max / 2
    }

    /// Runs requests until there are none, one must wait for all others, or the open batch is full.
    fn run(&mut self, guard: &Guard, outbox: &mut Outbox) {
        if let Some(cause) = self.shared.status.cause() {
            return self.refuse_waiting(&Error::Poisoned { cause }, outbox);
        }
        self.forget_reclaimed(guard);
        if self.open.is_empty() {
            self.open.pages.born = self.shared.current.load(guard).seq.next();
        }
        let mut warmed = 0;
        loop {
            if self.is_bounded() && self.exclusive.is_none() {
                self.freeze(outbox);
                if self.is_full() {
                    return;
                }
            }
            if self.starved != Starved::No {
                return;
            }
            // Before requests whose page has come: what it does may be taken back, and theirs must not be.
            if self.exclusive.is_some() {
                if !self.run_exclusive(guard, outbox) {
                    return;
                }
                continue;
            }
            if let Some(ready) = self.ready.pop_front() {
                self.parked.count -= 1;
                self.run_single(ready, true, guard, outbox);
                continue;
            }
            if !self.sets_due.is_empty() {
                if !self.begin_set(outbox) {
                    return;
                }
                continue;
            }
            if !self.visits.complete.is_empty() {
                if self.is_ahead() {
                    return;
                }
                self.freeze(outbox);
                if let Some(visit) = self.visits.complete.pop_front() {
                    self.begin_complete(visit);
                }
                continue;
            }
            if self.visit_next(guard, outbox) {
                continue;
            }
            if !self.run_wanted(guard, outbox) {
                return;
            }
            // One step takes more requests than may be parked. (Bad run: all of them miss, and hold all frames.)
            if self.parked.count >= self.shared.settings.parked_max || self.visits.singles >= LOCK_WAITERS_MAX
            {
                return;
            }
            if warmed == 0 {
                warmed = self.warm(guard);
            }
            warmed -= 1;
            let Some(request) = self.incoming.pop_front() else {
                break;
            };
            self.moves.adopting = self.moves.adopting.saturating_sub(1);
            if request.key().is_some() {
                self.run_single(ReadyRequest::new(request), false, guard, outbox);
                continue;
            }
            if let Some(waits) = self.run_many(request, guard, outbox) {
                self.incoming.push_front(waits);
                return;
            }
        }
        self.reclaim(guard, outbox);
    }

    /// Takes up a request for several keys, or none; gives it back if it has to wait for those before it.
    fn run_many(&mut self, request: Request, guard: &Guard, outbox: &mut Outbox) -> Option<Request> {
        let before = self.parked.count + self.visits.singles;
        match &request.action {
            Action::Transaction(transaction) => {
                if !self.visits.admits() {
                    return Some(request);
                }
                let transaction = std::sync::Arc::clone(transaction);
                let Request { reply, credit, .. } = request;
                self.begin_transaction(transaction, reply, credit, guard, outbox);
                return None;
            }
            Action::Fence => {
                if before > 0 {
                    return Some(request);
                }
                outbox.resolutions.push(Resolution {
                    reply: request.reply,
                    result: Ok(Outcome::Done),
                });
                return None;
            }
            Action::Batch { records } if !records.is_empty() && !self.visits.locks.is_idle() => {
                if !self.visits.admits() {
                    return Some(request);
                }
                self.begin_claimed_batch(request, guard, outbox);
                return None;
            }
            // Transactions may have found the tree empty, and rely on it.
            Action::Load(_) if !self.visits.locks.is_idle() => return Some(request),
            // What begins and ends nothing of its own comes after all that was begun.
            Action::Batch { records } if records.is_empty() && self.visits.admitted > 0 => {
                return Some(request);
            }
            _ => {}
        }
        if before > 0 || self.is_ahead() {
            return Some(request);
        }
        self.freeze(outbox);
        self.begin_exclusive(request, guard);
        None
    }

    /// Looks the keys of what has come in up side by side, so that the cache misses of many descents overlap: applying
    /// them one after the other then finds the nodes in the processor's caches.
    ///
    /// Returns for how many requests that holds; at least 1.
    fn warm(&mut self, guard: &Guard) -> usize {
        if self.incoming.len() < WARMED_MIN {
            return WARMED_MIN;
        }
        let view = NodeView(self.shared.memory.view(guard));
        let mut keys: [&[u8]; WARMED_MAX] = [&[]; WARMED_MAX];
        let mut found = [Ok(None); WARMED_MAX];
        let mut count = 0;
        let mut tip: Option<&Tip> = None;
        let mut tree = None;
        for request in self.incoming.iter().take(WARMED_MAX) {
            let (Some(key), true) = (request.key(), tree.is_none_or(|tree| tree == request.tree)) else {
                break;
            };
            tree = Some(request.tree);
            // Those of one partition are looked up; requests for others among them come as they are.
            if tip.is_none() {
                tip = self.tips.get(request.tree, key);
            }
            keys[count] = key;
            count += 1;
        }
        if let Some(tip) = tip {
            tree::get_many(&view, &tip.root, &keys[..count], &mut found[..count]);
        }
        count.max(1)
    }

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
                let error = Error::TreeNotFound {
                    name: format!("#{}", tree.0),
                };
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

    /// Where memory is all there is and it is full, the reserve lets removals through: they alone make room. No reads
    /// or checkpoints need it there.
    fn supply_removal(&mut self, request: &Request, nodes: usize) -> bool {
        if self.shared.settings.in_memory && matches!(request.action, Action::Delete { .. }) {
            let wanted = nodes.saturating_sub(self.supply.frames.len());
            self.shared
                .memory
                .allocate_many(Class::Reserve, wanted, &mut self.supply.frames);
        }
        self.supply.covers(nodes)
    }

    /// The database is poisoned: nothing is applied any more, since nobody takes back the pages of refused batches.
    fn refuse_waiting(&mut self, error: &Error, outbox: &mut Outbox) {
        self.starved = Starved::No;
        self.abort_exclusive(error);
        // A set stays as it is: nobody will ask for it any more.
        self.exclusive = None;
        self.sets_due.clear();
        self.refuse_visits(error, outbox);
        self.refuse_moving(error);
        loop {
            // One that is refused may make the next for its key ready.
            if let Some(ready) = self.ready.pop_front() {
                self.parked.count -= 1;
                self.refuse(ready, error.clone());
            } else if let Some(request) = self.incoming.pop_front() {
                self.refuse(ReadyRequest::new(request), error.clone());
            } else {
                return;
            }
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

    /// Frames taken from the pool at a time: few where many shards share a small cache, or they would hoard all of it.
    fn frames_taken(&self) -> usize {
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
        if self.supply.ids.len() < nodes && !self.chunk_requested {
            self.chunk_requested = true;
            outbox.flusher.push(FlusherMessage::ChunkRequest {
                shard: self.id,
                pages: CHUNK_IDS as u32,
            });
        }
        false
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

    /// Whether the open batch should be closed though more could join it. While a batch is under way the commit actor could
    /// only put this one aside: what comes meanwhile had better share its pages, and its place in the next group. It is
    /// closed when the answer comes that the one before is published.
    fn should_freeze(&self) -> bool {
        self.unpublished < BATCHES_UNDER_WAY || self.is_bounded() || self.starved != Starved::No
    }

    /// Closes the open batch and sends it to the commit actor, if it holds anything and may be sent.
    pub(super) fn freeze(&mut self, outbox: &mut Outbox) {
        if self.open.is_empty() || self.is_ahead() || self.in_atomic_batch() {
            return;
        }
        let batch = self.close_batch();
        outbox.commit.push(CommitMessage::Batch(batch));
    }

    /// Takes what the open batch holds, and opens another one.
    pub(super) fn close_batch(&mut self) -> Batch {
        let roots = self.tips.freeze();
        let lists = self.empty_lists.pop().unwrap_or_default();
        let open = &mut self.open;
        // The next batch is likely to be about as large as this one.
        let created = Vec::with_capacity(open.pages.created.len());
        let retired = Vec::with_capacity(open.pages.retired.len());
        self.unpublished_bytes += open.records.len();
        let batch = Batch {
            shard: self.id,
            tip_epoch: self.tip_epoch,
            stamp: open.pages.stamp,
            record_bytes: open.records.len(),
            records: std::mem::replace(&mut open.records, lists.records),
            roots,
            created: std::mem::replace(&mut open.pages.created, created),
            retired: std::mem::replace(&mut open.pages.retired, retired),
            retires_blobs: std::mem::take(&mut open.pages.retires_blobs),
            loads: std::mem::take(&mut open.loads),
            extents_added: std::mem::take(&mut open.extents_added),
            extents_unused: std::mem::take(&mut open.extents_unused),
            trees_dropped: std::mem::take(&mut open.trees_dropped),
            trees_forgotten: std::mem::take(&mut open.trees_forgotten),
            partitions: std::mem::take(&mut open.partitions),
            resolutions: std::mem::replace(&mut open.resolutions, lists.resolutions),
            operations: std::mem::take(&mut open.operations),
            sync: std::mem::take(&mut open.sync),
        };
        self.unpublished += 1;
        self.open_batch();
        batch
    }

    /// Takes back what the open batch did to the trees: nodes, roots, records. Replies stay.
    pub(super) fn undo_open(&mut self) {
        for id in self.open.pages.created.drain(..) {
            // Nobody but this shard ever saw these pages: id and frame are free at once.
            if let Some(frame) = self.shared.memory.remove(id) {
                self.supply.frames.push(frame);
            }
            self.supply.give_back(id);
        }
        // A large batch had many: the others need them, too.
        let kept = self.supply.frames.len().min(self.frames_taken());
        self.supply
            .frames
            .drain(kept..)
            .for_each(|frame| self.shared.memory.release_now(frame));
        self.open.pages.retired.clear();
        self.open.pages.retires_blobs = false;
        self.open.records.clear();
        self.open.extents_unused.append(&mut self.open.extents_added);
        self.open.loads = false;
        self.open.trees_dropped.clear();
        self.open.partitions.clear();
        self.tips.undo();
    }

    /// The commit actor refused batches: what this shard built on them is void.
    fn drop_tips(&mut self, tip_epoch: u64, cause: &Error, outbox: &mut Outbox) {
        self.abort_exclusive(cause);
        self.undo_open();
        self.forget_validation(cause, outbox);
        self.tips.clear();
        let shared = std::sync::Arc::clone(&self.shared);
        with_guard(&shared.memory, |guard| {
            self.cancel_departure(guard);
            self.restart_reclaiming(guard);
        });
        self.tip_epoch = tip_epoch;
        for resolution in &mut self.open.resolutions {
            resolution.result = Err(cause.clone());
        }
        outbox.resolutions.append(&mut self.open.resolutions);
        self.open.operations = 0;
        self.open.sync = false;
        if !self.open.extents_unused.is_empty() {
            let extents = std::mem::take(&mut self.open.extents_unused);
            outbox.flusher.push(FlusherMessage::Release { extents });
        }
        self.open_batch();
    }
}
