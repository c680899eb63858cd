//! A file that is written from front to back, through a buffer: what backups are made of.

use std::ops::Deref;

use treering_engine::BLOCK_BYTES;
use treering_io::{AlignedBuffer, File};

/// Bytes written at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// The end of a file that is being written. It grows ahead of what is written.
pub(super) struct WrittenFile<F> {
    file: F,
    buffer: AlignedBuffer,
    filled: usize,
    /// Where the buffer will be written.
    offset: u64,
    file_bytes: u64,
    growth_bytes_max: u64,
}

impl<F: Deref<Target: File>> WrittenFile<F> {
    /// Writes from `offset` on, which is a multiple of a block. The file grows by so many bytes at a time, at most.
    pub fn new(file: F, offset: u64, growth_bytes_max: u64) -> WrittenFile<F> {
        WrittenFile {
            file,
            buffer: AlignedBuffer::zeroed(BUFFER_BYTES),
            filled: 0,
            offset,
            file_bytes: 0,
            growth_bytes_max,
        }
    }

    /// The file itself, which holds what was flushed.
    pub fn file(&self) -> &F::Target {
        &self.file
    }

    /// Where what is pushed next will be.
    pub fn end(&self) -> u64 {
        self.offset + self.filled as u64
    }

    /// Adds bytes, and writes whenever the buffer is full.
    pub fn push(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BUFFER_BYTES - self.filled));
            self.buffer[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            rest = later;
            if self.filled == BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is in the buffer, with zeros up to the block's end. After a part of a block nothing may follow.
    pub fn flush(&mut self) -> std::io::Result<()> {
        let length = self.filled.next_multiple_of(BLOCK_BYTES);
        self.buffer[self.filled..length].fill(0);
        let end = self.offset + length as u64;
        if end > self.file_bytes {
            self.file_bytes = end + self.growth_bytes_max.min(end);
            self.file.grow(self.file_bytes)?;
        }
        self.file.write_at(&self.buffer[..length], self.offset)?;
        self.offset = end;
        self.filled = 0;
        Ok(())
    }
}
