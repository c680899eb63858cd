//! Carrying out outboxes, and running actors on the way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::TrySendError;
use crossbeam_epoch::Guard;
use treering_engine::memory::FrameId;
use treering_engine::{PageRef, ShardId};
use treering_io::{File, Operation};

use super::credit::{CREDIT_FREE_BYTES, Credit, Credits};
use super::files::LogFiles;
use super::gate::Passage;
use super::inside::is_inside;
use super::kicks::Kicks;
use super::seat::{Seat, Step};
use super::sim::Sim;
use super::waiting::{SPINS, YIELDS};
use crate::actor::{Actor, Nanos, Outbox};
use crate::commit::{Commit, CommitMessage, LogTask};
use crate::error::{Error, Result};
use crate::flusher::{FileTask, Flusher, FlusherMessage};
use crate::pager::{Begun, Pager, PagerMessage, Waiter};
use crate::shard::{Request, Shard, ShardMessage};
use crate::shared::{HeldFrame, Shared, Version, unhold, with_guard};

/// Publications that wait for the flusher before its thread is woken for them: it is in no hurry, and each wake
/// costs more than taking note of all of them.
const FLUSHER_LANE_LAZY: usize = 1024;
/// Pages of such publications: those that they replaced, about as many, are not free before.
const FLUSHER_PAGES_LAZY: std::ops::RangeInclusive<usize> = 64..=4096;
/// Rounds that a thread which isn't the actor's own runs in a row before it calls that thread.
const HELP_ROUNDS_MAX: u32 = 16;
/// How often a thread that waits looks whether the database was closed meanwhile.
const STOPPED_LOOK: Duration = Duration::from_millis(100);
/// Threads that look for their answers for a while; more of them only keep those from the cores who could answer. (256
/// threads with synced puts: 16,000 a second with all of them yielding.)
const YIELDING_MAX: usize = 32;
/// Threads that look for their answers from which one more gives the core away before it runs the shard.
const GATHERING_MIN: usize = 2;
/// Outboxes kept for clients that run actors: more than one such client on each core is rare.
const EMPTY_OUTBOXES_MAX: usize = 8;
/// How long a client waits for room in a full mailbox of a shard before it looks again.
const FULL_PAUSE: Duration = Duration::from_micros(20);
/// Places in the mailboxes.
const SHARD_REQUESTS: usize = 4096;
const SHARD_REQUESTS_PER_STEP: usize = 512;
const PAGER_REQUESTS: usize = 4096;
const FLUSHER_REQUESTS: usize = 1024;
const LANE: usize = 1 << 14;

/// When opening a database began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started(Instant);

impl Started {
    /// It begins now.
    pub fn now() -> Started {
        Started(Instant::now())
    }
}

/// Everything that the threads of one database share.
pub(crate) struct Runtime {
    /// What drives the actors where there are no threads. First, because its device must be dropped before the
    /// frames that it may hold.
    pub sim: Option<Sim>,
    pub shared: Arc<Shared>,
    pub shards: Vec<Seat<Shard>>,
    pub commit: Seat<Commit>,
    pub pager: Seat<Pager>,
    pub flusher: Seat<Flusher>,
    pub log_files: Option<LogFiles>,
    pub data: Arc<dyn File>,
    /// The log task that is out and that nobody has taken up yet.
    log_task: Mutex<Option<LogTask>>,
    /// Operations for the pager's device.
    operations: Mutex<Vec<Operation>>,
    file_tasks: Mutex<VecDeque<FileTask>>,
    pub(super) stopping: AtomicBool,
    /// Whether the files are closed to clients. Those that read or write some on the way hold it shared, so that closing
    /// waits for them. (Bad run: a client is about to write the log, the directory's lock is given back, and another
    /// process recovers what this write then destroys.)
    files_closed: RwLock<bool>,
    started: Started,
    /// Threads that look for their answers before they sleep.
    yielding: AtomicUsize,
    /// The bytes that clients may have under way.
    credits: Credits,
    /// Pages of publications since the flusher was last called.
    flusher_untold_pages: AtomicUsize,
    flusher_pages_lazy: usize,
    /// Outboxes of clients that have run actors, for others that will: see [`EmptyLists`](crate::shard::EmptyLists).
    empty_outboxes: Mutex<Vec<Outbox>>,
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
    pub fn new(
        shared: Arc<Shared>,
        shards: Vec<Shard>,
        commit: Commit,
        flusher: Flusher,
        data: Arc<dyn File>,
        log_files: Option<LogFiles>,
        sim: Option<Sim>,
    ) -> Runtime {
        let pager = Pager::new(Arc::clone(&shared), Arc::clone(&data));
        Runtime {
            sim,
            shards: shards
                .into_iter()
                .map(|shard| Seat::new(&shared, shard, SHARD_REQUESTS, SHARD_REQUESTS_PER_STEP, LANE))
                .collect(),
            commit: Seat::new(&shared, commit, FLUSHER_REQUESTS, FLUSHER_REQUESTS, LANE),
            pager: Seat::new(&shared, pager, PAGER_REQUESTS, PAGER_REQUESTS, LANE),
            flusher: Seat::new(&shared, flusher, FLUSHER_REQUESTS, FLUSHER_REQUESTS, LANE),
            log_files,
            data,
            log_task: Mutex::default(),
            operations: Mutex::default(),
            file_tasks: Mutex::default(),
            stopping: AtomicBool::new(false),
            files_closed: RwLock::new(false),
            started: Started::now(),
            credits: Credits::new(shared.settings.credit_bytes),
            yielding: AtomicUsize::new(0),
            flusher_untold_pages: AtomicUsize::new(0),
            flusher_pages_lazy: (shared.memory.frames() / 64)
                .clamp(*FLUSHER_PAGES_LAZY.start(), *FLUSHER_PAGES_LAZY.end()),
            empty_outboxes: Mutex::default(),
            shared,
        }
    }

