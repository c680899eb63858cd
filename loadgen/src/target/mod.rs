//! The database under load, as narrow as the generator needs it.
//!
//! The traits keep the generator apart from Treering for one reason: its own tests run against a map in memory
//! that can be told to lie, which is how `--verify` is shown to catch what it must. [`treering`] is
//! the real one.

#[cfg(test)]
pub(crate) mod memory;
pub mod treering;

use std::future::Future;
use std::path::Path;

use serde_json::{Map, Value};

use crate::plan::StoreOptions;

/// Why an operation failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct TargetError {
    /// The database's own words.
    pub message: String,
    /// Whether every later write will fail as well: closed or poisoned.
    pub is_final: bool,
}

/// What opens databases.
pub trait Opener {
    /// What it opens.
    type Target: Target;

    /// Opens or creates the database in `directory`.
    ///
    /// # Errors
    /// Whatever keeps it from being opened.
    fn open(&self, directory: &Path, options: &StoreOptions) -> Result<Self::Target, TargetError>;
}

/// An open database with the one tree that the generator uses.
pub trait Target: Sync + Sized {
    /// What one thread works with.
    type Session: Session;

    /// A session for one thread, a client of its own.
    ///
    /// # Errors
    /// When the tree can't be opened.
    fn session(&self) -> Result<Self::Session, TargetError>;

    /// Makes everything that was acknowledged before the call durable.
    ///
    /// # Errors
    /// When that failed; nothing is known about unsynced writes then.
    fn flush(&self) -> Result<(), TargetError>;

    /// The database's own counters, for the report.
    fn stats(&self) -> Map<String, Value>;

    /// Closes the database; waits for what is on its way.
    ///
    /// # Errors
    /// What the last writes met.
    fn close(self) -> Result<(), TargetError>;
}

/// What one thread does. Writes of one session to one key are carried out in the order in which they were sent.
pub trait Session: Send {
    /// A write on its way.
    type Pending: Future<Output = Result<(), TargetError>> + Unpin + Send;

    /// Inserts or overwrites, and waits.
    ///
    /// # Errors
    /// As the database says; so for all others.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), TargetError>;

    /// Creates a record that isn't there yet, and waits.
    ///
    /// # Errors
    /// Also when the key is there.
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), TargetError>;

    /// Replaces the value by what `change` makes of it, atomically, and waits.
    ///
    /// # Errors
    /// As the database says.
    fn update<F>(&self, key: &[u8], change: F) -> Result<(), TargetError>
    where
        F: FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static;

    /// [`put`](Session::put) without waiting.
    ///
    /// # Errors
    /// When it can't even be sent.
    fn send_put(&self, key: &[u8], value: &[u8]) -> Result<Self::Pending, TargetError>;

    /// [`update`](Session::update) without waiting.
    ///
    /// # Errors
    /// When it can't even be sent.
    fn send_update<F>(&self, key: &[u8], change: F) -> Result<Self::Pending, TargetError>
    where
        F: FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static;

    /// Sends many puts as one batch.
    ///
    /// # Errors
    /// When it can't even be sent.
    fn send_batch(&self, records: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self::Pending, TargetError>;

    /// Reads one record and shows it to `look`.
    ///
    /// # Errors
    /// As the database says.
    fn get<R>(&self, key: &[u8], look: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, TargetError>;

    /// Reads many records at once and shows each, with its place in `keys`, to `look`.
    ///
    /// # Errors
    /// As the database says.
    fn get_many(&self, keys: &[&[u8]], look: impl FnMut(usize, Option<&[u8]>)) -> Result<(), TargetError>;

    /// Shows the records from key `from` on, in key order, `limit` of them at most. All of them belong to one
    /// snapshot.
    ///
    /// # Errors
    /// As the database says; what was shown until then is no less true.
    fn scan(&self, from: &[u8], limit: u64, visit: impl FnMut(&[u8], &[u8])) -> Result<(), TargetError>;

    /// Number of records in the tree.
    ///
    /// # Errors
    /// As the database says.
    fn len(&self) -> Result<u64, TargetError>;

    /// Whether the tree holds nothing.
    ///
    /// # Errors
    /// As the database says.
    fn is_empty(&self) -> Result<bool, TargetError> {
        Ok(self.len()? == 0)
    }
}
