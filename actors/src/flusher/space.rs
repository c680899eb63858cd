//! Space: what published groups created and retired, what became free, and who gets it.

use std::sync::Arc;

use treering_engine::memory::Residency;
use treering_engine::space::SpaceError;
use treering_engine::{Extent, PageId, Seq};

use super::IDS_AHEAD;
use super::checkpoint::Stage;
use super::evict::leave;
use super::messages::{ExtentWaiter, FileTask, PublishedPages};
use super::state::{Flusher, WantsIds};
use crate::actor::Outbox;
use crate::error::Error;
use crate::shard::ShardMessage;
use crate::shared::{DATA_FILE, Version, with_guard};

/// Least and most bytes by which the data file grows; in between it is a hundred-and-twenty-eighth of its size.
const GROWTH_BYTES_MIN: u64 = 1 << 20;
const GROWTH_BYTES_MAX: u64 = 256 << 20;

impl Flusher {
    /// Takes note of a published group.
    pub(super) fn note_published(&mut self, seq: Seq, pages: Vec<PublishedPages>) {
        let mut freed = Vec::new();
        for batch in pages {
            self.next_stamp = self.next_stamp.max(batch.stamp.0 + 1);
            self.dirty_pages += batch.created.len() as u64;
            self.dirty_pages_newest += batch.created.len() as u64;
            for extent in runs(&batch.created) {
                extent.ids().for_each(|id| self.published.insert(id));
                self.note_added(extent);
                let noted = self.space.mark_reachable(extent);
                self.check(noted);
            }
            for extent in batch.extents_added {
                if !self.reserved.is_unused() {
                    extent.ids().for_each(|id| self.reserved.remove(id));
                }
                self.note_added(extent);
                let noted = self.space.mark_reachable(extent);
                self.check(noted);
            }
            for retired in &batch.retired {
                let noted = self.space.unmark_reachable(retired.extent);
                self.check(noted);
                // Nodes are filed one by one; blobs aren't in memory.
                if retired.extent.pages == 1 && self.is_dirty(retired.extent.start) {
                    self.dirty_pages_newest = self.dirty_pages_newest.saturating_sub(1);
                }
            }
            self.waiting.retire_all(&batch.retired, seq, &mut freed);
            freed.extend(batch.extents_unused);
        }
        if !self.waiting.publish(seq) {
            let error = format!("version {} was published out of order", seq.0);
            self.shared
                .status
                .poison(&std::sync::Arc::new(std::io::Error::other(error)));
        }
        self.free(freed);
    }

    /// Takes note of pages that no version up to that of the checkpoint under way has reached: no named snapshot keeps them.
    fn note_added(&mut self, extent: Extent) {
        let checkpoint = &mut self.checkpoint;
        if checkpoint.stage != Stage::Idle && !checkpoint.named.is_empty() {
            extent.ids().for_each(|id| checkpoint.added.insert(id));
        }
    }

    /// Whether a page of a published group is in memory and not on disk yet.
    pub(super) fn is_dirty(&self, id: PageId) -> bool {
        let memory = &self.shared.memory;
        match memory.state(id) {
            Residency::Resident(frame) | Residency::Evicting(frame) => !memory.is_written(frame),
            Residency::Absent | Residency::Loading(_) => false,
        }
    }

    /// A changed page is on disk.
    pub(super) fn note_written(&mut self, id: PageId) {
        self.dirty_pages = self.dirty_pages.saturating_sub(1);
        if self.space.is_reachable(Extent::single(id)) {
            self.dirty_pages_newest = self.dirty_pages_newest.saturating_sub(1);
        }
    }

    /// Keeps every page of a bulk load from being used again until a checkpoint has the load, and asks for that
    /// checkpoint: the log names the pages, and doesn't have what is in them. (Bad run: a leaf of the load is changed,
    /// its page is retired, free, and used for something else; after a crash replay begins with the load, and its
    /// root leads to a foreign page.)
    pub(super) fn note_loads(&mut self, version: &Arc<Version>, pages: &[PublishedPages]) {
        if !self.shared.settings.in_memory && pages.iter().any(|batch| batch.loads) {
            self.unsaved_loads.push(Arc::clone(version));
            self.checkpoint_wanted = true;
        }
    }

