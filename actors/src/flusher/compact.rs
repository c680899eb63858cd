//! Compaction, the flusher's part: low ids are given out first while one is under way, and at its end the file is cut.
//!
//! There is one compaction at a time; others wait for their turn. The walk that moves pages is the client's (see
//! `client/compact.rs`).

use std::collections::VecDeque;
use std::io;

use treering_engine::{Extent, PageId, ShardId};

use super::IDS_AHEAD;
use super::messages::FileTask;
use super::state::Flusher;
use crate::actor::Outbox;
use crate::error::{Error, Result};
use crate::shard::{CHUNK_IDS_COMPACTING, ShardMessage};
use crate::shared::DATA_FILE;

/// The file isn't cut for less, outside of compactions: it would soon grow again.
const CUT_PAGES_MIN: u32 = 256;

/// Told when the file was cut, or why not.
pub(crate) type CutReply = oneshot::Sender<Result<()>>;

/// What there is to know about compactions.
#[derive(Debug, Default)]
pub(super) struct Compacting {
    /// While one is under way: ids below this are given out first.
    below: Option<PageId>,
    /// Who wants to begin one. Each is a client that does nothing else meanwhile.
    waiting: VecDeque<oneshot::Sender<PageId>>,
    /// Those that have moved their pages: the next checkpoint that begins cuts all of the file's free end off.
    moved: Vec<CutReply>,
    /// The cuts that are with the file system, in order, and who waits for them.
    cutting: VecDeque<Vec<CutReply>>,
}

impl Compacting {
    pub(super) fn is_under_way(&self) -> bool {
        self.below.is_some()
    }
}

impl Flusher {
    /// Begins a compaction when those before it have ended, and tells below which id everything in use has room.
    pub(super) fn begin_compaction(&mut self, reply: oneshot::Sender<PageId>, outbox: &mut Outbox) {
        self.compacting.waiting.push_back(reply);
        self.next_compaction(outbox);
    }

    /// The client has moved what it could; it waits, if it does, for the cut.
    pub(super) fn end_compaction(&mut self, reply: Option<CutReply>, outbox: &mut Outbox) {
        self.compacting.below = None;
        if let Some(reply) = reply {
            self.compacting.moved.push(reply);
            self.checkpoint_wanted = true;
        }
        self.next_compaction(outbox);
    }

    fn next_compaction(&mut self, outbox: &mut Outbox) {
        if self.compacting.below.is_some() {
            return;
        }
        let Some(reply) = self.compacting.waiting.pop_front() else {
            return;
        };
        // What shards have in hand comes back, but for a little. Beside that there must be room for the inner nodes that
        // are copied on the way: those that the last checkpoint reaches stay until the next one.
        let in_hand = (self.shared.settings.shards * 2 * CHUNK_IDS_COMPACTING) as u64;
        let in_use = self.owned_pages() + in_hand;
        let below = (in_use + in_use / 64).min(u64::from(self.space.file_pages()));
        let below = PageId(below as u32);
        self.compacting.below = Some(below);
        let shards = (0..self.shared.settings.shards).map(|shard| ShardId(shard as u16));
        let message = |shard| (shard, ShardMessage::GiveHighIdsBack { below });
        outbox.shards.extend(shards.map(message));
        // Told after the shards: what they were sent before is in their mailboxes before the first step comes. (Bad run:
        // high ids are on their way to a shard that has just given its own back; the step finds them, and gives up.)
        outbox.compactions.push((reply, below));
    }

    /// Pages that something is in, or still waits for: all but what is free or in the shards' hands.
    fn owned_pages(&self) -> u64 {
        let image: u32 = self
            .superblock
            .image_extents
            .iter()
            .map(|extent| extent.pages)
            .sum();
        self.space.reachable_pages()
            + self.waiting.pages_waiting()
            + u64::from(image)
            + self.dying.len() as u64
    }

    /// Ids for a shard: low ones, if there are any, while the database is compacted.
    pub(super) fn allocate_chunk(&mut self, pages: u32) -> Vec<Extent> {
        let below = self.compacting.below;
        let Some(below) = below else {
            return self.space.allocate_chunk(pages);
        };
        // Shards may have asked before they knew of the compaction.
        let pages = pages.min(CHUNK_IDS_COMPACTING as u32);
        let low = self.space.allocate_chunk_below(pages, below);
        if low.is_empty() {
            return self.space.allocate_chunk(pages);
        }
        low
    }

    /// Those whose pages a checkpoint that begins now finds moved.
    pub(super) fn take_moved(&mut self) -> Vec<CutReply> {
        std::mem::take(&mut self.compacting.moved)
    }

    /// Gives the free end of the file back to the file system, but for what is needed ahead and isn't free elsewhere;
    /// for those who have compacted all of it. What a crash makes of that doesn't matter: nothing reaches these pages,
    /// in whichever superblock.
    pub(super) fn cut_tail(&mut self, compacted: Vec<CutReply>, outbox: &mut Outbox) {
        let free = self.space.trailing_free_pages();
        let elsewhere = self.space.available_pages().saturating_sub(u64::from(free));
        let (kept, least) = if compacted.is_empty() {
            (IDS_AHEAD.saturating_sub(elsewhere) as u32, CUT_PAGES_MIN)
        } else {
            (0, 1)
        };
        if self.growing && !compacted.is_empty() {
            // The end of the file is just moving: after the next checkpoint.
            self.compacting.moved.extend(compacted);
            self.checkpoint_wanted = true;
            return;
        }
        if self.growing || self.shared.settings.in_memory || free < kept + least {
            return tell(compacted, &Ok(()));
        }
        let pages = self.space.file_pages() - (free - kept);
        let cut = self.space.shrink(pages);
        self.check(cut);
        self.compacting.cutting.push_back(compacted);
        outbox.file_tasks.push(FileTask::Truncate { pages });
    }

    /// The file was cut, or could not be.
    pub(super) fn cut(&mut self, result: io::Result<()>) {
        let result = result.map_err(|error| Error::io(format!("cutting {DATA_FILE}"), error));
        if let Err(error) = &result {
            tracing::warn!(%error, "the data file keeps its length");
        }
        tell(self.compacting.cutting.pop_front().unwrap_or_default(), &result);
    }
}

/// Tells those who wait for a cut; who went away needs no answer.
pub(super) fn tell(replies: Vec<CutReply>, result: &Result<()>) {
    for reply in replies {
        let _ = reply.send(result.clone());
    }
}
