//! The log after the checkpoint: finding its end, and applying it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use rayon::slice::ParallelSliceMut;
use treering_engine::log::segment::{segment_file_name, segment_file_number};
use treering_engine::log::{
    Group, LogEnd, LogPosition, ReadLog, Record, RecordWriter, ScanError, ScanStart, SegmentFile,
    SegmentHeader, SegmentLayout, scan,
};
use treering_engine::superblock::Superblock;
use treering_engine::{BLOCK_BYTES, Extent, Seq, Stamp, TreeId};
use treering_io::{AlignedBuffer, Directory, File, OpenMode};

use crate::blob::blob_extents;
use crate::commit::{CommitMessage, DROPPED_PREFIX};
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::options::Durability;
use crate::runtime::Runtime;
use crate::shard::{Action, Request};
use crate::shared::{Counter, with_guard};
use crate::ticket::ticket;

/// Record bytes that are sorted and applied at a time.
const SLICE_BYTES: usize = 16 << 20;
/// And most records: short keys without values would cost many times their bytes.
const SLICE_RECORDS: usize = 1 << 18;

/// The log's files, for reading.
pub(super) struct Log {
    log_id: u64,
    layout: SegmentLayout,
    files: BTreeMap<u64, Arc<dyn File>>,
}

/// What the first pass found.
pub(super) struct Scanned {
    pub end: LogEnd,
    /// Higher than every stamp in the log.
    pub next_stamp: Stamp,
    /// Extents of the blobs that the log names, without those of superseded ones. No two of them overlap.
    pub blobs: Vec<Extent>,
    /// Which of the blobs that the log names (counted from 0) have lost their place to a later one: their keys were
    /// overwritten or deleted before that, so they must not be brought into a tree again, not even for a moment.
    pub superseded: BTreeSet<usize>,
}

impl Log {
    /// Opens the segments that are there.
    pub fn open(directory: &Arc<dyn Directory>, superblock: &Superblock) -> Result<Log> {
        let failed = |error| Error::io("opening the log", error);
        let layout = superblock.segment_layout().ok_or_else(|| Error::Corrupt {
            file: crate::shared::DATA_FILE.into(),
            offset: 0,
            page: Some(0),
            reason: "the superblock holds an impossible segment size".into(),
        })?;
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
        })
    }

    pub fn layout(&self) -> SegmentLayout {
        self.layout
    }

    /// Finds the end of the log, or corruption.
    pub fn scan(&self, superblock: &Superblock) -> Result<Scanned> {
        let mut next_stamp = Stamp(0);
        let mut blobs: Vec<Vec<Extent>> = Vec::new();
        let checkpoint_seq = superblock.checkpoint_seq;
        let end = self.visit(superblock.log_start, superblock.log_known, |group| {
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
                    _ => {}
                }
            }
            Ok(())
        })?;
        let (blobs, superseded) = last_blobs(&blobs);
        Ok(Scanned {
            end,
            next_stamp,
            blobs,
            superseded,
        })
    }

    fn visit(
        &self,
        start: LogPosition,
        known: LogPosition,
        visit: impl FnMut(Group<'_>) -> std::result::Result<(), treering_engine::log::LogDefect>,
    ) -> Result<LogEnd> {
        let from = ScanStart {
            layout: self.layout,
            log_id: self.log_id,
            start,
            known,
        };
        let mut reader = Reader { log: self };
        scan(&mut reader, &from, visit).map_err(|error| self.scan_error(error))
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

/// The extents of the blobs whose place no later blob takes, and which blobs are not among them. O(n log n).
fn last_blobs(blobs: &[Vec<Extent>]) -> (Vec<Extent>, BTreeSet<usize>) {
    let mut taken: BTreeMap<u32, Extent> = BTreeMap::new();
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
            taken.extend(extents.iter().map(|&extent| (extent.start.0, extent)));
        }
    }
    (taken.into_values().collect(), superseded)
}

struct Reader<'l> {
    log: &'l Log,
}

