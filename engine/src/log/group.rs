//! A group: what one log write carries, all of it or nothing.
//!
//! ```text
//! header (80 bytes) | records | zeros up to the next multiple of 4096
//! ```
//!
//! The header's checksum covers the header, and through `records_crc` the records; the next group repeats
//! it as `previous_crc`. That is the chain: a group is only believed behind the very group that it was
//! written behind. `follows` is where that group ended, which differs from the group's own position when
//! the rest of a segment was too short for it. The byte table is in `docs/FORMAT.md`.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::LogPosition;
use super::record::RecordWriter;
use super::record_reader::RecordReader;
use crate::checksum::crc32c;
use crate::{BLOCK_BYTES, Lsn, Seq, ShardId, Stamp};

/// "TRLG", read as a little-endian number.
pub const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"TRLG");
/// The version of groups and records that this code writes, and the only one it reads.
pub const GROUP_VERSION: u16 = 1;
/// Bytes before the records.
pub const GROUP_HEADER_BYTES: usize = size_of::<RawHeader>();
/// The header's own checksum is its last field and covers what comes before.
const HEADER_CHECKED_BYTES: usize = GROUP_HEADER_BYTES - 4;

/// The header as it is stored.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) magic: U32,
    pub(crate) version: U16,
    pub(crate) flags: U16,
    pub(crate) generation: U32,
    pub(crate) record_bytes: U32,
    pub(crate) lsn: U64,
    pub(crate) follows: U64,
    pub(crate) durable_to: U64,
    pub(crate) first_seq: U64,
    pub(crate) last_seq: U64,
    pub(crate) log_id: U64,
    pub(crate) previous_crc: U32,
    pub(crate) records_crc: U32,
    pub(crate) reserved: U32,
    pub(crate) header_crc: U32,
}

/// How many bytes a group of so many record bytes takes in the log: a multiple of 4096.
#[must_use]
pub const fn encoded_bytes(record_bytes: usize) -> usize {
    (GROUP_HEADER_BYTES + record_bytes).next_multiple_of(BLOCK_BYTES)
}

/// A verified header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHeader {
    /// Where the group stands.
    pub lsn: Lsn,
    /// Where the group before it ended.
    pub follows: Lsn,
    /// Raised by every recovery; never falls along the log.
    pub generation: u32,
    /// Bytes of records.
    pub record_bytes: u32,
    /// Everything before this position was known to be durable when the group was built (rule R16).
    pub durable_to: Lsn,
    /// Lowest commit group within.
    pub first_seq: Seq,
    /// Highest commit group within.
    pub last_seq: Seq,
    /// Which database's log this is.
    pub log_id: u64,
    /// `crc` of the group before.
    pub previous_crc: u32,
    /// CRC-32C of the records.
    pub records_crc: u32,
    /// CRC-32C of the header: what the next group chains on.
    pub crc: u32,
}

/// Why bytes are not a group, or not the group that belongs there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupDefect {
    /// Fewer bytes than the group needs.
    #[error("the group is cut short")]
    Short,
    /// The magic number is missing: never written, or overwritten.
    #[error("there is no group")]
    NoGroup,
    /// The header doesn't match its checksum.
    #[error("the group header's checksum is wrong")]
    HeaderChecksum,
    /// A version that this code doesn't know.
    #[error("the group has version {found}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// The group was written for another place: the segment was recycled, or a write went astray.
    #[error("the group was written for log position {}", found.0)]
    Misplaced {
        /// The position it was written for.
        found: Lsn,
    },
    /// The group belongs to another database's log.
    #[error("the group belongs to another log")]
    ForeignLog,
    /// The records don't match their checksum.
    #[error("the group records' checksum is wrong")]
    RecordsChecksum,
    /// A whole group, but not written behind the group that it stands behind.
    #[error("the group does not chain on the one before it")]
    Chain,
    /// A whole group of a history that a recovery cut off.
    #[error("the group has generation {found}, {least} or later is expected")]
    Generation {
        /// Its generation.
        found: u32,
        /// The lowest one possible here.
        least: u32,
    },
}

