//! Batches: several writes that become visible, and durable, as one.

use std::sync::Arc;

use treering_engine::TreeId;

use super::db::Inner;
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::shard::{Action, Request, ValueKind, Write, WriteChange};
use crate::ticket::{Ticket, ticket};

/// Writes that are applied together or not at all, at every snapshot and after every crash.
///
/// All trees of one batch must live on one shard (with the default of one shard on two cores they always do);
/// otherwise [`commit`](Batch::commit) says [`Error::CrossShard`].
#[must_use = "a batch does nothing before it is committed"]
pub struct Batch {
    inner: Arc<Inner>,
    writes: Vec<Write>,
    /// The first bad argument: told by `commit`.
    failure: Option<Error>,
    durability: Durability,
}

impl Batch {
    pub(super) fn new(inner: Arc<Inner>) -> Batch {
        let durability = inner.runtime.shared.settings.durability;
        Batch { inner, writes: Vec::new(), failure: None, durability }
    }

    /// Adds a write. Later writes of the same key win.
    pub fn put(&mut self, tree: &Tree, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Batch {
        let (key, value) = (key.as_ref(), value.as_ref());
        if self.failure.is_none() {
            match self.inner.check_key(key).and_then(|()| self.inner.pack(key, value)) {
                Ok((pair, kind)) => {
                    self.writes.push(Write { tree: tree.id, change: WriteChange::Put(pair, kind) });
                }
                Err(error) => self.failure = Some(error),
            }
        }
        self
    }

    /// Adds a removal.
    pub fn delete(&mut self, tree: &Tree, key: impl AsRef<[u8]>) -> &mut Batch {
        let key = key.as_ref();
        if self.failure.is_none() {
            match self.inner.check_key(key) {
                Ok(()) => {
                    self.writes.push(Write { tree: tree.id, change: WriteChange::Delete(key.into()) });
                }
                Err(error) => self.failure = Some(error),
            }
        }
        self
    }

    /// Sets what [`commit`](Batch::commit) promises.
    pub fn durability(mut self, durability: Durability) -> Batch {
        self.durability = durability;
        self
    }

    /// Number of writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Sends all writes as one request. `wait`: the caller is going to wait for it at once.
    pub(super) fn send(mut self, wait: bool) -> Result<Ticket<()>> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.inner.runtime.shared.status.check_write()?;
        let mut owner = None;
        for write in &self.writes {
            let shard = self.inner.owner(write.tree, write.change.key())?;
            if *owner.get_or_insert(shard) != shard {
                return Err(Error::CrossShard);
            }
        }
        let tree = self.writes.first().map_or(TreeId(0), |first| first.tree);
        let shard = owner.unwrap_or_default();
        let (reply, ticket) = ticket(&self.inner.runtime, wait.then_some(shard), |_| ());
        let action = Action::Batch { writes: std::mem::take(&mut self.writes) };
        self.inner.runtime.send(shard, Request { tree, action, durability: self.durability, reply }, wait);
        Ok(ticket)
    }

    /// Applies all writes, or none.
    ///
    /// # Errors
    /// The first bad argument of the batch, [`Error::TransactionTooLarge`], [`Error::CrossShard`], and as
    /// [`Tree::put`].
    pub fn commit(self) -> Result<()> {
        if self.failure.is_none() && self.writes.is_empty() {
            return Ok(());
        }
        self.send(true)?.wait()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Large values were written when they were added; without a commit nobody names them.
        let extents: Vec<_> = self
            .writes
            .iter()
            .filter_map(|write| match &write.change {
                WriteChange::Put(pair, ValueKind::Blob) => Some(pair.value()),
                WriteChange::Put(..) | WriteChange::Delete(_) => None,
            })
            .flat_map(|descriptor| super::blob_extents(descriptor).map(|retired| retired.extent))
            .collect();
        if !extents.is_empty() {
            self.inner.runtime.send_flusher(crate::flusher::FlusherMessage::Release { extents });
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("writes", &self.writes.len()).finish_non_exhaustive()
    }
}
