//! A file of the operating system.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

use crate::BLOCK_BYTES;
use crate::buffer::AlignedBuffer;
use crate::error::annotate;
use crate::file::File;
use crate::transfer::{Direction, Next, Transfer};

/// Bytes of zeros that `prefill` writes at once.
const PREFILL_BYTES: usize = 1 << 20;

/// An open file.
#[derive(Debug)]
pub(crate) struct OsFile {
    file: std::fs::File,
    name: String,
    location: String,
}

impl OsFile {
    pub(crate) fn new(file: std::fs::File, name: String, location: String) -> Self {
        Self { file, name, location }
    }

    fn annotate(&self, error: impl Into<io::Error>, action: &'static str, offset: Option<u64>) -> io::Error {
        annotate(error.into(), action, &self.location, offset)
    }

    /// Repeats `write` until all of `buffer` is written.
    fn write_all(
        &self,
        buffer: &[u8],
        offset: u64,
        write: impl Fn(&[u8], u64) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut transfer = Transfer::new(Direction::Write, buffer.len());
        loop {
            let part = &buffer[transfer.done()..][..transfer.remaining()];
            let outcome = write(part, offset + transfer.done() as u64);
            match transfer.advance(outcome, || Ok(0)) {
                Next::Finished => return Ok(()),
                Next::Again => {}
                Next::Failed(error) => return Err(error),
            }
        }
    }

    fn grow_to(&self, old_len: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), old_len, len - old_len) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(len)?,
            Err(error) => {
                // Some file systems extend the file as far as they got. A failure here leaves it longer than
                // before, which nothing depends on.
                drop(self.file.set_len(old_len));
                return Err(error.into());
            }
        }
        self.file.sync_all()
    }

    fn prefill_to(&self, len: u64) -> io::Result<()> {
        // Reserving first keeps the file in one piece and finds a full disk before the long part.
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        let zeros = AlignedBuffer::zeroed(PREFILL_BYTES);
        let mut offset = 0;
        while offset < len {
            let count = (len - offset).min(PREFILL_BYTES as u64);
            self.write_all(&zeros[..count as usize], offset, |part, at| {
                self.file.write_at(part, at)
            })?;
            offset += count;
        }
        self.file.sync_all()
    }
}

impl File for OsFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn location(&self) -> &str {
        &self.location
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut transfer = Transfer::new(Direction::Read, buffer.len());
        loop {
            let part = &mut buffer[transfer.done()..][..transfer.remaining()];
            let outcome = self.file.read_at(part, offset + transfer.done() as u64);
            match transfer.advance(outcome, || Ok(self.len()?.saturating_sub(offset))) {
                Next::Finished => return Ok(()),
                Next::Again => {}
                Next::Failed(error) => return Err(self.annotate(error, "read", Some(offset))),
            }
        }
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.write_all(buffer, offset, |part, at| self.file.write_at(part, at))
            .map_err(|error| self.annotate(error, "write", Some(offset)))
    }

    fn write_at_durable(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let flagged = self.write_all(buffer, offset, |part, at| {
            Ok(rustix::io::pwritev2(
                &self.file,
                &[IoSlice::new(part)],
                at,
                ReadWriteFlags::DSYNC,
            )?)
        });
        match flagged {
            Ok(()) => Ok(()),
            Err(error) if is_flag_refusal(&error) => {
                self.write_at(buffer, offset)?;
                self.sync_data()
            }
            Err(error) => Err(self.annotate(error, "write", Some(offset))),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file
            .sync_data()
            .map_err(|error| self.annotate(error, "sync", None))
    }

    fn len(&self) -> io::Result<u64> {
        match self.file.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(self.annotate(error, "measure", None)),
        }
    }

    fn grow(&self, len: u64) -> io::Result<()> {
        let old_len = self.len()?;
        if old_len >= len {
            return Ok(());
        }
        self.grow_to(old_len, len)
            .map_err(|error| self.annotate(error, "grow", Some(len)))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let shrink = || {
            if self.len()? < len {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter"));
            }
            self.file.set_len(len)
        };
        shrink().map_err(|error| self.annotate(error, "truncate", Some(len)))
    }

    fn prefill(&self, len: u64) -> io::Result<()> {
        let fill = || {
            if !len.is_multiple_of(BLOCK_BYTES as u64) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "not a multiple of the block size",
                ));
            }
            self.prefill_to(len)
        };
        fill().map_err(|error| self.annotate(error, "prefill", Some(len)))
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}

/// Whether the kernel or the file system knows no `RWF_DSYNC`.
pub(crate) fn is_flag_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}
