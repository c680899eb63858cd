//! One actor and its mailboxes.
//!
//! # Protocol
//! A sender pushes its message, then tries to take the seat ([`Seat::try_step`]) or wakes the actor's thread.
//! Whoever gives the seat back looks at the mailboxes once more ([`Step::more`]) and goes on if something came
//! in meanwhile. Between push and attempt, and between giving back and looking, stands a sequentially
//! consistent fence: so of a sender that found the seat taken and the one that gave it back, at least one
//! sees the message.
//!
//! # The end
//! [`Seat::retire`] drops the actor, with every reply that it holds: whoever waits for one is told that there will be
//! none. What is in the mailboxes is dropped too, and what is sent later, by the sender ([`Seat::discard_if_retired`])
//! or by whoever tries a step: of `retire` and a sender at least one finds the message, by the same two fences.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::inside::Inside;
use crate::actor::{Actor, Nanos, Outbox};
use crate::runtime::waiting::Sleeper;
use crate::shared::Shared;

/// Most messages of the actors' lane that one step takes.
const LANE_MESSAGES_MAX: usize = 1024;

/// What a step left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Whether the step took a message, or was somebody's visit.
    pub worked: bool,
    /// In how many nanoseconds the actor wants to be run again.
    pub deadline: Option<Nanos>,
    /// Whether requests of clients may be delivered.
    accepts: bool,
    /// Whether the step ended by a panic: the database is poisoned, and all actors have to be run to notice.
    pub panicked: bool,
}

/// An actor with its mailboxes and the flag of its thread.
pub(crate) struct Seat<A: Actor> {
    shared: Arc<Shared>,
    /// `None` after the end.
    actor: Mutex<Option<A>>,
    retired: AtomicBool,
    /// From clients: bounded, senders wait.
    requests: (Sender<A::Message>, Receiver<A::Message>),
    /// From actors: bounded by what may be under way, senders never wait (rule R14).
    lane: (Sender<A::Message>, Receiver<A::Message>),
    requests_per_step: usize,
    pub sleeper: Sleeper,
    /// When the actor wants to be run again; written by each step, under the seat's lock.
    next_deadline: AtomicU64,
    /// Until when the actor's thread sleeps at the latest, for those who leave it an earlier deadline.
    sleeps_until: AtomicU64,
    /// Whether panics are dealt with as in builds without debug assertions.
    #[cfg(test)]
    pub keeps_panics: AtomicBool,
}

impl<A: Actor> Seat<A> {
    pub fn new(
        shared: &Arc<Shared>,
        actor: A,
        requests_max: usize,
        requests_per_step: usize,
        lane_max: usize,
    ) -> Seat<A> {
        Seat {
            shared: Arc::clone(shared),
            actor: Mutex::new(Some(actor)),
            retired: AtomicBool::new(false),
            requests: bounded(requests_max),
            lane: bounded(lane_max),
            requests_per_step,
            sleeper: Sleeper::default(),
            next_deadline: AtomicU64::new(Nanos::MAX),
            sleeps_until: AtomicU64::new(0),
            #[cfg(test)]
            keeps_panics: AtomicBool::new(false),
        }
    }

    /// Leaves a client's request; blocks while the mailbox is full. Gives the message back if it can't be
    /// delivered at once and `blocking` is false.
    pub fn request(&self, message: A::Message) -> Result<(), TrySendError<A::Message>> {
        self.requests.0.try_send(message)
    }

    /// Leaves a client's request, waiting for room.
    pub fn request_blocking(&self, message: A::Message) {
        // The receiver lives in the same struct: the channel can't be disconnected.
        let _ = self.requests.0.send(message);
    }

