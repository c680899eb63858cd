//! One tree: everything that can be done with its keys.

use std::ops::ControlFlow;
use std::sync::Arc;

use treering_engine::TreeId;
use treering_engine::tree::Cursor;

use super::batch::Batch;
use super::bounds::{KeyBounds, OwnedBounds, of_prefix};
use super::db::Inner;
use super::range::Range;
use super::read::tree_of;
use super::scan::{Scan, partitions_within};
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::shard::{Action, Condition, UpdateFunction};
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
    pub(crate) id: TreeId,
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

    /// The tree's number, for something that belongs to a database: numbers mean something within one only.
    ///
    /// # Errors
    /// [`ForeignTree`](Error::ForeignTree).
    pub(super) fn id_in(&self, inner: &Arc<Inner>) -> Result<TreeId> {
        if !Arc::ptr_eq(&self.inner, inner) {
            return Err(Error::ForeignTree {
                name: self.name.to_string(),
            });
        }
        Ok(self.id)
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

    /// Hands the value to `read` without an allocation: one of up to 1 KiB as a copy on the stack, a longer one where it
    /// lies. Other readers and writers go on meanwhile, but its page stays in memory: don't wait in there.
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
        self.inner.runtime.shared.status.check_read()?;
        self.inner.get_many(&self.inner.hold_current(), self.id, keys)
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
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl KeyBounds<K>) -> Result<Range> {
        self.range_of(bounds.to_bytes())
    }

    fn range_of(&self, bounds: OwnedBounds) -> Result<Range> {
        self.inner.runtime.shared.status.check_read()?;
        let version = self.inner.hold_current();
        Range::new(Arc::clone(&self.inner), version, self.id, bounds)
    }

    /// The entries whose keys begin with `prefix`.
    ///
    /// # Errors
    /// As [`range`](Tree::range).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Range> {
        self.range_of(of_prefix(prefix.as_ref()))
    }

    /// Hands the entries whose keys lie in `bounds` to `visit` where they lie, in key order, all from one instant, until
    /// `visit` breaks: the fastest way to look at many. Nothing is allocated for an entry. Other readers and writers go
    /// on meanwhile, but up to two pages stay in memory for this scan alone: don't wait in there.
    ///
    /// # Errors
    /// As [`get`](Tree::get).
    pub fn scan<K: AsRef<[u8]>>(
        &self,
        bounds: impl KeyBounds<K>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        self.inner.runtime.shared.status.check_read()?;
        let bounds = bounds.as_slices();
        let version = self.inner.hold_current();
        let state = tree_of(&version, self.id)?;
        let partitions = state.partitions.get(partitions_within(state, bounds));
        let mut scan = Scan::new(&self.inner, &version, bounds);
        for partition in partitions.unwrap_or_default() {
            let mut cursor = Cursor::ascending(partition.root);
            if scan.run(&mut cursor, &mut visit)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The entry with the lowest key.
    ///
    /// # Errors
    /// As [`get`](Tree::get).
    pub fn first(&self) -> Result<Option<(Value, Value)>> {
        let mut first = None;
        self.scan(.., |key, value| {
            first = Some((key.into(), value.into()));
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// The entry with the highest key.
    ///
    /// # Errors
    /// As [`get`](Tree::get).
    pub fn last(&self) -> Result<Option<(Value, Value)>> {
        self.range(..)?.next_back().transpose()
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

    pub(super) fn delete_ticket(&self, key: &[u8], wait: bool) -> Result<Ticket<bool>> {
        self.inner.check_key(key)?;
        let action = Action::Delete { key: key.into() };
        self.inner
            .send(self.id, key, action, self.durability, wait, present)
    }

    /// Replaces the value if it is `expected` (`None`: the key is absent) by `new` (`None`: delete). The inner
    /// error is what the key holds instead. Compared where the key lives, byte by byte; a large value is read for that.
    ///
    /// # Errors
    /// As [`put`](Tree::put).
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<std::result::Result<(), Option<Value>>> {
        self.swap_ticket(key.as_ref(), expected, new, true)?.wait()
    }

    pub(super) fn swap_ticket(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        wait: bool,
    ) -> Result<Ticket<std::result::Result<(), Option<Value>>>> {
        self.inner
            .send_swap(self.id, key, (expected, new), self.durability, wait)
    }

    /// Replaces the value by what `change` makes of it (`None`: the key is absent, or shall be). Atomic: `change`
    /// runs as a part of the owner's step, on whatever thread runs that, between all other writes of the key. Be short
    /// in there: the shard does nothing else meanwhile. It can't wait for the database: see
    /// [`WouldDeadlock`](crate::Error::WouldDeadlock). It may be called again, should what it was first given never
    /// come to be: after the log ran out of space.
    ///
    /// Large values are read whole before `change` is called, and written before they take effect.
    ///
    /// # Errors
    /// [`ClosurePanicked`](crate::Error::ClosurePanicked), in which case the key is unchanged, and as
    /// [`put`](Tree::put).
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<()> {
        let function = UpdateFunction::new(change);
        self.inner
            .send_update(self.id, key.as_ref(), function, self.durability, true)?
            .wait()
    }

    /// Writes many pairs as one: after a crash, and in every snapshot, either all are there or none. Of equal keys the
    /// last wins.
    ///
    /// # Errors
    /// [`TransactionTooLarge`](crate::Error::TransactionTooLarge), and as [`put`](Tree::put).
    pub fn batch_set<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        self.batch_of_pairs(pairs).commit()
    }

    /// Removes many keys as one, as [`batch_set`](Tree::batch_set). Keys that aren't there are no error.
    ///
    /// # Errors
    /// As [`batch_set`](Tree::batch_set).
    pub fn batch_delete<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        self.batch_of_removals(keys).commit()
    }

    pub(super) fn batch_of_pairs<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Batch {
        let mut batch = Batch::new(Arc::clone(&self.inner)).durability(self.durability);
        for (key, value) in pairs {
            batch.put(self, key, value);
        }
        batch
    }

    pub(super) fn batch_of_removals<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Batch {
        let mut batch = Batch::new(Arc::clone(&self.inner)).durability(self.durability);
        for key in keys {
            batch.delete(self, key);
        }
        batch
    }
}
