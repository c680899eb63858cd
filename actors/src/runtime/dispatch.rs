//! Carrying out outboxes, and running actors on the way.

use std::sync::atomic::Ordering;

use super::kicks::Kicks;
use super::seat::{Seat, Step};
use super::state::Runtime;
use crate::actor::{Actor, Outbox};
use crate::flusher::FlusherMessage;
use crate::shared::{HeldFrame, unhold};

/// Publications that wait for the flusher before its thread is woken for them: it is in no hurry, and each wake
/// costs more than taking note of all of them.
const FLUSHER_LANE_LAZY: usize = 1024;
/// Rounds that a thread which isn't the actor's own runs in a row before it calls that thread.
const HELP_ROUNDS_MAX: u32 = 16;
/// Outboxes kept for clients that run actors: more than one such client on each core is rare.
const EMPTY_OUTBOXES_MAX: usize = 8;

impl Runtime {
    /// One step of an actor by its own thread; returns whether it found anything to do, and its deadline.
    ///
    /// `helps`: whether the thread also runs the shards and the commit actor if they are idle. Those of flusher and
    /// pager don't: they would be busy with the clients' requests while everybody waits for frames and pages.
    pub(super) fn step_own<A: Actor>(
        &self,
        seat: &Seat<A>,
        outbox: &mut Outbox,
        helps: bool,
    ) -> Option<Step> {
        let mut kicks = Kicks::default();
        let step = seat.try_step(self.now(), outbox, |outbox| kicks = self.post(outbox));
        self.finish_step(outbox);
        self.tell_of_panic(step);
        if helps {
            self.see_to(kicks, outbox);
        } else {
            self.wake(&kicks);
        }
        self.leave_log_task();
        step
    }

    /// Calls the threads of the actors that got messages.
    pub(super) fn wake(&self, kicks: &Kicks) {
        for shard in kicks.shards() {
            self.shard(shard).sleeper.wake();
        }
        if kicks.commit {
            self.commit.sleeper.wake();
        }
        if kicks.pager {
            self.pager.sleeper.wake();
        }
        if kicks.flusher {
            self.flusher.sleeper.wake();
        }
    }

    /// After a panic: every actor has to notice that the database is poisoned, and refuse what waits. (Bad run: a client
    /// runs a shard on the way and it panics; nobody sends that shard anything more, and what it holds is never answered,
    /// nor what waits at other shards for locks that were lost with it.)
    pub(super) fn tell_of_panic(&self, step: Option<Step>) {
        if step.is_some_and(|step| step.panicked) {
            self.wake_all();
        }
    }

    /// Calls the threads of all actors.
    pub(super) fn wake_all(&self) {
        for seat in &self.shards {
            seat.sleeper.wake();
        }
        self.commit.sleeper.wake();
        self.flusher.sleeper.wake();
        self.pager.sleeper.wake();
    }

    /// Sends the messages of an outbox and leaves its I/O where it is taken up. Called with the sender's seat taken.
    pub(super) fn post(&self, outbox: &mut Outbox) -> Kicks {
        let mut kicks = Kicks::default();
        for (shard, message) in outbox.shards.drain(..) {
            self.shard(shard).tell(message);
            kicks.add_shard(shard);
        }
        for message in outbox.commit.drain(..) {
            self.commit.tell(message);
            kicks.commit = true;
        }
        for message in outbox.pager.drain(..) {
            self.pager.tell(message);
            kicks.pager = true;
        }
        for message in outbox.flusher.drain(..) {
            let lazy = matches!(
                message,
                FlusherMessage::Published { .. } | FlusherMessage::Release { .. }
            );
            if let FlusherMessage::Published { pages, .. } = &message {
                let created: usize = pages.iter().map(|batch| batch.created.len()).sum();
                let untold = self.flusher_untold_pages.fetch_add(created, Ordering::Relaxed) + created;
                kicks.flusher |= untold >= self.flusher_pages_lazy;
            }
            self.flusher.tell(message);
            kicks.flusher |= !lazy || self.flusher.lane_length() >= FLUSHER_LANE_LAZY;
            if kicks.flusher {
                self.flusher_untold_pages.store(0, Ordering::Relaxed);
            }
        }
        if !outbox.operations.is_empty() {
            self.operations().append(&mut outbox.operations);
            kicks.pager = true;
        }
        for task in outbox.log_tasks.drain(..) {
            *self.log_task() = Some(task);
        }
        if !outbox.file_tasks.is_empty() {
            self.file_tasks().extend(outbox.file_tasks.drain(..));
            kicks.flusher = true;
        }
        kicks
    }