    /// Leaves a message of another actor.
    pub fn tell(&self, message: A::Message) {
        let mut message = message;
        loop {
            match self.lane.0.try_send(message) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                // The bound is above what the protocols can have under way; should it be reached all the same,
                // waiting here for the receiver to drain is the lesser evil to losing the message.
                Err(TrySendError::Full(back)) => {
                    message = back;
                    self.sleeper.wake();
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Messages of other actors that wait.
    pub fn lane_length(&self) -> usize {
        self.lane.1.len()
    }

    /// Messages of all that wait.
    pub fn messages_length(&self) -> u64 {
        (self.lane.1.len() + self.requests.1.len()) as u64
    }

    /// Requests of clients that wait.
    pub fn requests_length(&self) -> usize {
        self.requests.1.len()
    }

    /// Whether the mailboxes hold something that a step would take.
    pub fn has_work(&self, accepts: bool) -> bool {
        !self.lane.1.is_empty() || (accepts && !self.requests.1.is_empty())
    }

    /// Runs one step if nobody else is running one. `send` carries out the messages in the outbox before the seat
    /// is given back, so that messages of successive steps keep their order.
    pub fn try_step(&self, now: Nanos, outbox: &mut Outbox, send: impl FnOnce(&mut Outbox)) -> Option<Step> {
        self.try_step_of(LANE_MESSAGES_MAX, self.requests_per_step, now, outbox, send)
    }

    /// [`try_step`](Self::try_step) with bounds of its own: at most `lane_max` messages of actors and
    /// `requests_max` of clients.
    pub fn try_step_of(
        &self,
        lane_max: usize,
        requests_max: usize,
        now: Nanos,
        outbox: &mut Outbox,
        send: impl FnOnce(&mut Outbox),
    ) -> Option<Step> {
        fence(Ordering::SeqCst);
        let actor = match self.actor.try_lock() {
            Ok(actor) => actor,
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let mut worked = false;
        let (_, step) = self.run(actor, now, outbox, send, |actor, outbox| {
            for _ in 0..lane_max {
                let Ok(message) = self.lane.1.try_recv() else {
                    break;
                };
                worked = true;
                actor.handle(message, now, outbox);
            }
            if actor.counts_requests() {
                actor.requests_waiting(self.requests.1.len());
            }
            for _ in 0..requests_max {
                if !actor.accepts_requests() {
                    break;
                }
                let Ok(message) = self.requests.1.try_recv() else {
                    break;
                };
                worked = true;
                actor.handle(message, now, outbox);
            }
        })?;
        Some(Step { worked, ..step })
    }

    /// Runs a step that consists of `work`, in the calling thread; waits for a step that is being run. For visits that
    /// are shorter than waking anybody. The mail is left where it is: the caller sees to it (see [`more`](Self::more)),
    /// since who found the seat taken relies on that.
    ///
    /// `None` instead of a result: `work` panicked. `None` at all: the actor has ended.
    pub fn visit<R>(
        &self,
        now: Nanos,
        outbox: &mut Outbox,
        send: impl FnOnce(&mut Outbox),
        work: impl FnOnce(&mut A, &mut Outbox) -> R,
    ) -> Option<(Option<R>, Step)> {
        self.run(self.guard(), now, outbox, send, work)
    }

    /// One step: `work`, the end of the batch, and the effects, with the seat taken.
    fn run<R>(
        &self,
        mut seat: MutexGuard<'_, Option<A>>,
        now: Nanos,
        outbox: &mut Outbox,
        send: impl FnOnce(&mut Outbox),
        work: impl FnOnce(&mut A, &mut Outbox) -> R,
    ) -> Option<(Option<R>, Step)> {
        let Some(actor) = seat.as_mut() else {
            drop(seat);
            self.discard_if_retired();
            return None;
        };
        let inside = Inside::enter();
        let mut result = None;
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            result = Some(work(actor, outbox));
            actor.end_batch(now, outbox);
        }));
        let panicked = stepped.is_err();
        if let Err(panic) = stepped {
            // Half a step was done: nothing that is built on it may reach the disk.
            let cause = std::io::Error::other("an actor panicked; this is a bug");
            self.shared.status.poison(&Arc::new(cause));
            if self.shows_panics() {
                resume_unwind(panic);
            }
        }
        let step = Step {
            worked: true,
            deadline: actor.deadline(now),
            accepts: actor.accepts_requests(),
            panicked,
        };
        let next = step
            .deadline
            .map_or(Nanos::MAX, |deadline| now.saturating_add(deadline));
        self.next_deadline.store(next, Ordering::Relaxed);
        send(outbox);
        drop(inside);
        drop(seat);
        fence(Ordering::SeqCst);
        Some((result, step))
    }

    /// Whether a panic of the actor goes on to whoever runs it: tests shall see it.
    fn shows_panics(&self) -> bool {
        #[cfg(test)]
        if self.keeps_panics.load(Ordering::Relaxed) {
            return false;
        }
        cfg!(debug_assertions)
    }

    /// Whether messages came in that the step `step` has not taken: whoever ran it has to see to them.
    pub fn more(&self, step: Step) -> bool {
        self.has_work(step.accepts)
    }

    /// After a step by another thread than the actor's own: sees to it that the actor's thread doesn't sleep
    /// beyond the deadline that the step has left.
    pub fn leave_deadline(&self) {
        if self.next_deadline.load(Ordering::Relaxed) < self.sleeps_until.load(Ordering::Relaxed) {
            self.sleeper.wake();
        }
    }

    /// The actor's thread sleeps until woken, or until the deadline that the last step has left, unless there is
    /// work.
    pub fn sleep(&self, now: Nanos, ready: impl Fn() -> bool) {
        let until = self.next_deadline.load(Ordering::Relaxed);
        self.sleeps_until.store(until, Ordering::Relaxed);
        let timeout = (until != Nanos::MAX).then(|| Duration::from_nanos(until.saturating_sub(now)));
        self.sleeper.sleep(timeout, || {
            ready() || self.next_deadline.load(Ordering::Relaxed) < until
        });
        self.sleeps_until.store(0, Ordering::Relaxed);
    }

    /// When the actor wants to be run again: what the last step has left.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let next = self.next_deadline.load(Ordering::Relaxed);
        (next != Nanos::MAX).then_some(next)
    }

