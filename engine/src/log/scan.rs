//! Recovery's reading of the log: from a known position to its end, or to corruption.
//!
//! The log ends where no valid group follows (see the [log](super) for what makes one valid). Whether it
//! *may* end there is decided by rule R16 and by what the superblock knows:
//!
//! 1. The superblock names positions that the log held, durably, when it was written. A log that ends
//!    before them, or has other groups there, is corrupt.
//! 2. Every group says up to where the log was durable when it was built. If the log seems to end at `x`,
//!    each 4 KiB boundary behind `x`, to the end of the last segment file, is searched for a valid group
//!    of this or a later generation that says `durable_to > x`. If there is one, what should stand at `x`
//!    was durable and is damaged now: corruption, to be reported and never cut off.
//! 3. A segment file that is shorter than it was when groups went in was truncated: corruption.
//! 4. Otherwise a crash left the tail torn, or left holes in it, which is legal: nothing behind `x` was ever
//!    acknowledged as durable. The log ends at `x`.
//!
//! Damage to the very last durable group can't be told from a torn tail: nothing was written after it that
//! knows better. A clean close writes the end into the superblock, so there point 1 finds it.
//!
//! Memory: one group and the read-ahead of [`READ_BYTES`]. Time: reading the log, and the preallocated
//! rest behind its end, once.

use std::collections::BTreeMap;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::group::{GROUP_HEADER_BYTES, Group, GroupDefect, GroupHeader};
use super::record::LogDefect;
use super::{LogPosition, SegmentLayout};
use crate::checksum::crc32c;
use crate::{BLOCK_BYTES, Lsn, Seq};

/// Most bytes that one read asks for.
pub const READ_BYTES: usize = 1 << 20;

/// A segment file, as the directory shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentFile {
    /// The number in its name.
    pub number: u64,
    /// Its length, bytes.
    pub bytes: u64,
}

/// Where the bytes come from.
pub trait ReadLog {
    /// What a failed read gives.
    type Error;

    /// The segment files that there are, in any order.
    ///
    /// # Errors
    /// If the directory can't be read.
    fn segments(&mut self) -> Result<Vec<SegmentFile>, Self::Error>;

    /// Fills `buffer` from byte `offset` of segment `number`. Offset and length are multiples of 4096
    /// within the file, the buffer is aligned to 4096 bytes and at most [`READ_BYTES`] long.
    ///
    /// # Errors
    /// If not all bytes could be read.
    fn read(&mut self, number: u64, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
}

/// What to scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanStart {
    /// The segments of this log.
    pub layout: SegmentLayout,
    /// Which log it is.
    pub log_id: u64,
    /// Where to begin: [`Superblock::log_start`](crate::superblock::Superblock::log_start).
    pub start: LogPosition,
    /// Up to where the log must reach: [`Superblock::log_known`](crate::superblock::Superblock::log_known).
    pub known: LogPosition,
}

/// Where and how the log ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogEnd {
    /// Where it goes on. The generation is the highest seen; recovery writes with a higher one.
    pub position: LogPosition,
    /// Highest commit group seen; `None` if there was no group.
    pub last_seq: Option<Seq>,
    /// Groups visited.
    pub groups: u64,
    /// Bytes that these groups take in the log.
    pub bytes: u64,
    /// What stands where the next group would have been.
    pub found: GroupDefect,
}

/// What is wrong with a log that must not be cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CorruptReason {
    /// A group is missing that a later one knew to be durable.
    #[error("{found}, but a later group knows the log to be durable up to {}", durable_to.0)]
    Damaged {
        /// What stands in its place.
        found: GroupDefect,
        /// What the later group knows.
        durable_to: Lsn,
    },
    /// The log ends before the position that the superblock knows it to reach.
    #[error("{found}, but the superblock knows the log to reach {}", known.0)]
    EndsEarly {
        /// What stands in the missing group's place.
        found: GroupDefect,
        /// The position in the superblock.
        known: Lsn,
    },
    /// The log has other groups than the superblock says.
    #[error("the log does not contain the position that the superblock names")]
    NotTheLog,
    /// The segment file is missing.
    #[error("the log segment is missing")]
    SegmentMissing,
    /// The segment file was truncated.
    #[error("the log segment has {bytes} bytes instead of {expected}")]
    SegmentShort {
        /// Its length.
        bytes: u64,
        /// The length of every segment.
        expected: u64,
    },
    /// The group's checksum is right, but its records make no sense.
    #[error("{0}")]
    Records(#[from] LogDefect),
}