    /// This runtime, of a database whose opening began earlier.
    pub fn since(self, started: Started) -> Runtime {
        Runtime { started, ..self }
    }

    /// Nanoseconds since opening the database began.
    pub fn now(&self) -> Nanos {
        if let Some(sim) = &self.sim {
            return sim.now();
        }
        // 584 years of nanoseconds fit.
        self.started.0.elapsed().as_nanos() as Nanos
    }

    fn shard(&self, id: ShardId) -> &Seat<Shard> {
        &self.shards[usize::from(id.0)]
    }

    /// The end, after that of the threads: nobody touches the files any more, and whoever still waits for an answer is
    /// told that there will be none.
    pub fn retire(&self) {
        self.shards.iter().for_each(Seat::retire);
        self.commit.retire();
        self.flusher.retire();
        self.pager.retire();
        *self.files_closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        drop(self.log_task().take());
        self.operations().clear();
        self.file_tasks().clear();
    }

    /// For a sender that finds the database closed: its message may have come too late to be dropped with the rest.
    fn discard_what_came_late(&self) {
        fence(Ordering::SeqCst);
        self.shards.iter().for_each(Seat::discard_if_retired);
        self.commit.discard_if_retired();
        self.flusher.discard_if_retired();
        self.pager.discard_if_retired();
    }

    // ---- sending, for clients ----

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

