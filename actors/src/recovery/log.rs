//! The log's files, for reading: finding its end, and what stands in it before that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use treering_engine::log::segment::{segment_file_name, segment_file_number};
use treering_engine::log::{
    Group, LogDefect, LogEnd, LogPosition, Record, ScanError, ScanStart, SegmentHeader, SegmentLayout, scan,
    scan_known,
};
use treering_engine::superblock::Superblock;
use treering_engine::{BLOCK_BYTES, Extent, Lsn, Seq, Stamp};
use treering_io::{AlignedBuffer, Directory, File, OpenMode};

use super::gather::Gatherer;
use super::read_ahead::{Reader, Readers};
use crate::blob::blob_extents;
use crate::error::{Error, Result};

/// The log's files, for reading.
pub(super) struct Log {
    log_id: u64,
    layout: SegmentLayout,
    files: BTreeMap<u64, Arc<dyn File>>,
    readers: Readers,
}

/// What the first pass found.
pub(super) struct Scanned {
    pub end: LogEnd,
    /// Higher than every stamp in the log.
    pub next_stamp: Stamp,
    /// Extents of the blobs that the log names, without those of superseded ones. No two of them overlap.
    pub blobs: Vec<Extent>,
    /// Which of the blobs that the log names (counted from 0) have lost their place, to a later one or to the
    /// checkpoint's image: their keys were overwritten or deleted before that, so they must not be brought into a tree
    /// again, not even for a moment.
    pub superseded: BTreeSet<usize>,
    /// The records, as far as they had room.
    pub gatherer: Gatherer,
}

impl Log {
    /// Opens the segments that are there.
    pub fn open(directory: &Arc<dyn Directory>, superblock: &Superblock, readers: Readers) -> Result<Log> {
        let layout = superblock.segment_layout().ok_or_else(|| Error::Corrupt {
            file: crate::shared::DATA_FILE.into(),
            offset: 0,
            page: Some(0),
            reason: "the superblock holds an impossible segment size".into(),
        })?;
        let failed = |error| Error::io("opening the log", error);
        let mut files = BTreeMap::new();
        for name in directory.names().map_err(failed)? {
            if let Some(number) = segment_file_number(&name) {
                files.insert(number, directory.open(&name, OpenMode::Existing).map_err(failed)?);
            }
        }
        Ok(Log {
            log_id: superblock.log_id(),
            layout,
            files,
            readers,
        })
    }

    /// Opens the segments that hold what lies between two positions of a log that is in use, and no other: these may be
    /// renamed or removed at any moment.
    pub fn between(
        directory: &Arc<dyn Directory>,
        log_id: u64,
        layout: SegmentLayout,
        start: LogPosition,
        end: LogPosition,
    ) -> Result<Log> {
        let mut files = BTreeMap::new();
        for number in layout.number_before(start.lsn)..=layout.number_before(end.lsn) {
            let name = segment_file_name(number);
            let file = directory
                .open(&name, OpenMode::Existing)
                .map_err(|error| Error::io(format!("opening {name}"), error))?;
            files.insert(number, file);
        }
        Ok(Log {
            log_id,
            layout,
            files,
            readers: Readers::Nobody,
        })
    }

    pub fn layout(&self) -> SegmentLayout {
        self.layout
    }

    /// Finds the end of the log, or corruption, and gathers its records on the way, in at most about
    /// `gathered_bytes_max` bytes of memory.
    pub fn scan(&self, superblock: &Superblock, gathered_bytes_max: usize) -> Result<Scanned> {
        let mut next_stamp = Stamp(0);
        let mut blobs: Vec<Vec<Extent>> = Vec::new();
        let checkpoint_seq = superblock.checkpoint_seq;
        let page_bytes = superblock.page_bytes as usize;
        let mut gatherer = Gatherer::new(checkpoint_seq, page_bytes, gathered_bytes_max);
        let mut before = superblock.log_start;
        let end = self.visit(superblock.log_start, superblock.log_known, |group| {
            let mut loads = false;
            let mut seq = Seq(0);
            for record in group.records() {
                match record? {
                    Record::BatchBegin {
                        seq: begun, stamp, ..
                    } => {
                        seq = begun;
                        next_stamp = next_stamp.max(Stamp(stamp.0 + 1));
                    }
                    Record::PutBlob { descriptor, .. } if seq > checkpoint_seq => {
                        blobs.push(blob_extents(descriptor).map(|retired| retired.extent).collect());
                    }
                    // As one large blob.
                    Record::TreeLoad { extents, .. } if seq > checkpoint_seq => {
                        blobs.push(extents.iter().collect());
                        loads = true;
                    }
                    Record::Transaction { seq, changes } if seq > checkpoint_seq => {
                        for change in changes {
                            if let Record::PutBlob { descriptor, .. } = change? {
                                blobs.push(blob_extents(descriptor).map(|retired| retired.extent).collect());
                            }
                        }
                    }
                    _ => {}
                }
            }
            if gatherer.rest.is_none() {
                // Loads take their turn: what comes before them is applied first, and nothing can be applied yet.
                if !loads && gatherer.has_room(&group) {
                    gatherer.take(&group)?;
                } else {
                    gatherer.rest = Some(before);
                }
            }
            before = group.header.next();
            Ok(())
        })?;
        let (blobs, superseded) = last_blobs(&blobs, &superblock.image_extents);
        Ok(Scanned {
            end,
            next_stamp,
            blobs,
            superseded,
            gatherer,
        })
    }

