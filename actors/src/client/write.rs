//! Sending writes: checks, large values, and the request to the owner.

use std::sync::Arc;

use treering_engine::{ShardId, TreeId, page};

use super::db::Inner;
use super::read::tree_of;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::shard::{Action, Condition, Pair, Request, Stored, UpdateFunction, ValueKind};
use crate::shared::with_guard;
use crate::ticket::{Outcome, Ticket, ticket};
use crate::value::Value;

impl Inner {
    pub(super) fn check_key(&self, key: &[u8]) -> Result<()> {
        let limit_bytes = page::max_key_bytes(self.runtime.shared.settings.page_bytes);
        if key.is_empty() {
            return Err(Error::KeyEmpty);
        }
        if key.len() > limit_bytes {
            return Err(Error::KeyTooLarge {
                bytes: key.len(),
                limit_bytes,
            });
        }
        Ok(())
    }

    pub(super) fn inline_bytes_max(&self) -> usize {
        page::max_inline_value_bytes(self.runtime.shared.settings.page_bytes)
    }

    /// The shard that owns the key.
    pub(super) fn owner(&self, tree: TreeId, key: &[u8]) -> Result<ShardId> {
        let shared = &self.runtime.shared;
        with_guard(&shared.memory, |guard| {
            let state = tree_of(shared.current.load(guard), tree)?;
            Ok(state.partitions[state.partition_for(key)].owner)
        })
    }

    /// Packs key and value; a value that doesn't fit a leaf is written to a blob first.
    pub(super) fn pack(self: &Arc<Inner>, key: &[u8], value: &[u8]) -> Result<(Pair, ValueKind)> {
        if value.len() as u64 > super::VALUE_BYTES_MAX {
            let bytes = value.len() as u64;
            return Err(Error::ValueTooLarge {
                bytes,
                limit_bytes: super::VALUE_BYTES_MAX,
            });
        }
        if value.len() <= self.inline_bytes_max() {
            return Ok((Pair::new(key, value), ValueKind::Inline));
        }
        let descriptor = self.write_blob(value, true)?;
        Ok((Pair::new(key, &descriptor), ValueKind::Blob))
    }

    fn store(self: &Arc<Inner>, value: &[u8]) -> Result<Stored> {
        Ok(match self.pack(&[], value)? {
            (pair, ValueKind::Inline) => Stored::Inline(pair.value().into()),
            (pair, ValueKind::Blob) => Stored::Blob(pair.value().into()),
        })
    }

    /// Sends a request for one key. `wait`: the caller is going to wait for it at once.
    pub(super) fn send<T>(
        self: &Arc<Inner>,
        tree: TreeId,
        key: &[u8],
        action: Action,
        durability: Durability,
        wait: bool,
        narrow: fn(Outcome) -> T,
    ) -> Result<Ticket<T>> {
        let shard = self
            .runtime
            .shared
            .status
            .check_write()
            .and_then(|()| self.owner(tree, key));
        let shard = shard.inspect_err(|_| {
            if let Some(descriptor) = action.blob() {
                self.release_blob(descriptor);
            }
        })?;
        if wait && self.exceeds_cache() {
            // Many who wait read side by side, each in its own thread; the shard would be told of each page by the pager.
            // What keeps the page from being read is found, and answered, by the shard.
            let _ = self.bring(tree, key);
        }
        // Who pipelines leaves the work to the shard's own thread, and goes on sending on another core.
        let (reply, ticket) = ticket(&self.runtime, wait.then_some(shard), narrow);
        let request = Request {
            tree,
            action,
            durability,
            reply,
            credit: None,
        };
        if let Err(refused) = self.runtime.send(shard, request, wait) {
            if let Some(descriptor) = refused.action.blob() {
                self.release_blob(descriptor);
            }
            return Err(Error::WouldDeadlock);
        }
        if !wait {
            self.fences.pipelined(shard);
        }
        Ok(ticket)
    }

    pub(super) fn send_put(
        self: &Arc<Inner>,
        tree: TreeId,
        key: &[u8],
        value: &[u8],
        condition: Condition,
        durability: Durability,
        wait: bool,
    ) -> Result<Ticket<()>> {
        self.check_key(key)?;
        self.runtime.shared.status.check_write()?;
        let (pair, kind) = self.pack(key, value)?;
        self.send(
            tree,
            key,
            Action::Put {
                pair,
                kind,
                condition,
            },
            durability,
            wait,
            |_| (),
        )
    }

    pub(super) fn send_swap(
        self: &Arc<Inner>,
        tree: TreeId,
        key: &[u8],
        (expected, new): (Option<&[u8]>, Option<&[u8]>),
        durability: Durability,
        wait: bool,
    ) -> Result<Ticket<std::result::Result<(), Option<Value>>>> {
        self.check_key(key)?;
        self.runtime.shared.status.check_write()?;
        let action = Action::Swap {
            key: key.into(),
            expected: expected.map(Box::from),
            new: new.map_or(Ok(Stored::Absent), |new| self.store(new))?,
        };
        self.send(tree, key, action, durability, wait, |outcome| match outcome {
            Outcome::Swapped(swapped) => swapped,
            _ => Ok(()),
        })
    }

    pub(super) fn send_update(
        self: &Arc<Inner>,
        tree: TreeId,
        key: &[u8],
        function: UpdateFunction,
        durability: Durability,
        wait: bool,
    ) -> Result<Ticket<()>> {
        self.check_key(key)?;
        let action = Action::Update {
            key: key.into(),
            function,
        };
        self.send(tree, key, action, durability, wait, |_| ())
    }
}
