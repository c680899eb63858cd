//! fjall.
//!
//! * Buffered: the journal is written by hand (`manual_journal_persist`), its fastest way: a write
//!   stays in the process until the journal's buffer is full.
//! * Synced: insert, then `persist(SyncData)`, the documented pair; batches carry
//!   `PersistMode::SyncData`.
//! * Bulk loads: the ingestion API when sorted, batches of 1,000 when not. Pipelined writes: 1,000.
//! * No compression (the values are random bytes), 4 KiB blocks, its default filters.
//! * fjall reads with `pread` through the page cache: beyond the cache its files are kept evicted,
//!   and memtables are small.

use std::path::Path;
use std::time::{Duration, Instant};

use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Profile, Promise, SEND_BATCH_WRITES, Seen, Session, Store, copy_out, refill};
use crate::Result;
use crate::workload::{Key, Record, VALUE_BYTES, Value};

/// Memtable where memory is no matter: fjall's default and its largest recommended size.
const MEMTABLE_BYTES: u64 = 64 << 20;
/// Memtable where the cache is an eighth of the data.
const MEMTABLE_BYTES_SMALL: u64 = 16 << 20;
/// Memtable and journal that no bench fills.
const LOG_BYTES_UNBOUNDED: u64 = 8 << 30;
/// How long [`Store::settle`] waits for compactions at most.
const SETTLE_MAX: Duration = Duration::from_secs(60);

pub(super) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    promise: Promise,
}

impl Fjall {
    pub(super) fn open(directory: &Path, profile: &Profile) -> Result<Self> {
        let mut builder = Database::builder(directory).cache_size(profile.cache_bytes);
        let mut memtable_bytes = MEMTABLE_BYTES;
        if profile.direct {
            memtable_bytes = MEMTABLE_BYTES_SMALL;
        }
        if profile.keep_log {
            memtable_bytes = LOG_BYTES_UNBOUNDED;
            builder = builder.max_journaling_size(LOG_BYTES_UNBOUNDED);
        }
        let database = builder.open()?;
        let keyspace = database.keyspace("records", || {
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(memtable_bytes)
        })?;
        Ok(Self {
            database,
            keyspace,
            promise: profile.promise,
        })
    }

    fn batch_mode(&self) -> Option<PersistMode> {
        match self.promise {
            Promise::Synced => Some(PersistMode::SyncData),
            Promise::Buffered => None,
        }
    }

    fn insert_all(&self, records: &[Record], mode: Option<PersistMode>) -> Result<()> {
        let mut batch =
            ::fjall::OwnedWriteBatch::with_capacity(self.database.clone(), records.len()).durability(mode);
        for record in records {
            batch.insert(&self.keyspace, record.key.as_slice(), record.value.as_slice());
        }
        Ok(batch.commit()?)
    }
}

impl Store for Fjall {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(FjallSession { fjall: self }))
    }

    fn load_sorted(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        let mut ingestion = self.keyspace.start_ingestion()?;
        for record in records {
            ingestion.write(record.key.as_slice(), record.value.as_slice())?;
        }
        ingestion.finish()?;
        Ok(())
    }

    fn load_random(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        let mut batch = Vec::with_capacity(SEND_BATCH_WRITES);
        while refill(&mut batch, records, SEND_BATCH_WRITES) {
            self.insert_all(&batch, None)?;
        }
        self.sync_log()
    }

    fn settle(&self) -> Result<()> {
        self.sync_log()?;
        // Old versions in the memtable slow scans down, and the sizes are to include its contents.
        self.keyspace.rotate_memtable_and_wait()?;
        let deadline = Instant::now() + SETTLE_MAX;
        while (self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn sync_log(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn log_bytes(&self) -> Result<Option<u64>> {
        Ok(Some(self.database.journal_disk_space()?))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync_log()
    }
}

struct FjallSession<'s> {
    fjall: &'s Fjall,
}

impl Session for FjallSession<'_> {
    fn get(&mut self, key: &Key, value: &mut Value) -> Result<bool> {
        match self.fjall.keyspace.get(key)? {
            Some(found) => copy_out(&found, value).map(|()| true),
            None => Ok(false),
        }
    }

    fn get_many(&mut self, keys: &[Key], values: &mut [Value]) -> Result<u64> {
        let mut count = 0;
        for (key, value) in keys.iter().zip(values) {
            count += u64::from(self.get(key, value)?);
        }
        Ok(count)
    }

    fn scan(&mut self, from: &Key, limit: u64) -> Result<Seen> {
        let mut seen = Seen::default();
        for entry in self.fjall.keyspace.range(from.as_slice()..) {
            let (key, value) = entry.into_inner()?;
            seen.note(&key, &value);
            if seen.entries == limit {
                break;
            }
        }
        Ok(seen)
    }

    fn put(&mut self, record: &Record) -> Result<()> {
        self.fjall
            .keyspace
            .insert(record.key.as_slice(), record.value.as_slice())?;
        match self.fjall.promise {
            Promise::Synced => self.fjall.sync_log(),
            Promise::Buffered => Ok(()),
        }
    }

    fn put_batch(&mut self, records: &[Record]) -> Result<()> {
        self.fjall.insert_all(records, self.fjall.batch_mode())
    }

    fn read_modify_write(&mut self, record: &Record) -> Result<()> {
        let mut value = [0; VALUE_BYTES];
        self.get(&record.key, &mut value)?;
        std::hint::black_box(value);
        self.put(record)
    }

    fn delete_batch(&mut self, keys: &[Key]) -> Result<()> {
        let fjall = self.fjall;
        let mut batch = fjall.database.batch().durability(fjall.batch_mode());
        for key in keys {
            batch.remove(&fjall.keyspace, key.as_slice());
        }
        Ok(batch.commit()?)
    }
}
