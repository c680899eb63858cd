//! Directories and files in memory: databases that need no disk, and tests.
//!
//! Files are sparse: a chunk exists once something was written to it. They live as long as the directory
//! value or an open handle does, so closing and opening a database again finds its files. Everything counts
//! as durable at once; syncs do nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::BLOCK_BYTES;
use crate::directory::{Directory, OpenMode, check_name};
use crate::error::annotate;
use crate::file::File;
use crate::lock::{DirectoryLock, LockError};

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 64 << 10;

/// A directory in memory.
#[derive(Debug)]
pub struct MemoryDirectory {
    files: Mutex<BTreeMap<String, Arc<Content>>>,
    locked: Arc<AtomicBool>,
    space: Arc<Space>,
}

impl MemoryDirectory {
    /// An empty directory whose files may take any amount of memory.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(u64::MAX)
    }

    /// An empty directory whose files hold at most `capacity_bytes`, counted in chunks of 64 KiB; beyond it
    /// writes fail with `StorageFull`, as on a full disk.
    #[must_use]
    pub fn with_capacity(capacity_bytes: u64) -> Self {
        Self {
            files: Mutex::default(),
            locked: Arc::default(),
            space: Arc::new(Space {
                capacity_bytes,
                used_bytes: AtomicU64::new(0),
            }),
        }
    }

    /// Bytes of memory that the files take.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.space.used_bytes.load(Ordering::Relaxed)
    }

    /// The map is changed by single calls only, so a panic elsewhere leaves it whole.
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Content>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryDirectory {
    fn default() -> Self {
        Self::new()
    }
}

impl Directory for MemoryDirectory {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let mut files = self.files();
        let content = match (files.get(name), mode) {
            (Some(content), OpenMode::Existing) => Arc::clone(content),
            (None, OpenMode::CreateNew) => {
                let content = Arc::new(Content::new(Arc::clone(&self.space)));
                files.insert(name.to_owned(), Arc::clone(&content));
                content
            }
            (Some(_), OpenMode::CreateNew) => {
                return Err(annotate(
                    io::ErrorKind::AlreadyExists.into(),
                    "create",
                    name,
                    None,
                ));
            }
            (None, OpenMode::Existing) => {
                return Err(annotate(io::ErrorKind::NotFound.into(), "open", name, None));
            }
        };
        Ok(Arc::new(MemoryFile {
            name: name.to_owned(),
            content,
        }))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.files().remove(name) {
            Some(_) => Ok(()),
            None => Err(annotate(io::ErrorKind::NotFound.into(), "remove", name, None)),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(to)?;
        let mut files = self.files();
        let Some(content) = files.remove(from) else {
            return Err(annotate(io::ErrorKind::NotFound.into(), "rename", from, None));
        };
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> Result<DirectoryLock, LockError> {
        DirectoryLock::of_flag(&self.locked, "the directory in memory")
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}

/// What all files of a directory take, and may take.
#[derive(Debug)]
struct Space {
    capacity_bytes: u64,
    used_bytes: AtomicU64,
}

impl Space {
    fn take_chunk(&self) -> io::Result<()> {
        let bytes = CHUNK_BYTES as u64;
        let taken = self
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|used| *used <= self.capacity_bytes)
            });
        taken.map(drop).map_err(|_used| io::ErrorKind::StorageFull.into())
    }

    fn give_back(&self, chunks: usize) {
        self.used_bytes
            .fetch_sub((chunks * CHUNK_BYTES) as u64, Ordering::Relaxed);
    }
}

/// A file's bytes, shared by its handles.
#[derive(Debug)]
struct Content {
    bytes: RwLock<Bytes>,
    space: Arc<Space>,
}

#[derive(Debug, Default)]
struct Bytes {
    len: u64,
    /// By number; a missing chunk is zeros. Bytes beyond `len` are zeros.
    chunks: BTreeMap<u64, Box<[u8]>>,
}

impl Content {
    fn new(space: Arc<Space>) -> Self {
        Self {
            bytes: RwLock::default(),
            space,
        }
    }

    /// A panic while the bytes are locked can only come from copying, which leaves them usable.
    fn read(&self) -> RwLockReadGuard<'_, Bytes> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Bytes> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops chunks that lie beyond `len` and clears the rest of the last one.
    fn cut(&self, bytes: &mut Bytes, len: u64) {
        let beyond = bytes.chunks.split_off(&len.div_ceil(CHUNK_BYTES as u64));
        self.space.give_back(beyond.len());
        if let Some(last) = bytes.chunks.get_mut(&(len / CHUNK_BYTES as u64)) {
            last[(len % CHUNK_BYTES as u64) as usize..].fill(0);
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let chunks = self.read().chunks.len();
        self.space.give_back(chunks);
    }
}

/// The parts of `offset..offset + len` by chunk: number, first byte in the chunk, byte count.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + len as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (number, within) = (at / CHUNK_BYTES as u64, (at % CHUNK_BYTES as u64) as usize);
        let count = (CHUNK_BYTES - within).min((end - at) as usize);
        at += count as u64;
        Some((number, within, count))
    })
}

#[derive(Debug)]
struct MemoryFile {
    name: String,
    content: Arc<Content>,
}

impl MemoryFile {
    fn annotate(&self, kind: io::ErrorKind, action: &'static str, offset: u64) -> io::Error {
        annotate(kind.into(), action, &self.name, Some(offset))
    }
}

impl File for MemoryFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.content.read();
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > bytes.len) {
            return Err(self.annotate(io::ErrorKind::UnexpectedEof, "read", offset));
        }
        let mut rest = buffer;
        for (number, within, count) in parts(offset, rest.len()) {
            let (part, after) = rest.split_at_mut(count);
            match bytes.chunks.get(&number) {
                Some(chunk) => part.copy_from_slice(&chunk[within..within + count]),
                None => part.fill(0),
            }
            rest = after;
        }
        Ok(())
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let Some(end) = offset.checked_add(buffer.len() as u64) else {
            return Err(self.annotate(io::ErrorKind::FileTooLarge, "write", offset));
        };
        let mut bytes = self.content.write();
        let mut rest = buffer;
        for (number, within, count) in parts(offset, buffer.len()) {
            let (part, after) = rest.split_at(count);
            let chunk = match bytes.chunks.entry(number) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    self.content
                        .space
                        .take_chunk()
                        .map_err(|error| annotate(error, "write", &self.name, Some(offset)))?;
                    entry.insert(vec![0; CHUNK_BYTES].into_boxed_slice())
                }
            };
            chunk[within..within + count].copy_from_slice(part);
            rest = after;
        }
        bytes.len = bytes.len.max(end);
        Ok(())
    }

    fn write_at_durable(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.read().len)
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let mut bytes = self.content.write();
        bytes.len = bytes.len.max(len);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut bytes = self.content.write();
        if bytes.len < len {
            return Err(self.annotate(io::ErrorKind::InvalidInput, "truncate", len));
        }
        self.content.cut(&mut bytes, len);
        bytes.len = len;
        Ok(())
    }

    fn prefill(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(self.annotate(io::ErrorKind::InvalidInput, "prefill", len));
        }
        let mut bytes = self.content.write();
        if len >= bytes.len {
            self.content.cut(&mut bytes, 0);
            bytes.len = len;
            return Ok(());
        }
        for (number, within, count) in parts(0, len as usize) {
            if let Some(chunk) = bytes.chunks.get_mut(&number) {
                chunk[within..within + count].fill(0);
            }
        }
        Ok(())
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}