    /// Gives the groups from `start` on to `visit`, up to the end of the log, which must not come before `known`.
    pub fn visit(
        &self,
        start: LogPosition,
        known: LogPosition,
        visit: impl FnMut(Group<'_>) -> std::result::Result<(), LogDefect>,
    ) -> Result<LogEnd> {
        let mut reader = Reader::new(&self.files, self.readers);
        scan(&mut reader, &self.from(start, known), visit).map_err(|error| self.scan_error(error))
    }

    /// Gives the groups from `start` to `known`, which the log is known to hold, to `visit`.
    pub fn visit_known(
        &self,
        start: LogPosition,
        known: LogPosition,
        visit: impl FnMut(Group<'_>) -> std::result::Result<(), LogDefect>,
    ) -> Result<()> {
        let mut reader = Reader::new(&self.files, self.readers);
        scan_known(&mut reader, &self.from(start, known), visit).map_err(|error| self.scan_error(error))
    }

    fn from(&self, start: LogPosition, known: LogPosition) -> ScanStart {
        ScanStart {
            layout: self.layout,
            log_id: self.log_id,
            start,
            known,
        }
    }

    /// The error for a log that goes on behind `end`, although the database was closed there.
    pub fn goes_on(&self, end: Lsn) -> Error {
        Error::Corrupt {
            file: segment_file_name(self.layout.number(end)),
            offset: self.layout.offset(end),
            page: None,
            reason: "the log goes on where the superblock says that the database was closed".into(),
        }
    }

    fn scan_error(&self, error: ScanError<io::Error>) -> Error {
        match error {
            ScanError::Read {
                number,
                offset,
                error,
            } => Error::io(
                format!("reading {} at byte {offset}", segment_file_name(number)),
                error,
            ),
            ScanError::Corrupt {
                number,
                offset,
                reason,
                ..
            } => Error::Corrupt {
                file: segment_file_name(number),
                offset,
                page: None,
                reason: reason.to_string(),
            },
        }
    }

    /// Makes durable what was read: a process that crashed may have left it in the device's cache only.
    pub fn sync(&self, superblock: &Superblock, end: LogPosition) -> Result<()> {
        let first = self.layout.number_before(superblock.log_start.lsn);
        let last = self.layout.number_before(end.lsn);
        for (number, file) in self.files.range(first..=last.max(first)) {
            file.sync_data()
                .map_err(|error| Error::io(format!("syncing {}", segment_file_name(*number)), error))?;
        }
        Ok(())
    }

    /// Of each segment file, whether it is prepared for its own number.
    pub fn found(&self, end: LogPosition) -> BTreeMap<u64, bool> {
        let current = self.layout.number_before(end.lsn);
        let prepared = |number: u64, file: &Arc<dyn File>| {
            let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
            file.read_at(&mut block, 0).is_ok()
                && SegmentHeader::decode(&block).is_ok_and(|header| {
                    header.log_id == self.log_id
                        && header.number == number
                        && header.segment_bytes == self.layout.segment_bytes()
                })
                && file
                    .len()
                    .is_ok_and(|length| length >= self.layout.segment_bytes())
        };
        self.files
            .iter()
            .map(|(&number, file)| (number, number <= current || prepared(number, file)))
            .collect()
    }
}

/// The extents of the blobs whose place neither a later blob takes nor the checkpoint's image, and which blobs are not
/// among them. O(n log n).
///
/// An image is placed when its checkpoint has been under way for a while, perhaps where a blob was that has come and gone
/// since its version. (Bad run: such a blob is put in one part of the replayed log and replaced in the next; its pages are
/// freed, and with them the image's, which something else is written over.)
fn last_blobs(blobs: &[Vec<Extent>], image: &[Extent]) -> (Vec<Extent>, BTreeSet<usize>) {
    let by_start = |extents: &[Extent]| extents.iter().map(|&extent| (extent.start.0, extent)).collect();
    let mut taken: BTreeMap<u32, Extent> = by_start(image);
    let mut superseded = BTreeSet::new();
    for (index, extents) in blobs.iter().enumerate().rev() {
        let end = |extent: &Extent| extent.start.0.saturating_add(extent.pages);
        let is_taken = |extent: &Extent| {
            taken
                .range(..end(extent))
                .next_back()
                .is_some_and(|(_, other)| end(other) > extent.start.0)
        };
        if extents.iter().any(is_taken) {
            superseded.insert(index);
        } else {
            taken.append(&mut by_start(extents));
        }
    }
    image.iter().for_each(|extent| _ = taken.remove(&extent.start.0));
    (taken.into_values().collect(), superseded)
}

#[cfg(test)]
mod tests {
    use treering_engine::PageId;

    use super::*;

    #[test]
    fn of_blobs_that_overlap_the_last_one_remains() {
        let extent = |start, pages| Extent {
            start: PageId(start),
            pages,
        };
        let blobs = [
            vec![extent(10, 5)],
            vec![extent(30, 1), extent(20, 4)],
            vec![extent(15, 5)],
            vec![extent(12, 2)],
            vec![extent(23, 1)],
        ];
        let (last, superseded) = last_blobs(&blobs, &[]);
        assert_eq!(last, [extent(12, 2), extent(15, 5), extent(23, 1)]);
        assert_eq!(superseded, BTreeSet::from([0, 1]));
        // An image lies where the third was.
        let (last, superseded) = last_blobs(&blobs, &[extent(19, 3), extent(90, 1)]);
        assert_eq!(last, [extent(12, 2), extent(23, 1)]);
        assert_eq!(superseded, BTreeSet::from([0, 1, 2]));
    }
}
