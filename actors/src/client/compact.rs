//! Compaction: what lies at the end of the data file moves into holes, and the file is cut.
//!
//! The walk is the calling thread's: it asks the owner of one range after the other to copy the nodes that lie too high
//! ([`Action::Relocate`]), and copies blobs itself. Readers and writers go on; what they are in the middle of keeps its
//! pages. It moves what lies beyond the size that everything in use needs, not the whole database, at a bounded rate.
//!
//! Pages that only named snapshots, past versions or snapshots in use reach stay where they are.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use treering_engine::page::ValueRef;
use treering_engine::tree::Cursor;
use treering_engine::{Extent, PageId, Retired, TreeId};

use super::db::{Db, Inner};
use crate::blob::blob_extents;
use crate::commit::DROPPED_PREFIX;
use crate::error::{Error, Result};
use crate::flusher::{CutReply, FlusherMessage};
use crate::options::Durability;
use crate::shard::Action;
use crate::shared::{Version, with_guard};
use crate::ticket::Outcome;

/// Bytes a second that [`Db::compact`] moves at most.
const BYTES_PER_SECOND: u64 = 64 << 20;
/// Shorter pauses are saved up, nanoseconds.
const PAUSE_NANOS_MIN: u64 = 1_000_000;
/// Longer ones are cut into pieces, nanoseconds.
const PAUSE_NANOS_MAX: u64 = 50_000_000;
/// Most extents of a value that is moved. Its descriptor grows with each, and fits into the smallest leaf with this many.
const BLOB_EXTENTS_MAX: u32 = 8;
/// Most walks through all trees.
const PASSES_MAX: usize = 4;

/// What a compaction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Compaction {
    /// Pages of the data file before.
    pub pages_before: u64,
    /// Pages of the data file after.
    pub pages_after: u64,
    /// Pages that were copied, blobs included.
    pub pages_moved: u64,
}

impl Db {
    /// Makes the data file as short as what is in use allows: moves pages from its end into holes, at most 64 MiB a
    /// second, and cuts it. Readers and writers go on. Waits until it is done, and first until every other compaction is.
    ///
    /// Pages that only snapshots of some kind reach are not moved. Time in proportion to what has to move, plus a look
    /// at every page above the leaves, and at the leaves themselves in search of large values. In memory it does nothing.
    ///
    /// # Errors
    /// As [`checkpoint`](Db::checkpoint); what was moved until then stays moved.
    pub fn compact(&self) -> Result<Compaction> {
        self.compact_at(BYTES_PER_SECOND)
    }

    /// As [`compact`](Db::compact), moving at most so many bytes a second (at least one page).
    ///
    /// # Errors
    /// As [`compact`](Db::compact).
    pub fn compact_at(&self, bytes_per_second: u64) -> Result<Compaction> {
        let inner = &self.inner;
        inner.runtime.check_wait()?;
        inner.runtime.shared.status.check_write()?;
        let pages_before = self.stats().file_pages;
        let mut done = Compaction {
            pages_before,
            pages_after: pages_before,
            pages_moved: 0,
        };
        if inner.runtime.shared.settings.in_memory {
            return Ok(done);
        }
        // What waits for the last checkpoint is free afterwards, and needs no room.
        self.checkpoint()?;
        let nanos_per_page =
            inner.runtime.shared.settings.page_bytes as u64 * 1_000_000_000 / bytes_per_second.max(1);
        // The room that was needed, and the pages that moved.
        let mut last = (PageId(u32::MAX), u64::MAX);
        for _ in 0..PASSES_MAX {
            let turn = Turn::wait_for(inner)?;
            // What was in use when the last pass began may have come free only later: a version lives as long as the
            // slowest thread that looks at it.
            let in_vain = last.1 == 0 && turn.below.0 >= last.0.0 - last.0.0 / 16;
            let done_with = is_short_enough(self.stats().file_pages, turn.below);
            if in_vain || (done_with && last.1 != u64::MAX) {
                break;
            }
            let below = turn.below;
            let mut walk = Walk {
                inner,
                turn,
                nanos_per_page,
                owed_nanos: 0,
                moved: 0,
            };
            walk.trees()?;
            done.pages_moved += walk.moved;
            last = (below, walk.moved);
            // The first checkpoint frees what the pages were moved from, the second cuts the file behind that.
            self.checkpoint()?;
            walk.turn.cut()?;
        }
        done.pages_after = self.stats().file_pages;
        Ok(done)
    }
}

