//! Applying records of the log, during recovery: sorted by key, each key once, pages read far ahead.
//!
//! All keys are known before the first change. So the pages that they need and that aren't in memory are found by a
//! walk over inner nodes (`tree::missing`), and the pager gets them in the order in which they lie in the file: it reads
//! neighbours together. How many at a time is a share of the free frames: the pages must stay until their turn comes.
//!
//! Nobody reads yet: so the copy of a page that is on disk takes over its frame, and no page is in memory twice.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_epoch::Guard;
use treering_engine::memory::Class;
use treering_engine::{PageRef, TreeId, tree};

use super::exclusive::Progress;
use super::state::Shard;
use crate::actor::Outbox;
use crate::blob::blob_extents;
use crate::client::NodeView;
use crate::pager::PagerMessage;
use crate::recovery::{Change, Kind, SortedRecords};

/// Most pages that are read ahead at a time.
const AHEAD_PAGES_MAX: usize = 1 << 18;
/// The share of the free frames that they may take, together for all shards.
const AHEAD_FRAMES_SHARE: usize = 4;

/// How many records before their turn they are fetched into the processor's caches.
const PREFETCHED_RECORDS: usize = 32;

/// Records of the log for one shard.
#[derive(Debug)]
pub(crate) struct ReplayPart {
    pub records: Arc<SortedRecords>,
    /// Which of them, ascending; the keys of each range lie in one partition.
    pub ranges: Vec<(TreeId, Range<usize>)>,
}

/// A [`ReplayPart`] under way.
#[derive(Debug)]
pub(super) struct ReplayJob {
    records: Arc<SortedRecords>,
    /// What is still to be applied; the next range last.
    ranges: Vec<(TreeId, Range<usize>)>,
    /// The pages of records before this one have been asked for.
    ahead: usize,
    /// Records before this one have been fetched into the processor's caches.
    prefetched: usize,
    /// Whether all of these pages could be named: inner nodes that weren't in memory hide what is below.
    ahead_to_the_leaves: bool,
}

impl ReplayJob {
    pub fn new(part: ReplayPart) -> ReplayJob {
        let ReplayPart { records, mut ranges } = part;
        ranges.reverse();
        ReplayJob {
            records,
            ranges,
            ahead: 0,
            prefetched: 0,
            ahead_to_the_leaves: true,
        }
    }
}

impl Shard {
    /// Applies the next record, and those behind it that go into the same leaf.
    pub(super) fn run_replayed(
        &mut self,
        job: &mut ReplayJob,
        guard: &Guard,
        outbox: &mut Outbox,
    ) -> Progress {
        let Some((tree, range)) = job.ranges.last_mut() else {
            self.stop_reading_ahead(outbox);
            return Progress::Ended;
        };
        let records = &job.records;
        let ahead = range.start + PREFETCHED_RECORDS;
        (job.prefetched.max(range.start)..ahead).for_each(|index| records.prefetch(index));
        job.prefetched = job.prefetched.max(ahead);
        let key = records.key(range.start);
        let mut applied = 0;
        self.supply.takes_over = true;
        let progress = self.run_part(*tree, key, guard, outbox, |store, root, notes| {
            applied = tree::put_ascending(store, root, &records.of_tree(range.clone()))?;
            if applied == 0 {
                tree::delete(store, root, key)?;
                applied = 1;
            }
            for index in range.start..range.start + applied {
                let Change { kind, value, .. } = records.change(index);
                if kind == Kind::PutBlob {
                    let extents = blob_extents(value).map(|retired| retired.extent);
                    notes.extents_added.extend(extents);
                }
            }
            Ok(())
        });
        self.supply.takes_over = false;
        if matches!(progress, Progress::Done) {
            range.start += applied;
            if range.start == range.end {
                job.ranges.pop();
            }
        }
        progress
    }

    /// Asks for the pages that the next changes will need, unless that was done before.
    pub(super) fn read_ahead_replayed(&self, job: &mut ReplayJob, guard: &Guard, outbox: &mut Outbox) {
        let Some((tree, range)) = job.ranges.last() else {
            return;
        };
        if range.start < job.ahead && job.ahead_to_the_leaves {
            return;
        }
        let Some(tip) = self.tips.get(*tree, job.records.key(range.start)) else {
            return;
        };
        let memory = &self.shared.memory;
        let share = memory.available_frames(Class::Reader) / AHEAD_FRAMES_SHARE / self.shared.settings.shards;
        let mut ahead = Vec::new();
        let looked = tree::missing(
            &NodeView::new(memory.view(guard)),
            &tip.root,
            &job.records.of_tree(range.clone()),
            share.clamp(1, AHEAD_PAGES_MAX),
            &mut ahead,
        );
        job.ahead = range.start + looked.keys;
        job.ahead_to_the_leaves = looked.to_the_leaves;
        // Pages that were created since the database was opened may die, and their ids be used again, before their turn
        // comes. Those of the checkpoint can't: it is live until the next one, which waits for the end of recovery.
        ahead.retain(|reference| !self.is_newborn(*reference));
        ahead.sort_unstable_by_key(|reference| reference.id);
        outbox.pager.push(PagerMessage::ReadAhead {
            shard: self.id,
            references: ahead,
        });
    }

    /// Whether the page was created since the database was opened.
    fn is_newborn(&self, reference: PageRef) -> bool {
        // Births are the low halves of stamps, which only grow: of two, the younger is less than half a round ahead.
        reference.birth.wrapping_sub(self.first_stamp.birth()) < u32::MAX / 2
    }

    /// What was asked for and not read yet isn't needed any more.
    fn stop_reading_ahead(&self, outbox: &mut Outbox) {
        outbox.pager.push(PagerMessage::ReadAhead {
            shard: self.id,
            references: Vec::new(),
        });
    }
}
