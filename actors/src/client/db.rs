//! The database and its clients: opening, closing, trees.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use treering_engine::Seq;

use super::backup::Backup;
use super::batch::Batch;
use super::close::{Ending, Running, flush};
use super::diff::{Diff, check_own};
use super::fence::Fences;
use super::snapshot::Snapshot;
use super::tree::Tree;
use crate::actor::Nanos;
use crate::commit::{CommitMessage, DROPPED_PREFIX, TreeChange};
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::options::{Durability, Options};
use crate::recovery::{self, Claimed};
use crate::runtime::{KeysAhead, Runtime};
use crate::shard::Action;
use crate::shared::{Version, with_guard};
use crate::stats::Stats;
use crate::ticket::{Outcome, Ticket, ticket};

/// Longest name of a tree, bytes.
const TREE_NAME_BYTES_MAX: usize = 1024;

/// How long a client waits for the flusher to hear of a group before it asks again.
const FLUSHER_BEHIND_NANOS: Nanos = 10_000;

/// Longest name of a snapshot, bytes.
const SNAPSHOT_NAME_BYTES_MAX: usize = 1024;

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
    pub(super) fences: Fences,
    pub(super) ahead: KeysAhead,
    path: Option<PathBuf>,
    ending: Ending,
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

    /// Opens what a restore has put into a directory, which it has claimed.
    pub(crate) fn open_restored(claimed: Claimed, path: &Path, options: &Options) -> Result<Db> {
        let opened = recovery::open_restored(claimed, path, options, None)?;
        Ok(Db::start(opened, Some(path.into())))
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
            fences: Fences::new(runtime.shards.len()),
            ahead: KeysAhead::default(),
            runtime,
            path,
            ending: Ending::new(Running { threads, lock }),
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

    /// Makes everything that was acknowledged before this call durable, and waits for that. With the log switched off
    /// this is a checkpoint; in memory it does nothing.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::OutcomeUnknown`], [`Error::Closed`], [`Error::WouldDeadlock`].
    pub fn flush(&self) -> Result<()> {
        self.inner.runtime.check_wait()?;
        self.send_flush()?.wait()
    }

    /// As [`flush`](Db::flush), without waiting: the ticket tells when it is done.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and [`Error::Closed`] at once; the rest by the ticket.
    pub fn send_flush(&self) -> Result<Ticket<()>> {
        self.inner.runtime.shared.status.check_write()?;
        flush(&self.inner.runtime)
    }

    /// Writes a checkpoint: afterwards opening needs none of the log before it. Readers and writers go on. Takes as long
    /// as writing all pages that changed since the last one.
    ///
    /// # Errors
    /// [`Error::OutOfSpace`], [`Error::Io`], [`Error::Poisoned`], [`Error::Closed`], [`Error::WouldDeadlock`].
    pub fn checkpoint(&self) -> Result<()> {
        self.inner.runtime.check_wait()?;
        self.send_checkpoint()?.wait()
    }

    /// As [`checkpoint`](Db::checkpoint), without waiting: the ticket tells when it is done.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and [`Error::Closed`] at once; the rest by the ticket.
    pub fn send_checkpoint(&self) -> Result<Ticket<()>> {
        self.inner.runtime.shared.status.check_write()?;
        let (reply, ticket) = self.inner.ticket(|_| ());
        self.inner
            .runtime
            .send_flusher(FlusherMessage::Checkpoint { reply });
        Ok(ticket)
    }

    /// Takes a snapshot of all trees that survives reopening, until it is dropped by name. Writes a checkpoint, and
    /// returns when that is durable: readers and writers go on meanwhile, and what they write until it begins may be in
    /// the snapshot; what could be read before this call is.
    ///
    /// As long as it exists, the pages that it alone reaches stay on disk: at most one old copy of what was changed
    /// since.
    ///
    /// # Errors
    /// [`Error::SnapshotExists`], [`Error::SnapshotNameInvalid`]; [`Error::OutOfSpace`] for more than 1024 of them too;
    /// [`Error::Io`], [`Error::Poisoned`], [`Error::Closed`]. If the database was poisoned or the process killed
    /// meanwhile, the snapshot may be there after reopening.
    pub fn create_named_snapshot(&self, name: &str) -> Result<Snapshot> {
        check_snapshot_name(name)?;
        self.inner.runtime.shared.status.check_write()?;
        // The checkpoint takes the newest version that the flusher knows of, which shall not be older than what the
        // caller may have read: whether it is still kept or not, the flusher has heard of that now.
        match self.inner.version_at(self.inner.hold_current().seq) {
            Ok(_) | Err(Error::VersionGone { .. }) => {}
            Err(error) => return Err(error),
        }
        let name = Arc::from(name);
        let version = self
            .inner
            .ask_flusher(|reply| FlusherMessage::CreateNamed { name, reply })??;
        Ok(Snapshot {
            inner: Arc::clone(&self.inner),
            version,
        })
    }

    /// The snapshot that was given this name. O(named snapshots).
    ///
    /// # Errors
    /// [`Error::SnapshotNotFound`], [`Error::Closed`].
    pub fn named_snapshot(&self, name: &str) -> Result<Snapshot> {
        self.inner.runtime.shared.status.check_read()?;
        let mut named = self
            .inner
            .ask_flusher(|reply| FlusherMessage::ListNamed { reply })?;
        let version = named
            .remove(name)
            .ok_or_else(|| Error::SnapshotNotFound { name: name.into() })?;
        Ok(Snapshot {
            inner: Arc::clone(&self.inner),
            version,
        })
    }

    /// Names of all named snapshots, in byte order.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn named_snapshot_names(&self) -> Result<Vec<String>> {
        self.inner.runtime.shared.status.check_read()?;
        let named = self
            .inner
            .ask_flusher(|reply| FlusherMessage::ListNamed { reply })?;
        Ok(named.into_keys().map(|name| name.to_string()).collect())
    }

    /// Drops a named snapshot. Writes a checkpoint, and returns when that is durable: then exactly the pages that only
    /// this snapshot held are free, or will be when the last [`Snapshot`] of it is gone.
    ///
    /// # Errors
    /// [`Error::SnapshotNotFound`]; [`Error::OutOfSpace`], [`Error::Io`], [`Error::Poisoned`], [`Error::Closed`]. After
    /// an error of the last four it is still there, or after reopening at the latest either there or gone.
    pub fn drop_named_snapshot(&self, name: &str) -> Result<()> {
        self.inner.runtime.shared.status.check_write()?;
        let name = Arc::from(name);
        self.inner
            .ask_flusher(|reply| FlusherMessage::DropNamed { name, reply })?
    }

    /// Copies the database as it is now into a directory, which must be empty or not exist, while readers and writers
    /// go on. The copy is a database of its own: open it where it is. It holds everything that was acknowledged before
    /// this call, and is durable and complete when this returns; before that the directory can't be opened, and the
    /// call may be repeated. Named snapshots are not in it.
    ///
    /// Reads every page in use once, past the cache, and checks it. Takes a few MiB of memory.
    ///
    /// # Errors
    /// [`Error::BackupExists`], [`Error::NotADatabase`] if something else is in the directory; [`Error::Corrupt`],
    /// [`Error::OutOfSpace`], [`Error::Io`], [`Error::Closed`].
    pub fn backup(&self, directory: impl AsRef<Path>) -> Result<Backup> {
        self.inner.runtime.shared.status.check_read()?;
        let version = super::backup::hold(&self.inner);
        self.inner.backup_to(&version, directory.as_ref())
    }

    /// Counters and gauges. Disturbs nobody; costs microseconds, and more the more threads read.
    #[must_use]
    pub fn stats(&self) -> Stats {
        // In an idle database nobody else tells the flusher that a version died.
        self.inner.runtime.flusher.sleeper.wake();
        Stats::gather(&self.inner.runtime)
    }

    /// Carries out what was sent, makes it durable, writes a last checkpoint and ends all threads. Other handles
    /// say [`Error::Closed`] afterwards, and so do tickets of requests that came too late. Dropping the last handle does
    /// the same, and leaves errors to `tracing`.
    ///
    /// # Errors
    /// What kept the last writes from becoming durable; [`Error::WouldDeadlock`] inside of an update closure.
    pub fn close(self) -> Result<()> {
        self.inner.ending.close(&self.inner.runtime)
    }
}

