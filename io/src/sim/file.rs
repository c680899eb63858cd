//! A file of the simulated disk.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, Handle};
use crate::file::File;

/// The disk as its handles share it.
pub(super) type SharedDisk = Arc<Mutex<Disk>>;

/// Locks the disk. A test that panicked while it held the lock has failed already; others may look on.
pub(super) fn locked(disk: &SharedDisk) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open file; synchronous calls are carried out at once, in no time.
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SharedDisk,
    pub(super) handle: Handle,
    pub(super) opened_as: String,
}

impl SimFile {
    /// Locks the disk for an action on this file; also what the file is called now.
    fn act(&self) -> (MutexGuard<'_, Disk>, String) {
        let disk = locked(&self.disk);
        let name = disk.name_of(self.handle, &self.opened_as);
        (disk, name)
    }
}

impl File for SimFile {
    fn name(&self) -> &str {
        &self.opened_as
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut disk, name) = self.act();
        disk.read(self.handle, &name, buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let (mut disk, name) = self.act();
        disk.write(self.handle, &name, buffer, offset, false)
    }

    fn write_at_durable(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let (mut disk, name) = self.act();
        disk.write(self.handle, &name, buffer, offset, true)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut disk, name) = self.act();
        disk.sync(self.handle, &name, u64::MAX)
    }

    fn len(&self) -> io::Result<u64> {
        let (mut disk, name) = self.act();
        let len = disk.file(self.handle).map(|file| file.content.len());
        disk.note("measure", &name, None, len)
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let (mut disk, name) = self.act();
        disk.grow(self.handle, &name, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let (mut disk, name) = self.act();
        disk.truncate(self.handle, &name, len)
    }

    fn prefill(&self, len: u64) -> io::Result<()> {
        let (mut disk, name) = self.act();
        disk.prefill(self.handle, &name, len)
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}
