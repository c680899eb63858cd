//! The engines behind one face.
//!
//! [`open`] gives a [`Store`], every client thread asks it for a [`Session`]. A session's methods
//! are the rows' operations; each engine implements them in its own best way, said in the header
//! of its file. What holds for all of them:
//!
//! * A write is as durable as the [`Profile`] says when the call returns: `Synced` writes are on
//!   the device, `Buffered` ones may be lost by a crash until [`Store::settle`]. All writes are
//!   visible to every session when the call returns.
//! * A read sees the newest state: a new read transaction for each call, where there are any.
//! * Values are copied out by `get`; scans look at every key and value in place.

mod fjall;
mod lmdb;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod treering;

use std::path::Path;

use crate::Result;
use crate::report::Contender;
use crate::workload::{Key, Record, VALUE_BYTES, Value};

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// On the device.
    Synced,
    /// Visible; on the device later.
    Buffered,
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// The promise that every write of the store keeps.
    pub promise: Promise,
    /// Budget of the engine's own cache, bytes.
    pub cache_bytes: u64,
    /// Bypass the kernel's page cache where the engine can.
    pub direct: bool,
    /// Keep the whole log: no flush of memtables, no checkpoint before the store is closed.
    pub keep_log: bool,
    /// About how many records there will be, for engines that must be told a size.
    pub records: u64,
}

/// How an engine's reads are kept out of the page cache when the cache is to be all it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageCache {
    /// It reads with `O_DIRECT`.
    Bypassed,
    /// It reads files: they are dropped from the page cache all the time.
    Evicted,
    /// The page cache *is* its cache: the process needs a cgroup of the cache's size.
    IsTheCache,
}

/// An open database.
pub trait Store: Send + Sync {
    /// A client of this store for the calling thread.
    ///
    /// # Errors
    /// The engine's.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Loads records with ascending keys into the empty store, durable on return.
    ///
    /// # Errors
    /// The engine's.
    fn load_sorted(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()>;

    /// Loads records with keys in random order into the empty store, durable on return.
    ///
    /// # Errors
    /// The engine's.
    fn load_random(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()>;

    /// Makes everything durable and waits until the engine's background work is done.
    ///
    /// # Errors
    /// The engine's.
    fn settle(&self) -> Result<()>;

    /// Makes everything durable in the log, and nothing more.
    ///
    /// # Errors
    /// The engine's.
    fn sync_log(&self) -> Result<()>;

    /// Bytes that opening would have to replay now; `None` for engines without a log.
    ///
    /// # Errors
    /// The engine's.
    fn log_bytes(&self) -> Result<Option<u64>>;

    /// Holds the present state for as long as the result lives.
    ///
    /// # Errors
    /// The engine's, or that this bench doesn't hold states of this engine.
    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        Err("states of this engine are not held in any row".into())
    }

    /// Pages that the present state shows, and pages that only earlier states show, in memory or on the device; `None` for
    /// engines that don't tell.
    fn pages(&self) -> Option<Pages> {
        None
    }

    /// Closes the store in good order.
    ///
    /// # Errors
    /// The engine's.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What [`Store::pages`] tells.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// Of the present state.
    pub present: u64,
    /// Of earlier states only.
    pub earlier: u64,
}

/// A state of a store that is held.
pub trait Held {}

impl<T> Held for T {}

/// One thread's way into a store.
pub trait Session {
    /// Copies the value of `key` to `value`; whether there was one.
    ///
    /// # Errors
    /// The engine's, or a value of the wrong size.
    fn get(&mut self, key: &Key, value: &mut Value) -> Result<bool>;

    /// Copies the values of all keys; how many there were.
    ///
    /// # Errors
    /// The engine's, or a value of the wrong size.
    fn get_many(&mut self, keys: &[Key], values: &mut [Value]) -> Result<u64>;

    /// Looks at up to `limit` entries from `from` on, ascending.
    ///
    /// # Errors
    /// The engine's.
    fn scan(&mut self, from: &Key, limit: u64) -> Result<Seen>;

    /// Inserts or overwrites.
    ///
    /// # Errors
    /// The engine's.
    fn put(&mut self, record: &Record) -> Result<()>;

    /// Inserts or overwrites all, atomically.
    ///
    /// # Errors
    /// The engine's.
    fn put_batch(&mut self, records: &[Record]) -> Result<()>;

    /// Reads the value, then overwrites it.
    ///
    /// # Errors
    /// The engine's.
    fn read_modify_write(&mut self, record: &Record) -> Result<()>;

