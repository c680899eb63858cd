//! The part of the log that recovery has in memory: reading ahead, and groups verified in place.

use std::collections::BTreeMap;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::group::{GROUP_HEADER_BYTES, GroupDefect, GroupHeader};
use super::scan::{READ_BYTES, ReadLog, ScanError, ScanStart};
use super::{LogPosition, SegmentLayout};
use crate::checksum::crc32c;
use crate::{BLOCK_BYTES, Lsn};

/// A verified header, or what stands in its place.
type Found = Result<GroupHeader, GroupDefect>;

/// Memory that a device can read into directly.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// The part of the log that is in memory.
pub(super) struct Window<'r, R: ReadLog> {
    reader: &'r mut R,
    layout: SegmentLayout,
    log_id: u64,
    /// Length of each segment file.
    files: BTreeMap<u64, u64>,
    buffer: Vec<Block>,
    /// Position of the buffer's first byte.
    start: Lsn,
    /// Bytes of the buffer that are filled; they all belong to one segment.
    filled: usize,
    /// The first position of the segment behind, and the header found there.
    next_segment: Option<(Lsn, Option<GroupHeader>)>,
}

impl<'r, R: ReadLog> Window<'r, R> {
    pub(super) fn open(reader: &'r mut R, from: &ScanStart) -> Result<Window<'r, R>, ScanError<R::Error>> {
        let files = reader
            .segments()
            .map_err(|error| ScanError::Read {
                number: 0,
                offset: 0,
                error,
            })?
            .into_iter();
        Ok(Window {
            reader,
            layout: from.layout,
            log_id: from.log_id,
            files: files.map(|file| (file.number, file.bytes)).collect(),
            buffer: Vec::new(),
            start: Lsn(0),
            filled: 0,
            next_segment: None,
        })
    }

    /// Length of a segment file; `None` if there is none.
    pub(super) fn file_bytes(&self, number: u64) -> Option<u64> {
        self.files.get(&number).copied()
    }

    /// One more than the highest number of a segment file.
    pub(super) fn files_end(&self) -> u64 {
        self.files.last_key_value().map_or(0, |(number, _)| number + 1)
    }

    /// Whole blocks from `lsn` to the end of its segment file; 0 if they don't exist.
    fn bytes_from(&self, lsn: Lsn) -> usize {
        let length = self.files.get(&self.layout.number(lsn)).copied().unwrap_or(0);
        let length = length.min(self.layout.segment_bytes());
        (length.saturating_sub(self.layout.offset(lsn)) as usize) / BLOCK_BYTES * BLOCK_BYTES
    }

    /// Makes `bytes` bytes from `lsn` on present; they exist.
    fn load(&mut self, lsn: Lsn, bytes: usize) -> Result<(), ScanError<R::Error>> {
        let end = self.start.0 + self.filled as u64;
        if lsn >= self.start && lsn.0 + bytes as u64 <= end {
            return Ok(());
        }
        let keep = if lsn >= self.start && lsn.0 < end {
            (end - lsn.0) as usize
        } else {
            0
        };
        let target = bytes.max(READ_BYTES.min(self.bytes_from(lsn)));
        if self.buffer.len() * BLOCK_BYTES < target {
            self.buffer.resize(target / BLOCK_BYTES, Block([0; BLOCK_BYTES]));
        }
        let buffer = self.buffer.as_mut_slice().as_mut_bytes();
        buffer.copy_within(self.filled - keep..self.filled, 0);
        (self.start, self.filled) = (lsn, keep);
        let (number, offset) = (self.layout.number(lsn), self.layout.offset(lsn));
        while self.filled < target {
            let piece = READ_BYTES.min(target - self.filled);
            let offset = offset + self.filled as u64;
            self.reader
                .read(number, offset, &mut buffer[self.filled..self.filled + piece])
                .map_err(|error| ScanError::Read {
                    number,
                    offset,
                    error,
                })?;
            self.filled += piece;
        }
        Ok(())
    }

    /// What is loaded from `lsn` on.
    fn loaded(&self, lsn: Lsn) -> &[u8] {
        let bytes = &self.buffer.as_slice().as_bytes()[..self.filled];
        &bytes[(lsn.0 - self.start.0) as usize..]
    }

    /// The records of a group that was just verified.
    pub(super) fn record_bytes(&self, header: &GroupHeader) -> &[u8] {
        &self.loaded(header.lsn)[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + header.record_bytes as usize]
    }

    /// The header of the group at `lsn`, if there is one; its records are not looked at.
    fn header_at(&mut self, lsn: Lsn) -> Result<Found, ScanError<R::Error>> {
        if self.bytes_from(lsn) == 0 {
            return Ok(Err(GroupDefect::NoGroup));
        }
        self.load(lsn, BLOCK_BYTES)?;
        Ok(GroupHeader::decode(self.loaded(lsn), self.log_id, lsn))
    }

    /// Whether the records of the group with this header match their checksum; loads them.
    fn check_records(
        &mut self,
        header: &GroupHeader,
    ) -> Result<Result<(), GroupDefect>, ScanError<R::Error>> {
        if header.encoded_bytes() > self.bytes_from(header.lsn) {
            return Ok(Err(GroupDefect::Short));
        }
        self.load(header.lsn, header.encoded_bytes())?;
        let matches = crc32c(self.record_bytes(header)) == header.records_crc;
        Ok(if matches {
            Ok(())
        } else {
            Err(GroupDefect::RecordsChecksum)
        })
    }

    /// The group that comes next behind `position`, loaded, or what stands where it should be.
    ///
    /// If groups chain on `position` at both places, the one of the higher generation is the log: recovery cut
    /// it off here once, a write of the time before landed afterwards, and the first group of the new
    /// generation was too long to overwrite it.
    pub(super) fn group_behind(&mut self, position: &LogPosition) -> Result<Found, ScanError<R::Error>> {
        let (here, next) = self.layout.candidates(position.lsn);
        let first = self.group_at(here, position)?;
        let rival = self.segment_start(next)?.filter(|rival| {
            let generation = first.as_ref().map_or(0, |header| header.generation);
            rival.check_chain(position).is_ok() && rival.generation > generation
        });
        if let Some(rival) = rival
            && self.check_records(&rival)?.is_ok()
        {
            return Ok(Ok(rival));
        }
        if let Ok(header) = &first {
            self.load(here, header.encoded_bytes())?;
        }
        Ok(first)
    }

    /// The group at `lsn`, loaded, if it chains on `position`.
    fn group_at(&mut self, lsn: Lsn, position: &LogPosition) -> Result<Found, ScanError<R::Error>> {
        let header = self.header_at(lsn)?;
        match header.and_then(|header| header.check_chain(position).map(|()| header)) {
            Ok(header) => Ok(self.check_records(&header)?.map(|()| header)),
            Err(defect) => Ok(Err(defect)),
        }
    }

    /// The header of the first group of a segment. Asked for with every group of the segment before, so it is
    /// remembered, and read without giving up what is loaded.
    fn segment_start(&mut self, lsn: Lsn) -> Result<Option<GroupHeader>, ScanError<R::Error>> {
        if let Some((remembered, header)) = self.next_segment
            && remembered == lsn
        {
            return Ok(header);
        }
        let mut header = None;
        if self.bytes_from(lsn) > 0 {
            let (number, offset) = (self.layout.number(lsn), self.layout.offset(lsn));
            let mut block = [Block([0; BLOCK_BYTES])];
            self.reader
                .read(number, offset, block.as_mut_bytes())
                .map_err(|error| ScanError::Read {
                    number,
                    offset,
                    error,
                })?;
            header = GroupHeader::decode(block.as_bytes(), self.log_id, lsn).ok();
        }
        self.next_segment = Some((lsn, header));
        Ok(header)
    }

    /// What any valid group behind `position`, of its generation or a later one, knows to be durable beyond
    /// it (rule R16). Records are read only of groups whose header claims as much.
    pub(super) fn later_knowledge(
        &mut self,
        position: &LogPosition,
    ) -> Result<Option<Lsn>, ScanError<R::Error>> {
        let (here, _) = self.layout.candidates(position.lsn);
        let numbers: Vec<u64> = self
            .files
            .range(self.layout.number(here)..)
            .map(|(&number, _)| number)
            .collect();
        for number in numbers {
            let mut lsn = here.max(Lsn(self.layout.start(number).0 + BLOCK_BYTES as u64));
            while self.bytes_from(lsn) > 0 && self.layout.number(lsn) == number {
                if let Ok(header) = self.header_at(lsn)?
                    && header.generation >= position.generation
                    && header.durable_to > position.lsn
                    && self.check_records(&header)?.is_ok()
                {
                    return Ok(Some(header.durable_to));
                }
                lsn.0 += BLOCK_BYTES as u64;
            }
        }
        Ok(None)
    }
}
