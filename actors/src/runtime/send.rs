//! Sending, for clients: requests to shards, messages to the other actors, and what has to be waited for before.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::TrySendError;
use crossbeam_epoch::Guard;
use treering_engine::ShardId;

use super::credit::{CREDIT_FREE_BYTES, Credit};
use super::gate::Passage;
use super::inside::is_inside;
use super::state::Runtime;
use super::waiting::YIELDS;
use crate::commit::CommitMessage;
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::pager::PagerMessage;
use crate::shard::{Request, ShardMessage};
use crate::shared::{Version, with_guard};

/// How long a client waits for room in a full mailbox of a shard before it looks again.
const FULL_PAUSE: Duration = Duration::from_micros(20);

impl Runtime {
    /// Leaves a request with the shard that `route` names, as [`send`](Self::send) does. The owner of a key may change:
    /// so it is looked up and the request left with it under one pin of the epoch, for whose end a range that moves
    /// waits (rule R22, `shard/moves`). Where the mailbox is full, both are done anew.
    ///
    /// # Errors
    /// Those of `route`; [`Error::WouldDeadlock`] if the sender would have to wait and must not (see [`is_inside`]);
    /// [`Error::Closed`]. With the request.
    pub fn send_routed(
        &self,
        route: impl Fn(&Version) -> Result<ShardId>,
        request: Request,
        wait: bool,
    ) -> std::result::Result<ShardId, (Error, Option<Box<Request>>)> {
        let look_up = |guard: &Guard| route(self.shared.current.load(guard));
        if self.shards.len() == 1 {
            // Nothing ever moves.
            return match with_guard(&self.shared.memory, look_up) {
                Err(error) => Err((error, Some(Box::new(request)))),
                Ok(shard) => match self.send(shard, request, wait) {
                    Ok(()) => Ok(shard),
                    Err(request) => Err((Error::WouldDeadlock, Some(request))),
                },
            };
        }
        let mut unsent = match self.with_credit(request, wait) {
            Ok(request) => Some(request),
            Err(request) => return Err((Error::WouldDeadlock, Some(request))),
        };
        let mut rounds = 0;
        loop {
            let routed = with_guard(&self.shared.memory, |guard| {
                let shard = look_up(guard)?;
                if let Some(request) = unsent.take()
                    && let Err(TrySendError::Full(ShardMessage::Request(request))) =
                        self.shard(shard).request(ShardMessage::Request(request))
                {
                    unsent = Some(request);
                }
                Ok(shard)
            });
            let waited = match routed {
                Ok(shard) if unsent.is_none() => {
                    if !wait && self.sim.is_none() {
                        self.shard(shard).sleeper.wake();
                        self.shard(shard).discard_if_retired();
                    }
                    return Ok(shard);
                }
                Ok(shard) => self.wait_for_room(shard, rounds),
                Err(error) => Err(error),
            };
            if let Err(error) = waited {
                return Err((error, unsent.map(Box::new)));
            }
            rounds += 1;
        }
    }

    /// Gives a request the credit that its length needs; the request itself, if its sender would have to wait and must
    /// not.
    fn with_credit(&self, mut request: Request, wait: bool) -> std::result::Result<Request, Box<Request>> {
        if wait && is_inside() {
            return Err(Box::new(request));
        }
        request.credit = match request.bytes() {
            0..=CREDIT_FREE_BYTES => None,
            bytes if is_inside() => match self.credit_now(bytes) {
                None => return Err(Box::new(request)),
                credit => credit,
            },
            bytes => self.credit(bytes),
        };
        Ok(request)
    }

