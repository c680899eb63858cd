//! redb.
//!
//! * Buffered: `Durability::None`, and one durable commit every 500,000 writes: pages that
//!   non-durable commits freed can't be reused before the next durable one, so an application
//!   would have to do the same.
//! * Synced: `Durability::Immediate`, one-phase commit (the default and the faster).
//! * One read transaction and one table handle per read.
//! * Bulk loads: transactions of 100,000. Pipelined writes: 1,000.
//! * redb reads with `pread` through the page cache: beyond the cache its file is kept evicted.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ::redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Held, LOAD_BATCH_RECORDS, Profile, Promise, Seen, Session, Store, copy_out, refill};
use crate::Result;
use crate::workload::{Key, Record, VALUE_BYTES, Value};

const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("records");

/// Buffered commits between two durable ones, counted in written records.
const DURABLE_EVERY_WRITES: u64 = 500_000;

pub(super) struct Redb {
    database: Database,
    promise: Promise,
    buffered_writes: AtomicU64,
}

impl Redb {
    pub(super) fn open(directory: &Path, profile: &Profile) -> Result<Self> {
        let database = Database::builder()
            .set_cache_size(usize::try_from(profile.cache_bytes)?)
            .create(directory.join("redb"))?;
        let redb = Self {
            database,
            promise: profile.promise,
            buffered_writes: AtomicU64::new(0),
        };
        // Reads of a table that was never written fail: make it.
        redb.write(0, |_| Ok(()))?;
        Ok(redb)
    }

    /// Runs `change` in a transaction that keeps the store's promise.
    fn write(
        &self,
        writes: u64,
        change: impl FnOnce(&mut ::redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<()>,
    ) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability(writes))?;
        change(&mut transaction.open_table(TABLE)?)?;
        Ok(transaction.commit()?)
    }

    fn durability(&self, writes: u64) -> Durability {
        match self.promise {
            Promise::Synced => Durability::Immediate,
            Promise::Buffered => {
                let before = self.buffered_writes.fetch_add(writes, Ordering::Relaxed);
                if before / DURABLE_EVERY_WRITES == (before + writes) / DURABLE_EVERY_WRITES {
                    Durability::None
                } else {
                    Durability::Immediate
                }
            }
        }
    }

    fn load(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        let mut batch = Vec::with_capacity(LOAD_BATCH_RECORDS);
        while refill(&mut batch, records, LOAD_BATCH_RECORDS) {
            self.write(batch.len() as u64, |table| insert_all(table, &batch))?;
        }
        self.settle()
    }
}

fn insert_all(table: &mut ::redb::Table<'_, &'static [u8], &'static [u8]>, records: &[Record]) -> Result<()> {
    for record in records {
        table.insert(record.key.as_slice(), record.value.as_slice())?;
    }
    Ok(())
}

impl Store for Redb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(RedbSession { redb: self }))
    }

    fn load_sorted(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        self.load(records)
    }

    fn load_random(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        self.load(records)
    }

    fn settle(&self) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        Ok(transaction.commit()?)
    }

    fn sync_log(&self) -> Result<()> {
        self.settle()
    }

    fn log_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        Ok(Box::new(self.database.begin_read()?))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.settle()
    }
}

struct RedbSession<'s> {
    redb: &'s Redb,
}

impl RedbSession<'_> {
    fn table(&self) -> Result<::redb::ReadOnlyTable<&'static [u8], &'static [u8]>> {
        Ok(self.redb.database.begin_read()?.open_table(TABLE)?)
    }
}

impl Session for RedbSession<'_> {
    fn get(&mut self, key: &Key, value: &mut Value) -> Result<bool> {
        match self.table()?.get(key.as_slice())? {
            Some(found) => copy_out(found.value(), value).map(|()| true),
            None => Ok(false),
        }
    }

    fn get_many(&mut self, keys: &[Key], values: &mut [Value]) -> Result<u64> {
        let table = self.table()?;
        let mut count = 0;
        for (key, value) in keys.iter().zip(values) {
            if let Some(found) = table.get(key.as_slice())? {
                copy_out(found.value(), value)?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn scan(&mut self, from: &Key, limit: u64) -> Result<Seen> {
        let mut seen = Seen::default();
        for entry in self.table()?.range(from.as_slice()..)? {
            let (key, value) = entry?;
            seen.note(key.value(), value.value());
            if seen.entries == limit {
                break;
            }
        }
        Ok(seen)
    }

    fn put(&mut self, record: &Record) -> Result<()> {
        self.put_batch(std::slice::from_ref(record))
    }

    fn put_batch(&mut self, records: &[Record]) -> Result<()> {
        self.redb
            .write(records.len() as u64, |table| insert_all(table, records))
    }

    fn read_modify_write(&mut self, record: &Record) -> Result<()> {
        self.redb.write(1, |table| {
            let mut value = [0; VALUE_BYTES];
            if let Some(found) = table.get(record.key.as_slice())? {
                copy_out(found.value(), &mut value)?;
                std::hint::black_box(value);
            }
            insert_all(table, std::slice::from_ref(record))
        })
    }

    fn delete_batch(&mut self, keys: &[Key]) -> Result<()> {
        self.redb.write(keys.len() as u64, |table| {
            for key in keys {
                table.remove(key.as_slice())?;
            }
            Ok(())
        })
    }
}
