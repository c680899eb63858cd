//! LMDB through `heed`.
//!
//! * Buffered: `WRITEMAP | NOSYNC`, its fastest way: writes go straight into the map and the kernel
//!   writes them back. A crash of the machine may leave the file corrupt, which the other engines'
//!   buffered modes don't risk.
//! * Synced: no flags: pages are written with `pwrite`, then fdatasync, then the meta page.
//!   `WRITEMAP` is slower there (it syncs the map).
//! * One read transaction per read, in the thread's slot (the faster kind).
//! * Bulk loads: transactions of 100,000, with `APPEND` when sorted. Pipelined writes: 1,000.
//! * `NORDAHEAD` when the data is beyond memory. The page cache is LMDB's only cache.

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, WithTls};

use super::{Held, LOAD_BATCH_RECORDS, Profile, Promise, Seen, Session, Store, copy_out, refill};
use crate::Result;
use crate::workload::{Key, RECORD_BYTES, Record, Value};

/// The map is a reservation of address space, not of disk.
const MAP_BYTES_MIN: u64 = 4 << 30;
/// Threads that may read: 256 clients and some.
const READERS_MAX: u32 = 512;

type Table<'e> = Database<'e, Bytes, Bytes>;

pub(super) struct Lmdb {
    environment: Env<WithTls>,
}

impl Lmdb {
    pub(super) fn open(directory: &Path, profile: &Profile) -> Result<Self> {
        let mut flags = match profile.promise {
            Promise::Synced => EnvFlags::empty(),
            Promise::Buffered => EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC,
        };
        if profile.direct {
            flags |= EnvFlags::NO_READ_AHEAD;
        }
        let map_bytes = (profile.records * RECORD_BYTES * 16).max(MAP_BYTES_MIN);
        let mut options = EnvOpenOptions::new();
        options
            .map_size(usize::try_from(map_bytes)?)
            .max_readers(READERS_MAX);
        // SAFETY: NOSYNC and WRITEMAP endanger the file in a crash, which loses a benchmark's
        // data only; NORDAHEAD is a hint.
        unsafe { options.flags(flags) };
        // SAFETY: the directory is a fresh one of this bench, so nothing else changes the mapped
        // file or its locks, and each path is open at most once at a time.
        let environment = unsafe { options.open(directory)? };
        let lmdb = Self { environment };
        // Makes the unnamed database visible to later transactions.
        lmdb.table()?;
        Ok(lmdb)
    }

    fn table(&self) -> Result<Table<'_>> {
        let transaction = self.environment.read_txn()?;
        let table = self
            .environment
            .open_databases_and_commit(transaction, |opener, transaction| {
                let table = opener.open_database::<Bytes, Bytes>(transaction, None)?;
                heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(table))
            })?
            .unwrap_commit();
        table.ok_or_else(|| "LMDB has no unnamed database".into())
    }

    fn load(&self, records: &mut dyn Iterator<Item = Record>, flags: PutFlags) -> Result<()> {
        let table = self.table()?;
        let mut batch = Vec::with_capacity(LOAD_BATCH_RECORDS);
        while refill(&mut batch, records, LOAD_BATCH_RECORDS) {
            let mut transaction = self.environment.write_txn()?;
            for record in &batch {
                table.put_with_flags(&mut transaction, flags, &record.key, &record.value)?;
            }
            transaction.commit()?;
        }
        self.settle()
    }
}

impl Store for Lmdb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(LmdbSession {
            environment: &self.environment,
            table: self.table()?,
        }))
    }

    fn load_sorted(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        self.load(records, PutFlags::APPEND)
    }

    fn load_random(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        self.load(records, PutFlags::empty())
    }

    fn settle(&self) -> Result<()> {
        Ok(self.environment.force_sync()?)
    }

    fn sync_log(&self) -> Result<()> {
        self.settle()
    }

    fn log_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        Ok(Box::new(self.environment.read_txn()?))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.environment.prepare_for_closing().wait();
        Ok(())
    }
}

struct LmdbSession<'s> {
    environment: &'s Env<WithTls>,
    table: Table<'s>,
}

impl Session for LmdbSession<'_> {
    fn get(&mut self, key: &Key, value: &mut Value) -> Result<bool> {
        let transaction = self.environment.read_txn()?;
        match self.table.get(&transaction, key)? {
            Some(found) => copy_out(found, value).map(|()| true),
            None => Ok(false),
        }
    }

    fn get_many(&mut self, keys: &[Key], values: &mut [Value]) -> Result<u64> {
        let transaction = self.environment.read_txn()?;
        let mut count = 0;
        for (key, value) in keys.iter().zip(values) {
            if let Some(found) = self.table.get(&transaction, key)? {
                copy_out(found, value)?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn scan(&mut self, from: &Key, limit: u64) -> Result<Seen> {
        let transaction = self.environment.read_txn()?;
        let mut seen = Seen::default();
        let range = (
            std::ops::Bound::Included(from.as_slice()),
            std::ops::Bound::Unbounded,
        );
        for entry in self.table.range(&transaction, &range)? {
            let (key, value) = entry?;
            seen.note(key, value);
            if seen.entries == limit {
                break;
            }
        }
        Ok(seen)
    }

    fn put(&mut self, record: &Record) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        self.table.put(&mut transaction, &record.key, &record.value)?;
        Ok(transaction.commit()?)
    }

    fn put_batch(&mut self, records: &[Record]) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        for record in records {
            self.table.put(&mut transaction, &record.key, &record.value)?;
        }
        Ok(transaction.commit()?)
    }

    fn read_modify_write(&mut self, record: &Record) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        if let Some(found) = self.table.get(&transaction, &record.key)? {
            let mut value = [0; crate::workload::VALUE_BYTES];
            copy_out(found, &mut value)?;
            std::hint::black_box(value);
        }
        self.table.put(&mut transaction, &record.key, &record.value)?;
        Ok(transaction.commit()?)
    }

    fn delete_batch(&mut self, keys: &[Key]) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        for key in keys {
            self.table.delete(&mut transaction, key)?;
        }
        Ok(transaction.commit()?)
    }
}
