//! RocksDB through `rust-rocksdb` (feature `rocksdb`).
//!
//! * Buffered: `manual_wal_flush`, its fastest way with a log: a write stays in the process until
//!   the log's buffer is full.
//! * Synced: `WriteOptions::sync`, log files recycled (`recycle_log_file_num`), which makes a sync
//!   one fdatasync of blocks that exist. Recycling needs finished log files: the random load writes
//!   through the log in this mode and ends with a flush.
//! * Bulk loads: an SST file that is ingested when sorted; batches of 1,000 without a log and a
//!   flush at the end when not. Pipelined writes: batches of 1,000.
//! * Reads: bloom filters of 10 bits, hash index in data blocks, hyper clock cache, values copied
//!   straight into the caller's buffer; the batched `MultiGet` for `get_many`.
//! * No compression: the values are random bytes. 4 KiB blocks.
//! * Beyond the cache: direct reads and writes, index and filters inside the cache, small memtables.

use std::path::{Path, PathBuf};

use rust_rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DataBlockIndexType, GetIntoBufferResult,
    IngestExternalFileOptions, Options, SstFileWriter, WaitForCompactOptions, WriteBatch, WriteOptions,
};

use super::{Profile, Promise, SEND_BATCH_WRITES, Seen, Session, Store, copy_out, refill};
use crate::Result;
use crate::disk;
use crate::workload::{Key, Record, VALUE_BYTES, Value};

/// Memtable where memory is no matter: RocksDB's default.
const MEMTABLE_BYTES: usize = 64 << 20;
/// Memtable where the cache is an eighth of the data.
const MEMTABLE_BYTES_SMALL: usize = 16 << 20;
/// Memtable that no bench fills.
const MEMTABLE_BYTES_UNBOUNDED: usize = 8 << 30;
/// Finished log files kept for reuse.
const LOG_FILES_RECYCLED: usize = 4;
/// Flushes and compactions at once: as many as the machine the figures are for has cores.
const BACKGROUND_JOBS: i32 = 2;
/// Bits a key in the filters; RocksDB's recommendation.
const FILTER_BITS: f64 = 10.0;

pub(super) struct Rocks {
    database: DB,
    options: Options,
    writes: WriteOptions,
    promise: Promise,
    directory: PathBuf,
}

fn options(profile: &Profile) -> Result<Options> {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(4 << 10);
    table.set_block_cache(&Cache::new_hyper_clock_cache(
        usize::try_from(profile.cache_bytes)?,
        0,
    ));
    table.set_bloom_filter(FILTER_BITS, false);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    if profile.promise == Promise::Synced {
        // RocksDB refuses to write without a log when logs are recycled, and only syncs gain by it.
        options.set_recycle_log_file_num(LOG_FILES_RECYCLED);
    }
    options.set_write_buffer_size(if profile.keep_log {
        MEMTABLE_BYTES_UNBOUNDED
    } else if profile.direct {
        MEMTABLE_BYTES_SMALL
    } else {
        MEMTABLE_BYTES
    });
    options.set_manual_wal_flush(profile.promise == Promise::Buffered);
    options.set_use_direct_reads(profile.direct);
    options.set_use_direct_io_for_flush_and_compaction(profile.direct);
    Ok(options)
}

impl Rocks {
    pub(super) fn open(directory: &Path, profile: &Profile) -> Result<Self> {
        let options = options(profile)?;
        let database = DB::open(&options, directory)?;
        let mut writes = WriteOptions::default();
        writes.set_sync(profile.promise == Promise::Synced);
        Ok(Self {
            database,
            options,
            writes,
            promise: profile.promise,
            directory: directory.to_owned(),
        })
    }
}

impl Store for Rocks {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(RocksSession {
            rocks: self,
            batch: WriteBatch::default(),
        }))
    }

    fn load_sorted(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        let path = self.directory.join("bulk.sst");
        let mut writer = SstFileWriter::create(&self.options);
        writer.open(&path)?;
        for record in records {
            writer.put(record.key, record.value)?;
        }
        writer.finish()?;
        let mut ingestion = IngestExternalFileOptions::default();
        ingestion.set_move_files(true);
        Ok(self.database.ingest_external_file_opts(&ingestion, vec![path])?)
    }

    fn load_random(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        let mut writes = WriteOptions::default();
        writes.disable_wal(self.promise == Promise::Buffered);
        let mut records_of_batch = Vec::with_capacity(SEND_BATCH_WRITES);
        let mut batch = WriteBatch::default();
        while refill(&mut records_of_batch, records, SEND_BATCH_WRITES) {
            batch.clear();
            for record in &records_of_batch {
                batch.put(record.key, record.value);
            }
            self.database.write_opt(&batch, &writes)?;
        }
        Ok(self.database.flush()?)
    }

    fn settle(&self) -> Result<()> {
        self.sync_log()?;
        let mut options = WaitForCompactOptions::default();
        options.set_flush(true);
        Ok(self.database.wait_for_compact(&options)?)
    }

    fn sync_log(&self) -> Result<()> {
        Ok(self.database.flush_wal(true)?)
    }

    fn log_bytes(&self) -> Result<Option<u64>> {
        let mut bytes = 0;
        for path in disk::files(&self.directory)? {
            if path.extension().is_some_and(|extension| extension == "log") {
                bytes += path.metadata()?.len();
            }
        }
        Ok(Some(bytes))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.settle()
    }
}

struct RocksSession<'s> {
    rocks: &'s Rocks,
    batch: WriteBatch,
}

impl Session for RocksSession<'_> {
    fn get(&mut self, key: &Key, value: &mut Value) -> Result<bool> {
        match self.rocks.database.get_into_buffer(key, value)? {
            GetIntoBufferResult::Found(VALUE_BYTES) => Ok(true),
            GetIntoBufferResult::NotFound => Ok(false),
            GetIntoBufferResult::Found(bytes) | GetIntoBufferResult::BufferTooSmall(bytes) => {
                Err(format!("a value of {bytes} bytes").into())
            }
        }
    }

    fn get_many(&mut self, keys: &[Key], values: &mut [Value]) -> Result<u64> {
        let found = self.rocks.database.batched_multi_get_pinned(keys, false);
        let mut count = 0;
        for (found, value) in found.into_iter().zip(values) {
            if let Some(found) = found? {
                copy_out(&found, value)?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn scan(&mut self, from: &Key, limit: u64) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut iterator = self.rocks.database.raw_iterator();
        iterator.seek(from);
        while let Some((key, value)) = iterator.item() {
            seen.note(key, value);
            if seen.entries == limit {
                break;
            }
            iterator.next();
        }
        iterator.status()?;
        Ok(seen)
    }

    fn put(&mut self, record: &Record) -> Result<()> {
        let rocks = self.rocks;
        Ok(rocks.database.put_opt(record.key, record.value, &rocks.writes)?)
    }

    fn put_batch(&mut self, records: &[Record]) -> Result<()> {
        self.batch.clear();
        for record in records {
            self.batch.put(record.key, record.value);
        }
        Ok(self.rocks.database.write_opt(&self.batch, &self.rocks.writes)?)
    }

    fn delete_batch(&mut self, keys: &[Key]) -> Result<()> {
        self.batch.clear();
        for key in keys {
            self.batch.delete(key);
        }
        Ok(self.rocks.database.write_opt(&self.batch, &self.rocks.writes)?)
    }

    fn read_modify_write(&mut self, record: &Record) -> Result<()> {
        let mut value = [0; VALUE_BYTES];
        self.get(&record.key, &mut value)?;
        std::hint::black_box(value);
        self.put(record)
    }
}
