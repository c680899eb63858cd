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
//! Nearly always nothing of the kind is under way: [`Fences`] notes whether requests were pipelined to a shard since
//! the last fence there.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use treering_engine::{ShardId, TreeId};

use super::db::Inner;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::runtime::{is_inside, key_hash};
use crate::shard::{Action, Request};
use crate::ticket::ticket;

/// What is known about requests that were sent and not waited for, by shard.
pub(crate) struct Fences(Box<[State]>);

/// One shard's, in a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct State {
    /// Whether any were sent since the last fence began.
    pipelined: AtomicBool,
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

    /// Whether a request of this thread may still stand in the shard's mailbox. Whoever clears `pipelined` is counted
    /// before, and until its fence, which stands behind the request, is answered.
    fn is_needed(&self, shard: ShardId) -> bool {
        let state = self.of(shard);
        state.pipelined.load(Ordering::SeqCst) || state.under_way.load(Ordering::SeqCst) > 0
    }
}

impl Inner {
    /// Waits until no transaction that was sent before names one of these keys. Senders inside of a step don't wait:
    /// the transaction may be waiting for theirs.
    #[inline]
    pub(super) fn wait_for_keys<'k>(&self, keys: impl Iterator<Item = (TreeId, &'k [u8])>) -> Result<()> {
        if self.ahead.is_empty() {
            return Ok(());
        }
        self.wait_for_hashes(keys.map(|(tree, key)| key_hash(tree, key)).collect())
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
        for &shard in shards.iter().filter(needed) {
            let state = self.fences.of(shard);
            state.under_way.fetch_add(1, Ordering::SeqCst);
            state.pipelined.store(false, Ordering::SeqCst);
            let (reply, ticket) = ticket(&self.runtime, Some(shard), |_| ());
            let request = Request {
                tree: TreeId(0),
                action: Action::Fence,
                durability: Durability::Buffered,
                reply,
                credit: None,
            };
            let sent = self.runtime.send(shard, request, true);
            let answer = sent.map_or(Err(Error::WouldDeadlock), |()| ticket.wait());
            if answer.is_err() {
                state.pipelined.store(true, Ordering::SeqCst);
            }
            state.under_way.fetch_sub(1, Ordering::SeqCst);
            answer?;
        }
        Ok(())
    }
}
