//! The database and its clients: opening, closing, trees.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use treering_io::DirectoryLock;

use super::batch::Batch;
use super::snapshot::Snapshot;
use super::tree::Tree;
use crate::commit::{CommitMessage, DROPPED_PREFIX};
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::options::{Durability, Options};
use crate::recovery;
use crate::runtime::{Runtime, Threads};
use crate::shard::{Action, Request};
use crate::shared::with_guard;
use crate::stats::Stats;
use crate::ticket::{Outcome, Ticket, ticket};

/// Longest name of a tree, bytes.
const TREE_NAME_BYTES_MAX: usize = 1024;

/// An open database. Cheap to clone; closed by [`close`](Db::close), or when the last handle of any kind is
/// dropped.
#[derive(Clone, Debug)]
pub struct Db {
    pub(crate) inner: Arc<Inner>,
}

/// A handle through which a program talks to the actors. Cheap to clone and to send; each thread may have its own or
/// share one.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

/// What all handles of one database share.
pub(crate) struct Inner {
    pub runtime: Arc<Runtime>,
    threads: Mutex<Option<Threads>>,
    path: Option<PathBuf>,
    /// Given back last, when no thread touches the files any more.
    lock: Mutex<Option<DirectoryLock>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the database in `directory` with default [`Options`], creating it if there is none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Db> {
        Options::new().open(directory)
    }

    pub(crate) fn open_directory(directory: &Path, options: Options) -> Result<Db> {
        Ok(Db::start(
            recovery::open_directory(directory, &options)?,
            Some(directory.into()),
        ))
    }

    pub(crate) fn open_memory(options: Options) -> Result<Db> {
        Ok(Db::start(recovery::open_memory(&options)?, None))
    }

    pub(crate) fn start(opened: recovery::Opened, path: Option<PathBuf>) -> Db {
        let recovery::Opened {
            runtime,
            threads,
            lock,
        } = opened;
        let inner = Inner {
            runtime,
            threads: Mutex::new(Some(threads)),
            path,
            lock: Mutex::new(lock),
        };
        Db {
            inner: Arc::new(inner),
        }
    }

    /// A handle for sending requests.
    #[must_use]
    pub fn client(&self) -> Client {
        Client {
            inner: Arc::clone(&self.inner),
        }
    }

    /// Where the database lives; `None` in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner.path.as_deref()
    }

    /// Makes everything that was acknowledged before this call durable. With the log switched off this is a
    /// checkpoint; in memory it does nothing.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::OutcomeUnknown`], [`Error::Closed`].
    pub fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    /// Writes a checkpoint: afterwards opening needs none of the log before it. Readers and writers go on.
    ///
    /// # Errors
    /// [`Error::OutOfSpace`], [`Error::Io`], [`Error::Poisoned`], [`Error::Closed`].
    pub fn checkpoint(&self) -> Result<()> {
        self.inner.runtime.shared.status.check_write()?;
        let (reply, ticket) = self.inner.ticket(|_| ());
        self.inner
            .runtime
            .send_flusher(FlusherMessage::Checkpoint { reply });
        ticket.wait()
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::gather(&self.inner.runtime)
    }

    /// Carries out what was sent, makes it durable, writes a last checkpoint and ends all threads. Other handles
    /// say [`Error::Closed`] afterwards. Dropping the last handle does the same silently.
    ///
    /// # Errors
    /// What kept the last writes from becoming durable.
    pub fn close(self) -> Result<()> {
        self.inner.close()
    }
}

impl Client {
    /// Opens a tree, creating it if it doesn't exist.
    ///
    /// # Errors
    /// [`Error::TreeNameInvalid`], [`Error::Poisoned`], [`Error::OutOfSpace`], [`Error::Closed`].
    pub fn tree(&self, name: &str) -> Result<Tree> {
        match self.open_tree(name) {
            Err(Error::TreeNotFound { .. }) => self.create(name, false),
            other => other,
        }
    }

    /// Creates a tree.
    ///
    /// # Errors
    /// [`Error::TreeExists`], and as [`tree`](Client::tree).
    pub fn create_tree(&self, name: &str) -> Result<Tree> {
        self.create(name, true)
    }

    fn create(&self, name: &str, must_be_new: bool) -> Result<Tree> {
        check_name(name)?;
        self.inner.runtime.shared.status.check_write()?;
        let (reply, ticket) = self.inner.ticket(|_| ());
        self.inner.runtime.send_commit(CommitMessage::CreateTree {
            name: name.into(),
            must_be_new,
            reply,
        });
        ticket.wait()?;
        self.open_tree(name)
    }

    /// Opens a tree that exists.
    ///
    /// # Errors
    /// [`Error::TreeNotFound`], [`Error::TreeNameInvalid`], [`Error::Closed`].
    pub fn open_tree(&self, name: &str) -> Result<Tree> {
        check_name(name)?;
        let shared = &self.inner.runtime.shared;
        shared.status.check_read()?;
        let id = with_guard(&shared.memory, |guard| {
            shared
                .current
                .load(guard)
                .directory
                .by_name(name)
                .map(|tree| tree.id)
        });
        let id = id.ok_or_else(|| Error::TreeNotFound { name: name.into() })?;
        Ok(Tree {
            inner: Arc::clone(&self.inner),
            id,
            name: Arc::from(name),
            durability: shared.settings.durability,
        })
    }

