//! Transactions: changes of any trees on any shards that happen as one (rules R12 to R14, R20, R21).
//!
//! # Life of a transaction over several shards
//! 1. *Visits.* The client splits the changes, and what it wants to be unchanged, into [`Part`]s, one for each
//!    partition, ascending by (tree, key), and sends the whole to the owner of the first one. Each owner claims the keys
//!    and key ranges of its part in its lock table ([`locks`]), waits until the claim is granted, compares what the
//!    transaction has read with its tip ([`validate`]), and sends the [`Visit`] on to the owner of the next part. What
//!    is claimed stays locked (what was only read is shared with other readers); later requests for those keys queue.
//! 2. *Decision.* The last owner sends the visit to the commit actor: from then on the transaction will happen, unless
//!    there is no room for it.
//! 3. *Set.* The commit actor takes decided transactions together, one set at a time (`commit/set.rs`), and tells all
//!    owners ([`Apply`](super::ShardMessage::Apply)). Each freezes what it has, applies its parts to a batch of their
//!    own ([`apply_set`]), sends that, and changes nothing more until the commit actor has heard from all of them
//!    ([`SetClosed`](super::ShardMessage::SetClosed)). So either all parts are in, and become one commit group, or each
//!    owner takes its own back, which nobody has seen.
//! 4. The locks are given back when the set is closed, those of owners that only read for it too: were they given back
//!    at the decision, a write could be published before the transaction that has read what it overwrites. Replies are
//!    told when the group is published.
//!
//! A transaction whose parts all belong to one shard is applied there, alone, as a batch; it claims its keys only if
//! others hold or wait for some.
//!
//! # Why it ends
//! - Claims of one part are made at once, and parts are visited in ascending order. Who waits for a part holds locks of
//!   lower parts only; who holds locks of it waits, if at all, for a higher one. So waiting never goes round (rule R21).
//! - A visit waits for claims before its own and for requests that are parked for its keys, never for a mailbox: those
//!   may be full of requests that wait for the visitor's own locks. That a transaction comes after what its client sent
//!   before is seen to before the first visit (`client/fence.rs`).
//! - Owners, not clients, carry a transaction on: a client that dies leaves nothing behind.
//! - Of the transactions that begin at one shard, [`TRANSACTIONS_MAX`] are under way at most; the others wait in its
//!   mailbox.
//!
//! # When something fails
//! - *Something has changed* that the transaction has read (or, under snapshot isolation, written): refused with
//!   [`Error::Conflict`] by the owner that notices, when what it saw is published (rule R12). So whoever tries again
//!   reads the change.
//! - *No pages, too many pages, a page that can't be read*, while a part is applied: the owner says so, all take their
//!   parts back, the transaction is tried again alone and then refused. The others of its set get another one.
//! - *Dropped tips* (rule R13): visits remember the tip epoch of each owner; the commit actor refuses a transaction that
//!   has been with an owner whose tip was dropped since, and its locks are released.
//! - *A poisoned database*: everything is refused, everywhere.

pub(super) mod apply_set;
pub(super) mod locks;
mod validate;
pub(super) mod visit;

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use treering_engine::catalog::{Directory, Partition};
use treering_engine::log::{Record, RecordReader, RecordWriter};
use treering_engine::{ShardId, TreeId};

use crate::error::{Error, Result};
use crate::options::Durability;
use crate::runtime::Credit;
use crate::shard::messages::Stored;
use crate::shared::Version;
use crate::ticket::Reply;

/// Most transactions under way that began at one shard. With 256 shards, the most there are, that is half of what an
/// actor's lane holds.
pub(super) const TRANSACTIONS_MAX: usize = 32;
/// Most requests of one shard that wait for locks before it takes no more from its mailbox.
pub(super) const LOCK_WAITERS_MAX: usize = 256;

/// What a transaction does to one partition.
#[derive(Debug)]
pub(crate) struct Part {
    pub tree: TreeId,
    pub owner: ShardId,
    /// Lowest key of the partition, as the client's version has it.
    pub lower: Arc<[u8]>,
    /// The changes, as the log will hold them.
    pub records: Vec<u8>,
    /// Keys that must still hold this.
    pub expected: Vec<(Vec<u8>, Stored)>,
    /// Key ranges that must hold what they held in the transaction's snapshot.
    pub ranges: Vec<KeyRange>,
}

impl Part {
    /// A part that does nothing yet.
    pub fn new(tree: TreeId, partition: &Partition) -> Part {
        Part {
            tree,
            owner: partition.owner,
            lower: Arc::clone(&partition.lower),
            records: Vec::new(),
            expected: Vec::new(),
            ranges: Vec::new(),
        }
    }

    /// Whether its owner has something to apply.
    pub fn writes(&self) -> bool {
        !self.records.is_empty()
    }

