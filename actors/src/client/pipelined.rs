//! Writes that are sent now and answered later: the twin of each waiting write, with a ticket.

use super::tree::Tree;
use crate::error::Result;
use crate::options::Durability;
use crate::shard::{Action, Condition, UpdateFunction};
use crate::ticket::{Outcome, Ticket};
use crate::value::Value;

/// Each of these sends its request and returns at once. Requests that one thread sends for one key are carried out in
/// that order, whatever they are. They block only while the owner's mailbox is full (4,096 requests), for large values,
/// which are written before they are named, and behind an unanswered batch over several shards that names the same key.
/// Batches wait while a key range moves from one shard to another.
impl Tree {
    /// As [`put`](Tree::put), pipelined: the ticket tells when it is done.
    ///
    /// # Errors
    /// Bad arguments are reported at once, as by [`put`](Tree::put); the rest by the ticket.
    pub fn send_put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Ticket<()>> {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.inner
            .send_put(self.id, key, value, Condition::None, self.durability, false)
    }

    /// As [`insert`](Tree::insert), pipelined.
    ///
    /// # Errors
    /// [`KeyExists`](crate::Error::KeyExists) by the ticket, and as [`send_put`](Tree::send_put).
    pub fn send_insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Ticket<()>> {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.inner
            .send_put(self.id, key, value, Condition::Absent, self.durability, false)
    }

    /// As [`replace`](Tree::replace), pipelined.
    ///
    /// # Errors
    /// [`KeyNotFound`](crate::Error::KeyNotFound) by the ticket, and as [`send_put`](Tree::send_put).
    pub fn send_replace(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Ticket<()>> {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.inner
            .send_put(self.id, key, value, Condition::Present, self.durability, false)
    }

    /// As [`delete`](Tree::delete), pipelined.
    ///
    /// # Errors
    /// As [`send_put`](Tree::send_put).
    pub fn send_delete(&self, key: impl AsRef<[u8]>) -> Result<Ticket<bool>> {
        self.delete_ticket(key.as_ref(), false)
    }

    /// As [`compare_and_swap`](Tree::compare_and_swap), pipelined.
    ///
    /// # Errors
    /// As [`send_put`](Tree::send_put).
    pub fn send_compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Ticket<std::result::Result<(), Option<Value>>>> {
        self.swap_ticket(key.as_ref(), expected, new, false)
    }

    /// Reads at the owner, after all writes that this thread has sent before; answered when those are published.
    /// A plain [`get`](Tree::get) reads what is published already.
    ///
    /// # Errors
    /// As [`get`](Tree::get); bad arguments at once, the rest by the ticket. And, since it takes its turn among the
    /// writes, [`Poisoned`](crate::Error::Poisoned) and [`OutcomeUnknown`](crate::Error::OutcomeUnknown).
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

    /// As [`update`](Tree::update), pipelined.
    ///
    /// # Errors
    /// As [`update`](Tree::update); bad arguments at once, the rest by the ticket.
    pub fn send_update(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Ticket<()>> {
        let function = UpdateFunction::new(change);
        self.inner
            .send_update(self.id, key.as_ref(), function, self.durability, false)
    }

    /// As [`batch_set`](Tree::batch_set), pipelined.
    ///
    /// # Errors
    /// [`TransactionTooLarge`](crate::Error::TransactionTooLarge) by the ticket, and as [`send_put`](Tree::send_put).
    pub fn send_batch<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Ticket<()>> {
        self.batch_of_pairs(pairs).send()
    }

    /// As [`batch_delete`](Tree::batch_delete), pipelined.
    ///
    /// # Errors
    /// As [`send_batch`](Tree::send_batch).
    pub fn send_batch_delete<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Ticket<()>> {
        self.batch_of_removals(keys).send()
    }
}
