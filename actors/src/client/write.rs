//! Sending writes: checks, large values, and the request to the owner.

use std::sync::Arc;

use treering_engine::{ShardId, TreeId, page};

use super::db::Inner;
use super::read::tree_of;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::shard::{Action, Condition, Pair, Request, Stored, UpdateFunction, ValueKind};
use crate::shared::{Version, with_guard};
use crate::ticket::{Held, Outcome, Ticket, ticket};
use crate::value::Value;

/// The shard that owns the key in a version.
pub(super) fn owner(version: &Version, tree: TreeId, key: &[u8]) -> Result<ShardId> {
    let state = tree_of(version, tree)?;
    Ok(state.partitions[state.partition_for(key)].owner)
}

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

    /// Whether there is such a tree.
    pub(super) fn check_tree(&self, tree: TreeId) -> Result<()> {
        let shared = &self.runtime.shared;
        with_guard(&shared.memory, |guard| {
            tree_of(shared.current.load(guard), tree).map(drop)
        })
    }

    /// Sends a request for a whole tree to whom its lowest key belongs. `wait`: the caller is going to wait for it at
    /// once.
    pub(super) fn send_for_tree<T>(
        self: &Arc<Inner>,
        tree: TreeId,
        action: Action,
        durability: Durability,
        wait: bool,
        narrow: fn(Outcome) -> T,
    ) -> Result<Ticket<T>> {
        let shared = &self.runtime.shared;
        shared.status.check_write()?;
        let passage = self.runtime.pass()?;
        let shard = with_guard(&shared.memory, |guard| {
            owner(shared.current.load(guard), tree, &[])
        })?;
        let keys = match action {
            Action::DropTree | Action::PrepareLoad => self.keep_in_order(tree, shard, wait)?,
            _ => None,
        };
        let (reply, ticket) = ticket(&self.runtime, wait.then_some(shard), narrow);
        let request = Request {
            tree,
            action,
            durability,
            reply: reply.holding(Held { passage, keys }),
            credit: None,
        };
        let sent = self.runtime.send(shard, request, wait);
        sent.map_err(|_| Error::WouldDeadlock)?;
        Ok(ticket)
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
        let ready = self.runtime.shared.status.check_write();
        ready
            .and_then(|()| self.wait_for_keys(std::iter::once((tree, key))))
            .inspect_err(|_| {
                if let Some(descriptor) = action.blob() {
                    self.release_blob(descriptor);
                }
            })?;
        if wait && self.exceeds_cache() {
            // Many who wait read side by side, each in its own thread; the shard would be told of each page by the pager.
            // What keeps the page from being read is found, and answered, by the shard.
            let _ = self.bring(tree, key);
        }
        let (reply, ticket) = ticket(&self.runtime, None, narrow);
        let request = Request {
            tree,
            action,
            durability,
            reply,
            credit: None,
        };
        let route = |version: &Version| owner(version, tree, key);
        let shard = match self.runtime.send_routed(route, request, wait) {
            Ok(shard) => shard,
            Err((error, refused)) => {
                if let Some(descriptor) = refused.as_ref().and_then(|refused| refused.action.blob()) {
                    self.release_blob(descriptor);
                }
                return Err(error);
            }
        };
        if !wait {
            self.fences.pipelined(shard);
        }
        // Who pipelines leaves the work to the shard's own thread, and goes on sending on another core.
        Ok(ticket.answered_by(wait.then_some(shard)))
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
