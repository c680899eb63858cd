//! One tree: everything that can be done with its keys.

use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::Arc;

use treering_engine::TreeId;

use super::batch::Batch;
use super::db::Inner;
use super::range::Range;
use super::read::tree_of;
use crate::error::Result;
use crate::options::Durability;
use crate::shard::{Action, Condition};
use crate::shared::with_guard;
use crate::ticket::{Outcome, Ticket};
use crate::value::Value;

/// A handle to one tree: an ordered map from keys to values. Cheap to clone, usable from any thread.
///
/// Writes promise what [`Options::durability`](crate::Options::durability) says, or what
/// [`with_durability`](Tree::with_durability) does. Reads see every write that was acknowledged before they began.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(super) inner: Arc<Inner>,
    pub(super) id: TreeId,
    pub(super) name: Arc<str>,
    pub(super) durability: Durability,
}

fn present(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Present(true))
}

impl Tree {
    /// The tree's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same tree, with another promise for the writes made through this handle.
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Tree {
        Tree {
            durability,
            ..self.clone()
        }
    }

    // ---- reading ----

    /// The value of a key. O(log n); no message and no I/O if the pages are in memory.
    ///
    /// # Errors
    /// [`KeyEmpty`](crate::Error::KeyEmpty), [`KeyTooLarge`](crate::Error::KeyTooLarge),
    /// [`TreeNotFound`](crate::Error::TreeNotFound), [`Corrupt`](crate::Error::Corrupt),
    /// [`Io`](crate::Error::Io), [`Closed`](crate::Error::Closed).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        self.inner.check_key(key)?;
        self.inner.get(None, self.id, key)
    }

    /// Hands the value to `read` where it lies in memory, without copying it. Other readers and writers go on
    /// meanwhile, but the page stays in memory: don't wait in there.
    ///
    /// # Errors
    /// As [`get`](Tree::get).
    pub fn get_with<R>(&self, key: impl AsRef<[u8]>, read: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        let key = key.as_ref();
        self.inner.check_key(key)?;
        self.inner.get_with(self.id, key, read)
    }

    /// The values of many keys, all from one instant. Several times faster than as many [`get`](Tree::get)s, since
    /// cache misses and reads overlap.
    ///
    /// # Errors
    /// As [`get`](Tree::get).
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        keys.iter()
            .try_for_each(|key| self.inner.check_key(key.as_ref()))?;
        let shared = &self.inner.runtime.shared;
        shared.status.check_read()?;
        let version = with_guard(&shared.memory, |guard| shared.current.hold(guard));
        self.inner.get_many(&version, self.id, keys)
    }

    /// Whether the key is there.
    ///
    /// # Errors
    /// As [`get`](Tree::get).
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.get_with(key, |value| value.is_some())
    }

    /// The entries whose keys lie in `bounds`, in key order, from one instant; `rev()` for descending order.
    ///
    /// # Errors
    /// [`TreeNotFound`](crate::Error::TreeNotFound), [`Closed`](crate::Error::Closed). Reading errors come as items.
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Result<Range> {
        let shared = &self.inner.runtime.shared;
        shared.status.check_read()?;
        let version = with_guard(&shared.memory, |guard| shared.current.hold(guard));
        Range::new(
            Arc::clone(&self.inner),
            version,
            self.id,
            own(bounds.start_bound()),
            own(bounds.end_bound()),
        )
    }

    /// The entries whose keys begin with `prefix`.
    ///
    /// # Errors
    /// As [`range`](Tree::range).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Range> {
        let prefix = prefix.as_ref();
        self.range::<Vec<u8>>((Bound::Included(prefix.to_vec()), after_prefix(prefix)))
    }

    /// Hands the entries whose keys lie in `bounds` to `visit`, in key order, until it breaks: the fastest way to
    /// look at many. `visit` sees a copy that is reused from leaf to leaf.
    ///
    /// # Errors
    /// As [`get`](Tree::get).
    pub fn scan<K: AsRef<[u8]>>(
        &self,
        bounds: impl RangeBounds<K>,
        visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        self.range(bounds)?.scan(visit)
    }

    /// The entry with the lowest key.
    ///
    /// # Errors
    /// As [`get`](Tree::get).
    pub fn first(&self) -> Result<Option<(Value, Value)>> {
        self.range::<&[u8]>(..)?.next().transpose()
    }

    /// The entry with the highest key.
    ///
    /// # Errors
    /// As [`get`](Tree::get).
    pub fn last(&self) -> Result<Option<(Value, Value)>> {
        self.range::<&[u8]>(..)?.next_back().transpose()
    }

    /// Number of keys. O(1): it is kept with the root.
    ///
    /// # Errors
    /// [`TreeNotFound`](crate::Error::TreeNotFound), [`Closed`](crate::Error::Closed).
    pub fn len(&self) -> Result<u64> {
        let shared = &self.inner.runtime.shared;
        shared.status.check_read()?;
        with_guard(&shared.memory, |guard| {
            Ok(tree_of(shared.current.load(guard), self.id)?.entries())
        })
    }

    /// Whether there is no key.
    ///
    /// # Errors
    /// As [`len`](Tree::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    // ---- writing ----

    /// Writes a value, whether or not the key was there. Durable when it returns, under [`Durability::Sync`].
    ///
    /// # Errors
    /// [`KeyEmpty`](crate::Error::KeyEmpty), [`KeyTooLarge`](crate::Error::KeyTooLarge),
    /// [`ValueTooLarge`](crate::Error::ValueTooLarge), [`TreeNotFound`](crate::Error::TreeNotFound),
    /// [`OutOfSpace`](crate::Error::OutOfSpace), [`Poisoned`](crate::Error::Poisoned),
    /// [`OutcomeUnknown`](crate::Error::OutcomeUnknown), [`Closed`](crate::Error::Closed).
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_if(key.as_ref(), value.as_ref(), Condition::None)
    }

    /// Writes a value to a key that isn't there yet.
    ///
    /// # Errors
    /// [`KeyExists`](crate::Error::KeyExists), and as [`put`](Tree::put).
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_if(key.as_ref(), value.as_ref(), Condition::Absent)
    }

    /// Writes a value to a key that is there.
    ///
    /// # Errors
    /// [`KeyNotFound`](crate::Error::KeyNotFound), and as [`put`](Tree::put).
    pub fn replace(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_if(key.as_ref(), value.as_ref(), Condition::Present)
    }

    fn put_if(&self, key: &[u8], value: &[u8], condition: Condition) -> Result<()> {
        self.inner
            .send_put(self.id, key, value, condition, self.durability, true)?
            .wait()
    }

    /// Removes a key; tells whether it was there.
    ///
    /// # Errors
    /// As [`put`](Tree::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.delete_ticket(key.as_ref(), true)?.wait()
    }

    fn delete_ticket(&self, key: &[u8], wait: bool) -> Result<Ticket<bool>> {
        self.inner.check_key(key)?;
        let action = Action::Delete { key: key.into() };
        self.inner
            .send(self.id, key, action, self.durability, wait, present)
    }

    /// Replaces the value if it is `expected` (`None`: the key is absent) by `new` (`None`: delete). The inner
    /// error is what the key holds instead.
    ///
    /// # Errors
    /// As [`put`](Tree::put).
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<std::result::Result<(), Option<Value>>> {
        self.inner
            .swap(self.id, key.as_ref(), expected, new, self.durability)
    }

    /// Replaces the value by what `change` makes of it (`None`: the key is absent, or shall be). Atomic: `change`
    /// runs as a part of the owner's step, on whatever thread runs that, between all other writes of the key. Be short
    /// in there, and don't use the database: it would wait for itself. Where a large value is involved `change` runs
    /// on the calling thread, and again if another writer came first.
    ///
    /// # Errors
    /// [`ClosurePanicked`](crate::Error::ClosurePanicked), and as [`put`](Tree::put).
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<()> {
        self.inner
            .update(self.id, key.as_ref(), Box::new(change), self.durability)
    }

    // ---- pipelined ----

    /// Sends a write and returns at once: the ticket tells when it is done. Writes that one thread sends to one key
    /// are carried out in that order. Blocks only while the owner's mailbox is full, and for large values, which
    /// are written before they are named.
    ///
    /// # Errors
    /// Bad arguments are reported at once, as by [`put`](Tree::put); the rest by the ticket.
    pub fn send_put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Ticket<()>> {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.inner
            .send_put(self.id, key, value, Condition::None, self.durability, false)
    }

    /// As [`delete`](Tree::delete), pipelined.
    ///
    /// # Errors
    /// As [`send_put`](Tree::send_put).
    pub fn send_delete(&self, key: impl AsRef<[u8]>) -> Result<Ticket<bool>> {
        self.delete_ticket(key.as_ref(), false)
    }

    /// Reads at the owner, after all writes that this thread has sent before; answered when those are published.
    /// A plain [`get`](Tree::get) reads what is published already. The owner doesn't read large values (beyond a
    /// quarter page): for those the ticket says `None`, as for absent keys; use [`get`](Tree::get) for them.
    ///
    /// # Errors
    /// As [`send_put`](Tree::send_put).
    pub fn send_get(&self, key: impl AsRef<[u8]>) -> Result<Ticket<Option<Value>>> {
        let key = key.as_ref();
        self.inner.check_key(key)?;
        let action = Action::Get { key: key.into() };
        self.inner.send(
            self.id,
            key,
            action,
            Durability::Buffered,
            false,
            |outcome| match outcome {
                Outcome::Value(value) => value,
                _ => None,
            },
        )
    }

    /// As [`update`](Tree::update), pipelined. Neither old nor new value may be large (beyond a quarter page):
    /// such an update changes nothing, and its ticket says `false`.
    ///
    /// # Errors
    /// As [`send_put`](Tree::send_put).
    pub fn send_update(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Ticket<bool>> {
        let key = key.as_ref();
        self.inner.check_key(key)?;
        let action = Action::Update {
            key: key.into(),
            function: Box::new(change),
        };
        self.inner
            .send(self.id, key, action, self.durability, false, |outcome| {
                !matches!(outcome, Outcome::IsBlob(_))
            })
    }

    /// Writes many pairs as one: after a crash, and in every snapshot, either all are there or none.
    ///
    /// # Errors
    /// [`TransactionTooLarge`](crate::Error::TransactionTooLarge) by the ticket, and as [`send_put`](Tree::send_put).
    pub fn send_batch<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Ticket<()>> {
        let mut batch = Batch::new(Arc::clone(&self.inner)).durability(self.durability);
        for (key, value) in pairs {
            batch.put(self, key, value);
        }
        batch.send(false)
    }
}

/// A bound of its own.
pub(super) fn own<K: AsRef<[u8]>>(bound: Bound<&K>) -> Bound<Vec<u8>> {
    bound.map(|key| key.as_ref().to_vec())
}

/// The upper bound of the keys that begin with `prefix`.
pub(super) fn after_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}
