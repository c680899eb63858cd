//! [`SpaceMap`]: the available and the reachable pages of the data file.

use super::bitmap::Bitmap;
use super::blocks::Frozen;
use super::runs::{RunIndex, runs};
use crate::{Extent, PageId};

/// Runs shorter than this are passed over while longer ones are near: writing them costs one seek each.
const RUN_PAGES_PREFERRED: usize = 8;
/// How many short runs one allocation passes over before it takes them after all.
const SHORT_RUNS_SKIPPED_MAX: usize = 64;

/// A request that contradicts the state of the map. Nothing was changed. These are never caused by a full
/// disk: they mean that two owners claim one page, and the database must stop writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpaceError {
    /// The extent is empty, covers a superblock slot, or ends behind the file.
    #[error("pages {}..+{} lie outside the file", .0.start.0, .0.pages)]
    Outside(Extent),
    /// A page of the extent is available, but should be in use.
    #[error("pages {}..+{} are not all in use", .0.start.0, .0.pages)]
    NotAllocated(Extent),
    /// A page of the extent is in use, but should be available.
    #[error("pages {}..+{} are not all available", .0.start.0, .0.pages)]
    NotAvailable(Extent),
    /// A page of the extent is reachable, but should not be.
    #[error("pages {}..+{} are still reachable", .0.start.0, .0.pages)]
    Reachable(Extent),
    /// A page of the extent is not reachable, but should be.
    #[error("pages {}..+{} are not all reachable", .0.start.0, .0.pages)]
    NotReachable(Extent),
}

/// Which pages are available, and which are reachable from the newest published version.
///
/// See the [module](super) for the states. All operations cost O(pages / 64) plus a few words for finding
/// the place, however large and full the file is; memory is two bits a page.
///
/// The reachable set can be [frozen](SpaceMap::freeze) for a checkpoint: it is then read block by block
/// as it was, while changes go on; only blocks that change meanwhile are copied.
#[derive(Debug)]
pub struct SpaceMap {
    pub(super) available: Bitmap,
    pub(super) available_pages: usize,
    pub(super) index: RunIndex,
    pub(super) reachable: Bitmap,
    pub(super) reachable_pages: usize,
    /// Where the next chunk is looked for.
    cursor: usize,
    pub(super) frozen: Option<Frozen>,
}

impl SpaceMap {
    /// A file of `file_pages` pages, all available but the superblock slots.
    #[must_use]
    pub fn new(file_pages: u32) -> SpaceMap {
        let mut map = SpaceMap {
            available: Bitmap::new(0),
            available_pages: 0,
            index: RunIndex::default(),
            reachable: Bitmap::new(0),
            reachable_pages: 0,
            cursor: PageId::FIRST.0 as usize,
            frozen: None,
        };
        map.grow(file_pages);
        map
    }

    /// Pages of the file, superblock slots included.
    #[must_use]
    pub fn file_pages(&self) -> u32 {
        self.available.length() as u32
    }

    /// Pages that can be allocated without growing the file.
    #[must_use]
    pub fn available_pages(&self) -> u64 {
        self.available_pages as u64
    }

    /// Pages that are not available: reachable, waiting, or in somebody's hands. Without superblock slots.
    #[must_use]
    pub fn allocated_pages(&self) -> u64 {
        (self.available.length().saturating_sub(PageId::FIRST.0 as usize) - self.available_pages) as u64
    }

    /// Pages that the newest published version shows.
    #[must_use]
    pub fn reachable_pages(&self) -> u64 {
        self.reachable_pages as u64
    }

    /// Whether every page of the extent is available.
    #[must_use]
    pub fn is_available(&self, extent: Extent) -> bool {
        self.range(extent)
            .is_ok_and(|(start, count)| self.available.all_set(start, count))
    }

    /// Whether every page of the extent is reachable.
    #[must_use]
    pub fn is_reachable(&self, extent: Extent) -> bool {
        self.range(extent)
            .is_ok_and(|(start, count)| self.reachable.all_set(start, count))
    }