    /// Tells those who wait. Called with no seat taken, since waking costs system calls.
    pub(crate) fn finish_step(&self, outbox: &mut Outbox) {
        for resolution in outbox.resolutions.drain(..) {
            resolution.resolve();
        }
        for (sender, below) in outbox.compactions.drain(..) {
            // Who went away has nothing to move.
            let _ = sender.send(below);
        }
        for (sender, result) in outbox.fetched_for_futures.drain(..) {
            let held = result.map(|frame| HeldFrame::new(&self.shared, frame));
            sender.send(held);
        }
        for (sender, result) in outbox.fetched.drain(..) {
            if let Err(returned) = sender.send(result)
                && let Ok(frame) = returned.into_inner()
            {
                // The reader went away: its hold is given back for it.
                unhold(&self.shared.memory, frame);
            }
        }
    }

    /// Sees to it that actors which got messages are run: shards and commit actor by this thread, if they are
    /// idle; pager and flusher by their own threads, since they have devices and files to wait for.
    pub(super) fn see_to(&self, kicks: Kicks, outbox: &mut Outbox) {
        let mut kicks = kicks;
        while !kicks.is_empty() {
            let now = std::mem::take(&mut kicks);
            for shard in now.shards() {
                self.help(self.shard(shard), outbox, &mut kicks);
            }
            if now.commit {
                self.help(&self.commit, outbox, &mut kicks);
            }
            if now.flusher {
                self.flusher.sleeper.wake();
            }
            if now.pager {
                if self.pager.sleeper.is_asleep() && self.operations().is_empty() {
                    self.help(&self.pager, outbox, &mut kicks);
                }
                if !self.operations().is_empty() || self.pager.has_work(true) {
                    self.pager.sleeper.wake();
                    kicks.pager = false;
                }
            }
        }
    }

    /// [`see_to`](Self::see_to) for a thread that has no outbox.
    pub(super) fn see_to_alone(&self, kicks: Kicks) {
        let mut outbox = self.empty_outboxes().pop().unwrap_or_default();
        self.see_to(kicks, &mut outbox);
        let mut kept = self.empty_outboxes();
        if kept.len() < EMPTY_OUTBOXES_MAX {
            kept.push(outbox);
        }
    }

    /// Calls the commit actor's thread if a log task is out: for those who don't wait for an answer, and so don't
    /// write the log themselves.
    pub(super) fn leave_log_task(&self) {
        if self.log_task().is_some() {
            self.commit.sleeper.wake();
        }
    }

    /// Runs an actor's step, again if messages came in meanwhile; then calls its own thread.
    fn help<A: Actor>(&self, seat: &Seat<A>, outbox: &mut Outbox, kicks: &mut Kicks) {
        for _ in 0..HELP_ROUNDS_MAX {
            let now = self.now();
            let step = seat.try_step(now, outbox, |outbox| {
                kicks.add(self.post(outbox));
            });
            self.finish_step(outbox);
            self.tell_of_panic(step);
            // Whoever has the seat will look at the mailboxes again.
            let Some(step) = step else { return };
            seat.leave_deadline();
            if !seat.more(step) {
                return;
            }
        }
        seat.sleeper.wake();
    }
}