    /// Removes a tree with everything in it. Its space comes back in the background.
    ///
    /// # Errors
    /// [`Error::TreeNotFound`], and as [`Tree::put`].
    pub fn drop_tree(&self, name: &str) -> Result<()> {
        let tree = self.open_tree(name)?;
        self.inner.runtime.shared.status.check_write()?;
        let shard = self.inner.owner(tree.id, &[])?;
        let (reply, ticket) = ticket(&self.inner.runtime, Some(shard), |_| ());
        let request = Request {
            tree: tree.id,
            action: Action::DropTree,
            durability: Durability::Sync,
            reply,
        };
        self.inner.runtime.send(shard, request, true);
        ticket.wait()
    }

    /// Names of all trees, in order.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn tree_names(&self) -> Result<Vec<String>> {
        let shared = &self.inner.runtime.shared;
        shared.status.check_read()?;
        Ok(with_guard(&shared.memory, |guard| {
            let directory = &shared.current.load(guard).directory;
            let names = directory.names().map(|(name, _)| name);
            names
                .filter(|name| !name.starts_with(DROPPED_PREFIX))
                .map(str::to_owned)
                .collect()
        }))
    }

    /// An empty batch, with the database's durability.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.inner))
    }

    /// All trees at this instant: everything that was acknowledged before. O(1).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let shared = &self.inner.runtime.shared;
        let version = with_guard(&shared.memory, |guard| shared.current.hold(guard));
        Snapshot {
            inner: Arc::clone(&self.inner),
            version,
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let invalid = |reason| {
        Err(Error::TreeNameInvalid {
            name: name.into(),
            reason,
        })
    };
    if name.is_empty() {
        return invalid("it is empty");
    }
    if name.len() > TREE_NAME_BYTES_MAX {
        return invalid("it is longer than 1024 bytes");
    }
    if name.contains('\0') {
        return invalid("it contains a NUL character");
    }
    Ok(())
}

impl Inner {
    pub(super) fn ticket<T>(&self, narrow: fn(Outcome) -> T) -> (crate::ticket::Reply, Ticket<T>) {
        ticket(&self.runtime, None, narrow)
    }

    fn flush(&self) -> Result<()> {
        self.runtime.shared.status.check_write()?;
        self.flush_all()
    }

    fn flush_all(&self) -> Result<()> {
        if self.runtime.shared.settings.in_memory {
            return Ok(());
        }
        let (reply, ticket) = self.ticket(|_| ());
        if self.runtime.shared.settings.log {
            self.runtime.send_commit(CommitMessage::Flush { reply });
        } else {
            self.runtime.send_flusher(FlusherMessage::Checkpoint { reply });
        }
        ticket.wait()
    }

    /// Runs once; later calls find no threads.
    fn close(&self) -> Result<()> {
        let mut threads = self
            .threads
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(running) = threads.take() else {
            return Ok(());
        };
        // First: a buffered write that was taken after the last flush would be acknowledged and lost.
        self.runtime.shared.status.close();
        let result = self.drain();
        running.stop(&self.runtime);
        let mut lock = self
            .lock
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(lock.take());
        result
    }

    /// Ends a simulated database as a crash does: nothing is drained, nothing is written.
    pub(crate) fn abandon(&self) {
        let mut threads = self
            .threads
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(threads.take());
        self.runtime.shared.status.close();
        let mut lock = self
            .lock
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(lock.take());
    }

    /// Waits until everything that was sent is carried out, then writes the last checkpoint.
    fn drain(&self) -> Result<()> {
        if let Some(cause) = self.runtime.shared.status.cause() {
            return Err(Error::Poisoned { cause });
        }
        let mut result = Ok(());
        for shard in 0..self.runtime.shards.len() {
            let shard = treering_engine::ShardId(shard as u16);
            let (reply, ticket) = ticket(&self.runtime, Some(shard), |_| ());
            let action = Action::Batch { records: Vec::new() };
            let tree = treering_engine::TreeId(0);
            self.runtime.send(
                shard,
                Request {
                    tree,
                    action,
                    durability: Durability::Sync,
                    reply,
                },
                true,
            );
            result = result.and(ticket.wait());
        }
        result = result.and_then(|()| self.flush_all());
        if self.runtime.shared.settings.in_memory || self.runtime.shared.status.is_poisoned() {
            return result;
        }
        let (reply, ticket) = self.ticket(|_| ());
        self.runtime.send_flusher(FlusherMessage::Close { reply });
        // A checkpoint that fails for want of space leaves everything in the log: nothing is lost.
        match ticket.wait() {
            Err(Error::OutOfSpace { what }) => {
                tracing::warn!(what, "no room for the last checkpoint; the log keeps everything");
                result
            }
            other => result.and(other),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the database failed");
        }
    }
}
