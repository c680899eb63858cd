//! Keeping the order of what one client sends, where it sends it to several shards at once.
//!
//! A request reaches its shard through the shard's mailbox. A transaction over several shards reaches all but the first
//! of them from another shard, past their mailboxes: it mustn't wait there while it holds locks (see
//! `shard/transaction`). So before it begins, whatever its client may have sent to those shards without waiting for
//! answers must have run: a [`Fence`](crate::shard::Action::Fence) to each of them, waited for.
//!
//! And what its client sends behind it, for a key of its own, must not overtake it on the straight way: see
//! [`KeysAhead`](crate::runtime::KeysAhead).
//!
//! Whoever drops a tree is in both cases: the request goes to one of the tree's owners, whose word to the others overtakes
//! what stands in their mailboxes. So all that was sent to any shard before must be over, transactions included
//! ([`keep_in_order`](Inner::keep_in_order)), and what is sent behind it waits for the tree as others do for a
//! key.
//!
//! Nearly always nothing of the kind is under way: [`Fences`] notes whether requests were pipelined to a shard since
//! the last fence there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use treering_engine::{ShardId, TreeId};

use super::db::Inner;
use super::read::tree_of;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::runtime::{KeysUnderWay, is_inside, key_hash};
use crate::shard::{Action, Request};
use crate::shared::with_guard;
use crate::ticket::ticket;

/// In the place of a key, which is never empty: all of a tree.
const WHOLE_TREE: &[u8] = &[];

/// What is known about requests that were sent and not waited for, by shard.
pub(crate) struct Fences(Box<[State]>);

/// One shard's, in a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct State {
    /// Whether any were sent since the last fence began.
    pipelined: AtomicBool,
    /// Whether transactions were, since the last fence that waits for those began.
    transactions: AtomicBool,
    /// Fences that have begun and not ended.
    under_way: AtomicU32,
}

impl Fences {
    pub fn new(shards: usize) -> Fences {
        Fences((0..shards).map(|_| State::default()).collect())
    }

    fn of(&self, shard: ShardId) -> &State {
        &self.0[usize::from(shard.0)]
    }

    /// A request was left in the shard's mailbox, and its sender goes on.
    pub fn pipelined(&self, shard: ShardId) {
        let pipelined = &self.of(shard).pipelined;
        // Looked at first: senders that share a shard write to the line only once between two fences.
        if !pipelined.load(Ordering::SeqCst) {
            pipelined.store(true, Ordering::SeqCst);
        }
    }

    /// As [`pipelined`](Self::pipelined), with a transaction that begins there.
    pub fn transaction_pipelined(&self, shard: ShardId) {
        let transactions = &self.of(shard).transactions;
        if !transactions.load(Ordering::SeqCst) {
            transactions.store(true, Ordering::SeqCst);
        }
    }

    /// Whether a request of this thread may still stand in the shard's mailbox. Whoever clears `pipelined` is counted
    /// before, and until its fence, which stands behind the request, is answered.
    fn is_needed(&self, shard: ShardId) -> bool {
        let state = self.of(shard);
        state.pipelined.load(Ordering::SeqCst) || state.under_way.load(Ordering::SeqCst) > 0
    }

    /// Whether a transaction of this thread that began there may not be over. As above.
    fn has_transactions(&self, shard: ShardId) -> bool {
        let state = self.of(shard);
        state.transactions.load(Ordering::SeqCst) || state.under_way.load(Ordering::SeqCst) > 0
    }
}

impl Inner {
    /// Waits until no transaction that was sent before names one of these keys, and none of their trees is being dropped.
    /// Senders inside of a step don't wait: the transaction may be waiting for theirs.
    #[inline]
    pub(super) fn wait_for_keys<'k>(&self, keys: impl Iterator<Item = (TreeId, &'k [u8])>) -> Result<()> {
        if self.ahead.is_empty() {
            return Ok(());
        }
        let mut hashes = Vec::new();
        let mut last = None;
        for (tree, key) in keys {
            if last.replace(tree) != Some(tree) {
                hashes.push(key_hash(tree, WHOLE_TREE));
            }
            hashes.push(key_hash(tree, key));
        }
        self.wait_for_hashes(hashes)
    }

    #[cold]
    fn wait_for_hashes(&self, hashes: Vec<u64>) -> Result<()> {
        if is_inside() {
            return Ok(());
        }
        let look = |timeout| self.ahead.are_free(&hashes, timeout).then_some(());
        self.runtime.wait_until(look).ok_or(Error::Closed)
    }

    /// Waits until what was sent to these shards before has run there.
    pub(super) fn fence(&self, shards: &[ShardId]) -> Result<()> {
        let needed = |shard: &&ShardId| self.fences.is_needed(**shard);
        let mut needed = shards.iter().filter(needed);
        needed.try_for_each(|shard| self.fence_shard(*shard, false))
    }

    /// Waits until everything that was sent before for a tree, which is about to be dropped or loaded by the owner of its
    /// lowest key, is over at other shards; the owner itself sees to it that what was sent to it before is. The caller has a
    /// passage, so that owners stay. Gives what keeps the order of what is sent next, for the request to hold. `wait`:
    /// nothing is sent before the answer.
    pub(super) fn keep_in_order(
        &self,
        tree: TreeId,
        owner: ShardId,
        wait: bool,
    ) -> Result<Option<KeysUnderWay>> {
        let shared = &self.runtime.shared;
        let owners: BTreeSet<ShardId> = with_guard(&shared.memory, |guard| {
            let version = shared.current.load(guard);
            tree_of(version, tree).map(|state| state.partitions.iter().map(|part| part.owner).collect())
        })?;
        // At most 256 shards.
        let shards = || (0..self.runtime.shards.len()).map(|index| ShardId(index as u16));
        // A request that was left with one shard may be another's by now, with its range (rule R22).
        let is_pipelined = owners.len() > 1 && shards().any(|shard| self.fences.is_needed(shard));
        for shard in shards().filter(|shard| *shard != owner) {
            if self.fences.has_transactions(shard) || (is_pipelined && owners.contains(&shard)) {
                self.fence_shard(shard, true)?;
            }
        }
        let whole = || self.ahead.note(std::iter::once((tree, WHOLE_TREE)));
        Ok((owners.len() > 1 && !wait).then(whole))
    }

    fn fence_shard(&self, shard: ShardId, transactions: bool) -> Result<()> {
        let state = self.fences.of(shard);
        state.under_way.fetch_add(1, Ordering::SeqCst);
        let pipelined = state.pipelined.swap(false, Ordering::SeqCst);
        let began = transactions && state.transactions.swap(false, Ordering::SeqCst);
        let action = if transactions {
            // An empty batch comes after all that was begun.
            let records = Vec::new();
            Action::Batch { records }
        } else {
            Action::Fence
        };
        let (reply, ticket) = ticket(&self.runtime, Some(shard), |_| ());
        let request = Request {
            tree: TreeId(0),
            action,
            durability: Durability::Buffered,
            reply,
            credit: None,
        };
        let sent = self.runtime.send(shard, request, true);
        let answer = sent.map_or(Err(Error::WouldDeadlock), |()| ticket.wait());
        if answer.is_err() {
            state.pipelined.fetch_or(pipelined, Ordering::SeqCst);
            state.transactions.fetch_or(began, Ordering::SeqCst);
        }
        state.under_way.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
