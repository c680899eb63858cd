//! The log: one endless sequence of bytes, written in checksummed groups, kept in segment files.
//!
//! An [`Lsn`] is a byte position in that sequence. Segment `n` holds positions
//! `n * segment_bytes .. (n + 1) * segment_bytes` and is the file `log-NNNNNNNN.seg`; its first 4 KiB are
//! the segment's header, the rest is groups. So position and place are the same thing, and a segment that
//! is truncated away is recycled by renaming it to a later number.
//!
//! | part | file |
//! |---|---|
//! | what a group carries: puts, deletes, trees, transactions, in batches | [`record`] |
//! | the unit of I/O and of atomicity: header, checksums, chain | [`group`] |
//! | positions, and the files that hold them | [`segment`] |
//! | which of these files to create, recycle and remove | [`SegmentSet`] |
//! | recovery: from a position to the log's end, or to corruption | [`scan()`] |
//! | while the log is written to: from a position to a known one | [`scan_known()`] |
//!
//! # What makes a group valid
//!
//! A group is believed at position `p` after a group that ended at `x` only if its header and its records
//! match their checksums, it says that it stands at `p` and follows `x`, it carries the database's log id,
//! the header checksum of the group before it, and a generation that is not lower than that group's. So
//! neither what a segment held before it was recycled nor a group of a history that recovery cut off can
//! be mistaken for a part of the log: zeroing a recycled segment is not necessary.

pub mod group;
pub mod record;
mod record_reader;
pub mod scan;
pub mod segment;
mod segment_set;
mod window;

pub use group::{
    GROUP_HEADER_BYTES, Group, GroupBuilder, GroupDefect, GroupHeader, GroupImage, GroupStart, encoded_bytes,
    parse_group,
};
pub use record::{
    BATCH_FRAME_BYTES, HEAD_BYTES_MAX, LoadedExtents, Record, RecordWriter, TRANSACTION_FRAME_BYTES,
};
pub use record_reader::{LogDefect, RecordReader};
pub use scan::{LogEnd, READ_BYTES, ReadLog, ScanError, ScanStart, SegmentFile, scan, scan_known};
pub use segment::{SegmentHeader, SegmentHeaderDefect, SegmentLayout};
pub use segment_set::{SegmentJob, SegmentSet};

use crate::Lsn;

/// Where the log goes on: everything before `lsn` is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogPosition {
    /// End of the last group before; the next one stands here, or at the start of the next segment if it
    /// doesn't fit into this one.
    pub lsn: Lsn,
    /// The next group carries this generation or a later one.
    pub generation: u32,
    /// Header checksum of the last group before, 0 if there was none.
    pub previous_crc: u32,
}