impl GroupHeader {
    /// Verifies a header that stands at `lsn` of the log `log_id`; `bytes` may go on behind it.
    ///
    /// # Errors
    /// Everything in [`GroupDefect`] that can be told from the header alone.
    pub fn decode(bytes: &[u8], log_id: u64, lsn: Lsn) -> Result<GroupHeader, GroupDefect> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| GroupDefect::Short)?;
        if raw.magic.get() != GROUP_MAGIC {
            return Err(GroupDefect::NoGroup);
        }
        let crc = raw.header_crc.get();
        if crc32c(&raw.as_bytes()[..HEADER_CHECKED_BYTES]) != crc {
            return Err(GroupDefect::HeaderChecksum);
        }
        if raw.version.get() != GROUP_VERSION {
            return Err(GroupDefect::Version {
                found: raw.version.get(),
            });
        }
        let header = GroupHeader {
            lsn: Lsn(raw.lsn.get()),
            follows: Lsn(raw.follows.get()),
            generation: raw.generation.get(),
            record_bytes: raw.record_bytes.get(),
            durable_to: Lsn(raw.durable_to.get()),
            first_seq: Seq(raw.first_seq.get()),
            last_seq: Seq(raw.last_seq.get()),
            log_id: raw.log_id.get(),
            previous_crc: raw.previous_crc.get(),
            records_crc: raw.records_crc.get(),
            crc,
        };
        if header.log_id != log_id {
            return Err(GroupDefect::ForeignLog);
        }
        if header.lsn != lsn {
            return Err(GroupDefect::Misplaced { found: header.lsn });
        }
        Ok(header)
    }

    /// Whether the group was written behind what `position` describes.
    ///
    /// # Errors
    /// [`GroupDefect::Chain`] or [`GroupDefect::Generation`].
    pub fn check_chain(&self, position: &LogPosition) -> Result<(), GroupDefect> {
        if self.follows != position.lsn || self.previous_crc != position.previous_crc {
            return Err(GroupDefect::Chain);
        }
        if self.generation < position.generation {
            return Err(GroupDefect::Generation {
                found: self.generation,
                least: position.generation,
            });
        }
        Ok(())
    }

    /// Bytes that the group takes in the log.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        encoded_bytes(self.record_bytes as usize)
    }

    /// Where the log goes on behind this group.
    #[must_use]
    pub fn next(&self) -> LogPosition {
        LogPosition {
            lsn: Lsn(self.lsn.0 + self.encoded_bytes() as u64),
            generation: self.generation,
            previous_crc: self.crc,
        }
    }
}

/// A verified group.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Its header.
    pub header: GroupHeader,
    /// Its records, as bytes.
    pub record_bytes: &'a [u8],
}

impl<'a> Group<'a> {
    /// Reads the records.
    #[must_use]
    pub fn records(&self) -> RecordReader<'a> {
        RecordReader::new(self.record_bytes)
    }
}

/// Verifies a whole group that stands at `lsn` of the log `log_id`; `bytes` may go on behind it. Whether it
/// belongs behind the groups before it, [`GroupHeader::check_chain`] tells.
///
/// # Errors
/// If the bytes are not such a group.
pub fn parse_group(bytes: &[u8], log_id: u64, lsn: Lsn) -> Result<Group<'_>, GroupDefect> {
    let header = GroupHeader::decode(bytes, log_id, lsn)?;
    let record_bytes = bytes[GROUP_HEADER_BYTES..]
        .get(..header.record_bytes as usize)
        .ok_or(GroupDefect::Short)?;
    if crc32c(record_bytes) != header.records_crc {
        return Err(GroupDefect::RecordsChecksum);
    }
    Ok(Group { header, record_bytes })
}

/// What a group says about the log before it; known only when the group is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupStart {
    /// Where it will stand: [`SegmentLayout::place`](super::SegmentLayout::place) of `position.lsn`.
    pub lsn: Lsn,
    /// The end of the log before it, and the generation to write.
    pub position: LogPosition,
    /// Everything before this is known to be durable.
    pub durable_to: Lsn,
}

/// A finished group.
#[derive(Clone, Copy, Debug)]
pub struct GroupImage<'a> {
    /// What to write at the group's position: a multiple of 4096 bytes.
    pub bytes: &'a [u8],
    /// Where the log goes on behind it; its `previous_crc` is this group's checksum.
    pub next: LogPosition,
}

/// Gathers records and makes a group of them. One builder serves for all groups of a log; its memory is
/// that of the largest group.
#[derive(Debug)]
pub struct GroupBuilder {
    log_id: u64,
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    seqs: Option<(Seq, Seq)>,
}

