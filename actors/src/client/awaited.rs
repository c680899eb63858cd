//! What has no ticket, as futures: reads, and what is done rarely and takes long.
//!
//! A *read* does its work when it is polled, on the thread that polls it: it looks at one version from beginning to end,
//! and sends a message only for a page that is not in memory, which it then awaits. It holds one page at a time, and
//! when it is dropped none.
//!
//! *Rare* work (opening, closing, backups, named snapshots) blocks a thread of its own, which goes on to the end even if
//! the future is dropped.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use treering_engine::tree::Miss;
use treering_engine::{PageRef, TreeId};

use super::backup::Backup;
use super::db::{Client, Db, Inner};
use super::node_view::NodeView;
use super::read::{Looked, Lookups, look_up};
use super::snapshot::Snapshot;
use super::tree::Tree;
use crate::blob::{BlobReading, piece_buffer};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::pager::{Kept, PagerMessage, Transfer, TransferKind, TransferReply, Waiter};
use crate::runtime::spawn_detached;
use crate::shared::{HeldFrame, Version, with_reader};
use crate::value::Value;

/// A result to be awaited, in any runtime or none. Can be sent to other threads, and dropped at any time. It is handed out
/// once: polled after that, this says [`Error::Closed`], as a [`Ticket`](crate::Ticket) does.
#[must_use = "futures do nothing unless they are polled"]
pub struct Awaiting<T>(Option<Pin<Box<dyn Future<Output = Result<T>> + Send>>>);

impl<T> Awaiting<T> {
    fn new(future: impl Future<Output = Result<T>> + Send + 'static) -> Awaiting<T> {
        Awaiting(Some(Box::pin(future)))
    }
}

impl<T: Send + 'static> Awaiting<T> {
    /// Runs `work` on a thread of its own, from now on.
    fn on_a_thread(work: impl FnOnce() -> Result<T> + Send + 'static) -> Awaiting<T> {
        let (sender, receiver) = oneshot::channel();
        let spawned = spawn_detached("treering-work", move || {
            // Whoever awaited it may be gone.
            let _ = sender.send(work());
        });
        Awaiting::new(async move {
            spawned.map_err(|error| Error::io("starting a thread", error))?;
            receiver.await.unwrap_or(Err(Error::Closed))
        })
    }
}

impl<T> Future for Awaiting<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let Some(future) = &mut self.0 else {
            return Poll::Ready(Err(Error::Closed));
        };
        let polled = future.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<T> fmt::Debug for Awaiting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaiting").finish_non_exhaustive()
    }
}

impl Tree {
    /// [`get`](Tree::get) as a future. It sees what is published when it is first polled.
    pub fn get_async(&self, key: impl AsRef<[u8]>) -> Awaiting<Option<Value>> {
        let (inner, tree, key) = (Arc::clone(&self.inner), self.id, key.as_ref().to_vec());
        Awaiting::new(async move {
            let version = inner.hold_current();
            inner.get_awaiting(&version, tree, &key).await
        })
    }

    /// [`get_many`](Tree::get_many) as a future. It sees what is published when it is first polled.
    pub fn get_many_async<K: AsRef<[u8]>>(&self, keys: &[K]) -> Awaiting<Vec<Option<Value>>> {
        let (inner, tree) = (Arc::clone(&self.inner), self.id);
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.as_ref().to_vec()).collect();
        Awaiting::new(async move {
            let version = inner.hold_current();
            inner.get_many_awaiting(&version, tree, &keys).await
        })
    }
}

impl Snapshot {
    /// [`get`](Snapshot::get) as a future.
    pub fn get_async(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Awaiting<Option<Value>> {
        let (inner, version) = (Arc::clone(&self.inner), Arc::clone(&self.version));
        let (tree, key) = (tree.id_in(&self.inner), key.as_ref().to_vec());
        Awaiting::new(async move { inner.get_awaiting(&version, tree?, &key).await })
    }

    /// [`get_many`](Snapshot::get_many) as a future.
    pub fn get_many_async<K: AsRef<[u8]>>(&self, tree: &Tree, keys: &[K]) -> Awaiting<Vec<Option<Value>>> {
        let (inner, version) = (Arc::clone(&self.inner), Arc::clone(&self.version));
        let tree = tree.id_in(&self.inner);
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.as_ref().to_vec()).collect();
        Awaiting::new(async move { inner.get_many_awaiting(&version, tree?, &keys).await })
    }
}

impl Options {
    /// [`open`](Options::open) as a future; begins at once, on a thread of its own.
    pub fn open_async(self, directory: impl AsRef<Path>) -> Awaiting<Db> {
        let directory = directory.as_ref().to_owned();
        Awaiting::on_a_thread(move || self.open(directory))
    }
}

impl Db {
    /// [`close`](Db::close) as a future; begins at once, on a thread of its own.
    pub fn close_async(self) -> Awaiting<()> {
        Awaiting::on_a_thread(move || self.close())
    }

    /// [`backup`](Db::backup) as a future; begins at once, on a thread of its own.
    pub fn backup_async(&self, directory: impl AsRef<Path>) -> Awaiting<Backup> {
        let (db, directory) = (self.clone(), directory.as_ref().to_owned());
        Awaiting::on_a_thread(move || db.backup(directory))
    }

    /// [`create_named_snapshot`](Db::create_named_snapshot) as a future; begins at once, on a thread of its own.
    pub fn create_named_snapshot_async(&self, name: &str) -> Awaiting<Snapshot> {
        let (db, name) = (self.clone(), name.to_owned());
        Awaiting::on_a_thread(move || db.create_named_snapshot(&name))
    }