/// Whether a file of so many pages needs no other pass when everything in use has room below `below`.
fn is_short_enough(file_pages: u64, below: PageId) -> bool {
    let below = u64::from(below.0);
    file_pages <= below + below / 16
}

/// The turn to compact, given up when dropped.
struct Turn<'i> {
    inner: &'i Inner,
    /// Nothing shall stay at this id or above.
    below: PageId,
    ended: bool,
}

impl<'i> Turn<'i> {
    fn wait_for(inner: &'i Inner) -> Result<Turn<'i>> {
        let (reply, receiver) = oneshot::channel();
        inner
            .runtime
            .send_flusher(FlusherMessage::BeginCompaction { reply });
        Ok(Turn {
            inner,
            below: inner.runtime.wait(receiver, None).ok_or(Error::Closed)?,
            ended: false,
        })
    }

    /// Ends it, and has the file's free end cut off.
    fn cut(&mut self) -> Result<()> {
        let (reply, receiver) = oneshot::channel();
        self.end(Some(reply));
        self.inner
            .runtime
            .wait(receiver, None)
            .unwrap_or(Err(Error::Closed))
    }

    fn end(&mut self, reply: Option<CutReply>) {
        self.ended = true;
        self.inner
            .runtime
            .send_flusher(FlusherMessage::EndCompaction { reply });
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(None);
        }
    }
}

struct Walk<'i> {
    inner: &'i Arc<Inner>,
    turn: Turn<'i>,
    nanos_per_page: u64,
    /// Time that what was moved should have taken, and hasn't.
    owed_nanos: u64,
    moved: u64,
}