impl ReadLog for Reader<'_> {
    type Error = io::Error;

    fn segments(&mut self) -> io::Result<Vec<SegmentFile>> {
        self.log
            .files
            .iter()
            .map(|(&number, file)| {
                Ok(SegmentFile {
                    number,
                    bytes: file.len()?,
                })
            })
            .collect()
    }

    fn read(&mut self, number: u64, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.log.files.get(&number) {
            Some(file) => file.read_at(buffer, offset),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

/// Records of one slice, to be sorted by tree and key.
#[derive(Default)]
struct Slice {
    bytes: Vec<u8>,
    records: Vec<Place>,
}

/// A record within a slice.
struct Place {
    tree: TreeId,
    key: (u32, u32),
    value: (u32, u32),
    kind: Kind,
    order: u32,
}

#[derive(Clone, Copy)]
enum Kind {
    Put,
    PutBlob,
    Delete,
}

impl Slice {
    fn push(&mut self, tree: TreeId, key: &[u8], value: &[u8], kind: Kind) {
        let key_start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(key);
        let value_start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        self.records.push(Place {
            tree,
            key: (key_start, key.len() as u32),
            value: (value_start, value.len() as u32),
            kind,
            order: self.records.len() as u32,
        });
    }

    /// Sorts by tree and key, drops all but the last of each key, and writes the rest out by owner.
    fn encode(&mut self, owner: impl Fn(TreeId, &[u8]) -> Option<usize>, shards: usize) -> Vec<Vec<u8>> {
        let Slice { bytes, records } = self;
        let part = |(start, length): (u32, u32)| &bytes[start as usize..start as usize + length as usize];
        records
            .par_sort_unstable_by(|a, b| (a.tree, part(a.key), a.order).cmp(&(b.tree, part(b.key), b.order)));
        let mut encoded = vec![Vec::new(); shards];
        for (index, record) in records.iter().enumerate() {
            let key = part(record.key);
            if records
                .get(index + 1)
                .is_some_and(|next| next.tree == record.tree && part(next.key) == key)
            {
                continue;
            }
            let Some(shard) = owner(record.tree, key) else {
                continue;
            };
            let mut writer = RecordWriter(&mut encoded[shard]);
            match record.kind {
                Kind::Put => writer.put(record.tree, key, part(record.value)),
                Kind::PutBlob => writer.put_blob(record.tree, key, part(record.value)),
                Kind::Delete => writer.delete(record.tree, key),
            }
        }
        for records in encoded.iter_mut().filter(|records| !records.is_empty()) {
            RecordWriter(records).batch_end();
        }
        self.bytes.clear();
        self.records.clear();
        encoded
    }
}

/// Applies everything after the checkpoint.
pub(super) fn replay(
    runtime: &Arc<Runtime>,
    log: &Log,
    checkpoint_seq: Seq,
    log_start: LogPosition,
    scanned: Scanned,
) -> Result<()> {
    let (sender, receiver) = oneshot::channel();
    runtime.send_flusher(FlusherMessage::Reserve {
        extents: scanned.blobs,
        reply: sender,
    });
    runtime.wait(receiver, None).unwrap_or(Err(Error::Closed))?;
    let replayer = RefCell::new(Replayer {
        runtime,
        slice: Slice::default(),
        superseded: scanned.superseded,
        blobs: 0,
        failure: None,
        replayed: 0,
    });
    let end = scanned.end.position;
    log.visit(log_start, end, |group| {
        let mut replayer = replayer.borrow_mut();
        let mut skip = true;
        for record in group.records() {
            let record = record?;
            if let Record::BatchBegin { seq, .. } = record {
                skip = seq <= checkpoint_seq;
            } else if !skip && replayer.failure.is_none() {
                replayer.take(&record);
            }
        }
        Ok(())
    })?;
    let mut replayer = replayer.into_inner();
    replayer.apply();
    runtime
        .shared
        .counters
        .set(Counter::RecordsReplayed, replayer.replayed);
    replayer.failure.map_or(Ok(()), Err)
}

struct Replayer<'r> {
    runtime: &'r Arc<Runtime>,
    slice: Slice,
    superseded: BTreeSet<usize>,
    /// Blobs that the log has named so far.
    blobs: usize,
    failure: Option<Error>,
    replayed: u64,
}

impl Replayer<'_> {
    fn take(&mut self, record: &Record<'_>) {
        // Not the marks of where batches end.
        self.replayed += u64::from(record.tree().is_some());
        match *record {
            Record::Put { tree, key, value } => self.slice.push(tree, key, value, Kind::Put),
            Record::PutBlob {
                tree,
                key,
                descriptor,
            } => {
                let superseded = self.superseded.contains(&self.blobs);
                self.blobs += 1;
                if superseded {
                    self.slice.push(tree, key, &[], Kind::Delete);
                } else {
                    self.slice.push(tree, key, descriptor, Kind::PutBlob);
                }
            }
            Record::Delete { tree, key } => self.slice.push(tree, key, &[], Kind::Delete),
            Record::TreeCreate { tree, name } => {
                self.barrier(|reply| CommitMessage::RestoreTree {
                    id: tree,
                    name: name.to_owned(),
                    reply,
                });
            }
            Record::TreeDrop { tree } => {
                self.barrier(|reply| CommitMessage::RestoreDrop { id: tree, reply });
            }
            _ => {}
        }
        if self.slice.bytes.len() >= SLICE_BYTES || self.slice.records.len() >= SLICE_RECORDS {
            self.apply();
        }
    }

    fn barrier(&mut self, message: impl FnOnce(crate::ticket::Reply) -> CommitMessage) {
        self.apply();
        let (reply, ticket) = ticket(self.runtime, None, |_| ());
        self.runtime.send_commit(message(reply));
        if let Err(error) = ticket.wait() {
            self.failure.get_or_insert(error);
        }
    }

    /// Has the slice applied by the shards, and waits for it.
    fn apply(&mut self) {
        if self.slice.records.is_empty() || self.failure.is_some() {
            return;
        }
        let shared = &self.runtime.shared;
        let version = with_guard(&shared.memory, |guard| shared.current.hold(guard));
        let owner = |tree, key: &[u8]| {
            // Records of a tree that the log drops later have no tree left only if the drop came first.
            let state = version.directory.get(tree)?;
            Some(usize::from(state.partitions[state.partition_for(key)].owner.0))
        };
        let encoded = self.slice.encode(owner, shared.settings.shards);
        let mut tickets = Vec::new();
        for (shard, records) in encoded
            .into_iter()
            .enumerate()
            .filter(|(_, records)| !records.is_empty())
        {
            let shard = treering_engine::ShardId(shard as u16);
            let (reply, ticket) = ticket(self.runtime, Some(shard), |_| ());
            let action = Action::Replay { records };
            let request = Request {
                tree: TreeId(0),
                action,
                durability: Durability::Buffered,
                reply,
                credit: None,
            };
            match self.runtime.send(shard, request, false) {
                Ok(()) => tickets.push(ticket),
                Err(_) => drop(self.failure.get_or_insert(Error::WouldDeadlock)),
            }
        }
        for ticket in tickets {
            if let Err(error) = ticket.wait() {
                self.failure.get_or_insert(error);
            }
        }
    }
}