    /// Lets time pass, since a shard's mailbox is full.
    fn wait_for_room(&self, shard: ShardId, rounds: u32) -> Result<()> {
        if let Some(sim) = &self.sim {
            return if sim.step_for_room(self) {
                Ok(())
            } else {
                Err(Error::Closed)
            };
        }
        if self.stopping.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        if is_inside() {
            return Err(Error::WouldDeadlock);
        }
        self.shard(shard).sleeper.wake();
        if rounds < YIELDS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(FULL_PAUSE);
        }
        Ok(())
    }

    /// Leaves a request with a shard and makes sure that somebody runs it soon. `wait`: the caller will wait for
    /// the answer, and so runs the shard itself if nobody does.
    ///
    /// # Errors
    /// The request, if its sender would have to wait and must not: see [`is_inside`].
    pub fn send(
        &self,
        shard: ShardId,
        request: Request,
        wait: bool,
    ) -> std::result::Result<(), Box<Request>> {
        let seat = self.shard(shard);
        let request = self.with_credit(request, wait)?;
        if let Some(sim) = &self.sim {
            sim.request(self, seat, ShardMessage::Request(request));
            return Ok(());
        }
        match seat.request(ShardMessage::Request(request)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(ShardMessage::Request(request))) if is_inside() => {
                return Err(Box::new(request));
            }
            Err(TrySendError::Full(message)) => {
                seat.sleeper.wake();
                seat.request_blocking(message);
            }
        }
        if !wait {
            seat.sleeper.wake();
            seat.discard_if_retired();
        }
        Ok(())
    }

    /// Credit for bytes that a client has under way, waiting until there is some. `None` for a database that has
    /// ended, which takes nothing. The caller holds no credit meanwhile.
    pub fn credit(&self, bytes: usize) -> Option<Credit> {
        self.wait_until(|timeout| self.credits.take_within(bytes, timeout))
    }

    /// What a request that isn't for one key alone has to hold from before its owners are looked up until it is answered,
    /// waiting for a range that moves. `None`: nothing ever moves.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] if the caller would have to wait and must not (see [`is_inside`]);
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn pass(&self) -> Result<Option<Passage>> {
        let gate = &self.shared.moves_gate;
        if self.shards.len() == 1 {
            return Ok(None);
        }
        if let Some(passage) = gate.enter() {
            return Ok(Some(passage));
        }
        self.check_wait()?;
        let look = |timeout| match self.shared.status.cause() {
            Some(cause) => Some(Err(Error::Poisoned { cause })),
            None => gate.enter_within(timeout).map(|passage| Ok(Some(passage))),
        };
        self.wait_until(look).unwrap_or(Err(Error::Closed))
    }

    /// [`credit`](Self::credit), if there is some now.
    pub fn credit_now(&self, bytes: usize) -> Option<Credit> {
        self.credits.take(bytes)
    }

    /// Leaves a message with the commit actor, on behalf of a client.
    pub fn send_commit(&self, message: CommitMessage) {
        if let Some(sim) = &self.sim {
            return sim.request(self, &self.commit, message);
        }
        self.commit.request_blocking(message);
        self.run_commit();
        self.leave_log_task();
    }

    /// Leaves a message with the flusher, on behalf of a client.
    pub fn send_flusher(&self, message: FlusherMessage) {
        // What is about publications must not overtake those that the sender has seen: it goes the way that they go.
        // (Bad run: recovery ends, and what the log names and no publication claims is freed, while the last
        // publication still stands in the lane.)
        if let FlusherMessage::GoLive
        | FlusherMessage::Checkpoint { .. }
        | FlusherMessage::CreateNamed { .. }
        | FlusherMessage::DropNamed { .. }
        | FlusherMessage::ListNamed { .. }
        | FlusherMessage::VersionAt { .. }
        | FlusherMessage::Released { .. }
        | FlusherMessage::EndCompaction { .. }
        | FlusherMessage::Close { .. } = message
        {
            self.flusher.tell(message);
            self.flusher.sleeper.wake();
            return self.flusher.discard_if_retired();
        }
        if let Some(sim) = &self.sim {
            return sim.request(self, &self.flusher, message);
        }
        self.flusher.request_blocking(message);
        self.flusher.sleeper.wake();
        self.flusher.discard_if_retired();
    }

    /// Leaves a message with the pager, on behalf of a client.
    pub fn send_pager(&self, message: PagerMessage) {
        if let Some(sim) = &self.sim {
            return sim.request(self, &self.pager, message);
        }
        self.pager.request_blocking(message);
        self.pager.sleeper.wake();
        self.pager.discard_if_retired();
    }
}
