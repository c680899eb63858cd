//! From the batch of a departure to its hand-over, and what fails on the way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_epoch::Guard;

use super::{ADOPTED_MIN, Departure, Stage};
use crate::actor::Outbox;
use crate::error::Error;
use crate::runtime::Shut;
use crate::shard::messages::{Request, ShardMessage};
use crate::shard::state::{ReadyRequest, Shard};
use crate::shared::{Counter, Version, with_guard};

impl Shard {
    /// Sees how far the departure is. Called at the beginning of every step.
    pub(in crate::shard) fn follow_departure(&mut self, guard: &Guard) {
        let version: &Version = self.shared.current.load(guard);
        let Some(departure) = &mut self.moves.departure else {
            return;
        };
        match &departure.stage {
            Stage::Frozen => {
                let shown = version.directory.get(departure.tree).is_none_or(|state| {
                    let partition = &state.partitions[state.partition_for(&departure.lower)];
                    partition.lower == departure.lower && partition.moved == departure.moved
                });
                if shown {
                    let settled = Arc::new(AtomicBool::new(false));
                    let flag = Arc::clone(&settled);
                    // Whoever looked up the owner before the new version was there has left its request by then.
                    guard.defer(move || flag.store(true, Ordering::Release));
                    guard.flush();
                    departure.stage = Stage::Routed(settled);
                }
            }
            Stage::Routed(settled) if settled.load(Ordering::Acquire) => {
                departure.stage = Stage::Draining(None);
            }
            Stage::Routed(_) | Stage::Draining(_) => {}
        }
    }

    /// Hands the range over, once everything that was sent here is at hand.
    pub(in crate::shard) fn end_departure(&mut self, outbox: &mut Outbox) {
        if !matches!(
            &self.moves.departure,
            Some(Departure {
                stage: Stage::Draining(Some(0)),
                ..
            })
        ) {
            return;
        }
        let Some(mut departure) = self.moves.departure.take() else {
            return;
        };
        let mut kept = VecDeque::with_capacity(self.incoming.len());
        let mut adopting = 0;
        for (index, request) in self.incoming.drain(..).enumerate() {
            match request.key() {
                Some(key) if departure.holds(request.tree, key) => departure.queue.push_back(request),
                _ => {
                    adopting += usize::from(index < self.moves.adopting);
                    kept.push_back(request);
                }
            }
        }
        self.incoming = kept;
        self.moves.adopting = adopting;
        if let Some(had) = departure.had {
            self.moves.adopted.remove(&had);
        }
        let queued = departure.queue.len() as u64;
        self.shared.counters.add(Counter::RequestsHandedOver, queued);
        outbox.shards.push((
            departure.to,
            ShardMessage::HandOver {
                moved: departure.moved,
                requests: departure.queue,
                shut: departure.shut,
            },
        ));
    }

    /// A range is this shard's now, with what was sent to its former owner.
    pub(in crate::shard) fn adopt(&mut self, moved: u64, requests: VecDeque<Request>, shut: Option<Shut>) {
        self.moves.adopted.insert(moved);
        if self.moves.adopted.len() > self.moves.adopted_max.max(ADOPTED_MIN) {
            // (Bad run: trees are cut, a part comes here, they are dropped, and so on, and this shard never moves any.)
            let shared = Arc::clone(&self.shared);
            with_guard(&shared.memory, |guard| self.forget_adopted(guard));
            self.moves.adopted_max = 2 * self.moves.adopted.len();
        }
        // It may be a part of a tree of which this shard had nothing left.
        for tree in std::mem::take(&mut self.reclaimed) {
            self.begin_reclaiming(tree);
        }
        let before = self.incoming.len();
        let queued = self
            .moves
            .arrival
            .take()
            .map_or_else(VecDeque::new, |arrival| arrival.queue);
        // Before everything that came later: nothing here names the range's keys yet but what queued for it.
        for request in requests.into_iter().chain(queued).rev() {
            self.incoming.push_front(request);
        }
        self.moves.adopting += self.incoming.len() - before;
        drop(shut);
    }

    /// The tips were dropped: a departure that nobody has seen doesn't happen.
    pub(in crate::shard) fn cancel_departure(&mut self, guard: &Guard) {
        // Its batch may have been published before the one whose refusal dropped the tips.
        self.follow_departure(guard);
        if let Some(Departure {
            stage: Stage::Frozen, ..
        }) = &self.moves.departure
            && let Some(departure) = self.moves.departure.take()
        {
            let queued = departure.queue.len();
            for request in departure.queue.into_iter().rev() {
                self.incoming.push_front(request);
            }
            if self.moves.adopting > 0 {
                self.moves.adopting += queued;
            }
        }
    }

    /// The database is poisoned: nothing moves any more.
    pub(in crate::shard) fn refuse_moving(&mut self, error: &Error) {
        self.moves.give_away = None;
        self.moves.mend = None;
        self.moves.job = None;
        if let Some(departure) = &mut self.moves.departure {
            departure.shut = None;
        }
        for request in self.moves.take_queued() {
            self.refuse(ReadyRequest::new(request), error.clone());
        }
    }
}
