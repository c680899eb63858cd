//! Carrying out transfers, syncs and changes of length on a simulated disk, faults included.

use std::io;

use super::content::SECTOR_BYTES;
use super::disk::{Disk, Handle, check_aligned};
use super::faults::FaultKind;
use crate::BLOCK_BYTES;

fn device_error() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl Disk {
    pub(super) fn read(
        &mut self,
        handle: Handle,
        name: &str,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<()> {
        self.counters.reads += 1;
        self.counters.read_bytes += buffer.len() as u64;
        let result = self.try_read(handle, name, buffer, offset);
        if result.is_ok() {
            self.trace.bytes(buffer);
        }
        self.note("read", name, Some(offset), result)
    }

    fn try_read(&mut self, handle: Handle, name: &str, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let len = self.file(handle)?.content.len();
        check_aligned(buffer, offset)?;
        if offset
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > len)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.strikes(FaultKind::ReadError, name) {
            return Err(device_error());
        }
        if !buffer.is_empty() && self.strikes(FaultKind::BitRot, name) {
            let at = offset + self.random.below(buffer.len() as u64);
            let bit = self.random.below(8) as u8;
            self.file(handle)?.content.flip(at, bit);
        }
        if self.strikes(FaultKind::StaleRead, name) {
            self.file(handle)?.content.read_stale(offset, buffer);
        } else {
            self.file(handle)?.content.read(offset, buffer);
        }
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        handle: Handle,
        name: &str,
        bytes: &[u8],
        offset: u64,
        durable: bool,
    ) -> io::Result<()> {
        self.counters.writes += 1;
        self.counters.durable_writes += u64::from(durable);
        self.counters.written_bytes += bytes.len() as u64;
        self.trace.bytes(bytes);
        self.trace.number(u64::from(durable));
        let result = self.try_write(handle, name, bytes, offset, durable);
        self.note("write", name, Some(offset), result)
    }

    fn try_write(
        &mut self,
        handle: Handle,
        name: &str,
        bytes: &[u8],
        offset: u64,
        durable: bool,
    ) -> io::Result<()> {
        self.check_alive(handle.generation)?;
        check_aligned(bytes, offset)?;
        let Some(end) = offset.checked_add(bytes.len() as u64) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        self.check_space(handle, name, end)?;
        if self.strikes(FaultKind::WriteErrorNotLanded, name) {
            return Err(device_error());
        }
        let sequence = self.sequence();
        if self.strikes(FaultKind::WriteErrorTorn, name) {
            let mut random = self.random.clone();
            self.file(handle)?
                .content
                .write(sequence, offset, bytes, |_| random.chance(500_000));
            self.random = random;
            return Err(device_error());
        }
        let lost = self.strikes(FaultKind::LostWrite, name);
        let misdirected = self.strikes(FaultKind::MisdirectedWrite, name);
        let target = match (lost, misdirected) {
            (true, _) => None,
            (false, true) => self.elsewhere(handle, offset, bytes.len())?,
            (false, false) => Some(offset),
        };
        let content = &mut self.file(handle)?.content;
        if target != Some(offset) {
            // The length grows as the caller expects; the bytes go elsewhere or nowhere.
            content.write(sequence, offset, bytes, |_| false);
        }
        if let Some(target) = target {
            content.write(sequence, target, bytes, |_| true);
            if durable {
                content.settle_write(sequence, target, bytes.len());
            }
        }
        if durable {
            content.settle_write(sequence, offset, bytes.len());
        }
        if self.strikes(FaultKind::WriteErrorLanded, name) {
            return Err(device_error());
        }
        Ok(())
    }

    /// Another place in the file for a write of `len` bytes at `offset`, if the file has one.
    fn elsewhere(&mut self, handle: Handle, offset: u64, len: usize) -> io::Result<Option<u64>> {
        let len = len as u64;
        let places = self.file(handle)?.content.len().checked_div(len).unwrap_or(0);
        let drawn = self.random.below(places) * len;
        Ok((places > 1).then(|| {
            if drawn == offset {
                (drawn + len) % (places * len)
            } else {
                drawn
            }
        }))
    }

    /// Syncs the writes before `sequence_end`.
    pub(super) fn sync(&mut self, handle: Handle, name: &str, sequence_end: u64) -> io::Result<()> {
        self.counters.syncs += 1;
        let result = self.try_sync(handle, name, sequence_end);
        self.note("sync", name, None, result)
    }

    fn try_sync(&mut self, handle: Handle, name: &str, sequence_end: u64) -> io::Result<()> {
        self.check_alive(handle.generation)?;
        if self.strikes(FaultKind::SyncErrorLost, name) {
            let mut random = self.random.clone();
            self.file(handle)?.content.lose(&mut random);
            self.random = random;
            return Err(device_error());
        }
        if self.strikes(FaultKind::SyncErrorKept, name) {
            self.file(handle)?.content.sync(u64::MAX);
            return Err(device_error());
        }
        self.file(handle)?.content.sync(sequence_end);
        Ok(())
    }

    pub(super) fn grow(&mut self, handle: Handle, name: &str, len: u64) -> io::Result<()> {
        self.counters.grows += 1;
        let result = self.try_grow(handle, name, len);
        self.note("grow", name, Some(len), result)
    }

    fn try_grow(&mut self, handle: Handle, name: &str, len: u64) -> io::Result<()> {
        if self.file(handle)?.content.len() >= len {
            return Ok(());
        }
        self.check_space(handle, name, len)?;
        self.file(handle)?.content.grow(len);
        Ok(())
    }

    pub(super) fn prefill(&mut self, handle: Handle, name: &str, len: u64) -> io::Result<()> {
        self.counters.prefills += 1;
        let result = self.try_prefill(handle, name, len);
        self.note("prefill", name, Some(len), result)
    }

    fn try_prefill(&mut self, handle: Handle, name: &str, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a multiple of the block size",
            ));
        }
        self.check_space(handle, name, len)?;
        self.file(handle)?.content.prefill(len);
        Ok(())
    }

    pub(super) fn truncate(&mut self, handle: Handle, name: &str, len: u64) -> io::Result<()> {
        self.counters.truncates += 1;
        let result = self.try_truncate(handle, len);
        self.note("truncate", name, Some(len), result)
    }

    fn try_truncate(&mut self, handle: Handle, len: u64) -> io::Result<()> {
        let sequence = self.sequence();
        let content = &mut self.file(handle)?.content;
        if len > content.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter"));
        }
        if !len.is_multiple_of(SECTOR_BYTES as u64) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a multiple of the sector",
            ));
        }
        content.truncate(sequence, len);
        Ok(())
    }
}