    /// Takes note of versions that died.
    pub(super) fn note_deaths(&mut self) {
        let mut dead = Vec::new();
        self.shared.dead.take(&mut dead);
        if dead.is_empty() {
            return;
        }
        dead.sort_unstable();
        let mut freed = Vec::new();
        for seq in dead {
            self.waiting.version_died(seq, &mut freed);
        }
        self.free(freed);
        self.drop_unread();
    }

    /// Takes out of memory what waits for nothing but the next checkpoint: only opening the database after a crash would
    /// read these pages, so their frames had better serve others, while the processor's caches still know them. (Before,
    /// overwriting all of a database in memory took its memory twice.)
    pub(super) fn drop_unread(&mut self) {
        let durable = &self.durable;
        // Whoever else holds that version, or an older one, may read them.
        if self.waiting.oldest() != Some(durable.seq) || Arc::strong_count(durable) > 1 {
            return;
        }
        let filed = self.waiting.filed_under(durable.seq);
        let memory = &self.shared.memory;
        let mut frames = Vec::new();
        for retired in &filed[self.unread_seen.min(filed.len())..] {
            // Nodes are filed one by one; blobs aren't in memory.
            if retired.extent.pages == 1
                && let Residency::Resident(frame) | Residency::Evicting(frame) =
                    memory.state(retired.extent.start)
                && leave(memory, frame)
            {
                frames.push(frame);
            }
        }
        self.unread_seen = filed.len();
        self.release_frames(frames);
    }

    /// Frees pages that no live version reaches: their frames return through the epoch, their ids at once, except
    /// where something still reads or writes them (rule R5).
    pub(super) fn free(&mut self, extents: Vec<Extent>) {
        if extents.is_empty() {
            return;
        }
        let mut frames = Vec::new();
        for extent in extents {
            let mut whole = true;
            for id in extent.ids() {
                if !self.leave_memory(id, &mut frames) {
                    whole = false;
                    self.dying.push(id);
                }
            }
            if whole {
                self.release(extent);
            } else {
                for id in extent
                    .ids()
                    .filter(|id| !self.dying.contains(id))
                    .collect::<Vec<_>>()
                {
                    self.release(Extent::single(id));
                }
            }
        }
        self.release_frames(frames);
    }

    /// Looks again at dead pages that were being read or written.
    pub(super) fn free_dying(&mut self) {
        if self.dying.is_empty() {
            return;
        }
        let mut frames = Vec::new();
        for id in std::mem::take(&mut self.dying) {
            if self.leave_memory(id, &mut frames) {
                self.release(Extent::single(id));
            } else {
                self.dying.push(id);
            }
        }
        self.release_frames(frames);
    }

    /// Makes pages available again, in recovery but for those behind the file's end, see [`Flusher::reserve`]. (Bad run:
    /// the log has a blob there put and replaced, in two parts that are replayed one after the other; a shard gets the ids,
    /// a node is written behind the end, and cut off when the file can't grow.)
    fn release(&mut self, extent: Extent) {
        let end = self.file_ends.filter(|_| !self.live).unwrap_or(u32::MAX);
        let inside = Extent {
            pages: end.saturating_sub(extent.start.0).min(extent.pages),
            ..extent
        };
        if inside.pages > 0 {
            let released = self.space.release(inside);
            self.check(released);
        }
        let behind = extent.ids().skip(inside.pages as usize);
        behind.for_each(|id| self.reserved.insert(id));
    }

