//! Visits: a transaction claims its keys at one owner after the other; and single requests that wait for locks.
//!
//! | state | where | leads to |
//! |---|---|---|
//! | *arrived* | [`Visits::arrived`] | [`arrive`](Shard::arrive): claimed |
//! | *waiting* for its turn | [`Visits::waiting`] | [`look_at`](Shard::look_at): validated, then held; or refused |
//! | *waiting* for a page | [`AtOwner::waits_for`] | [`visits_loaded`](Shard::visits_loaded): looked at again |
//! | *behind parked* requests for its keys | [`Visits::behind_parked`] | looked at again when such a queue is empty |
//! | *held* | [`Visits::held`] | [`release_transaction`](Shard::release_transaction) |
//! | *complete*: all parts are this shard's | [`Visits::complete`] | runs alone, as a batch |
//!
//! Visits run between exclusive requests only: what those have half done may be taken back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crossbeam_epoch::Guard;
use treering_engine::PageId;
use treering_engine::memory::FrameId;
use treering_engine::tree::Miss;

use super::locks::{Claim, Locks, Order};
use super::validate::Progress;
use super::{TRANSACTIONS_MAX, Transaction, Visit, split};
use crate::actor::Outbox;
use crate::blob::blobs_in;
use crate::commit::CommitMessage;
use crate::error::Error;
use crate::options::Durability;
use crate::pager::{PagerMessage, Waiter};
use crate::runtime::Credit;
use crate::shard::messages::{Action, Request, ShardMessage};
use crate::shard::single::Place;
use crate::shard::state::{ReadyRequest, Shard};
use crate::shared::Counter;
use crate::ticket::{Reply, Resolution};

/// Who waits for a claim.
pub(crate) enum Waiting {
    Single(Request),
    Visit(Box<AtOwner>),
}

/// A visit at the owner of a part.
pub(crate) struct AtOwner {
    visit: Visit,
    validated: Progress,
    /// The page that validation needs, if it isn't in memory.
    waits_for: Option<PageId>,
    /// Frames of pages that came for it, held until it is looked at.
    held: Vec<FrameId>,
    /// Why it can't go on: a page can't be read.
    failure: Option<Error>,
}

/// The transactions and waiting requests of one shard.
#[derive(Default)]
pub(crate) struct Visits {
    pub locks: Locks,
    pub waiting: BTreeMap<Order, Waiting>,
    /// Claims that may have come to their turn.
    pub due: VecDeque<Order>,
    /// Claims of visits that were sent on, by the number of their transaction.
    pub held: BTreeMap<u64, Vec<Order>>,
    /// Visits whose claims are granted, but for requests that are parked for their keys.
    pub behind_parked: Vec<Order>,
    pub arrived: VecDeque<Visit>,
    /// Transactions of this shard alone that have all their locks.
    pub complete: VecDeque<Visit>,
    /// How many of those that wait are single requests.
    pub singles: usize,
    /// Transactions that began here and are under way.
    pub admitted: usize,
}

impl Visits {
    /// Whether one more transaction may begin here.
    pub fn admits(&self) -> bool {
        self.admitted < TRANSACTIONS_MAX
    }
}

impl Shard {
    /// Queues a request behind those that have claimed its key, if there are any (rule R10).
    pub(in crate::shard) fn queue_behind_lock(&mut self, request: &mut Request) -> bool {
        if self.visits.locks.is_idle() {
            return false;
        }
        let tree = request.tree;
        let exclusive = !matches!(request.action, Action::Get { .. });
        let Some(key) = request.key() else { return false };
        if !self.visits.locks.conflicts(tree, key, exclusive) {
            return false;
        }
        let key = Box::from(key);
        let order = self.visits.locks.claim(Claim::Key { tree, key, exclusive });
        self.visits.singles += 1;
        self.visits.waiting.insert(order, Waiting::Single(request.take()));
        true
    }

