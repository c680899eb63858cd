//! What was written: for every record the versions issued, acknowledged and promised.
//!
//! Job: to tell, for any record at any moment, which versions an answer may show; also after this process
//! was killed. The ledger keeps per record
//!
//! - **issued**: the highest version any write was given; together with the number of writes under way;
//! - **acknowledged**: the highest version whose write the database acknowledged;
//! - **promised**: the highest version that must survive a crash. Under `Durability::Sync` that is what was
//!   acknowledged; under `Durability::Buffered` what had been acknowledged before a flush that succeeded
//!   (a *flush point*).
//!
//! Issued and promised are words of the file `verify.journal`, mapped, and so outlive the process; a write's
//! version is in the file before the write is sent, its promise after it was acknowledged.
//!
//! **Versions of puts.** Threads write the same record at the same time, and which of two overlapping puts comes
//! last is the database's choice. So a put gets a new version only if no other write of the record is under
//! way; overlapping puts share one. Then every write of version v was acknowledged before any of version v + 1
//! began, and a read that begins after v was acknowledged must show v or more. A put whose outcome is
//! unknown counts as under way for ever.
//!
//! **Versions of updates.** An update's closure reads the old version and writes the next, at the owner. Each
//! update issues one version, so the record's version never exceeds issued; and if none failed, it ends up exactly
//! there: an update that was lost, or carried out twice, shows. Puts and updates are not mixed in a run.
//!
//! The file: a header of 64 KiB (word 0 magic, 1 format, 2 key order, 3 flush points), then chunks of 65,536
//! records, two words each (state: issued << 20 | under way; promised). Native byte order: it is read where
//! it was written. It grows by whole chunks, which are written with zeros before they are used.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::mapping::{MappedWords, WORD_BYTES};
use crate::record::KeyOrder;

/// Name of the ledger's file in the database's directory.
pub const JOURNAL_FILE: &str = "verify.journal";

const MAGIC: u64 = u64::from_ne_bytes(*b"TRLEDGER");
const FORMAT: u64 = 1;
const HEADER_BYTES: u64 = 64 << 10;
const HEADER_WORDS: usize = 4;
const WORD_MAGIC: usize = 0;
const WORD_FORMAT: usize = 1;
const WORD_ORDER: usize = 2;
const WORD_FLUSH_POINTS: usize = 3;

const CHUNK_RECORDS: usize = 1 << 16;
const WORDS_PER_RECORD: usize = 2;
const CHUNK_BYTES: u64 = (CHUNK_RECORDS * WORDS_PER_RECORD * WORD_BYTES) as u64;
const CHUNKS_MAX: usize = 1 << 14;
/// Highest number of records that a verified run may have.
pub const RECORDS_MAX: u64 = (CHUNK_RECORDS * CHUNKS_MAX) as u64;

/// Low bits of a state word: writes under way.
const UNDER_WAY_BITS: u32 = 20;
/// Set when a write ended with an unknown outcome.
const UNKNOWN: u64 = 1 << (UNDER_WAY_BITS - 1);
const UNDER_WAY: u64 = (1 << UNDER_WAY_BITS) - 1;
/// Most writes under way at once, over all threads.
pub const WRITES_UNDER_WAY_MAX: usize = 1 << (UNDER_WAY_BITS - 2);

#[derive(Debug)]
struct Chunk {
    file: MappedWords,
    acknowledged: Box<[AtomicU64]>,
}

/// Versions of one record, see the module's page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Versions {
    /// Highest version given to a write.
    pub issued: u64,
    /// Highest version acknowledged by this process's database.
    pub acknowledged: u64,
    /// Highest version that must survive.
    pub promised: u64,
    /// Whether some write's outcome is unknown.
    pub uncertain: bool,
}

/// The ledger of one directory.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    header: MappedWords,
    chunks: Box<[OnceLock<Chunk>]>,
    growing: Mutex<()>,
    promise_at_once: bool,
}