    /// Sleeps until the answer is there, or will never come.
    fn sleep_for<T>(&self, receiver: &oneshot::Receiver<T>) -> Option<T> {
        loop {
            match receiver.recv_timeout(STOPPED_LOOK) {
                Ok(answer) => return Some(answer),
                Err(oneshot::RecvTimeoutError::Disconnected) => return None,
                // What was sent before closing is answered; this came too late, and nobody will run it.
                Err(oneshot::RecvTimeoutError::Timeout) if self.stopping.load(Ordering::SeqCst) => {
                    return receiver.try_recv().ok();
                }
                Err(oneshot::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Brings a page into memory and holds it; the caller ends the hold.
    ///
    /// The calling thread, which would only wait, reads the page itself: with many readers, waking each of them from
    /// the pager's thread is what would limit them.
    pub fn fetch(&self, reference: PageRef) -> Result<FrameId> {
        self.check_wait()?;
        let poisoned = || Err(Error::Closed);
        match self.visit_pager(|pager, _| pager.begin(reference)) {
            None => poisoned(),
            Some(Begun::Here(frame)) => Ok(frame),
            Some(Begun::Wait(receiver)) => self.wait_for_page(receiver),
            Some(Begun::Own(read)) => {
                if let Some(sim) = &self.sim
                    && !sim.let_others_run(self)
                {
                    // The power is off.
                    return Err(Error::Closed);
                }
                let done = read.execute();
                self.visit_pager(|pager, outbox| pager.finish(done, outbox))
                    .unwrap_or_else(poisoned)
            }
        }
    }

    /// Runs a step of the pager that consists of `work`, in the calling thread, and sees to what follows from it.
    fn visit_pager<R>(&self, work: impl FnOnce(&mut Pager, &mut Outbox) -> R) -> Option<R> {
        let mut outbox = Outbox::default();
        let mut kicks = Kicks::default();
        let (result, step) =
            self.pager
                .visit(self.now(), &mut outbox, |outbox| kicks = self.post(outbox), work)?;
        self.finish_step(&mut outbox);
        if self.sim.is_none() {
            // Whoever found the seat taken counts on this thread.
            if self.pager.more(step) {
                self.pager.sleeper.wake();
            }
            if !kicks.is_empty() {
                // A shard may have joined the read, and the commit actor may wait for that shard.
                self.see_to(kicks, &mut outbox);
                self.leave_log_task();
            }
        }
        result
    }

    /// A read takes longer than giving the core away a few times: the thread sleeps soon, and leaves the core to
    /// those who have something to do.
    fn wait_for_page(&self, receiver: oneshot::Receiver<Result<FrameId>>) -> Result<FrameId> {
        let answer = if self.sim.is_some() {
            self.wait(receiver, None)
        } else {
            self.sleep_for(&receiver)
        };
        answer.unwrap_or(Err(Error::Closed))
    }

    /// Brings several pages into memory at once, each held.
    pub fn fetch_all(&self, references: &[PageRef]) -> Vec<Result<FrameId>> {
        if let Err(error) = self.check_wait() {
            return vec![Err(error); references.len()];
        }
        let mut receivers = Vec::with_capacity(references.len());
        for &reference in references {
            let (sender, receiver) = oneshot::channel();
            let message = PagerMessage::Fetch {
                reference,
                waiter: Waiter::Client(sender),
            };
            if self.sim.is_some() {
                self.send_pager(message);
            } else {
                self.pager.request_blocking(message);
            }
            receivers.push(receiver);
        }
        self.pager.sleeper.wake();
        receivers
            .into_iter()
            .map(|receiver| self.wait_for_page(receiver))
            .collect()
    }

    /// Lets time pass on behalf of a client that wants to try something again.
    pub fn pause(&self, nanos: Nanos) {
        match &self.sim {
            Some(sim) => sim.pause(self, nanos),
            None => std::thread::sleep(Duration::from_nanos(nanos)),
        }
    }

    // ---- running actors ----

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
        if helps {
            self.see_to(kicks, outbox);
        } else {
            self.wake(&kicks);
        }
        self.leave_log_task();
        step
    }

    /// Calls the threads of the actors that got messages.
    fn wake(&self, kicks: &Kicks) {
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
            let _ = sender.send(result.map(|frame| HeldFrame::new(&self.shared, frame)));
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
    fn see_to(&self, kicks: Kicks, outbox: &mut Outbox) {
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
    fn see_to_alone(&self, kicks: Kicks) {
        let mut outbox = self.empty_outboxes().pop().unwrap_or_default();
        self.see_to(kicks, &mut outbox);
        let mut kept = self.empty_outboxes();
        if kept.len() < EMPTY_OUTBOXES_MAX {
            kept.push(outbox);
        }
    }

    /// Calls the commit actor's thread if a log task is out: for those who don't wait for an answer, and so don't
    /// write the log themselves.
    fn leave_log_task(&self) {
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
            // Whoever has the seat will look at the mailboxes again.
            let Some(step) = step else { return };
            seat.leave_deadline();
            if !seat.more(step) {
                return;
            }
        }
        seat.sleeper.wake();
    }

    // ---- the log ----

    /// Runs the commit actor, if it is idle, and whoever gets messages from it.
    fn run_commit(&self) {
        self.see_to_alone(Kicks::commit());
    }

    /// Takes up the log task that is out, if there is one, and carries it out in this thread. A thread that isn't
    /// the commit actor's own (`inline`) only does so while that one sleeps.
    pub(super) fn run_log_task(&self, inline: bool) -> bool {
        if inline && !self.commit.sleeper.is_asleep() {
            return false;
        }
        // Before the task is taken: closing takes away what nobody has taken up.
        let files_closed = self.files_closed.read().unwrap_or_else(PoisonError::into_inner);
        let Some(task) = self.log_task().take() else {
            return false;
        };
        let result = match &self.log_files {
            Some(files) => files.execute(&task),
            None => Ok(()),
        };
        drop(files_closed);
        let buffer = task.write.map(|write| write.buffer);
        self.commit.tell(CommitMessage::LogDone { result, buffer });
        self.run_commit();
        true
    }

    pub(super) fn log_task(&self) -> MutexGuard<'_, Option<LogTask>> {
        self.log_task
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn empty_outboxes(&self) -> MutexGuard<'_, Vec<Outbox>> {
        self.empty_outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn file_tasks(&self) -> MutexGuard<'_, VecDeque<FileTask>> {
        self.file_tasks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Carries out slow work on files, in the flusher's thread.
    pub(super) fn run_file_task(&self, task: FileTask) {
        let page_bytes = self.shared.settings.page_bytes as u64;
        match task {
            FileTask::Segment(job) => {
                let result = self.log_files.as_ref().map_or(Ok(()), |files| files.prepare(job));
                self.commit.tell(CommitMessage::SegmentDone { result });
                if self.sim.is_some() {
                    return;
                }
                self.run_commit();
                self.leave_log_task();
            }
            FileTask::Grow { pages } => {
                let result = self.data.grow(u64::from(pages) * page_bytes).map(|()| pages);
                self.flusher.tell(FlusherMessage::Grown { result });
            }
            FileTask::Truncate { pages } => {
                let result = self.data.truncate(u64::from(pages) * page_bytes);
                self.flusher.tell(FlusherMessage::Truncated { result });
            }
        }
    }
}