impl GroupBuilder {
    /// An empty group of the log `log_id`.
    #[must_use]
    pub fn new(log_id: u64) -> GroupBuilder {
        GroupBuilder {
            log_id,
            bytes: vec![0; GROUP_HEADER_BYTES],
            seqs: None,
        }
    }

    /// Forgets what was gathered.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(GROUP_HEADER_BYTES, 0);
        self.seqs = None;
    }

    /// Adds a worker's changes as a batch of commit group `seq`. One copy of the bytes.
    pub fn append_batch(&mut self, seq: Seq, shard: ShardId, stamp: Stamp, changes: &[u8]) {
        let mut writer = self.writer(seq);
        writer.batch_begin(seq, shard, stamp);
        writer.0.extend_from_slice(changes);
        writer.batch_end();
    }

    /// Adds complete records (batches with their begin and end, transactions) of commit group `seq`.
    pub fn append(&mut self, records: &[u8], seq: Seq) {
        self.writer(seq).0.extend_from_slice(records);
    }

    /// A writer for further records of commit group `seq`.
    pub fn writer(&mut self, seq: Seq) -> RecordWriter<'_> {
        let (first, last) = self.seqs.unwrap_or((seq, seq));
        self.seqs = Some((first.min(seq), last.max(seq)));
        RecordWriter(&mut self.bytes)
    }

    /// Whether nothing was added since the last [`clear`](GroupBuilder::clear).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seqs.is_none()
    }

    /// Bytes of records gathered.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.bytes.len() - GROUP_HEADER_BYTES
    }

    /// Bytes that the group will take in the log: a multiple of 4096.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        encoded_bytes(self.record_bytes())
    }

    /// Makes the group in the builder's own memory. Call [`clear`](GroupBuilder::clear) before the next one.
    pub fn finish(&mut self, start: &GroupStart) -> GroupImage<'_> {
        let record_bytes = self.record_bytes();
        let header = self.header(start);
        let next = next_position(start, record_bytes, &header);
        self.bytes[..GROUP_HEADER_BYTES].copy_from_slice(header.as_bytes());
        self.bytes.resize(encoded_bytes(record_bytes), 0);
        GroupImage {
            bytes: &self.bytes,
            next,
        }
    }

    /// Makes the group in the first [`encoded_bytes`](GroupBuilder::encoded_bytes) of `target`, which a
    /// device may want to be aligned. The builder is cleared.
    ///
    /// # Errors
    /// [`GroupDefect::Short`] if `target` is too small; nothing is written or cleared then.
    pub fn finish_into(&mut self, start: &GroupStart, target: &mut [u8]) -> Result<LogPosition, GroupDefect> {
        let target = target.get_mut(..self.encoded_bytes()).ok_or(GroupDefect::Short)?;
        let header = self.header(start);
        let next = next_position(start, self.record_bytes(), &header);
        let (gathered, padding) = target.split_at_mut(self.bytes.len());
        gathered[..GROUP_HEADER_BYTES].copy_from_slice(header.as_bytes());
        gathered[GROUP_HEADER_BYTES..].copy_from_slice(&self.bytes[GROUP_HEADER_BYTES..]);
        padding.fill(0);
        self.clear();
        Ok(next)
    }

    fn header(&self, start: &GroupStart) -> RawHeader {
        let records = &self.bytes[GROUP_HEADER_BYTES..];
        let (first_seq, last_seq) = self.seqs.unwrap_or_default();
        let mut header = RawHeader {
            magic: GROUP_MAGIC.into(),
            version: GROUP_VERSION.into(),
            flags: 0.into(),
            generation: start.position.generation.into(),
            record_bytes: (records.len() as u32).into(),
            lsn: start.lsn.0.into(),
            follows: start.position.lsn.0.into(),
            durable_to: start.durable_to.0.into(),
            first_seq: first_seq.0.into(),
            last_seq: last_seq.0.into(),
            log_id: self.log_id.into(),
            previous_crc: start.position.previous_crc.into(),
            records_crc: crc32c(records).into(),
            reserved: 0.into(),
            header_crc: 0.into(),
        };
        header.header_crc = crc32c(&header.as_bytes()[..HEADER_CHECKED_BYTES]).into();
        header
    }
}

fn next_position(start: &GroupStart, record_bytes: usize, header: &RawHeader) -> LogPosition {
    LogPosition {
        lsn: Lsn(start.lsn.0 + encoded_bytes(record_bytes) as u64),
        generation: start.position.generation,
        previous_crc: header.header_crc.get(),
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