    /// Looks at the actor itself, for tests. Waits for a step that is being run. `None` after the end.
    pub fn with<R>(&self, look: impl FnOnce(&A) -> R) -> Option<R> {
        self.guard().as_ref().map(look)
    }

    /// Ends the actor after the step that is being run: everything that it holds and that was sent to it is dropped.
    pub fn retire(&self) {
        let actor = self.guard().take();
        self.retired.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        drop(actor);
        self.discard();
    }

    /// For senders, after a fence that comes after the push: drops what nobody will take any more.
    pub fn discard_if_retired(&self) {
        if self.retired.load(Ordering::Relaxed) {
            self.discard();
        }
    }

    fn discard(&self) {
        while self.requests.1.try_recv().is_ok() || self.lane.1.try_recv().is_ok() {}
    }

    /// Takes a client's request out of its mailbox, whether or not the actor accepts any: for planted bugs.
    pub fn take_request(&self) -> Option<A::Message> {
        self.requests.1.try_recv().ok()
    }

    /// The actor itself, for tests of its messages. Waits for a step that is being run.
    #[cfg(test)]
    pub fn lock(&self) -> impl std::ops::DerefMut<Target = A> {
        ActorGuard(self.guard())
    }

    fn guard(&self) -> MutexGuard<'_, Option<A>> {
        self.actor
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// An actor that has not ended.
#[cfg(test)]
struct ActorGuard<'s, A>(MutexGuard<'s, Option<A>>);

#[cfg(test)]
impl<A> std::ops::Deref for ActorGuard<'_, A> {
    type Target = A;

    fn deref(&self) -> &A {
        self.0.as_ref().expect("the actor has not ended")
    }
}

#[cfg(test)]
impl<A> std::ops::DerefMut for ActorGuard<'_, A> {
    fn deref_mut(&mut self) -> &mut A {
        self.0.as_mut().expect("the actor has not ended")
    }
}
