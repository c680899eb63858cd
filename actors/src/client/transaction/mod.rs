//! Transactions as programs see them: reads from one snapshot, writes kept until the commit.
//!
//! # Job
//! Everything before [`commit`](Transaction::commit) happens in the client alone: reads go to the snapshot and to the
//! transaction's own writes, and what they found is noted; writes are kept in memory. The commit sends the writes
//! together with what must not have changed; owners lock, compare and decide (`shard/transaction`). So a transaction
//! that is dropped, by a panic too, leaves nothing behind, and holds nothing but its snapshot while it lives.
//!
//! | file | subject |
//! |---|---|
//! | `mod` | reading, writing, committing |
//! | `range` | ranges of the snapshot with the transaction's own writes among them |
//! | `transact` | trying again after a conflict |
//!
//! # What is compared at the commit
//! - [`Isolation::Serializable`]: every key that was read from the snapshot, and every part of a range that was looked
//!   through, absent keys included. Keys that were only written are not compared.
//! - [`Isolation::Snapshot`]: every key that is written, with what the snapshot holds there.

mod range;
mod transact;

pub use range::TransactionRange;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use treering_engine::TreeId;
use treering_engine::log::{HEAD_BYTES_MAX, RecordWriter};

use super::bounds::{KeyBounds, OwnedBounds, of_prefix};
use super::db::{Client, Inner};
use super::range::Range;
use super::read::{Found, tree_of};
use super::tree::Tree;
use crate::blob::DESCRIPTOR_BYTES;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::shard::{self, KeyRange, Part, Stored, ValueKind};
use crate::shared::{Version, with_guard};
use crate::ticket::Ticket;
use crate::value::Value;

/// What a transaction may not notice of others that run beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Isolation {
    /// All reads are from one instant, and no other transaction's write of the same key is lost. Allowed are *write
    /// skew*: two transactions that each read what the other one writes, keys or ranges, may both happen; and with it
    /// that one that only reads sees a state which no order of the others explains.
    Snapshot,
    /// As if transactions ran one after the other, in an order that agrees with real time: no anomaly is allowed, phantoms
    /// included.
    #[default]
    Serializable,
}

/// Reads and writes of any trees that happen as one. Sent by [`commit`](Transaction::commit); dropped without it,
/// nothing happens. Can be moved to another thread, but used by one at a time.
///
/// Writes, large values included, are in memory until the commit.
#[must_use = "a transaction does nothing before it is committed"]
pub struct Transaction {
    inner: Arc<Inner>,
    version: Arc<Version>,
    isolation: Isolation,
    durability: Durability,
    /// Own writes; `None` is a removal.
    writes: BTreeMap<TreeId, BTreeMap<Vec<u8>, Option<Value>>>,
    /// About what the writes take in the log, bytes.
    write_bytes: usize,
    reads: RefCell<Reads>,
}

/// What was read from the snapshot and must not have changed.
#[derive(Debug, Default)]
struct Reads {
    keys: BTreeMap<TreeId, BTreeMap<Vec<u8>, Stored>>,
    ranges: BTreeMap<TreeId, Vec<KeyRange>>,
}

impl Client {
    /// Begins a transaction that sees everything acknowledged before, and the database's durability at its commit. O(1).
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn begin(&self, isolation: Isolation) -> Result<Transaction> {
        Transaction::begin(self.inner(), isolation)
    }
}

impl Transaction {
    fn begin(inner: &Arc<Inner>, isolation: Isolation) -> Result<Transaction> {
        let shared = &inner.runtime.shared;
        shared.status.check_read()?;
        Ok(Transaction {
            version: with_guard(&shared.memory, |guard| shared.current.hold(guard)),
            isolation,
            durability: shared.settings.durability,
            writes: BTreeMap::new(),
            write_bytes: 0,
            reads: RefCell::default(),
            inner: Arc::clone(inner),
        })
    }

