//! One step of a shard worker: messages in, one frozen batch out.

use crossbeam_epoch::Guard;
use treering_engine::tree::{self};

use super::messages::{Action, Request, ShardMessage};
use super::state::{ReadyRequest, Shard, Starved};
use super::tips::Tip;
use super::transaction::LOCK_WAITERS_MAX;
use super::{BATCH_OPERATIONS_MAX, CHUNK_IDS, CHUNK_IDS_COMPACTING, EMPTY_LISTS_MAX};
use crate::actor::{Actor, Nanos, Outbox};
use crate::client::NodeView;
use crate::error::Error;
use crate::flusher::FlusherMessage;
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
            ShardMessage::Chunk {
                extents,
                shortage,
                compacting,
            } => {
                self.chunk_requested = false;
                self.chunk_ids = if compacting {
                    CHUNK_IDS_COMPACTING
                } else {
                    CHUNK_IDS
                };
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
                self.chunk_ids = CHUNK_IDS_COMPACTING;
                self.give_high_ids_back(below, outbox);
                self.give_surplus_back(outbox);
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
        self.give_up_held();
        if self.moves.waits_for_epoch() {
            collect(&shared.memory);
        }
        let hits = std::mem::take(&mut self.hits);
        shared.counters.add(Counter::ShardHits, hits);
        if self.should_freeze() {
            self.freeze(outbox);
        }
        if self.supply.ids.len() < self.chunk_ids / 2 && self.shortage.is_none() {
            self.request_ids(outbox);
        }
        // A later need deserves a new attempt.
        self.shortage = None;
    }

    fn accepts_requests(&self) -> bool {
        if self.moves.drains() || self.shared.status.is_poisoned() {
            // Poisoned, what is taken is refused, however much is under way for ever.
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

impl Shard {
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
            Action::Load(_) if self.visits.locks.names(request.tree) => return Some(request),
            // What begins and ends nothing of its own comes after all that was begun.
            Action::Batch { records } if records.is_empty() && self.visits.admitted > 0 => {
                return Some(request);
            }
            // Its client may have sent transactions for the tree before, which may empty it.
            Action::DropTree | Action::PrepareLoad if self.visits.admitted > 0 => return Some(request),
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
        let view = NodeView::new(self.shared.memory.view(guard));
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

    /// The database is poisoned: nothing is applied any more, since nobody takes back the pages of refused batches.
    fn refuse_waiting(&mut self, error: &Error, outbox: &mut Outbox) {
        self.starved = Starved::No;
        self.abort_exclusive(error);
        // A set stays as it is: nobody will ask for it any more.
        self.exclusive = None;
        self.sets_due.clear();
        self.refuse_visits(error, outbox);
        self.refuse_moving(error);
        // Their pages may never come: whoever brings them may have panicked.
        let parked = std::mem::take(&mut self.parked.by_page);
        for ready in parked.into_values().flatten() {
            self.parked.count -= 1;
            self.refuse(ready, error.clone());
        }
        loop {
            // One that is refused may make the next for its key ready.
            if let Some(ready) = self.ready.pop_front() {
                self.parked.count -= 1;
                self.refuse(ready, error.clone());
            } else if let Some(request) = self.incoming.pop_front() {
                self.refuse(ReadyRequest::new(request), error.clone());
            } else {
                break;
            }
        }
        // Not by way of the commit actor, which may have lost batches by a panic, and doesn't log this one any more.
        for resolution in &mut self.open.resolutions {
            resolution.result = Err(error.clone());
        }
        outbox.resolutions.append(&mut self.open.resolutions);
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