impl Client {
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Opens a tree, creating it, durably, if it doesn't exist.
    ///
    /// # Errors
    /// [`Error::TreeNameInvalid`], [`Error::Poisoned`], [`Error::OutcomeUnknown`], [`Error::OutOfSpace`],
    /// [`Error::Closed`], [`Error::WouldDeadlock`].
    pub fn tree(&self, name: &str) -> Result<Tree> {
        loop {
            match self.open_tree(name) {
                Err(Error::TreeNotFound { .. }) => {}
                other => return other,
            }
            match self.create(name, false) {
                // Somebody has dropped it at once.
                Err(Error::TreeNotFound { .. }) => {}
                other => return other,
            }
        }
    }

    /// Creates a tree, durably.
    ///
    /// # Errors
    /// [`Error::TreeExists`]; [`Error::TreeNotFound`], if somebody drops it at once; and as [`tree`](Client::tree).
    pub fn create_tree(&self, name: &str) -> Result<Tree> {
        self.create(name, true)
    }

    fn create(&self, name: &str, must_be_new: bool) -> Result<Tree> {
        self.inner.runtime.check_wait()?;
        self.send_create(name, must_be_new)?.wait()?;
        self.open_tree(name)
    }

    pub(super) fn send_create(&self, name: &str, must_be_new: bool) -> Result<Ticket<()>> {
        check_name(name)?;
        self.inner.runtime.shared.status.check_write()?;
        let (reply, ticket) = self.inner.ticket(|_| ());
        self.inner.runtime.send_commit(CommitMessage::ChangeTrees {
            change: TreeChange::Create {
                name: name.into(),
                must_be_new,
            },
            reply,
        });
        Ok(ticket)
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

    /// Removes a tree with everything in it, durably. Its space comes back in the background. Snapshots that show it
    /// still do; another tree may have its name.
    ///
    /// # Errors
    /// [`Error::TreeNotFound`], and as [`Tree::put`].
    pub fn drop_tree(&self, name: &str) -> Result<()> {
        self.drop_ticket(name, true)?.wait()
    }

    /// As [`drop_tree`](Client::drop_tree), pipelined.
    ///
    /// # Errors
    /// [`Error::TreeNotFound`] at once, if there is no such tree now; else as [`Tree::send_put`].
    pub fn send_drop_tree(&self, name: &str) -> Result<Ticket<()>> {
        self.drop_ticket(name, false)
    }

    fn drop_ticket(&self, name: &str, wait: bool) -> Result<Ticket<()>> {
        let tree = self.open_tree(name)?;
        self.inner
            .send_for_tree(tree.id, Action::DropTree, Durability::Sync, wait, |_| ())
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

impl Client {
    /// All trees as they were after commit group `seq` ([`Snapshot::seq`]): the newest retained version that is not
    /// newer. How far back that reaches is the database's [`Retention`](crate::Retention); the newest version and
    /// those of named snapshots can always be had.
    ///
    /// # Errors
    /// [`Error::VersionGone`] if nothing so old is retained, or `seq` has not been reached; [`Error::Closed`].
    pub fn snapshot_at(&self, seq: u64) -> Result<Snapshot> {
        self.inner.runtime.shared.status.check_read()?;
        Ok(Snapshot {
            version: self.inner.version_at(Seq(seq))?,
            inner: Arc::clone(&self.inner),
        })
    }

    /// The keys of a tree whose values differ between two snapshots, in key order, with both values. Takes time in
    /// proportion to what differs: what both share is not read. Where the tree isn't there in one of them, it has no
    /// keys there.
    ///
    /// # Errors
    /// [`Error::ForeignSnapshot`] and [`Error::ForeignTree`] for those of another database; [`Error::TreeNotFound`] if
    /// the tree is in neither snapshot; [`Error::Closed`]. Each item may be [`Error::Corrupt`] or [`Error::Io`], which ends the iteration.
    pub fn diff(&self, older: &Snapshot, newer: &Snapshot, tree: &Tree) -> Result<Diff> {
        self.inner.runtime.shared.status.check_read()?;
        for snapshot in [older, newer] {
            check_own(&self.inner, &snapshot.inner)?;
        }
        let tree = tree.id_in(&self.inner)?;
        Diff::new(
            Arc::clone(&self.inner),
            Arc::clone(&older.version),
            Arc::clone(&newer.version),
            tree,
        )
    }
}

pub(super) fn check_name(name: &str) -> Result<()> {
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

fn check_snapshot_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > SNAPSHOT_NAME_BYTES_MAX {
        "it is longer than 1024 bytes"
    } else {
        return Ok(());
    };
    Err(Error::SnapshotNameInvalid {
        name: name.into(),
        reason,
    })
}

impl Inner {
    /// Sends the flusher a question and waits for the answer.
    fn ask_flusher<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> FlusherMessage) -> Result<T> {
        self.runtime.check_wait()?;
        let (sender, receiver) = oneshot::channel();
        self.runtime.send_flusher(question(sender));
        self.runtime.wait(receiver, None).ok_or(Error::Closed)
    }

    /// The version that was the newest one after commit group `seq`. A group can be read a moment before the flusher
    /// hears of it: then it is asked again.
    fn version_at(&self, seq: Seq) -> Result<Arc<Version>> {
        loop {
            let published = self.hold_current().seq;
            let answer = self.ask_flusher(|reply| FlusherMessage::VersionAt { seq, reply })?;
            match answer {
                // Once the database is poisoned, nobody may be left who tells it.
                Err(Error::VersionGone { newest, .. })
                    if newest < seq.0 && seq <= published && !self.runtime.shared.status.is_poisoned() =>
                {
                    self.runtime.pause(FLUSHER_BEHIND_NANOS);
                }
                answer => return answer,
            }
        }
    }

    pub(super) fn ticket<T>(&self, narrow: fn(Outcome) -> T) -> (crate::ticket::Reply, Ticket<T>) {
        ticket(&self.runtime, None, narrow)
    }

    /// Ends a simulated database as a crash does: nothing is drained, nothing is written.
    pub(crate) fn abandon(&self) {
        self.ending.abandon(&self.runtime);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ending.close_from_drop(&self.runtime);
    }
}