    /// Takes up to `pages_max` available pages, in ascending runs, going on where the last chunk ended and
    /// from the start of the file when the end is reached. Long runs are preferred to short ones nearby.
    /// Fewer pages than asked for come back only when no more are available.
    #[must_use = "the pages returned are allocated from now on"]
    pub fn allocate_chunk(&mut self, pages_max: u32) -> Vec<Extent> {
        let mut chunk = Vec::new();
        let mut wanted = pages_max as usize;
        let start = self.cursor.min(self.available.length());
        self.take_runs(start, self.available.length(), &mut wanted, &mut chunk);
        if wanted > 0 {
            self.take_runs(0, start, &mut wanted, &mut chunk);
        }
        chunk
    }

    /// Takes up to `pages_max` available pages whose ids are below `below`, the lowest first.
    #[must_use = "the pages returned are allocated from now on"]
    pub fn allocate_chunk_below(&mut self, pages_max: u32, below: PageId) -> Vec<Extent> {
        let mut chunk = Vec::new();
        let mut wanted = pages_max as usize;
        let end = (below.0 as usize).min(self.available.length());
        self.take_runs(0, end, &mut wanted, &mut chunk);
        chunk
    }

    /// Takes the lowest run of exactly `pages` pages, or nothing when there is none: then grow the file.
    #[must_use = "the pages returned are allocated from now on"]
    pub fn allocate_contiguous(&mut self, pages: u32) -> Option<Extent> {
        if pages == 0 || self.available_pages < pages as usize {
            return None;
        }
        let start = self.index.find(&self.available, pages as usize)?;
        Some(self.take(start, pages as usize))
    }

    /// Takes `pages` pages whose ids are below `below`, in `runs_max` runs of one length (but for the last) at most, and
    /// in fewer if possible; nothing when there is no such room. O(`runs_max` squared) searches for a run.
    #[must_use = "the pages returned are allocated from now on"]
    pub fn allocate_runs_below(&mut self, pages: u32, runs_max: u32, below: PageId) -> Vec<Extent> {
        for runs in 1..=runs_max.min(pages) {
            let mut taken = Vec::new();
            let mut wanted = pages;
            while wanted > 0 {
                let run = pages.div_ceil(runs).min(wanted);
                let found = self.index.find(&self.available, run as usize);
                let Some(start) = found.filter(|start| start + run as usize <= below.0 as usize) else {
                    break;
                };
                taken.push(self.take(start, run as usize));
                wanted -= run;
            }
            if wanted == 0 {
                return taken;
            }
            for extent in taken {
                self.give(extent.start.0 as usize, extent.pages as usize);
            }
        }
        Vec::new()
    }

    /// Takes exactly these pages: recovery, for what the log and the superblock name.
    ///
    /// # Errors
    /// If the extent is not within the file or not all available.
    pub fn reserve(&mut self, extent: Extent) -> Result<(), SpaceError> {
        let (start, count) = self.range(extent)?;
        if !self.available.all_set(start, count) {
            return Err(SpaceError::NotAvailable(extent));
        }
        self.take(start, count);
        Ok(())
    }

    /// Makes pages available again.
    ///
    /// # Errors
    /// If a page is outside the file, available already, or still reachable.
    pub fn release(&mut self, extent: Extent) -> Result<(), SpaceError> {
        let (start, count) = self.range(extent)?;
        if !self.available.none_set(start, count) {
            return Err(SpaceError::NotAllocated(extent));
        }
        if !self.reachable.none_set(start, count) {
            return Err(SpaceError::Reachable(extent));
        }
        self.give(start, count);
        Ok(())
    }

    /// Notes that a published group created these pages.
    ///
    /// # Errors
    /// If a page is outside the file, available, or reachable already.
    pub fn mark_reachable(&mut self, extent: Extent) -> Result<(), SpaceError> {
        let (start, count) = self.range(extent)?;
        if !self.available.none_set(start, count) {
            return Err(SpaceError::NotAllocated(extent));
        }
        if !self.reachable.none_set(start, count) {
            return Err(SpaceError::Reachable(extent));
        }
        self.save_blocks(start, count);
        self.reachable.set(start, count);
        self.reachable_pages += count;
        Ok(())
    }

    /// Notes that a published group retired these pages. They stay allocated until they are released.
    ///
    /// # Errors
    /// If a page is outside the file or not reachable.
    pub fn unmark_reachable(&mut self, extent: Extent) -> Result<(), SpaceError> {
        let (start, count) = self.range(extent)?;
        if !self.reachable.all_set(start, count) {
            return Err(SpaceError::NotReachable(extent));
        }
        self.save_blocks(start, count);
        self.reachable.clear(start, count);
        self.reachable_pages -= count;
        Ok(())
    }

