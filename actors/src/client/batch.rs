//! Batches: several writes that become visible, and durable, as one.

use std::sync::Arc;

use treering_engine::log::RecordWriter;
use treering_engine::{ShardId, TreeId};

use super::db::Inner;
use super::tree::Tree;
use super::write::owner;
use crate::blob::blobs_in;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::runtime::Passage;
use crate::shard::{Action, Request, Transaction, ValueKind, changes, split};
use crate::shared::with_guard;
use crate::ticket::{Held, Ticket, ticket};

/// Writes that are applied together or not at all, at every snapshot and after every crash.
///
/// The trees may be any, on any shards. Over several shards a batch is a transaction without reads: it costs a few
/// messages between them, and one sync like any other write.
#[must_use = "a batch does nothing before it is committed"]
pub struct Batch {
    inner: Arc<Inner>,
    /// The writes, encoded as the log will hold them.
    records: Vec<u8>,
    writes: usize,
    /// The first bad argument: told by `commit`.
    failure: Option<Error>,
    durability: Durability,
}

impl Batch {
    pub(super) fn new(inner: Arc<Inner>) -> Batch {
        let durability = inner.runtime.shared.settings.durability;
        Batch {
            inner,
            records: Vec::new(),
            writes: 0,
            failure: None,
            durability,
        }
    }

    /// Adds a write. Later writes of the same key win.
    pub fn put(&mut self, tree: &Tree, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Batch {
        self.add(tree, key.as_ref(), Some(value.as_ref()))
    }

    /// Adds a removal.
    pub fn delete(&mut self, tree: &Tree, key: impl AsRef<[u8]>) -> &mut Batch {
        self.add(tree, key.as_ref(), None)
    }

    fn add(&mut self, tree: &Tree, key: &[u8], value: Option<&[u8]>) -> &mut Batch {
        if self.failure.is_none()
            && let Err(error) = self.try_add(tree, key, value)
        {
            self.failure = Some(error);
        }
        self
    }

    fn try_add(&mut self, tree: &Tree, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.inner.check_key(key)?;
        let tree = tree.id_in(&self.inner)?;
        self.inner.check_tree(tree)?;
        match value {
            None => RecordWriter(&mut self.records).delete(tree, key),
            Some(value) if value.len() <= self.inner.inline_bytes_max() => {
                RecordWriter(&mut self.records).put(tree, key, value);
            }
            Some(value) => {
                let (pair, kind) = self.inner.pack(key, value)?;
                debug_assert_eq!(kind, ValueKind::Blob);
                RecordWriter(&mut self.records).put_blob(tree, key, pair.value());
            }
        }
        self.writes += 1;
        Ok(())
    }

    /// Sets what [`commit`](Batch::commit) promises.
    pub fn durability(mut self, durability: Durability) -> Batch {
        self.durability = durability;
        self
    }

    /// Number of writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes == 0
    }

    /// Applies all writes, or none.
    ///
    /// # Errors
    /// The first bad argument of the batch, [`Error::ForeignTree`] among them; [`Error::TransactionTooLarge`]; and as
    /// [`Tree::put`].
    pub fn commit(self) -> Result<()> {
        self.dispatch(true)?.wait()
    }

    /// As [`commit`](Batch::commit), pipelined: the ticket tells when it is done. Batches and writes that one thread
    /// sends take effect in that order where they concern the same key: behind a batch over several shards, sending a
    /// write of one of its keys waits until it is answered.
    ///
    /// # Errors
    /// Bad arguments are reported at once, the rest by the ticket.
    pub fn send(self) -> Result<Ticket<()>> {
        self.dispatch(false)
    }

    /// Sends the batch. `wait`: the caller is going to wait for it at once.
    fn dispatch(mut self, wait: bool) -> Result<Ticket<()>> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.inner.runtime.shared.status.check_write()?;
        self.inner.wait_for_keys(changes(&self.records))?;
        let passage = self.inner.runtime.pass()?;
        // An empty batch is answered by any shard, after what was sent to it before.
        let Some(shard) = self.owner()? else {
            return self.send_over_shards(passage, wait);
        };
        let (reply, ticket) = ticket(&self.inner.runtime, wait.then_some(shard), |_| ());
        let action = Action::Batch {
            records: std::mem::take(&mut self.records),
        };
        let request = Request {
            tree: TreeId(0),
            action,
            durability: self.durability,
            reply: reply.holding(Held { passage, keys: None }),
            credit: None,
        };
        if let Err(refused) = self.inner.runtime.send(shard, request, wait) {
            if let Action::Batch { records } = refused.action {
                // Its large values are given back by `drop`.
                self.records = records;
            }
            return Err(Error::WouldDeadlock);
        }
        if !wait {
            self.inner.fences.pipelined(shard);
        }
        Ok(ticket)
    }

    /// The shard that owns all keys, if there is one.
    fn owner(&self) -> Result<Option<ShardId>> {
        let runtime = &self.inner.runtime;
        if runtime.shards.len() == 1 {
            return Ok(Some(ShardId(0)));
        }
        with_guard(&runtime.shared.memory, |guard| {
            let version = runtime.shared.current.load(guard);
            let mut owners = changes(&self.records).map(|(tree, key)| owner(version, tree, key));
            let first = owners.next().unwrap_or(Ok(ShardId(0)))?;
            for owner in owners {
                if owner? != first {
                    return Ok(None);
                }
            }
            Ok(Some(first))
        })
    }

    fn send_over_shards(&mut self, passage: Option<Passage>, wait: bool) -> Result<Ticket<()>> {
        let shared = &self.inner.runtime.shared;
        let parts = with_guard(&shared.memory, |guard| {
            split(&self.records, &shared.current.load(guard).directory)
        })?;
        let transaction = Transaction {
            number: shared.next_transaction(),
            parts,
            durability: self.durability,
            snapshot: None,
        };
        // They are the transaction's now, and so are the large values that they name.
        self.records.clear();
        self.inner.send_transaction(transaction, passage, wait)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Large values were written when they were added; without a commit nobody names them.
        let extents: Vec<_> = blobs_in(&self.records).collect();
        if !extents.is_empty() {
            self.inner
                .runtime
                .send_flusher(crate::flusher::FlusherMessage::Release { extents });
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("writes", &self.writes)
            .finish_non_exhaustive()
    }
}
