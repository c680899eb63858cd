//! The file trait: synchronous calls that any thread may make.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;

/// An open file of a [`Directory`](crate::Directory).
///
/// Reads and writes transfer everything or return an error. Files that are open for direct I/O need
/// addresses, offsets and lengths that are multiples of the device's sector; multiples of
/// [`BLOCK_BYTES`](crate::BLOCK_BYTES) always suit. Calls on disjoint ranges may run at once; overlapping
/// writes land in any order.
///
/// Every error's text names the file, the action and the offset, see [`FileError`](crate::FileError).
pub trait File: Any + Send + Sync + Debug {
    /// The name in its directory under which the file was opened. A rename doesn't change it.
    fn name(&self) -> &str;

    /// What errors call the file: its path where it has one.
    fn location(&self) -> &str {
        self.name()
    }

    /// Fills `buffer` from byte `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the file ends before `offset + buffer.len()`, else the system's error. The
    /// buffer's content is then undefined (but initialised).
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes `buffer` at byte `offset`, extending the file if it ends before. Not durable.
    ///
    /// # Errors
    ///
    /// `StorageFull`, `FileTooLarge`, or the system's error; any part may have been written.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;

    /// [`File::write_at`] that returns when these bytes, and the length if it grew, are durable. Says
    /// nothing about earlier writes.
    ///
    /// # Errors
    ///
    /// As [`File::write_at`]; whether the bytes are durable is then unknown.
    fn write_at_durable(&self, buffer: &[u8], offset: u64) -> io::Result<()>;

    /// Makes every write that has returned, and the length, durable (fdatasync).
    ///
    /// # Errors
    ///
    /// The system's error. Any write since the last successful sync may then be lost, even when a later
    /// sync succeeds: a caller must not go on as if nothing had happened.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is zero.
    ///
    /// # Errors
    ///
    /// As [`File::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Extends the file to `len` bytes of zeros with space reserved where the file system can, durably. Does
    /// nothing if the file is that long.
    ///
    /// # Errors
    ///
    /// `StorageFull` (the old length is then restored), or the system's error.
    fn grow(&self, len: u64) -> io::Result<()>;

    /// Shortens the file to `len` bytes. Durable after the next [`File::sync_data`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the file is shorter, or the system's error.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Overwrites bytes `0..len` with zeros that are really written, so that later writes in place need no
    /// change of metadata, and makes them and the length durable. `len` must be a multiple of
    /// [`BLOCK_BYTES`](crate::BLOCK_BYTES). O(len).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an unaligned length, `StorageFull`, or the system's error; the content is then
    /// undefined.
    fn prefill(&self, len: u64) -> io::Result<()>;

    /// The descriptor for io_uring, valid while the file is. `None`: devices execute operations through the
    /// other methods.
    fn raw_fd(&self) -> Option<RawFd>;
}