impl Ledger {
    /// Opens the ledger of `directory`, or starts one; the second value says whether it was there. With
    /// `promise_at_once` an acknowledgement is a promise (`Durability::Sync`).
    ///
    /// # Errors
    /// The system's; `InvalidData` when the file is no ledger or was kept for another key order.
    pub fn open(directory: &Path, order: KeyOrder, promise_at_once: bool) -> io::Result<(Ledger, bool)> {
        let path = directory.join(JOURNAL_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let existed = file.metadata()?.len() >= HEADER_BYTES;
        if !existed {
            // A header that a killed run left half written promised nothing.
            file.set_len(0)?;
            file.write_all(&vec![0; HEADER_BYTES as usize])?;
        }
        let header = MappedWords::map(&file, 0, HEADER_WORDS)?;
        let order_word = order as u64 + 1;
        let existed = existed && header[WORD_MAGIC].load(Ordering::Acquire) != 0;
        if existed {
            let found =
                [WORD_MAGIC, WORD_FORMAT, WORD_ORDER].map(|word| header[word].load(Ordering::Acquire));
            if found[..2] != [MAGIC, FORMAT] {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the file is no ledger of this release",
                ));
            }
            if found[2] != order_word {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the ledger is for another key order",
                ));
            }
        } else {
            header[WORD_FORMAT].store(FORMAT, Ordering::Release);
            header[WORD_ORDER].store(order_word, Ordering::Release);
            header[WORD_MAGIC].store(MAGIC, Ordering::Release);
        }
        let chunks = (0..CHUNKS_MAX).map(|_| OnceLock::new()).collect();
        let ledger = Ledger {
            file,
            header,
            chunks,
            growing: Mutex::new(()),
            promise_at_once,
        };
        let present = (ledger.file.metadata()?.len() - HEADER_BYTES) / CHUNK_BYTES;
        for number in 0..present {
            ledger.chunk(number * CHUNK_RECORDS as u64)?;
        }
        Ok((ledger, existed))
    }

    /// Makes room for records below `records`, so that later calls for them can't fail.
    ///
    /// # Errors
    /// A full disk, or more than [`RECORDS_MAX`].
    pub fn reserve(&self, records: u64) -> io::Result<()> {
        for first in (0..records).step_by(CHUNK_RECORDS) {
            self.chunk(first)?;
        }
        Ok(())
    }

    /// Gives a put of `record` its version. The caller must end it with [`acknowledge`](Ledger::acknowledge) or
    /// [`abandon`](Ledger::abandon).
    ///
    /// # Errors
    /// When the file can't grow.
    pub fn begin_put(&self, record: u64) -> io::Result<u64> {
        let state = self.state(self.chunk(record)?, record);
        let mut old = state.load(Ordering::Acquire);
        loop {
            let step = if old & UNDER_WAY == 0 {
                1 << UNDER_WAY_BITS
            } else {
                0
            };
            let new = old + step + 1;
            match state.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(new >> UNDER_WAY_BITS),
                Err(found) => old = found,
            }
        }
    }

    /// Counts an update of `record` that is about to be sent, to be ended like a put.
    ///
    /// # Errors
    /// When the file can't grow.
    pub fn begin_update(&self, record: u64) -> io::Result<()> {
        let state = self.state(self.chunk(record)?, record);
        state.fetch_add((1 << UNDER_WAY_BITS) + 1, Ordering::AcqRel);
        Ok(())
    }

    /// The write of `version` was acknowledged.
    pub fn acknowledge(&self, record: u64, version: u64) {
        let Some(chunk) = self.existing_chunk(record) else {
            return;
        };
        chunk.acknowledged[place(record)].fetch_max(version, Ordering::AcqRel);
        if self.promise_at_once {
            self.promised(chunk, record).fetch_max(version, Ordering::AcqRel);
        }
        // Last: as soon as nothing is under way, the next put gets a higher version.
        self.state(chunk, record).fetch_sub(1, Ordering::AcqRel);
    }

    /// The write failed and may be there or not, now or later.
    pub fn abandon(&self, record: u64) {
        let Some(chunk) = self.existing_chunk(record) else {
            return;
        };
        let state = self.state(chunk, record);
        state.fetch_or(UNKNOWN, Ordering::AcqRel);
        state.fetch_sub(1, Ordering::AcqRel);
    }

    /// What is known about `record`.
    #[must_use]
    pub fn versions(&self, record: u64) -> Versions {
        let Some(chunk) = self.existing_chunk(record) else {
            return Versions::default();
        };
        // Acknowledged first: it must not be newer than issued.
        let acknowledged = chunk.acknowledged[place(record)].load(Ordering::Acquire);
        let promised = self.promised(chunk, record).load(Ordering::Acquire);
        let state = self.state(chunk, record).load(Ordering::Acquire);
        Versions {
            issued: state >> UNDER_WAY_BITS,
            acknowledged,
            promised,
            uncertain: state & UNKNOWN != 0,
        }
    }

    /// Starts over from what a check of the whole database found: nothing is under way, and `version` (0: no such
    /// record) is there to stay.
    ///
    /// # Errors
    /// When the file can't grow.
    pub fn adopt(&self, record: u64, version: u64) -> io::Result<()> {
        let chunk = self.chunk(record)?;
        self.promised(chunk, record).store(version, Ordering::Release);
        chunk.acknowledged[place(record)].store(version, Ordering::Release);
        self.state(chunk, record)
            .store(version << UNDER_WAY_BITS, Ordering::Release);
        Ok(())
    }

    /// Calls `flush` and, if it succeeds, promises everything that was acknowledged before the call. Takes eight
    /// bytes a record while it runs.
    ///
    /// # Errors
    /// Those of `flush`.
    pub fn flush_point<E>(&self, flush: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let before: Vec<Vec<u64>> = self
            .chunks_in_use()
            .map(|chunk| {
                chunk
                    .acknowledged
                    .iter()
                    .map(|word| word.load(Ordering::Acquire))
                    .collect()
            })
            .collect();
        flush()?;
        for (chunk, versions) in self.chunks_in_use().zip(before) {
            for (place, version) in versions.into_iter().enumerate() {
                chunk.file[place * WORDS_PER_RECORD + 1].fetch_max(version, Ordering::AcqRel);
            }
        }
        self.header[WORD_FLUSH_POINTS].fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Flush points since the ledger was started.
    #[must_use]
    pub fn flush_points(&self) -> u64 {
        self.header[WORD_FLUSH_POINTS].load(Ordering::Acquire)
    }

    /// Records below this number may have versions.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        (self.chunks_in_use().count() * CHUNK_RECORDS) as u64
    }

    /// One more than the highest record that was ever written, 0 if none was.
    #[must_use]
    pub fn records_end(&self) -> u64 {
        (0..self.capacity())
            .rev()
            .find(|&record| self.versions(record).issued > 0)
            .map_or(0, |record| record + 1)
    }

    /// Chunks are made in order, so that those in use come first.
    fn chunks_in_use(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().map_while(OnceLock::get)
    }

    fn existing_chunk(&self, record: u64) -> Option<&Chunk> {
        self.chunks
            .get(usize::try_from(record / CHUNK_RECORDS as u64).ok()?)?
            .get()
    }

    fn chunk(&self, record: u64) -> io::Result<&Chunk> {
        if let Some(chunk) = self.existing_chunk(record) {
            return Ok(chunk);
        }
        if record >= RECORDS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more records than a verified run can have",
            ));
        }
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (record / CHUNK_RECORDS as u64) as usize;
        let first_missing = self.chunks_in_use().count();
        for number in first_missing..=wanted {
            let offset = HEADER_BYTES + number as u64 * CHUNK_BYTES;
            if self.file.metadata()?.len() < offset + CHUNK_BYTES {
                self.file.write_all_at(&vec![0; CHUNK_BYTES as usize], offset)?;
            }
            let file = MappedWords::map(&self.file, offset, CHUNK_RECORDS * WORDS_PER_RECORD)?;
            let acknowledged = (0..CHUNK_RECORDS).map(|_| AtomicU64::new(0)).collect();
            let _ = self.chunks[number].set(Chunk { file, acknowledged });
        }
        self.existing_chunk(record)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn state<'a>(&self, chunk: &'a Chunk, record: u64) -> &'a AtomicU64 {
        &chunk.file[place(record) * WORDS_PER_RECORD]
    }

    fn promised<'a>(&self, chunk: &'a Chunk, record: u64) -> &'a AtomicU64 {
        &chunk.file[place(record) * WORDS_PER_RECORD + 1]
    }
}

/// Place of a record in its chunk.
fn place(record: u64) -> usize {
    (record % CHUNK_RECORDS as u64) as usize
}
