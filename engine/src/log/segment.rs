//! Positions and segment files.
//!
//! # Placing groups
//!
//! A group never straddles two segments. Behind a log that ends at `x`, a group of `n` bytes stands at
//! `x` if it fits into the rest of that segment, otherwise at the first position behind the header of the
//! next one; [`SegmentLayout::place`] decides it and [`SegmentLayout::candidates`] are the two places
//! where recovery looks. The group's header repeats `x` as `follows`, so a reader that finds nothing at
//! `x` knows for certain whether the group at the start of the next segment comes next or something
//! before it is missing.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::{BLOCK_BYTES, Lsn};

/// "TRINGSEG", at the start of every segment file.
pub const SEGMENT_MAGIC: [u8; 8] = *b"TRINGSEG";
/// The version of the segment format.
pub const SEGMENT_VERSION: u32 = 1;
/// The header takes a whole block, so that groups stay aligned.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_BYTES;
/// Smallest segment: the header and one block for a group.
pub const SEGMENT_BYTES_MIN: u64 = 2 * BLOCK_BYTES as u64;
/// Largest segment: a group's length has 32 bits, and its whole segment must be below that.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 31;

/// The segment header as it is stored, at the start of its block; the rest of the block is zero.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSegmentHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) header_crc: U32,
    pub(crate) log_id: U64,
    pub(crate) number: U64,
    pub(crate) segment_bytes: U64,
}

/// What a segment file says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Which database's log it belongs to.
    pub log_id: u64,
    /// Which part of the log it was prepared for; the file's name says the same.
    pub number: u64,
    /// Bytes of every segment of this log.
    pub segment_bytes: u64,
}

/// Why a block is not a segment header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SegmentHeaderDefect {
    /// No segment header: never prepared.
    #[error("the file is not a log segment")]
    NotASegment,
    /// The header doesn't match its checksum.
    #[error("the segment header's checksum is wrong")]
    Checksum,
    /// A version that this code doesn't know.
    #[error("the segment has version {found}")]
    Version {
        /// The version found.
        found: u32,
    },
}

impl SegmentHeader {
    /// The block to write at the start of the file.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut raw = RawSegmentHeader {
            magic: SEGMENT_MAGIC,
            version: SEGMENT_VERSION.into(),
            header_crc: 0.into(),
            log_id: self.log_id.into(),
            number: self.number.into(),
            segment_bytes: self.segment_bytes.into(),
        };
        raw.header_crc = crc32c(raw.as_bytes()).into();
        let mut block = [0; SEGMENT_HEADER_BYTES];
        block[..size_of::<RawSegmentHeader>()].copy_from_slice(raw.as_bytes());
        block
    }

    /// Reads the first block of a segment file.
    ///
    /// # Errors
    /// If it is not a whole header of a known version.
    pub fn decode(block: &[u8]) -> Result<SegmentHeader, SegmentHeaderDefect> {
        let (raw, _) =
            RawSegmentHeader::read_from_prefix(block).map_err(|_| SegmentHeaderDefect::NotASegment)?;
        if raw.magic != SEGMENT_MAGIC {
            return Err(SegmentHeaderDefect::NotASegment);
        }
        let unchecked = RawSegmentHeader {
            header_crc: 0.into(),
            ..raw
        };
        if crc32c(unchecked.as_bytes()) != raw.header_crc.get() {
            return Err(SegmentHeaderDefect::Checksum);
        }
        if raw.version.get() != SEGMENT_VERSION {
            return Err(SegmentHeaderDefect::Version {
                found: raw.version.get(),
            });
        }
        Ok(SegmentHeader {
            log_id: raw.log_id.get(),
            number: raw.number.get(),
            segment_bytes: raw.segment_bytes.get(),
        })
    }
}

/// How positions map to segment files. Fixed when the database is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentLayout {
    segment_bytes: u64,
}

impl SegmentLayout {
    /// A layout of segments of `segment_bytes`; `None` unless that is a multiple of 4096 between
    /// [`SEGMENT_BYTES_MIN`] and [`SEGMENT_BYTES_MAX`].
    #[must_use]
    pub fn new(segment_bytes: u64) -> Option<SegmentLayout> {
        let fits = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes);
        (fits && segment_bytes.is_multiple_of(BLOCK_BYTES as u64)).then_some(SegmentLayout { segment_bytes })
    }

    /// Bytes of every segment file, its header included.
    #[must_use]
    pub fn segment_bytes(self) -> u64 {
        self.segment_bytes
    }

    /// Where the first group of a new database stands.
    #[must_use]
    pub fn first_lsn(self) -> Lsn {
        Lsn(SEGMENT_HEADER_BYTES as u64)
    }

    /// Most bytes that a group may take, header and padding included.
    #[must_use]
    pub fn group_bytes_max(self) -> usize {
        self.segment_bytes as usize - SEGMENT_HEADER_BYTES
    }

    /// Most record bytes that a group may hold: what exceeds it is refused (rule R18).
    #[must_use]
    pub fn record_bytes_max(self) -> usize {
        self.group_bytes_max() - super::GROUP_HEADER_BYTES
    }

    /// The number of the segment that holds `lsn`.
    #[must_use]
    pub fn number(self, lsn: Lsn) -> u64 {
        lsn.0 / self.segment_bytes
    }

    /// The byte of the segment's file where `lsn` stands.
    #[must_use]
    pub fn offset(self, lsn: Lsn) -> u64 {
        lsn.0 % self.segment_bytes
    }

    /// Position of the first byte of segment `number`, its header.
    #[must_use]
    pub fn start(self, number: u64) -> Lsn {
        Lsn(number.saturating_mul(self.segment_bytes))
    }

    /// Position behind the last byte of segment `number`.
    #[must_use]
    pub fn end(self, number: u64) -> Lsn {
        Lsn(number.saturating_add(1).saturating_mul(self.segment_bytes))
    }

    /// Where a group of `group_bytes` stands behind a log that ends at `end`; `None` if no segment can
    /// hold it.
    #[must_use]
    pub fn place(self, end: Lsn, group_bytes: usize) -> Option<Lsn> {
        if group_bytes > self.group_bytes_max() {
            return None;
        }
        let (here, next) = self.candidates(end);
        let fits = here.0 + group_bytes as u64 <= self.end(self.number(here)).0;
        Some(if fits { here } else { next })
    }

    /// The two places where the group behind a log that ends at `end` may stand.
    #[must_use]
    pub fn candidates(self, end: Lsn) -> (Lsn, Lsn) {
        let here = Lsn(end.0
            + if self.offset(end) == 0 {
                SEGMENT_HEADER_BYTES as u64
            } else {
                0
            });
        (
            here,
            Lsn(self.end(self.number(here)).0 + SEGMENT_HEADER_BYTES as u64),
        )
    }

    /// The segment that must exist for a log that ends at `end`: the one of the last byte before it.
    #[must_use]
    pub fn number_before(self, end: Lsn) -> u64 {
        self.number(Lsn(end.0.saturating_sub(1)))
    }
}

/// The name of segment `number`'s file.
#[must_use]
pub fn segment_file_name(number: u64) -> String {
    format!("log-{number:08}.seg")
}

/// The number in a segment's file name; `None` if `name` is not exactly such a name.
#[must_use]
pub fn segment_file_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    let number = digits.parse().ok()?;
    (segment_file_name(number) == name).then_some(number)
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
