//! The end of a database: what was sent is carried out, everything is made durable, the threads end, the directory is
//! given back.
//!
//! # Guarantees
//! - Once: later calls wait for the first and find nothing left to do.
//! - Nothing is acknowledged and lost: writes are refused before the last flush.
//! - Every ticket is resolved: with its result, or as [`Error::Closed`].
//! - The last handle may be dropped anywhere, also inside the database (by a closure given to `update`, by a waker):
//!   where waiting is not possible a thread of its own closes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use treering_engine::{ShardId, TreeId};
use treering_io::DirectoryLock;

use crate::commit::CommitMessage;
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::options::Durability;
use crate::runtime::{Runtime, Threads, is_inside, spawn_detached};
use crate::shard::{Action, Request};
use crate::ticket::{Ticket, ticket};

/// What a running database has to give back.
#[derive(Debug)]
pub(super) struct Running {
    pub threads: Threads,
    /// Given back last, when no thread touches the files any more.
    pub lock: Option<DirectoryLock>,
}

/// What is left to end; nothing afterwards. Held locked until the end is reached, so that others wait for it.
#[derive(Debug)]
pub(super) struct Ending(Mutex<Option<Running>>);

impl Ending {
    pub fn new(running: Running) -> Ending {
        Ending(Mutex::new(Some(running)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the database. Runs once; later calls find nothing to end.
    pub fn close(&self, runtime: &Arc<Runtime>) -> Result<()> {
        runtime.check_wait()?;
        let mut running = self.lock();
        running.take().map_or(Ok(()), |running| running.close(runtime))
    }

    /// For the last handle, wherever it is dropped.
    pub fn close_from_drop(&mut self, runtime: &Arc<Runtime>) {
        let Some(running) = self.lock().take() else { return };
        if !is_inside() {
            return report(running.close(runtime));
        }
        let runtime = Arc::clone(runtime);
        // Shared, so that a thread that can't be had takes nothing with it.
        let running = Arc::new(Mutex::new(Some(running)));
        let handed = Arc::clone(&running);
        let spawned = spawn_detached("treering-close", move || {
            let running = handed.lock().unwrap_or_else(PoisonError::into_inner).take();
            report(running.map_or(Ok(()), |running| running.close(&runtime)));
        });
        if let Err(error) = spawned {
            // Its threads go on: the directory must stay locked for as long as the process lives.
            tracing::error!(%error, "no thread for closing the database: it stays open");
            std::mem::forget(running);
        }
    }

    /// Ends a simulated database as a crash does: nothing is drained, nothing is written.
    pub fn abandon(&self, runtime: &Runtime) {
        let running = self.lock().take();
        runtime.shared.status.close();
        runtime.retire();
        drop(running);
    }
}

fn report(result: Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, "closing the database failed");
    }
}

impl Running {
    fn close(self, runtime: &Arc<Runtime>) -> Result<()> {
        // First: a buffered write that was taken after the last flush would be acknowledged and lost.
        runtime.shared.status.close();
        let result = drain(runtime);
        self.threads.stop(runtime);
        runtime.retire();
        drop(self.lock);
        result
    }
}

/// Waits until everything that was sent is carried out, then writes the last checkpoint.
fn drain(runtime: &Arc<Runtime>) -> Result<()> {
    if let Some(cause) = runtime.shared.status.cause() {
        return Err(Error::Poisoned { cause });
    }
    let mut result = Ok(());
    // What is on its way from one shard to another (`shard/moves`) arrives first.
    let _passage = runtime.pass()?;
    for shard in 0..runtime.shards.len() {
        // At most 256 shards.
        let shard = ShardId(shard as u16);
        let (reply, ticket) = ticket(runtime, Some(shard), |_| ());
        let request = Request {
            tree: TreeId(0),
            action: Action::Batch { records: Vec::new() },
            durability: Durability::Sync,
            reply,
            credit: None,
        };
        let sent = runtime.send(shard, request, true);
        result = result.and(sent.map_or(Err(Error::WouldDeadlock), |()| ticket.wait()));
    }
    result = result.and_then(|()| flush(runtime)?.wait());
    if runtime.shared.settings.in_memory || runtime.shared.status.is_poisoned() {
        return result;
    }
    let (reply, ticket) = ticket(runtime, None, |_| ());
    runtime.send_flusher(FlusherMessage::Close { reply });
    // A checkpoint that fails for want of space leaves everything in the log: nothing is lost.
    match ticket.wait() {
        Err(Error::OutOfSpace { what }) => {
            tracing::warn!(what, "no room for the last checkpoint; the log keeps everything");
            result
        }
        other => result.and(other),
    }
}

/// Asks for everything that was acknowledged to become durable.
pub(super) fn flush(runtime: &Arc<Runtime>) -> Result<Ticket<()>> {
    if runtime.shared.settings.in_memory {
        return Ok(Ticket::done(runtime));
    }
    let (reply, ticket) = ticket(runtime, None, |_| ());
    if runtime.shared.settings.log {
        runtime.send_commit(CommitMessage::Flush { reply });
    } else {
        runtime.send_flusher(FlusherMessage::Checkpoint { reply });
    }
    Ok(ticket)
}