    /// Follows the file to a larger size; the new pages are available. A smaller size is ignored.
    pub fn grow(&mut self, file_pages: u32) {
        let before = self.available.length().max(PageId::FIRST.0 as usize);
        let after = file_pages as usize;
        if after <= self.available.length() {
            return;
        }
        self.available.grow(after);
        self.reachable.grow(after);
        self.index.resize(after);
        if after > before {
            self.available.set(before, after - before);
            self.available_pages += after - before;
            self.index.touch(before, after - before);
        }
    }

    /// How many pages at the end of the file are available: what [`shrink`](SpaceMap::shrink) may cut off.
    #[must_use]
    pub fn trailing_free_pages(&self) -> u32 {
        self.available.trailing_run() as u32
    }

    /// Follows the file to a smaller size. A larger size is ignored.
    ///
    /// # Errors
    /// If a page that would be cut off is not available.
    pub fn shrink(&mut self, file_pages: u32) -> Result<(), SpaceError> {
        let after = file_pages as usize;
        let Some(count) = self
            .available
            .length()
            .checked_sub(after)
            .filter(|&count| count > 0)
        else {
            return Ok(());
        };
        if count > self.available.trailing_run() {
            return Err(SpaceError::NotAvailable(Extent {
                start: PageId(file_pages),
                pages: count as u32,
            }));
        }
        self.save_blocks(after, count);
        self.available.clear(after, count);
        self.available_pages -= count;
        self.available.shorten(after);
        self.reachable.shorten(after);
        self.index.resize(after);
        Ok(())
    }

    /// The reachable pages in ascending runs.
    pub fn reachable_runs(&self) -> impl Iterator<Item = Extent> + '_ {
        runs(&self.reachable, 0, self.reachable.length()).map(|(start, run)| extent(start, run))
    }

    /// The available pages in ascending runs.
    pub fn available_runs(&self) -> impl Iterator<Item = Extent> + '_ {
        runs(&self.available, 0, self.available.length()).map(|(start, run)| extent(start, run))
    }

    fn range(&self, extent: Extent) -> Result<(usize, usize), SpaceError> {
        let (start, count) = (extent.start.0 as usize, extent.pages as usize);
        if count == 0 || extent.start < PageId::FIRST || start + count > self.available.length() {
            return Err(SpaceError::Outside(extent));
        }
        Ok((start, count))
    }

    fn take(&mut self, start: usize, count: usize) -> Extent {
        self.available.clear(start, count);
        self.available_pages -= count;
        self.index.touch(start, count);
        extent(start, count)
    }

    fn give(&mut self, start: usize, count: usize) {
        self.available.set(start, count);
        self.available_pages += count;
        self.index.touch(start, count);
    }

    /// Takes up to `wanted` pages from `start..end`.
    fn take_runs(&mut self, start: usize, end: usize, wanted: &mut usize, chunk: &mut Vec<Extent>) {
        let mut short = [(0, 0); SHORT_RUNS_SKIPPED_MAX];
        let mut skipped = 0;
        let mut position = start;
        while *wanted > 0 {
            let found = self.available.next_set(position).filter(|&found| found < end);
            let Some(found) = found.filter(|_| skipped < SHORT_RUNS_SKIPPED_MAX) else {
                // Nothing better in reach: now the short ones are good enough.
                let nothing_more = found.is_none();
                for &(short_start, run) in &short[..skipped] {
                    let run = run.min(*wanted);
                    if run > 0 {
                        chunk.push(self.take(short_start, run));
                        *wanted -= run;
                        self.cursor = short_start + run;
                    }
                }
                skipped = 0;
                if nothing_more {
                    break;
                }
                continue;
            };
            let run = self.available.run_length(found, (*wanted).min(end - found));
            position = found + run;
            if run < RUN_PAGES_PREFERRED && run < *wanted {
                short[skipped] = (found, run);
                skipped += 1;
            } else {
                chunk.push(self.take(found, run));
                *wanted -= run;
                self.cursor = position;
            }
        }
        chunk.sort_unstable();
    }
}

pub(super) fn extent(start: usize, count: usize) -> Extent {
    Extent {
        start: PageId(start as u32),
        pages: count as u32,
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