    /// A request of a client that begins a transaction here.
    pub(in crate::shard) fn begin_transaction(
        &mut self,
        transaction: Arc<Transaction>,
        reply: Reply,
        credit: Option<Credit>,
        guard: &Guard,
        outbox: &mut Outbox,
    ) {
        self.visits.admitted += 1;
        let visit = Visit {
            transaction,
            reply,
            credit,
            next: 0,
            epochs: Vec::new(),
        };
        self.arrive(visit, guard, outbox);
    }

    /// A batch whose keys others may have claimed: it goes the way of transactions.
    pub(in crate::shard) fn begin_claimed_batch(
        &mut self,
        request: Request,
        guard: &Guard,
        outbox: &mut Outbox,
    ) {
        let Action::Batch { records } = &request.action else {
            return self.refuse(ReadyRequest::new(request), Error::Closed);
        };
        match split(records, &self.shared.current.load(guard).directory) {
            Ok(parts) => {
                let transaction = Transaction {
                    number: self.shared.next_transaction(),
                    parts,
                    durability: request.durability,
                    snapshot: None,
                };
                let Request { reply, credit, .. } = request;
                self.begin_transaction(Arc::new(transaction), reply, credit, guard, outbox);
            }
            Err(error) => {
                self.open.extents_unused.extend(blobs_in(records));
                self.refuse(ReadyRequest::new(request), error);
            }
        }
    }

    /// Lets one visit or waiting request do what it can; false when there is none to look at.
    pub(in crate::shard) fn visit_next(&mut self, guard: &Guard, outbox: &mut Outbox) -> bool {
        // What was handed over with a range may be by the client of a visit, and comes before it.
        let arrived = if self.moves.adopting == 0 {
            self.visits.arrived.pop_front()
        } else {
            None
        };
        if let Some(visit) = arrived {
            self.arrive(visit, guard, outbox);
        } else if let Some(order) = self.visits.due.pop_front() {
            self.look_at(order, guard, outbox);
        } else {
            return false;
        }
        true
    }

    /// Why the visited part can't be claimed here. Its tip is there afterwards.
    fn is_astray(&mut self, visit: &Visit, guard: &Guard) -> Option<Error> {
        let part = &visit.transaction.parts[visit.next];
        match self.locate(part.tree, &part.lower, guard) {
            Place::Here(_) => None,
            // Nothing moves while transactions are under way (`runtime/gate.rs`).
            Place::Elsewhere(_) | Place::Leaving | Place::Coming(_) => Some(Error::Conflict),
            Place::Nowhere => Some(Error::no_tree(part.tree)),
        }
    }

    fn arrive(&mut self, visit: Visit, guard: &Guard, outbox: &mut Outbox) {
        if let Some(error) = self.is_astray(&visit, guard) {
            return self.refuse_visit(visit, None, error, outbox);
        }
        let order = self.visits.locks.claim(Claim::Part {
            transaction: Arc::clone(&visit.transaction),
            part: visit.next,
        });
        let at_owner = AtOwner {
            visit,
            validated: Progress::default(),
            waits_for: None,
            held: Vec::new(),
            failure: None,
        };
        self.visits
            .waiting
            .insert(order, Waiting::Visit(Box::new(at_owner)));
        self.look_at(order, guard, outbox);
    }

    fn look_at(&mut self, order: Order, guard: &Guard, outbox: &mut Outbox) {
        if !self.visits.waiting.contains_key(&order) || !self.visits.locks.is_granted(order) {
            return;
        }
        match self.visits.waiting.remove(&order) {
            None => {}
            Some(Waiting::Single(mut request)) => {
                self.visits.singles -= 1;
                self.release_claim(order);
                if !self.queue_behind_parked(&mut request) {
                    self.run_single(ReadyRequest::new(request), true, guard, outbox);
                }
            }
            Some(Waiting::Visit(at_owner)) => self.look_at_visit(at_owner, order, guard, outbox),
        }
    }