    /// Hands out the keys that are changed; one may come several times.
    pub fn for_each_changed(&self, mut visit: impl FnMut(&[u8])) {
        for (_, key) in changes(&self.records) {
            visit(key);
        }
    }
}

/// Keys between two bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeyRange {
    pub lower: Bound<Vec<u8>>,
    pub upper: Bound<Vec<u8>>,
}

impl KeyRange {
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (
            self.lower.as_ref().map(Vec::as_slice),
            self.upper.as_ref().map(Vec::as_slice),
        )
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        RangeBounds::<[u8]>::contains(&self.bounds(), key)
    }

    /// What of it lies between two keys: `lower` included, `upper` not.
    pub fn clipped(&self, lower: &[u8], upper: Option<&[u8]>) -> KeyRange {
        KeyRange {
            lower: match &self.lower {
                Bound::Included(key) | Bound::Excluded(key) if **key >= *lower => self.lower.clone(),
                _ => Bound::Included(lower.to_vec()),
            },
            upper: match (&self.upper, upper) {
                (_, None) => self.upper.clone(),
                (Bound::Included(key), Some(upper)) if **key < *upper => self.upper.clone(),
                (Bound::Excluded(key), Some(upper)) if **key <= *upper => self.upper.clone(),
                (_, Some(upper)) => Bound::Excluded(upper.to_vec()),
            },
        }
    }

    /// Whether no key can lie within.
    pub fn is_empty(&self) -> bool {
        match self.bounds() {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
            (
                Bound::Included(lower) | Bound::Excluded(lower),
                Bound::Included(upper) | Bound::Excluded(upper),
            ) => lower >= upper,
        }
    }
}

/// A transaction, as its client has sent it.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// No other transaction since the database was opened has it.
    pub number: u64,
    /// Ascending by tree and key; at least one.
    pub parts: Vec<Part>,
    pub durability: Durability,
    /// What it has read from; none for blind writes.
    pub snapshot: Option<Arc<Version>>,
}

impl Transaction {
    /// The shards that own its parts, ascending.
    pub fn owners(&self) -> Vec<ShardId> {
        let mut owners: Vec<ShardId> = self.parts.iter().map(|part| part.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// Where it begins, and where it is counted.
    pub fn first_owner(&self) -> ShardId {
        self.parts[0].owner
    }

    /// Bytes of all that its client has brought.
    pub fn bytes(&self) -> usize {
        let read = |part: &Part| -> usize {
            let expected = part.expected.iter();
            expected.map(|(key, stored)| key.len() + stored.bytes()).sum()
        };
        self.record_bytes() + self.parts.iter().map(read).sum::<usize>()
    }

    /// Bytes of all its changes.
    pub fn record_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.records.len()).sum()
    }
}

/// A transaction on its way through the owners of its parts, and then decided.
pub(crate) struct Visit {
    pub transaction: Arc<Transaction>,
    pub reply: Reply,
    /// For the memory that it takes until it is over.
    pub credit: Option<Credit>,
    /// The part that is visited.
    pub next: usize,
    /// The tip epoch of each shard when it was there.
    pub epochs: Vec<(ShardId, u64)>,
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit")
            .field("transaction", &self.transaction.number)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// The tree and key of each change, in order.
pub(crate) fn changes(records: &[u8]) -> impl Iterator<Item = (TreeId, &[u8])> {
    RecordReader::resume(records, 0).map_while(|record| match record {
        Ok(
            Record::Put { tree, key, .. } | Record::PutBlob { tree, key, .. } | Record::Delete { tree, key },
        ) => Some((tree, key)),
        _ => None,
    })
}

/// Splits changes by partition, each part's in their order.
///
/// # Errors
/// [`Error::TreeNotFound`].
pub(crate) fn split(records: &[u8], directory: &Directory) -> Result<Vec<Part>> {
    let mut parts: BTreeMap<(TreeId, usize), Part> = BTreeMap::new();
    for record in RecordReader::resume(records, 0) {
        let (tree, key) = match &record {
            Ok(
                Record::Put { tree, key, .. }
                | Record::PutBlob { tree, key, .. }
                | Record::Delete { tree, key },
            ) => (*tree, *key),
            _ => break,
        };
        let state = directory.get(tree).ok_or_else(|| Error::no_tree(tree))?;
        let partition = state.partition_for(key);
        let part = parts
            .entry((tree, partition))
            .or_insert_with(|| Part::new(tree, &state.partitions[partition]));
        let mut writer = RecordWriter(&mut part.records);
        match record {
            Ok(Record::Put { value, .. }) => writer.put(tree, key, value),
            Ok(Record::PutBlob { descriptor, .. }) => writer.put_blob(tree, key, descriptor),
            _ => writer.delete(tree, key),
        }
    }
    Ok(parts.into_values().collect())
}
