//! Taking from log groups what replay needs: changes, creations and drops of trees.

use std::collections::BTreeSet;

use treering_engine::log::{Group, LogDefect, LogPosition, Record, RecordReader};
use treering_engine::tree::Root;
use treering_engine::{Extent, Seq, TreeId};

use super::chunks::Kind;
use super::records::{Gathered, SortedRecords};
use crate::commit::TreeChange;

/// The content that an empty tree was given.
#[derive(Debug)]
pub(super) struct TreeLoad {
    pub tree: TreeId,
    pub root: Root,
    pub extents: Vec<Extent>,
    /// Which of the blobs that the log names it is, as far as places are concerned.
    pub blob: usize,
}

/// What was gathered from consecutive groups, as much as has room.
#[derive(Debug)]
pub(super) struct Gatherer {
    checkpoint_seq: Seq,
    page_bytes: usize,
    bytes_max: usize,
    gathered: Gathered,
    events: Vec<TreeChange>,
    /// Trees whose drop has been seen: ids aren't used again, so no record of them matters any more.
    dropped: BTreeSet<TreeId>,
    /// Blobs that the log has named so far.
    blobs: usize,
    /// Changes taken so far.
    pub taken: u64,
    /// Where the first group stands that had no room.
    pub rest: Option<LogPosition>,
}

impl Gatherer {
    /// Will gather batches behind `checkpoint_seq`, in at most about `bytes_max` bytes of memory.
    pub fn new(checkpoint_seq: Seq, page_bytes: usize, bytes_max: usize) -> Gatherer {
        Gatherer {
            checkpoint_seq,
            page_bytes,
            bytes_max,
            gathered: Gathered::new(page_bytes),
            events: Vec::new(),
            dropped: BTreeSet::new(),
            blobs: 0,
            taken: 0,
            rest: None,
        }
    }

    /// Bytes of memory that are in use.
    pub fn bytes(&self) -> usize {
        self.gathered.bytes()
    }

    /// Whether the group has room. The first one always has, however large it is.
    pub fn has_room(&self, group: &Group<'_>) -> bool {
        self.gathered.is_empty() || self.gathered.bytes() + 2 * group.record_bytes.len() <= self.bytes_max
    }

    /// Takes what happened on several shards at once: to replay it is a matter of keys, like everything else.
    fn take_changes(&mut self, mut changes: RecordReader<'_>) -> Result<(), LogDefect> {
        loop {
            let offset = changes.offset();
            let Some(change) = changes.next() else {
                return Ok(());
            };
            let taken = self.take_record(&change?);
            taken.map_err(|reason| LogDefect { offset, reason })?;
        }
    }

    /// Takes the group's records. It loads no tree.
    pub fn take(&mut self, group: &Group<'_>) -> Result<(), LogDefect> {
        let mut records = group.records();
        let mut skip = true;
        while self.take_until_load(&mut records, &mut skip)?.is_some() {}
        Ok(())
    }

    /// Takes the records of a group up to the next load of a tree. `skip` begins as true, and goes with `records`.
    pub fn take_until_load(
        &mut self,
        records: &mut RecordReader<'_>,
        skip: &mut bool,
    ) -> Result<Option<TreeLoad>, LogDefect> {
        loop {
            let offset = records.offset();
            let Some(record) = records.next() else {
                return Ok(None);
            };
            let taken = match record? {
                Record::BatchBegin { seq, .. } => {
                    *skip = seq <= self.checkpoint_seq;
                    Ok(())
                }
                Record::TreeLoad { tree, root, extents } if !*skip => {
                    self.taken += 1;
                    self.blobs += 1;
                    return Ok(Some(TreeLoad {
                        tree,
                        root,
                        extents: extents.iter().collect(),
                        blob: self.blobs - 1,
                    }));
                }
                Record::Transaction { seq, changes } => {
                    if seq > self.checkpoint_seq {
                        self.take_changes(changes)?;
                    }
                    Ok(())
                }
                record if !*skip => self.take_record(&record),
                _ => Ok(()),
            };
            taken.map_err(|reason| LogDefect { offset, reason })?;
        }
    }

    fn take_record(&mut self, record: &Record<'_>) -> Result<(), &'static str> {
        let taken = match *record {
            Record::Put { tree, key, value } => self.gathered.push(tree, Kind::Put, key, value, 0),
            Record::PutBlob {
                tree,
                key,
                descriptor,
            } => {
                let blob = self.blobs;
                self.blobs += 1;
                self.gathered.push(tree, Kind::PutBlob, key, descriptor, blob)
            }
            Record::Delete { tree, key } => self.gathered.push(tree, Kind::Delete, key, &[], 0),
            Record::TreeCreate { tree, name } => {
                let name = name.to_owned();
                self.events.push(TreeChange::Restore { id: tree, name });
                Ok(())
            }
            Record::TreeDrop { tree } => {
                self.events.push(TreeChange::RestoreDrop { id: tree });
                self.dropped.insert(tree);
                Ok(())
            }
            _ => return Ok(()),
        };
        self.taken += 1;
        taken
    }

    /// The changes of the set of trees since the last call: they come before [`sorted`](Self::sorted).
    pub fn events(&mut self) -> Vec<TreeChange> {
        std::mem::take(&mut self.events)
    }

    /// What was gathered, sorted, without dropped trees and those that aren't `known`; there is room again. `None` if
    /// that is nothing.
    pub fn sorted(
        &mut self,
        superseded: &BTreeSet<usize>,
        known: impl Fn(TreeId) -> bool,
    ) -> Option<SortedRecords> {
        if self.gathered.is_empty() {
            return None;
        }
        let gathered = std::mem::replace(&mut self.gathered, Gathered::new(self.page_bytes));
        Some(gathered.sort(superseded, |tree| known(tree) && !self.dropped.contains(&tree)))
    }
}