    /// [`drop_named_snapshot`](Db::drop_named_snapshot) as a future; begins at once, on a thread of its own.
    pub fn drop_named_snapshot_async(&self, name: &str) -> Awaiting<()> {
        let (db, name) = (self.clone(), name.to_owned());
        Awaiting::on_a_thread(move || db.drop_named_snapshot(&name))
    }
}

impl Client {
    /// [`tree`](Client::tree) as a future; a tree that is new is created at once.
    pub fn tree_async(&self, name: &str) -> Awaiting<Tree> {
        self.created_async(name, false)
    }

    /// [`create_tree`](Client::create_tree) as a future; the tree is created at once.
    pub fn create_tree_async(&self, name: &str) -> Awaiting<Tree> {
        self.created_async(name, true)
    }

    fn created_async(&self, name: &str, must_be_new: bool) -> Awaiting<Tree> {
        let sent = match self.open_tree(name) {
            Ok(tree) if !must_be_new => Ok(Err(tree)),
            Err(Error::TreeNotFound { .. }) | Ok(_) => self.send_create(name, must_be_new).map(Ok),
            Err(error) => Err(error),
        };
        let (client, name) = (self.clone(), name.to_owned());
        Awaiting::new(async move {
            match sent? {
                Err(present) => Ok(present),
                Ok(ticket) => {
                    ticket.await?;
                    client.open_tree(&name)
                }
            }
        })
    }
}

impl Inner {
    async fn get_awaiting(
        self: &Arc<Inner>,
        version: &Arc<Version>,
        tree: TreeId,
        key: &[u8],
    ) -> Result<Option<Value>> {
        self.check_key(key)?;
        let mut _held = None;
        let mut missed = false;
        loop {
            self.runtime.shared.status.check_read()?;
            let memory = &self.runtime.shared.memory;
            let looked = with_reader(memory, |guard, reader| {
                let looked = look_up(
                    version,
                    NodeView::beside(memory.view(guard), &self.runtime),
                    tree,
                    key,
                )?;
                reader.add_hits(u64::from(!missed));
                Ok(looked)
            });
            match looked {
                Ok(found) => {
                    return match found? {
                        None => Ok(None),
                        Some(Looked::Inline(value)) => Ok(Some(value)),
                        Some(Looked::Blob(descriptor)) => {
                            self.read_blob_awaiting(&descriptor).await.map(Some)
                        }
                    };
                }
                Err(Miss(reference)) => {
                    missed = true;
                    // Given back first, as by readers that block: see `read_version`.
                    _held = None;
                    _held = Some(
                        self.ask_for(reference, version)
                            .await
                            .unwrap_or(Err(Error::Closed))?,
                    );
                }
            }
        }
    }

    async fn get_many_awaiting(
        self: &Arc<Inner>,
        version: &Arc<Version>,
        tree: TreeId,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Value>>> {
        keys.iter().try_for_each(|key| self.check_key(key))?;
        let mut lookups = Lookups::of(keys.len());
        let mut _held: Vec<HeldFrame> = Vec::new();
        loop {
            self.runtime.shared.status.check_read()?;
            let missing = self.look_many(version, tree, keys, &mut lookups)?;
            if missing.is_empty() {
                break;
            }
            _held = Vec::new();
            let asked: Vec<_> = missing
                .into_iter()
                .map(|page| self.ask_for(page, version))
                .collect();
            for answer in asked {
                _held.push(answer.await.unwrap_or(Err(Error::Closed))?);
            }
        }
        drop(_held);
        let Lookups {
            mut values, blobs, ..
        } = lookups;
        for (index, descriptor) in blobs {
            values[index] = Some(self.read_blob_awaiting(&descriptor).await?);
        }
        Ok(values)
    }

    /// Asks for a page of the version to be brought, and held for a future.
    pub(super) fn ask_for(
        &self,
        reference: PageRef,
        version: &Arc<Version>,
    ) -> oneshot::Receiver<Result<HeldFrame>> {
        let (sender, receiver) = oneshot::channel();
        self.runtime.send_pager(PagerMessage::Fetch {
            reference,
            waiter: Waiter::Future {
                sender: sender.into(),
                kept: Arc::clone(version) as Kept,
            },
        });
        receiver
    }

    /// Reads a blob whole, one piece after the other. The caller holds a version that reaches it.
    pub(super) async fn read_blob_awaiting(&self, descriptor: &[u8]) -> Result<Value> {
        let mut reading = BlobReading::begin(descriptor, self.runtime.shared.settings.page_bytes)?;
        for piece in reading.pieces() {
            let (sender, answer) = oneshot::channel();
            // A future can't wait for credit; with a piece at a time it takes little.
            let _credit = self.runtime.credit_now(piece.bytes);
            self.runtime.send_pager(PagerMessage::Transfer(Transfer {
                kind: TransferKind::Read,
                offset: piece.offset,
                buffer: Some(piece_buffer(piece.bytes, &[])),
                reply: TransferReply::Client(sender.into()),
            }));
            let (result, buffer) = answer.await.map_err(|_| Error::Closed)?;
            result.map_err(|error| Error::io("transferring a large value", error))?;
            if let Some(buffer) = buffer {
                reading.take(piece, &buffer);
            }
        }
        reading.finish()
    }
}
