//! Atomic words in a file, shared with the page cache.
//!
//! A store into a shared mapping is in the page cache the moment it is done: it survives the death of the
//! process in whatever way that comes, costs no system call, and can't be torn. (It doesn't survive the
//! machine; a word that is older than what was stored last is what the ledger can live with.)

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of one word.
pub const WORD_BYTES: usize = size_of::<AtomicU64>();

/// A run of words of a file.
pub struct MappedWords {
    address: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is plain memory that belongs to no thread, and all that is handed out are shared
// references to atomics.
unsafe impl Send for MappedWords {}
// SAFETY: as for Send; concurrent access to the words is atomic.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps `words` words from byte `offset` of `file` on. The file must have these bytes; the ledger writes
    /// them before it maps them, so that they have blocks too and touching them can't meet a full disk.
    ///
    /// # Errors
    /// The system's, and `InvalidInput` for an empty run, an offset that isn't a page's, or a file too short.
    pub fn map(file: &File, offset: u64, words: usize) -> io::Result<MappedWords> {
        let bytes = words
            .checked_mul(WORD_BYTES)
            .filter(|&bytes| bytes > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < offset.saturating_add(bytes as u64) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the file is shorter than the mapping",
            ));
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so no mapping that exists is replaced. The file has the bytes (just
        // looked), and nobody cuts it while it is mapped: the ledger, its only user, only lets it grow.
        let address = unsafe { mmap(null_mut(), bytes, protection, MapFlags::SHARED, file, offset)? };
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(MappedWords { address, words })
    }
}

impl Deref for MappedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `map` got `words` words at `address`, aligned to a page; they stay mapped until `drop`, which
        // needs the borrow to be over; every bit pattern is an AtomicU64, and nobody has them by another type.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.words) }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: the very range that `map` was given, unmapped once; no reference outlives `self`. It can only
        // fail for a wrong range, in which case nothing happened.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.words * WORD_BYTES) };
    }
}

impl fmt::Debug for MappedWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedWords")
            .field("words", &self.words)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn words_reach_the_file() {
        let file = tempfile::tempfile().expect("a temporary file can be made");
        file.set_len(8192).expect("it can grow");
        let words = MappedWords::map(&file, 4096, 512).expect("it can be mapped");
        words[511].store(77, Relaxed);
        let again = MappedWords::map(&file, 4096, 512).expect("it can be mapped twice");
        drop(words);
        assert_eq!(again[511].load(Relaxed), 77);
        assert_eq!(again.len(), 512);
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let file = tempfile::tempfile().expect("a temporary file can be made");
        file.set_len(4096).expect("it can grow");
        for (offset, words) in [
            (0, 0),
            (0, 513),
            (4096, 1),
            (u64::MAX, 1),
            (0, usize::MAX),
            (8, 1),
        ] {
            assert!(
                MappedWords::map(&file, offset, words).is_err(),
                "{offset} {words}"
            );
        }
    }
}