    /// The commit group after which the snapshot was taken that the transaction reads.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.version.seq.0
    }

    /// Sets what the commit promises.
    pub fn set_durability(&mut self, durability: Durability) -> &mut Transaction {
        self.durability = durability;
        self
    }

    // ---- reading ----

    /// The value of a key: the transaction's own, or the snapshot's.
    ///
    /// # Errors
    /// As [`Tree::get`]; [`Error::ForeignTree`] for a tree of another database.
    pub fn get(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        self.inner.check_key(key)?;
        let tree = tree.id_in(&self.inner)?;
        if let Some(own) = self.writes.get(&tree).and_then(|writes| writes.get(key)) {
            return Ok(own.clone());
        }
        self.inner.runtime.shared.status.check_read()?;
        let found = self.inner.find(Some(&self.version), tree, key)?;
        if self.isolation == Isolation::Serializable {
            let mut reads = self.reads.borrow_mut();
            let keys = reads.keys.entry(tree).or_default();
            if !keys.contains_key(key) {
                keys.insert(key.to_vec(), stored(&found));
            }
        }
        Ok(match found {
            Found::Nothing => None,
            Found::Inline(value) => Some(value),
            Found::Blob(descriptor, _) => Some(self.inner.read_blob(&descriptor)?),
        })
    }

    /// Whether the key is there.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn contains(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(tree, key)?.is_some())
    }

    /// The entries within `bounds`, the transaction's own writes among them. Double-ended. Only what was looked through
    /// counts as read.
    ///
    /// # Errors
    /// As [`Tree::range`].
    pub fn range<K: AsRef<[u8]>>(
        &self,
        tree: &Tree,
        bounds: impl KeyBounds<K>,
    ) -> Result<TransactionRange<'_>> {
        self.range_within(tree.id_in(&self.inner)?, bounds.to_bytes())
    }

    /// The entries whose keys begin with `prefix`.
    ///
    /// # Errors
    /// As [`Tree::range`].
    pub fn prefix(&self, tree: &Tree, prefix: impl AsRef<[u8]>) -> Result<TransactionRange<'_>> {
        self.range_within(tree.id_in(&self.inner)?, of_prefix(prefix.as_ref()))
    }

    fn range_within(&self, tree: TreeId, (lower, upper): OwnedBounds) -> Result<TransactionRange<'_>> {
        self.inner.runtime.shared.status.check_read()?;
        let base = Range::new(
            Arc::clone(&self.inner),
            Arc::clone(&self.version),
            tree,
            (lower.clone(), upper.clone()),
        )?;
        Ok(TransactionRange::new(self, tree, KeyRange { lower, upper }, base))
    }

    /// Notes what a range has looked through.
    fn note_range(&self, tree: TreeId, range: KeyRange) {
        if self.isolation == Isolation::Serializable && !range.is_empty() {
            let mut reads = self.reads.borrow_mut();
            let ranges = reads.ranges.entry(tree).or_default();
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
    }

    // ---- writing ----

    /// Writes a value.
    ///
    /// # Errors
    /// Bad arguments as [`Tree::put`], [`Error::ForeignTree`]; [`Error::TransactionTooLarge`] when the log can't take all writes at once.
    pub fn put(&mut self, tree: &Tree, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let value = value.as_ref();
        if value.len() as u64 > super::VALUE_BYTES_MAX {
            return Err(Error::ValueTooLarge {
                bytes: value.len() as u64,
                limit_bytes: super::VALUE_BYTES_MAX,
            });
        }
        self.write(tree, key.as_ref(), Some(value.into()))
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// As [`put`](Transaction::put).
    pub fn delete(&mut self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(tree, key.as_ref(), None)
    }

    fn write(&mut self, tree: &Tree, key: &[u8], value: Option<Value>) -> Result<()> {
        self.inner.check_key(key)?;
        let tree = tree.id_in(&self.inner)?;
        let logged = |value: &Option<Value>| {
            let stored_bytes = match value {
                None => 0,
                Some(value) if value.len() <= self.inner.inline_bytes_max() => value.len(),
                Some(_) => DESCRIPTOR_BYTES,
            };
            HEAD_BYTES_MAX + key.len() + stored_bytes
        };
        let writes = self.writes.entry(tree).or_default();
        let before = writes.get(key).map_or(0, logged);
        let needed = self.write_bytes - before + logged(&value);
        let limit = self.inner.runtime.shared.settings.batch_record_bytes_max;
        if needed > limit {
            return Err(Error::TransactionTooLarge {
                needed: needed as u64,
                limit: limit as u64,
                unit: "bytes of log",
            });
        }
        self.write_bytes = needed;
        writes.insert(key.to_vec(), value);
        Ok(())
    }

    // ---- the end ----

    /// Makes all writes happen, or none. A transaction that has written nothing has nothing left to do.
    ///
    /// # Errors
    /// [`Error::Conflict`] when something has changed that the transaction relied on: begin again.
    /// [`Error::TransactionTooLarge`], and as [`Tree::put`].
    pub fn commit(self) -> Result<()> {
        self.dispatch(true)?.wait()
    }

    /// As [`commit`](Transaction::commit), pipelined: the ticket tells when it is done. It comes after what this thread
    /// has sent before, and before what it sends next for the keys that are written here.
    ///
    /// # Errors
    /// As [`commit`](Transaction::commit), some of them by the ticket.
    pub fn send(self) -> Result<Ticket<()>> {
        self.dispatch(false)
    }

    /// What a thread that [commits](Transaction::commit) waits for: in a simulation, where threads can't wait.
    pub(crate) fn committing(self) -> Result<Ticket<()>> {
        self.dispatch(true)
    }

    fn dispatch(self, wait: bool) -> Result<Ticket<()>> {
        let status = &self.inner.runtime.shared.status;
        if self.writes.values().all(BTreeMap::is_empty) {
            // All that was read is from one instant. Reads go on where writes are refused.
            status.check_read()?;
            return Ok(Ticket::done(&self.inner.runtime));
        }
        status.check_write()?;
        self.inner.wait_for_keys(self.written())?;
        let passage = self.inner.runtime.pass()?;
        let mut parts = Parts::new(&self.inner);
        match self.fill(&mut parts) {
            Ok(()) => {}
            Err(error) => {
                parts.give_back();
                return Err(error);
            }
        }
        let transaction = shard::Transaction {
            number: self.inner.runtime.shared.next_transaction(),
            parts: std::mem::take(&mut parts.parts).into_values().collect(),
            durability: self.durability,
            snapshot: Some(Arc::clone(&self.version)),
        };
        self.inner.send_transaction(transaction, passage, wait)
    }

    /// The keys that are written.
    fn written(&self) -> impl Iterator<Item = (TreeId, &[u8])> {
        let trees = self.writes.iter();
        trees.flat_map(|(tree, writes)| writes.keys().map(|key| (*tree, &key[..])))
    }

    fn fill(&self, parts: &mut Parts<'_>) -> Result<()> {
        for (tree, writes) in &self.writes {
            for (key, value) in writes {
                parts.write(*tree, key, value.as_deref())?;
                if self.isolation == Isolation::Snapshot {
                    let before = match tree_of(&self.version, *tree) {
                        Ok(_) => stored(&self.inner.find(Some(&self.version), *tree, key)?),
                        // It was created since.
                        Err(_) => Stored::Absent,
                    };
                    parts.of(*tree, key)?.expected.push((key.clone(), before));
                }
            }
        }
        let reads = self.reads.take();
        for (tree, keys) in reads.keys {
            for (key, expected) in keys {
                parts.of(tree, &key)?.expected.push((key, expected));
            }
        }
        for (tree, ranges) in reads.ranges {
            for range in ranges {
                parts.look_through(tree, &range)?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("seq", &self.version.seq)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

/// How the leaf holds what was found.
fn stored(found: &Found) -> Stored {
    match found {
        Found::Nothing => Stored::Absent,
        Found::Inline(value) => Stored::Inline(value[..].into()),
        Found::Blob(descriptor, _) => Stored::Blob(descriptor[..].into()),
    }
}

/// The parts of a transaction that is being committed.
struct Parts<'i> {
    inner: &'i Arc<Inner>,
    /// The routing.
    current: Arc<Version>,
    parts: BTreeMap<(TreeId, usize), Part>,
}

impl<'i> Parts<'i> {
    fn new(inner: &'i Arc<Inner>) -> Parts<'i> {
        let shared = &inner.runtime.shared;
        Parts {
            current: with_guard(&shared.memory, |guard| shared.current.hold(guard)),
            inner,
            parts: BTreeMap::new(),
        }
    }

    fn of(&mut self, tree: TreeId, key: &[u8]) -> Result<&mut Part> {
        let state = tree_of(&self.current, tree)?;
        let partition = state.partition_for(key);
        let part = self.parts.entry((tree, partition));
        Ok(part.or_insert_with(|| Part::new(tree, &state.partitions[partition])))
    }

    fn write(&mut self, tree: TreeId, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let inner = self.inner;
        let packed = value.map(|value| inner.pack(key, value)).transpose()?;
        let mut writer = RecordWriter(&mut self.of(tree, key)?.records);
        match packed {
            None => writer.delete(tree, key),
            Some((pair, ValueKind::Inline)) => writer.put(tree, key, pair.value()),
            Some((pair, ValueKind::Blob)) => writer.put_blob(tree, key, pair.value()),
        }
        Ok(())
    }

    fn look_through(&mut self, tree: TreeId, range: &KeyRange) -> Result<()> {
        let current = Arc::clone(&self.current);
        let state = tree_of(&current, tree)?;
        let at = |bound: &Bound<Vec<u8>>, otherwise| match bound {
            Bound::Included(key) | Bound::Excluded(key) => state.partition_for(key),
            Bound::Unbounded => otherwise,
        };
        let first = at(&range.lower, 0);
        let last = at(&range.upper, state.partitions.len() - 1);
        for index in first..=last {
            let partition = &state.partitions[index];
            let upper = state.partitions.get(index + 1).map(|next| &*next.lower);
            // Not all of it: the locks of one part would be in the way of the next one's.
            let within = range.clipped(&partition.lower, upper);
            let part = self.parts.entry((tree, index));
            part.or_insert_with(|| Part::new(tree, partition))
                .ranges
                .push(within);
        }
        Ok(())
    }

    /// Large values that were written and will not be named.
    fn give_back(self) {
        let blobs = self
            .parts
            .values()
            .flat_map(|part| crate::blob::blobs_in(&part.records));
        let extents: Vec<_> = blobs.collect();
        if !extents.is_empty() {
            self.inner
                .runtime
                .send_flusher(crate::flusher::FlusherMessage::Release { extents });
        }
    }
}
