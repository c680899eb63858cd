//! Requests that wait for pages, and those that wait behind them.

use treering_engine::PageRef;
use treering_engine::memory::FrameId;
use treering_engine::tree::Miss;

use super::messages::Request;
use super::state::{ReadyRequest, Shard};
use crate::actor::Outbox;
use crate::error::Error;
use crate::pager::{PagerMessage, Waiter};
use crate::shared::{Counter, unhold};

impl Shard {
    /// Queues a request behind a parked one for the same key, if there is one (rule R10).
    pub(super) fn queue_behind_parked(&mut self, request: &mut Request) -> bool {
        if self.parked.behind.is_empty() {
            return false;
        }
        let Some(key) = request.key() else { return false };
        let Some(queue) = self.parked.behind.get_mut(&(request.tree, Box::from(key))) else {
            return false;
        };
        queue.push_back(request.take());
        self.parked.count += 1;
        true
    }

    /// Asks for the page that a request needs and puts the request aside until it is there.
    pub(super) fn park(&mut self, mut ready: ReadyRequest, miss: Miss, outbox: &mut Outbox) {
        ready.missed = true;
        let reference = miss.0;
        self.keep_place(&ready.request);
        self.shared.counters.add(Counter::Parked, 1);
        let waiting = self.parked.by_page.entry(reference.id).or_default();
        if waiting.is_empty()
            && self
                .exclusive
                .as_ref()
                .is_none_or(|e| e.waits_for != Some(reference.id))
        {
            outbox.pager.push(PagerMessage::Fetch {
                reference,
                waiter: Waiter::Shard(self.id),
            });
        }
        waiting.push(ready);
    }

    /// A request waits: later ones for its key queue behind it.
    pub(super) fn keep_place(&mut self, request: &Request) {
        if let Some(key) = request.key() {
            let place = (request.tree, Box::from(key));
            self.parked.behind.entry(place).or_default();
        }
        self.parked.count += 1;
    }

    /// A page came, or can't: its requests are ready to run, or to be refused.
    pub(super) fn loaded(&mut self, reference: PageRef, result: Result<FrameId, Error>) {
        let mut waiting = self.parked.by_page.remove(&reference.id).unwrap_or_default();
        let failure = result.as_ref().err().cloned();
        let mut hold = None;
        match result {
            Ok(frame) => {
                // One hold came with the page; it goes to one of those that waited, and is given back by it.
                if let Some(exclusive) = self
                    .exclusive
                    .as_mut()
                    .filter(|exclusive| exclusive.waits_for == Some(reference.id))
                {
                    exclusive.waits_for = None;
                    exclusive.held.push(frame);
                } else if let Some(first) = waiting.first_mut() {
                    first.held.push(frame);
                } else {
                    hold = Some(frame);
                }
                self.ready.extend(waiting);
            }
            Err(error) => {
                if self
                    .exclusive
                    .as_ref()
                    .is_some_and(|e| e.waits_for == Some(reference.id))
                {
                    self.abort_exclusive(&error);
                }
                for ready in waiting.drain(..) {
                    self.parked.count -= 1;
                    self.refuse(ready, error.clone());
                }
            }
        }
        let hold = self.move_loaded(reference.id, failure.is_some(), hold);
        let hold = self.reclaim_loaded(reference, failure.as_ref(), hold);
        if let Some(frame) = self.visits_loaded(reference.id, failure.as_ref(), hold) {
            self.unhold(frame);
        }
    }

    /// The frame may be evicted again, as far as this shard is concerned.
    pub(super) fn unhold(&self, frame: FrameId) {
        unhold(&self.shared.memory, frame);
    }

    /// A request has run (or was refused): its frames may be evicted again, and the next for its key is ready.
    pub(super) fn finish(&mut self, request: &Request, held: Vec<FrameId>) {
        held.into_iter().for_each(|frame| self.unhold(frame));
        if self.parked.behind.is_empty() {
            return;
        }
        let Some(key) = request.key() else { return };
        let place = (request.tree, Box::from(key));
        let Some(queue) = self.parked.behind.get_mut(&place) else {
            return;
        };
        match queue.pop_front() {
            // It runs next, before anything else that names the key can.
            Some(next) => self.ready.push_front(ReadyRequest::new(next)),
            None => {
                self.parked.behind.remove(&place);
                self.unparked();
            }
        }
    }
}