/// Why the scan failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScanError<E> {
    /// The log could not be read.
    #[error("log segment {number} could not be read at byte {offset}: {error}")]
    Read {
        /// The segment; 0 if the list of segments could not be read.
        number: u64,
        /// The byte of the file.
        offset: u64,
        /// What the reader said.
        error: E,
    },
    /// The log is damaged where it was known to be durable.
    #[error("log segment {number} is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// The position in the log.
        lsn: Lsn,
        /// The segment.
        number: u64,
        /// The byte of the file.
        offset: u64,
        /// What is wrong.
        reason: CorruptReason,
    },
}

/// Reads the log from `from.start` to its end and gives each group to `visit`, in order. A defect that
/// `visit` finds in a group's records makes the log corrupt at that group.
///
/// # Errors
/// If reading fails, or if the log is corrupt by the rules of this [module](self).
pub fn scan<R: ReadLog>(
    reader: &mut R,
    from: &ScanStart,
    mut visit: impl FnMut(Group<'_>) -> Result<(), LogDefect>,
) -> Result<LogEnd, ScanError<R::Error>> {
    let mut window = Window::open(reader, from)?;
    let layout = from.layout;
    let corrupt = |lsn: Lsn, reason| ScanError::Corrupt {
        lsn,
        number: layout.number(lsn),
        offset: layout.offset(lsn),
        reason,
    };
    let first = layout.number_before(from.start.lsn);
    if !window.files.contains_key(&first) {
        return Err(corrupt(layout.start(first), CorruptReason::SegmentMissing));
    }

    let mut position = from.start;
    let mut known_reached = false;
    let (mut last_seq, mut groups, mut bytes) = (None, 0, 0);
    let found = loop {
        if position.lsn == from.known.lsn {
            if position.previous_crc != from.known.previous_crc {
                return Err(corrupt(position.lsn, CorruptReason::NotTheLog));
            }
            known_reached = true;
            position.generation = position.generation.max(from.known.generation);
        } else if position.lsn > from.known.lsn && !known_reached {
            return Err(corrupt(from.known.lsn, CorruptReason::NotTheLog));
        }
        let header = match window.group_behind(&position)? {
            Ok(header) => header,
            Err(defect) => break defect,
        };
        let record_bytes = window.record_bytes(&header);
        visit(Group { header, record_bytes }).map_err(|defect| corrupt(header.lsn, defect.into()))?;
        last_seq = last_seq.max(Some(header.last_seq));
        groups += 1;
        bytes += header.encoded_bytes() as u64;
        position = header.next();
    };

    let end = position.lsn;
    if !known_reached {
        return Err(corrupt(
            end,
            CorruptReason::EndsEarly {
                found,
                known: from.known.lsn,
            },
        ));
    }
    let last = layout.number_before(end);
    let (bytes_there, expected) = (
        window.files.get(&last).copied().unwrap_or(0),
        layout.segment_bytes(),
    );
    if bytes_there < expected {
        return Err(corrupt(
            end,
            CorruptReason::SegmentShort {
                bytes: bytes_there,
                expected,
            },
        ));
    }
    if let Some(durable_to) = window.later_knowledge(&position)? {
        return Err(corrupt(end, CorruptReason::Damaged { found, durable_to }));
    }
    Ok(LogEnd {
        position,
        last_seq,
        groups,
        bytes,
        found,
    })
}

/// A verified header, or what stands in its place.
type Found = Result<GroupHeader, GroupDefect>;

/// Memory that a device can read into directly.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// The part of the log that is in memory.
struct Window<'r, R: ReadLog> {
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
    fn open(reader: &'r mut R, from: &ScanStart) -> Result<Window<'r, R>, ScanError<R::Error>> {
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
    fn record_bytes(&self, header: &GroupHeader) -> &[u8] {
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
    fn group_behind(&mut self, position: &LogPosition) -> Result<Found, ScanError<R::Error>> {
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
    fn later_knowledge(&mut self, position: &LogPosition) -> Result<Option<Lsn>, ScanError<R::Error>> {
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

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