/// Goes on retiring the pages of trees that were dropped before.
pub(super) fn resume_drops(runtime: &Arc<Runtime>) -> Result<()> {
    let shared = &runtime.shared;
    let dropped: Vec<_> = with_guard(&shared.memory, |guard| {
        let directory = &shared.current.load(guard).directory;
        directory
            .iter()
            .filter(|tree| tree.name.starts_with(DROPPED_PREFIX))
            .flat_map(|tree| {
                let owners: BTreeSet<_> = tree.partitions.iter().map(|partition| partition.owner).collect();
                owners.into_iter().map(|owner| (tree.id, owner))
            })
            .collect()
    });
    for (tree, owner) in dropped {
        let (reply, ticket) = ticket(runtime, Some(owner), |_| ());
        let request = Request {
            tree,
            action: Action::DropTree,
            durability: Durability::Buffered,
            reply,
            credit: None,
        };
        runtime
            .send(owner, request, false)
            .map_err(|_| Error::WouldDeadlock)?;
        ticket.wait()?;
    }
    Ok(())
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
        let (last, superseded) = last_blobs(&blobs);
        assert_eq!(last, [extent(12, 2), extent(15, 5), extent(23, 1)]);
        assert_eq!(superseded, BTreeSet::from([0, 1]));
    }
}
