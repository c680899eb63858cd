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
//! 4. Segments are prepared one after the other, each durably before the next. If one behind the start is missing
//!    while a later one is there, it was lost: corruption.
//! 5. Otherwise a crash left the tail torn, or left holes in it, which is legal: nothing behind `x` was ever
//!    acknowledged as durable. The log ends at `x`.
//!
//! What can't be told: that the last segments are missing, all of them from one on, if nothing in the superblock and
//! in what remains knows of their groups.
//!
//! Damage to the very last durable group can't be told from a torn tail: nothing was written after it that
//! knows better. A clean close writes the end into the superblock, so there point 1 finds it.
//!
//! Memory: one group and the read-ahead of [`READ_BYTES`]. Time: reading the log, and the preallocated
//! rest behind its end, once.

use super::group::{Group, GroupDefect};
use super::record_reader::LogDefect;
use super::window::Window;
use super::{LogPosition, SegmentLayout};
use crate::{Lsn, Seq};

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
    let mut walk = Walk::begin(reader, from)?;
    let found = loop {
        walk.check_known()?;
        if let Err(defect) = walk.next(&mut visit)? {
            break defect;
        }
    };
    walk.check_end(found)?;
    Ok(LogEnd {
        position: walk.position,
        last_seq: walk.last_seq,
        groups: walk.groups,
        bytes: walk.bytes,
        found,
    })
}

/// Gives each group from `from.start` up to `from.known` to `visit`, in order, and says nothing of what stands behind:
/// for a log that is written to meanwhile. (Bad run: a scan for the end finds nothing at `x`, the groups at `x` and
/// behind it are written, and it finds the second one, which knows the first to be durable: damage that isn't there.)
/// Only segments that hold what lies between are read.
///
/// # Errors
/// If reading fails, or if not every group up to there is valid.
pub fn scan_known<R: ReadLog>(
    reader: &mut R,
    from: &ScanStart,
    mut visit: impl FnMut(Group<'_>) -> Result<(), LogDefect>,
) -> Result<(), ScanError<R::Error>> {
    let mut walk = Walk::begin(reader, from)?;
    while !walk.check_known()? {
        if let Err(found) = walk.next(&mut visit)? {
            return Err(walk.ends_early(found));
        }
    }
    Ok(())
}

/// How far a scan has come.
struct Walk<'r, R: ReadLog> {
    window: Window<'r, R>,
    layout: SegmentLayout,
    known: LogPosition,
    position: LogPosition,
    known_reached: bool,
    last_seq: Option<Seq>,
    groups: u64,
    bytes: u64,
}

impl<'r, R: ReadLog> Walk<'r, R> {
    fn begin(reader: &'r mut R, from: &ScanStart) -> Result<Walk<'r, R>, ScanError<R::Error>> {
        let walk = Walk {
            window: Window::open(reader, from)?,
            layout: from.layout,
            known: from.known,
            position: from.start,
            known_reached: false,
            last_seq: None,
            groups: 0,
            bytes: 0,
        };
        let first = walk.layout.number_before(from.start.lsn);
        if walk.window.file_bytes(first).is_none() {
            return Err(walk.corrupt(walk.layout.start(first), CorruptReason::SegmentMissing));
        }
        Ok(walk)
    }

    fn corrupt(&self, lsn: Lsn, reason: CorruptReason) -> ScanError<R::Error> {
        ScanError::Corrupt {
            lsn,
            number: self.layout.number(lsn),
            offset: self.layout.offset(lsn),
            reason,
        }
    }

    fn ends_early(&self, found: GroupDefect) -> ScanError<R::Error> {
        let known = self.known.lsn;
        self.corrupt(self.position.lsn, CorruptReason::EndsEarly { found, known })
    }

    /// Whether it has come to the known position, or behind it.
    fn check_known(&mut self) -> Result<bool, ScanError<R::Error>> {
        if self.position.lsn == self.known.lsn {
            if self.position.previous_crc != self.known.previous_crc {
                return Err(self.corrupt(self.position.lsn, CorruptReason::NotTheLog));
            }
            self.known_reached = true;
            self.position.generation = self.position.generation.max(self.known.generation);
        } else if self.position.lsn > self.known.lsn && !self.known_reached {
            return Err(self.corrupt(self.known.lsn, CorruptReason::NotTheLog));
        }
        Ok(self.known_reached)
    }

    /// Visits the next group, or gives what stands in its place.
    fn next(
        &mut self,
        visit: &mut impl FnMut(Group<'_>) -> Result<(), LogDefect>,
    ) -> Result<Result<(), GroupDefect>, ScanError<R::Error>> {
        let header = match self.window.group_behind(&self.position)? {
            Ok(header) => header,
            Err(defect) => return Ok(Err(defect)),
        };
        let record_bytes = self.window.record_bytes(&header);
        visit(Group { header, record_bytes }).map_err(|defect| self.corrupt(header.lsn, defect.into()))?;
        self.last_seq = self.last_seq.max(Some(header.last_seq));
        self.groups += 1;
        self.bytes += header.encoded_bytes() as u64;
        self.position = header.next();
        Ok(Ok(()))
    }

    /// Whether the log may end here.
    fn check_end(&mut self, found: GroupDefect) -> Result<(), ScanError<R::Error>> {
        if !self.known_reached {
            return Err(self.ends_early(found));
        }
        let end = self.position.lsn;
        let last = self.layout.number_before(end);
        let (bytes, expected) = (
            self.window.file_bytes(last).unwrap_or(0),
            self.layout.segment_bytes(),
        );
        if bytes < expected {
            return Err(self.corrupt(end, CorruptReason::SegmentShort { bytes, expected }));
        }
        let mut behind = last + 1..self.window.files_end();
        if let Some(number) = behind.find(|number| self.window.file_bytes(*number).is_none()) {
            return Err(self.corrupt(self.layout.start(number), CorruptReason::SegmentMissing));
        }
        if let Some(durable_to) = self.window.later_knowledge(&self.position)? {
            return Err(self.corrupt(end, CorruptReason::Damaged { found, durable_to }));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