    /// Removes a dead page from memory; false if it has to wait for a read or write.
    fn leave_memory(&mut self, id: PageId, frames: &mut Vec<treering_engine::memory::FrameId>) -> bool {
        let memory = &self.shared.memory;
        match memory.state(id) {
            Residency::Absent => {}
            Residency::Loading(_) => return false,
            Residency::Resident(frame) | Residency::Evicting(frame) => {
                if memory.is_writing(frame) {
                    return false;
                }
                if !memory.is_written(frame) && self.published.contains(id) {
                    self.dirty_pages = self.dirty_pages.saturating_sub(1);
                }
                if let Some(frame) = memory.remove(id) {
                    frames.push(frame);
                }
            }
        }
        self.published.remove(id);
        true
    }

    pub(super) fn release_frames(&mut self, frames: Vec<treering_engine::memory::FrameId>) {
        if !frames.is_empty() {
            let memory = &self.shared.memory;
            with_guard(memory, |guard| memory.release_deferred(guard, frames));
        }
    }

    /// Serves those who wait for ids, and grows the file before they run out.
    pub(super) fn serve_ids(&mut self, outbox: &mut Outbox) {
        if !self.may_allocate {
            return;
        }
        let mut told = false;
        // Who asks for nothing needs nothing ahead: what a compaction has cut off stays off until then.
        let asked = !self.wants_ids.is_empty();
        while let Some(wants) = self.wants_ids.pop_front() {
            let pages = match &wants {
                WantsIds::Shard { pages, .. } | WantsIds::Blob { pages, .. } => *pages,
            };
            let extents = match &wants {
                WantsIds::Shard { .. } => self.allocate_chunk(pages),
                WantsIds::Blob { .. } => self
                    .space
                    .allocate_contiguous(pages)
                    .map_or_else(Vec::new, |extent| vec![extent]),
            };
            if extents.is_empty() && self.growth_failure.is_none() {
                self.wants_ids.push_front(wants);
                self.grow(u64::from(pages), outbox);
                if self.growing {
                    return;
                }
                // In memory there is room now; or there never will be.
                continue;
            }
            told |= extents.is_empty();
            let shortage = if extents.is_empty() {
                self.growth_failure.clone()
            } else {
                None
            };
            match wants {
                WantsIds::Shard { shard, .. } => {
                    let message = ShardMessage::Chunk {
                        extents,
                        shortage,
                        compacting: self.compacting.is_under_way(),
                    };
                    outbox.shards.push((shard, message));
                }
                WantsIds::Blob {
                    waiter: ExtentWaiter::Shard { shard, job },
                    ..
                } => {
                    let result = shortage.map_or(Ok(extents), Err);
                    outbox.shards.push((shard, ShardMessage::Extents { job, result }));
                }
                WantsIds::Blob {
                    waiter: ExtentWaiter::Client(reply),
                    ..
                } => {
                    let result = shortage.map_or(Ok(extents), Err);
                    if let Err(returned) = reply.send(result)
                        && let Ok(extents) = returned.into_inner()
                    {
                        // The client went away: nobody else will ever free them.
                        self.free(extents);
                    }
                }
            }
        }
        if told {
            // Those who come next deserve a new attempt: the disk may have room again.
            self.growth_failure = None;
        } else if self.space.available_pages() < IDS_AHEAD.min(u64::from(self.space.file_pages()) / 8) {
            if asked {
                self.grow(0, outbox);
            }
        } else {
            // There is room again: a later shortage deserves a new attempt.
            self.growth_failure = None;
        }
    }

    /// Asks for a longer file, with room for a run of `pages` at its end.
    pub(super) fn grow(&mut self, pages: u64, outbox: &mut Outbox) {
        if self.growing || self.growth_failure.is_some() {
            return;
        }
        let page_bytes = self.shared.settings.page_bytes as u64;
        let present = u64::from(self.space.file_pages());
        let step = (present * page_bytes / 128).clamp(GROWTH_BYTES_MIN, GROWTH_BYTES_MAX) / page_bytes;
        let wanted = (present + step.max(pages)).min(u64::from(u32::MAX));
        if wanted <= present {
            self.growth_failure = Some(Error::OutOfSpace {
                what: format!("{DATA_FILE} has the most pages that ids can name"),
            });
            return;
        }
        if self.shared.settings.in_memory {
            self.space.grow(wanted as u32);
            return;
        }
        self.growing = true;
        outbox.file_tasks.push(FileTask::Grow { pages: wanted as u32 });
    }