    /// All keys of the part are this visit's: does what it relies on hold?
    fn look_at_visit(
        &mut self,
        mut at_owner: Box<AtOwner>,
        order: Order,
        guard: &Guard,
        outbox: &mut Outbox,
    ) {
        if at_owner.waits_for.is_some() || self.is_parked_for(&at_owner.visit) {
            if at_owner.waits_for.is_none() {
                self.visits.behind_parked.push(order);
            }
            self.visits.waiting.insert(order, Waiting::Visit(at_owner));
            return;
        }
        let failure = at_owner.failure.take();
        // The tree may have been dropped while the visit waited.
        let failure = failure.or_else(|| self.is_astray(&at_owner.visit, guard));
        let valid = match failure {
            Some(error) => Ok(Err(error)),
            None => {
                let AtOwner { visit, validated, .. } = &mut *at_owner;
                let valid = self.validate(&visit.transaction, visit.next, validated, guard);
                valid.map(|valid| if valid { Ok(()) } else { Err(Error::Conflict) })
            }
        };
        let held = std::mem::take(&mut at_owner.held);
        match valid {
            Ok(Ok(())) => self.go_on(at_owner.visit, order, guard, outbox),
            Ok(Err(error)) => {
                if matches!(error, Error::Conflict) {
                    self.shared.counters.add(Counter::Conflicts, 1);
                }
                self.refuse_visit(at_owner.visit, Some(order), error, outbox);
            }
            Err(Miss(reference)) => {
                self.shared.counters.add(Counter::Parked, 1);
                at_owner.waits_for = Some(reference.id);
                self.visits.waiting.insert(order, Waiting::Visit(at_owner));
                outbox.pager.push(PagerMessage::Fetch {
                    reference,
                    waiter: Waiter::Shard(self.id),
                });
            }
        }
        held.into_iter().for_each(|frame| self.unhold(frame));
    }

    /// A page came, or can't. Gives the hold that came with it back if no visit wants it.
    pub(in crate::shard) fn visits_loaded(
        &mut self,
        id: PageId,
        failure: Option<&Error>,
        mut hold: Option<FrameId>,
    ) -> Option<FrameId> {
        let Visits { waiting, due, .. } = &mut self.visits;
        for (order, waiting) in waiting.iter_mut() {
            if let Waiting::Visit(at_owner) = waiting
                && at_owner.waits_for == Some(id)
            {
                at_owner.waits_for = None;
                at_owner.failure = failure.cloned();
                at_owner.held.extend(hold.take());
                due.push_back(*order);
            }
        }
        hold
    }

    /// Whether requests for keys of the visited part are parked. They came first, and will run.
    fn is_parked_for(&self, visit: &Visit) -> bool {
        if self.parked.behind.is_empty() {
            return false;
        }
        let part = &visit.transaction.parts[visit.next];
        let is_parked = |key: &[u8]| self.parked.behind.contains_key(&(part.tree, Box::from(key)));
        let mut parked = part.expected.iter().any(|(key, _)| is_parked(key));
        part.for_each_changed(|key| parked |= is_parked(key));
        parked
            || part.ranges.iter().any(|range| {
                let mut keys = self.parked.behind.keys();
                keys.any(|(tree, key)| *tree == part.tree && range.contains(key))
            })
    }

