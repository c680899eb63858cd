//! The ring's table of fixed files: the kernel looks each up once instead of at every operation.
//!
//! A file is entered at its first operation and leaves when nobody holds it any more: the table keeps a
//! [`Weak`], and the kernel's own reference is dropped by [`FixedFiles::sweep`] before the owner waits, so
//! that a removed log segment doesn't hold its space. While an operation is in flight it holds the file,
//! so no entry is ever replaced under it. A full table isn't an error: other files go by descriptor.

use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use super::ring::Ring;
use crate::file::File;

/// Entries of the table: the data file and more log segments than are ever written at once.
const TABLE_LEN: usize = 32;

#[derive(Debug)]
pub(super) struct FixedFiles {
    /// Empty when the kernel refused the table. The `Weak` keeps its address from being used again, so that equal
    /// addresses mean the same file.
    entries: Vec<Option<Weak<dyn File>>>,
}

impl FixedFiles {
    /// Registers an empty table, or does without when the kernel refuses.
    pub(super) fn register(ring: &Ring) -> Self {
        let len = match ring.submitter().register_files(&[-1; TABLE_LEN]) {
            Ok(()) => TABLE_LEN,
            Err(error) => {
                tracing::debug!(%error, "io_uring without fixed files");
                0
            }
        };
        Self {
            entries: (0..len).map(|_| None).collect(),
        }
    }

    /// Whether the kernel refused the table.
    pub(super) fn is_refused(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file's index in the table, entering it if there is room.
    pub(super) fn index_of(&mut self, file: &Arc<dyn File>, descriptor: RawFd, ring: &Ring) -> Option<u32> {
        let address = Arc::as_ptr(file).cast::<()>();
        let found = self
            .entries
            .iter()
            .position(|entry| matches!(entry, Some(known) if Weak::as_ptr(known).cast::<()>() == address));
        if let Some(index) = found {
            return Some(index as u32);
        }
        let free = self
            .entries
            .iter()
            .position(|entry| !matches!(entry, Some(known) if known.strong_count() > 0))?;
        match ring.submitter().register_files_update(free as u32, &[descriptor]) {
            Ok(_) => {
                self.entries[free] = Some(Arc::downgrade(file));
                Some(free as u32)
            }
            Err(error) => {
                tracing::debug!(%error, file = file.location(), "not entered as a fixed file");
                None
            }
        }
    }

    /// Lets go of files that nobody holds any more.
    pub(super) fn sweep(&mut self, ring: &Ring) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let dead = matches!(entry, Some(known) if known.strong_count() == 0);
            if dead
                && ring
                    .submitter()
                    .register_files_update(index as u32, &[-1])
                    .is_ok()
            {
                *entry = None;
            }
        }
    }
}