    /// The file grew, or could not.
    pub(super) fn grown(&mut self, result: std::io::Result<u32>) {
        self.growing = false;
        match result {
            Ok(pages) => {
                self.space.grow(pages);
                // If it was shorter than the map, it is not any more.
                self.file_ends = None;
                self.growth_failure = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the data file can't grow");
                self.growth_failure = Some(Error::io(format!("growing {DATA_FILE}"), error));
            }
        }
    }

    /// Recovery: the log names these extents, so nothing else may be put there (rule R18).
    ///
    /// Some may lie behind the file's end: it is cut when a checkpoint is durable, and what was written and given up
    /// while that checkpoint was written is still named. Nothing in between is given out before it is known that
    /// nobody needs them. (Bad run: pages behind the end are given out, and written; the file, which has a length that is
    /// no whole number of pages then, can't be opened again, or can't grow, and its end is cut off as it was before.)
    pub(super) fn reserve(&mut self, extents: &[Extent]) -> Result<(), Error> {
        let end = |extent: &Extent| extent.start.0.saturating_add(extent.pages);
        let file_pages = self.space.file_pages();
        let longest = extents.iter().map(end).max().unwrap_or(0);
        let behind = Extent {
            start: PageId(file_pages),
            pages: longest.saturating_sub(file_pages),
        };
        if behind.pages > 0 {
            self.space.grow(longest);
            self.file_ends = Some(file_pages);
        }
        for id in extents.iter().chain([&behind]).flat_map(|extent| extent.ids()) {
            // A blob may be named more than once, and the checkpoint may hold it already.
            if self.space.is_available(Extent::single(id)) {
                self.space
                    .reserve(Extent::single(id))
                    .map_err(|error| Error::Corrupt {
                        file: DATA_FILE.into(),
                        offset: u64::from(id.0) * self.shared.settings.page_bytes as u64,
                        page: Some(id.0),
                        reason: error.to_string(),
                    })?;
                self.reserved.insert(id);
            }
        }
        Ok(())
    }

    /// Recovery is over: what was reserved and nothing brought into a tree is free, and the space map is no longer than the
    /// file.
    pub(super) fn free_reserved(&mut self, outbox: &mut Outbox) {
        let unused = std::mem::take(&mut self.reserved);
        self.free(unused.into_runs());
        let Some(file_ends) = self.file_ends.take() else {
            return;
        };
        let used = self.space.file_pages() - self.space.trailing_free_pages();
        let cut = self.space.shrink(used.max(file_ends));
        self.check(cut);
        if used > file_ends && !self.growing {
            // Somebody has cut off what the log needs: whoever reads that is told. What is written beside it needs the file.
            self.growing = true;
            outbox.file_tasks.push(FileTask::Grow {
                pages: self.space.file_pages(),
            });
        }
    }

    /// A contradiction in the space map means that two owners claim one page: stop writing before they meet.
    pub(super) fn check(&self, result: Result<(), SpaceError>) {
        if let Err(error) = result {
            self.shared
                .status
                .poison(&std::sync::Arc::new(std::io::Error::other(error)));
        }
    }
}

/// Joins ids that follow each other, ascending or descending as they were given out.
fn runs(ids: &[PageId]) -> impl Iterator<Item = Extent> + '_ {
    let mut next = 0;
    std::iter::from_fn(move || {
        let first = *ids.get(next)?;
        let length = ids[next..]
            .iter()
            .zip(0..)
            .take_while(|(id, step)| id.0 == first.0 + step)
            .count();
        next += length;
        Some(Extent {
            start: first,
            pages: length as u32,
        })
    })
}
