//! What the threads of one database share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use treering_engine::ShardId;
use treering_io::{File, Operation};

use super::credit::Credits;
use super::files::LogFiles;
use super::seat::Seat;
use super::sim::Sim;
use crate::actor::{Nanos, Outbox};
use crate::commit::{Commit, LogTask};
use crate::flusher::{FileTask, Flusher};
use crate::pager::Pager;
use crate::shard::Shard;
use crate::shared::Shared;

/// Pages of publications that wait for the flusher before its thread is woken: those that they replaced, about as many, are
/// not free before.
const FLUSHER_PAGES_LAZY: std::ops::RangeInclusive<usize> = 64..=4096;

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
    pub(super) log_task: Mutex<Option<LogTask>>,
    /// Operations for the pager's device.
    pub(super) operations: Mutex<Vec<Operation>>,
    pub(super) file_tasks: Mutex<VecDeque<FileTask>>,
    pub(super) stopping: AtomicBool,
    /// Clients that write files on the way hold it shared, so that closing waits for them. (Bad run: a client is about to
    /// write the log, the directory's lock is given back, and another process recovers what this write then destroys.)
    pub(super) files_in_use: RwLock<()>,
    pub(super) started: Started,
    /// Threads that sleep until their answers come.
    pub(super) sleeping: AtomicUsize,
    /// Threads that look for their answers before they sleep.
    pub(super) yielding: AtomicUsize,
    /// The bytes that clients may have under way.
    pub(super) credits: Credits,
    /// Pages of publications since the flusher was last called.
    pub(super) flusher_untold_pages: AtomicUsize,
    pub(super) flusher_pages_lazy: usize,
    /// Outboxes of clients that have run actors, for others that will: see [`EmptyLists`](crate::shard::EmptyLists).
    pub(super) empty_outboxes: Mutex<Vec<Outbox>>,
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
        let shard_requests = sim
            .as_ref()
            .and_then(Sim::mailbox_requests)
            .unwrap_or(SHARD_REQUESTS);
        let pager = Pager::new(Arc::clone(&shared), Arc::clone(&data));
        Runtime {
            sim,
            shards: shards
                .into_iter()
                .map(|shard| Seat::new(&shared, shard, shard_requests, SHARD_REQUESTS_PER_STEP, LANE))
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
            files_in_use: RwLock::default(),
            started: Started::now(),
            credits: Credits::new(shared.settings.credit_bytes),
            sleeping: AtomicUsize::new(0),
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

    pub(super) fn shard(&self, id: ShardId) -> &Seat<Shard> {
        &self.shards[usize::from(id.0)]
    }

    /// The end, after that of the threads: nobody touches the files any more, and whoever still waits for an answer is
    /// told that there will be none.
    pub fn retire(&self) {
        self.shards.iter().for_each(Seat::retire);
        self.commit.retire();
        self.flusher.retire();
        self.pager.retire();
        // What nobody has taken up until now, nobody may take up any more; nothing new comes from actors that have ended.
        let _no_file_in_use = self.files_in_use.write().unwrap_or_else(PoisonError::into_inner);
        drop(self.log_task().take());
        self.operations().clear();
        self.file_tasks().clear();
    }

    /// For a sender that finds the database closed: its message may have come too late to be dropped with the rest.
    pub(super) fn discard_what_came_late(&self) {
        fence(Ordering::SeqCst);
        self.shards.iter().for_each(Seat::discard_if_retired);
        self.commit.discard_if_retired();
        self.flusher.discard_if_retired();
        self.pager.discard_if_retired();
    }

    pub(super) fn log_task(&self) -> MutexGuard<'_, Option<LogTask>> {
        self.log_task
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn empty_outboxes(&self) -> MutexGuard<'_, Vec<Outbox>> {
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
}