    /// All keys of the part are this transaction's: on to the next one.
    fn go_on(&mut self, mut visit: Visit, order: Order, guard: &Guard, outbox: &mut Outbox) {
        let number = visit.transaction.number;
        self.visits.held.entry(number).or_default().push(order);
        visit.epochs.push((self.id, self.tip_epoch));
        visit.next += 1;
        match visit.transaction.parts.get(visit.next).map(|part| part.owner) {
            Some(owner) if owner == self.id => self.arrive(visit, guard, outbox),
            Some(owner) => outbox.shards.push((owner, ShardMessage::Visit(Box::new(visit)))),
            None if visit.epochs.iter().all(|(shard, _)| *shard == self.id) => {
                // The tips were dropped between two of its parts: what the first relied on may be gone (rule R13).
                if visit.epochs.iter().any(|(_, epoch)| *epoch != self.tip_epoch) {
                    return self.refuse_visit(visit, None, Error::Conflict, outbox);
                }
                self.visits.complete.push_back(visit);
            }
            None => outbox.commit.push(CommitMessage::Decided(Box::new(visit))),
        }
    }

    /// Answers a transaction that can't happen, after everything that was applied before it, and gives its locks back
    /// everywhere.
    fn refuse_visit(&mut self, visit: Visit, order: Option<Order>, error: Error, outbox: &mut Outbox) {
        let Visit {
            transaction,
            reply,
            epochs,
            ..
        } = visit;
        if let Some(order) = order {
            self.visits
                .held
                .entry(transaction.number)
                .or_default()
                .push(order);
        }
        self.open.operations += 1;
        self.open.sync |= transaction.durability == Durability::Sync;
        let blobs = transaction.parts.iter().flat_map(|part| blobs_in(&part.records));
        self.open.extents_unused.extend(blobs);
        self.open.resolutions.push(Resolution {
            reply,
            result: Err(error),
        });
        let mut others: Vec<_> = epochs.into_iter().map(|(shard, _)| shard).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|shard| *shard != self.id);
        for shard in others {
            outbox
                .shards
                .push((shard, ShardMessage::Release(Arc::clone(&transaction))));
        }
        self.release_transaction(&transaction);
    }

    /// A transaction is over: what it holds here is free.
    pub(in crate::shard) fn release_transaction(&mut self, transaction: &Transaction) {
        if transaction.first_owner() == self.id {
            // Poisoned, everything was forgotten at once.
            self.visits.admitted = self.visits.admitted.saturating_sub(1);
        }
        for order in self.visits.held.remove(&transaction.number).unwrap_or_default() {
            self.release_claim(order);
        }
    }

    fn release_claim(&mut self, order: Order) {
        let next = self.visits.locks.release(order);
        self.visits.due.extend(next);
    }

    /// The last request that was parked for a key has run: visits may have waited for that.
    pub(in crate::shard) fn unparked(&mut self) {
        self.visits.due.extend(self.visits.behind_parked.drain(..));
    }

    /// The tips are dropped: what was found out about them is void.
    pub(in crate::shard) fn forget_validation(&mut self, cause: &Error, outbox: &mut Outbox) {
        self.refuse_complete(cause, outbox);
        for waiting in self.visits.waiting.values_mut() {
            if let Waiting::Visit(at_owner) = waiting {
                at_owner.validated = Progress::default();
            }
        }
    }

    fn refuse_complete(&mut self, cause: &Error, outbox: &mut Outbox) {
        while let Some(visit) = self.visits.complete.pop_front() {
            self.refuse_visit(visit, None, cause.clone(), outbox);
        }
    }

    /// The database is poisoned: nobody waits for locks any more.
    pub(in crate::shard) fn refuse_visits(&mut self, error: &Error, outbox: &mut Outbox) {
        self.refuse_complete(error, outbox);
        while let Some(visit) = self.visits.arrived.pop_front() {
            self.refuse_visit(visit, None, error.clone(), outbox);
        }
        while let Some((order, waiting)) = self.visits.waiting.pop_first() {
            match waiting {
                Waiting::Single(request) => self.refuse(ReadyRequest::new(request), error.clone()),
                Waiting::Visit(at_owner) => {
                    at_owner.held.into_iter().for_each(|frame| self.unhold(frame));
                    self.refuse_visit(at_owner.visit, Some(order), error.clone(), outbox);
                }
            }
        }
        self.visits = Visits::default();
    }
}
