//! Waiting for answers, for clients: who waits runs what has to give the answer, if nobody else does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use treering_engine::ShardId;

use super::inside::is_inside;
use super::kicks::Kicks;
use super::state::Runtime;
use super::waiting::{SPINS, YIELDS};
use crate::actor::Nanos;
use crate::error::{Error, Result};

/// How often a thread that waits looks whether the database was closed meanwhile.
const STOPPED_LOOK: Duration = Duration::from_millis(100);

/// Threads that look for their answers for a while; more of them only keep those from the cores who could answer. (256
/// threads with synced puts: 16,000 a second with all of them yielding.)
const YIELDING_MAX: usize = 32;

/// Threads that look for their answers from which one more gives the core away before it runs the shard.
const GATHERING_MIN: usize = 2;

/// Wakes a thread that waits for an answer which was polled before.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Looks for the answer a few times, and gives the core away a few times. `None`: it isn't there yet.
fn look<T>(receiver: &oneshot::Receiver<T>) -> Option<Option<T>> {
    for round in 0..SPINS + YIELDS {
        match receiver.try_recv() {
            Ok(answer) => return Some(Some(answer)),
            Err(oneshot::TryRecvError::Disconnected) => return Some(None),
            Err(oneshot::TryRecvError::Empty) if round < SPINS => std::hint::spin_loop(),
            Err(oneshot::TryRecvError::Empty) => std::thread::yield_now(),
        }
    }
    None
}

impl Runtime {
    /// Whether the calling thread may wait for an answer: see [`is_inside`].
    pub fn check_wait(&self) -> Result<()> {
        if is_inside() {
            return Err(Error::WouldDeadlock);
        }
        Ok(())
    }

    /// Waits for an answer. If nobody runs the shard that has to give it, the caller does, and then the commit
    /// actor, and then it writes the log: with one client that saves three wakes of 20 to 40 µs.
    pub fn wait<T>(&self, receiver: oneshot::Receiver<T>, shard: Option<ShardId>) -> Option<T> {
        if let Ok(answer) = receiver.try_recv() {
            return Some(answer);
        }
        if let Some(sim) = &self.sim {
            return sim.wait(self, &receiver);
        }
        if self.stopping.load(Ordering::SeqCst) {
            self.discard_what_came_late();
            return receiver.try_recv().ok();
        }
        if let Some(shard) = shard {
            // Where others wait, too, giving the core away once lets them leave their requests: one step, one publication
            // and often one copied path then serve them all. (16 threads, half reads, half buffered writes: 490,000
            // operations a second without, 720,000 with it.)
            if self.yielding.load(Ordering::Relaxed) >= GATHERING_MIN {
                self.yielding.fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
                self.yielding.fetch_sub(1, Ordering::Relaxed);
                if let Ok(answer) = receiver.try_recv() {
                    return Some(answer);
                }
            }
            self.see_to_alone(Kicks::shard(shard));
            loop {
                match receiver.try_recv() {
                    Ok(answer) => {
                        // What the last round left behind is not this thread's business any more.
                        self.leave_log_task();
                        return Some(answer);
                    }
                    Err(oneshot::TryRecvError::Disconnected) => return None,
                    Err(oneshot::TryRecvError::Empty) => {}
                }
                if !self.run_log_task(true) {
                    break;
                }
            }
        }
        let crowded = self.yielding.fetch_add(1, Ordering::Relaxed) >= YIELDING_MAX;
        let early = if crowded { None } else { look(&receiver) };
        self.yielding.fetch_sub(1, Ordering::Relaxed);
        match early {
            Some(answer) => answer,
            None => self.sleep_for(&receiver),
        }
    }

    /// Waits until `look`, which may wait for as long as it is told, finds something. `None`: the database has ended.
    pub fn wait_until<T>(&self, look: impl Fn(Duration) -> Option<T>) -> Option<T> {
        if let Some(sim) = &self.sim {
            return sim.wait_until(self, || look(Duration::ZERO));
        }
        loop {
            let found = look(STOPPED_LOOK);
            if found.is_some() || self.stopping.load(Ordering::SeqCst) {
                return found;
            }
        }
    }

    /// Waits for an answer for a limited time, and leaves the work to the actors' threads, since it has no limit.
    pub fn wait_timeout<T>(
        &self,
        receiver: &oneshot::Receiver<T>,
        timeout: Duration,
    ) -> std::result::Result<T, oneshot::RecvTimeoutError> {
        match &self.sim {
            Some(sim) => sim.wait_timeout(self, receiver, timeout),
            None => receiver.recv_timeout(timeout),
        }
    }

    /// As [`wait_timeout`](Self::wait_timeout), for an answer that was polled before: its channel has a waker, and then
    /// refuses, by a panic, to let a thread block. So this thread takes the waker's place.
    pub fn wait_polled<T>(
        &self,
        receiver: &mut oneshot::Receiver<T>,
        timeout: Duration,
    ) -> std::result::Result<T, oneshot::RecvTimeoutError> {
        if let Some(sim) = &self.sim {
            return sim.wait_timeout(self, receiver, timeout);
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let until = self
            .now()
            .saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(Nanos::MAX));
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut *receiver).poll(&mut Context::from_waker(&waker)) {
                return answer.map_err(|_| oneshot::RecvTimeoutError::Disconnected);
            }
            if self.stopping.load(Ordering::SeqCst) {
                // It may have come too late for anybody to run it.
                self.discard_what_came_late();
                return receiver
                    .try_recv()
                    .map_err(|_| oneshot::RecvTimeoutError::Disconnected);
            }
            let left = Duration::from_nanos(until.saturating_sub(self.now()));
            if left.is_zero() {
                return Err(oneshot::RecvTimeoutError::Timeout);
            }
            std::thread::park_timeout(left.min(STOPPED_LOOK));
        }
    }

    /// Whether threads beside the calling one wait for answers.
    pub(super) fn others_wait(&self) -> bool {
        self.yielding.load(Ordering::Relaxed) + self.sleeping.load(Ordering::Relaxed) > 0
    }

    /// Sleeps until the answer is there, or will never come.
    pub(super) fn sleep_for<T>(&self, receiver: &oneshot::Receiver<T>) -> Option<T> {
        self.sleeping.fetch_add(1, Ordering::Relaxed);
        let answer = loop {
            match receiver.recv_timeout(STOPPED_LOOK) {
                Ok(answer) => break Some(answer),
                Err(oneshot::RecvTimeoutError::Disconnected) => break None,
                // What was sent before closing is answered; this came too late, and nobody will run it.
                Err(oneshot::RecvTimeoutError::Timeout) if self.stopping.load(Ordering::SeqCst) => {
                    break receiver.try_recv().ok();
                }
                Err(oneshot::RecvTimeoutError::Timeout) => {}
            }
        };
        self.sleeping.fetch_sub(1, Ordering::Relaxed);
        answer
    }

    /// Lets time pass on behalf of a client that wants to try something again.
    pub fn pause(&self, nanos: Nanos) {
        match &self.sim {
            Some(sim) => sim.pause(self, nanos),
            None => std::thread::sleep(Duration::from_nanos(nanos)),
        }
    }
}