    /// Deletes all, atomically.
    ///
    /// # Errors
    /// The engine's.
    fn delete_batch(&mut self, keys: &[Key]) -> Result<()>;

    /// Inserts or overwrites record after record without waiting for each; all are visible on
    /// return. Engines that can't pipeline take batches of 1,000, as an application would.
    ///
    /// # Errors
    /// The engine's.
    fn put_all(&mut self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        let mut batch = Vec::with_capacity(SEND_BATCH_WRITES);
        while refill(&mut batch, records, SEND_BATCH_WRITES) {
            self.put_batch(&batch)?;
        }
        Ok(())
    }

    /// Deletes key after key without waiting for each; see [`Session::put_all`].
    ///
    /// # Errors
    /// The engine's.
    fn delete_all(&mut self, keys: &mut dyn Iterator<Item = Key>) -> Result<()> {
        let mut batch = Vec::with_capacity(SEND_BATCH_WRITES);
        while refill(&mut batch, keys, SEND_BATCH_WRITES) {
            self.delete_batch(&batch)?;
        }
        Ok(())
    }
}

/// What a scan came across.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Entries visited.
    pub entries: u64,
    /// Something that depends on every key and value, so that none can be skipped.
    pub digest: u64,
}

impl Seen {
    /// Takes note of an entry.
    #[inline]
    pub fn note(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        let (first, last) = (key.first(), value.last());
        self.digest = self
            .digest
            .wrapping_add(u64::from(first.copied().unwrap_or(0)))
            .wrapping_add(u64::from(last.copied().unwrap_or(0)) << 8)
            .wrapping_add(((key.len() + value.len()) as u64) << 16);
    }
}

/// Records in one transaction of a bulk load, for engines that load by transactions.
const LOAD_BATCH_RECORDS: usize = 100_000;
/// Writes in one transaction or batch when the caller doesn't wait for each: what an application
/// would do to get the throughput that pipelining gives.
const SEND_BATCH_WRITES: usize = 1_000;

/// Copies a value out.
#[inline]
fn copy_out(found: &[u8], value: &mut Value) -> Result<()> {
    if found.len() != VALUE_BYTES {
        return Err(format!("a value of {} bytes", found.len()).into());
    }
    value.copy_from_slice(found);
    Ok(())
}

/// Fills `batch` anew; false when the items have come to their end.
fn refill<T>(batch: &mut Vec<T>, items: &mut dyn Iterator<Item = T>, limit: usize) -> bool {
    batch.clear();
    batch.extend(items.take(limit));
    !batch.is_empty()
}

/// The engines of this build, Treering first.
#[must_use]
pub fn built() -> Vec<Contender> {
    let mut engines = vec![
        Contender::Treering,
        Contender::Lmdb,
        Contender::Redb,
        Contender::Fjall,
    ];
    if cfg!(feature = "rocksdb") {
        engines.push(Contender::RocksDb);
    }
    engines
}

/// Opens or creates the database of `engine` at `directory`, which exists.
///
/// # Errors
/// The engine's; also when this build lacks the engine.
pub fn open(engine: Contender, directory: &Path, profile: &Profile) -> Result<Box<dyn Store>> {
    match engine {
        Contender::Treering => Ok(Box::new(treering::Treering::open(directory, profile)?)),
        Contender::Lmdb => Ok(Box::new(lmdb::Lmdb::open(directory, profile)?)),
        Contender::Redb => Ok(Box::new(redb::Redb::open(directory, profile)?)),
        Contender::Fjall => Ok(Box::new(fjall::Fjall::open(directory, profile)?)),
        #[cfg(feature = "rocksdb")]
        Contender::RocksDb => Ok(Box::new(rocksdb::Rocks::open(directory, profile)?)),
        other => Err(format!("{} is not part of this build", other.title()).into()),
    }
}

/// How `engine` is kept out of the page cache in the rows beyond the cache.
#[must_use]
pub fn page_cache(engine: Contender) -> PageCache {
    match engine {
        Contender::Lmdb => PageCache::IsTheCache,
        Contender::Redb | Contender::Fjall => PageCache::Evicted,
        Contender::Treering | Contender::RocksDb | Contender::Device => PageCache::Bypassed,
    }
}

/// Whether a file of `engine` is part of its log: those are told apart in the table of sizes.
#[must_use]
pub fn is_log(engine: Contender, file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    match engine {
        Contender::Treering => extension == Some("seg"),
        Contender::RocksDb => extension == Some("log"),
        Contender::Fjall => extension == Some("jnl"),
        Contender::Lmdb | Contender::Redb | Contender::Device => false,
    }
}

#[cfg(test)]
mod tests;