impl Walk<'_> {
    fn trees(&mut self) -> Result<()> {
        // No version is kept meanwhile: it would keep all that is retired until the end.
        let version = self.version();
        let trees = version.directory.iter();
        let trees: Vec<TreeId> = trees
            .filter(|state| !state.name.starts_with(DROPPED_PREFIX))
            .map(|state| state.id)
            .collect();
        drop(version);
        for tree in trees {
            match self.tree(tree) {
                // Dropped meanwhile.
                Err(Error::TreeNotFound { .. }) => {}
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn version(&self) -> Arc<Version> {
        let shared = &self.inner.runtime.shared;
        with_guard(&shared.memory, |guard| shared.current.hold(guard))
    }

    /// False: there is no more room below.
    fn tree(&mut self, tree: TreeId) -> Result<bool> {
        // Blobs first: what holds their descriptors is copied in any case.
        self.blobs(tree)?;
        let mut from: Vec<u8> = Vec::new();
        loop {
            let action = Action::Relocate {
                from: from.as_slice().into(),
                below: self.turn.below,
            };
            let ticket =
                self.inner.send(
                    tree,
                    &from,
                    action,
                    Durability::Buffered,
                    true,
                    |outcome| match outcome {
                        Outcome::Relocated(done) => done,
                        _ => None,
                    },
                )?;
            let Some(done) = ticket.wait()? else {
                return Ok(false);
            };
            self.pause(done.nodes as u64)?;
            // A step ends with its partition at the latest: the next one begins there.
            match done.next.or_else(|| self.next_partition(tree, &from)) {
                Some(next) => from = next,
                None => return Ok(true),
            }
        }
    }

    /// Lowest key of the partition behind the one that holds `key`.
    fn next_partition(&self, tree: TreeId, key: &[u8]) -> Option<Vec<u8>> {
        let version = self.version();
        let state = version.directory.get(tree)?;
        let next = state.partitions.get(state.partition_for(key) + 1)?;
        Some(next.lower.to_vec())
    }

    fn blobs(&mut self, tree: TreeId) -> Result<()> {
        let mut from = Bound::Unbounded;
        loop {
            let (high, next) = self.high_blobs(tree, &from)?;
            for (key, descriptor) in high {
                self.blob(tree, &key, descriptor)?;
            }
            match next {
                Some(next) => from = Bound::Excluded(next),
                None => return Ok(()),
            }
        }
    }

    /// The blobs of the next leaf that has keys, as far as they lie too high, and the leaf's last key; `None`: there is
    /// no such leaf.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn high_blobs(
        &self,
        tree: TreeId,
        from: &Bound<Vec<u8>>,
    ) -> Result<(Vec<(Vec<u8>, Vec<u8>)>, Option<Vec<u8>>)> {
        let version = self.version();
        self.inner.read_version(&version, |version, view| {
            let mut high = Vec::new();
            let mut last = None;
            let partitions = version.directory.get(tree).map(|state| &state.partitions[..]);
            let lower = from.as_ref().map(Vec::as_slice);
            for partition in partitions.unwrap_or_default() {
                let mut cursor = Cursor::ascending(partition.root);
                cursor.next_run(&view, (lower, Bound::Unbounded), |key, value| {
                    last = Some(key.to_vec());
                    if let ValueRef::Blob(descriptor) = value
                        && blob_extents(descriptor).any(|blob| self.is_high(blob.extent))
                    {
                        high.push((key.to_vec(), descriptor.to_vec()));
                    }
                    ControlFlow::Continue(())
                })?;
                if last.is_some() {
                    break;
                }
            }
            Ok((high, last))
        })
    }

    fn is_high(&self, extent: Extent) -> bool {
        extent.start.0 + extent.pages > self.turn.below.0
    }

    /// Copies a blob, if the key still holds it, into holes below what everything needs, in a few pieces if it has to be;
    /// failing that to where it lies lower than before: the next pass, which finds the nodes gone from above, takes it
    /// further down.
    fn blob(&mut self, tree: TreeId, key: &[u8], descriptor: Vec<u8>) -> Result<()> {
        let (mut pages, mut end) = (0, 0);
        for Retired { extent, .. } in blob_extents(&descriptor) {
            pages += u64::from(extent.pages);
            end = end.max(extent.start.0 + extent.pages);
        }
        let version = self.version();
        if !self.holds(&version, tree, key, &descriptor)? {
            return Ok(());
        }
        let holes = self
            .inner
            .holes_for(pages as u32, BLOB_EXTENTS_MAX, self.turn.below)?;
        let holes = if holes.is_empty() {
            self.inner.holes_for(pages as u32, 1, PageId(end - 1))?
        } else {
            holes
        };
        if holes.is_empty() {
            return Ok(());
        }
        let copy = self.inner.copy_blob(&descriptor, holes)?;
        drop(version);
        let action = Action::MoveBlob {
            key: key.into(),
            old: descriptor.into(),
            new: copy.into(),
        };
        let sent = self
            .inner
            .send(tree, key, action, Durability::Buffered, true, |_| ());
        sent?.wait()?;
        self.pause(pages)
    }

    fn holds(&self, version: &Version, tree: TreeId, key: &[u8], descriptor: &[u8]) -> Result<bool> {
        self.inner.read_version(version, |version, view| {
            let Some(state) = version.directory.get(tree) else {
                return Ok(false);
            };
            let root = state.partitions[state.partition_for(key)].root;
            Ok(treering_engine::tree::get(&view, &root, key)? == Some(ValueRef::Blob(descriptor)))
        })
    }

    /// Takes note of pages that were moved, and lets the time pass that they may take.
    fn pause(&mut self, pages: u64) -> Result<()> {
        self.moved += pages;
        self.owed_nanos = self
            .owed_nanos
            .saturating_add(pages.saturating_mul(self.nanos_per_page));
        while self.owed_nanos >= PAUSE_NANOS_MIN {
            // It may be long, and the database may be closed meanwhile.
            self.inner.runtime.shared.status.check_write()?;
            let nanos = self.owed_nanos.min(PAUSE_NANOS_MAX);
            self.owed_nanos -= nanos;
            self.inner.runtime.pause(nanos);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_files_are_compared_too() {
        assert!(is_short_enough(106, PageId(100)) && !is_short_enough(107, PageId(100)));
        assert!(is_short_enough(u64::from(u32::MAX), PageId(u32::MAX - 1)));
    }
}
