//! What the flusher knows.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use treering_engine::memory::FrameId;
use treering_engine::space::{SpaceMap, WaitingLists};
use treering_engine::superblock::Superblock;
use treering_engine::{PageId, Retired, Seq, ShardId, Stamp};

use super::checkpoint::Checkpoint;
use super::compact::Compacting;
use super::messages::ExtentWaiter;
use super::named::{Named, NamedChange};
use super::page_set::PageSet;
use super::retained::Retained;
use super::write_pause::WritePause;
use crate::actor::Nanos;
use crate::error::Error;
use crate::shared::{Counter, Shared, Version};
use crate::ticket::Reply;

/// Where the flusher starts from.
pub(crate) struct FlusherStart {
    pub space: SpaceMap,
    /// The newest superblock on disk.
    pub superblock: Superblock,
    /// Higher than every batch stamp that may have been given; those up to the superblock's are reserved.
    pub next_stamp: Stamp,
    /// The version that it describes.
    pub version: Arc<Version>,
    /// The named snapshots that it holds.
    pub named: Named,
    /// What they keep: pages by the named version that they are filed under.
    pub kept: Vec<(Seq, Vec<Retired>)>,
}

/// Somebody who waits for page ids.
pub(super) enum WantsIds {
    Shard { shard: ShardId, pages: u32 },
    Blob { pages: u32, waiter: ExtentWaiter },
}

/// The state of the flusher.
pub(crate) struct Flusher {
    pub(super) shared: Arc<Shared>,
    // ---- space ----
    pub(super) space: SpaceMap,
    pub(super) waiting: WaitingLists,
    /// Pages of published groups that are not free again: only these may be written or evicted.
    pub(super) published: PageSet,
    /// Dead pages that something still reads or writes.
    pub(super) dying: Vec<PageId>,
    pub(super) wants_ids: VecDeque<WantsIds>,
    pub(super) growing: bool,
    pub(super) compacting: Compacting,
    /// Why the file could not grow, if that failed since the last success.
    pub(super) growth_failure: Option<Error>,
    /// Changed pages in memory, published and not written.
    pub(super) dirty_pages: u64,
    /// Those of them that the newest version reaches: what a checkpoint would write. The others are kept by older
    /// versions only; eviction writes them when frames are short.
    pub(super) dirty_pages_newest: u64,
    /// Higher than every stamp seen.
    pub(super) next_stamp: u64,
    /// Pages in publications that were taken note of in this step.
    pub(super) deltas_done: usize,
    /// Pages of blobs that the log names and no replayed record has brought into a tree yet.
    pub(super) reserved: PageSet,
    /// How long the file is, in pages, if some of them lie behind its end: the space map is longer during recovery then.
    pub(super) file_ends: Option<u32>,
    /// False until the blobs that the log names have their places: nothing may be put there (rule R18). (Bad run: a
    /// shard gets ids ahead of need while the log is still being read, and its nodes overwrite a blob.)
    pub(super) may_allocate: bool,
    /// False during recovery: a checkpoint would make it forget the rest of the log.
    pub(super) live: bool,
    // ---- eviction ----
    pub(super) hand: usize,
    /// Frames whose pages are being written so that they can leave.
    pub(super) evicting: BTreeSet<FrameId>,
    /// How many pages are being written because they lie beside those.
    pub(super) cleaning: usize,
    /// Holds writes for eviction back after some have failed.
    pub(super) write_pause: WritePause,
    pub(super) starving_shards: BTreeSet<ShardId>,
    pub(super) pager_waits: bool,
    /// Rounds of the clock since a frame was last gained, while somebody waits.
    pub(super) fruitless_rounds: u32,
    // ---- checkpoints ----
    pub(super) newest: Arc<Version>,
    /// The version of the last durable checkpoint: live until the next one is durable.
    pub(super) durable: Arc<Version>,
    /// How many of the extents that wait for its death have been looked at by [`Flusher::drop_unread`].
    pub(super) unread_seen: usize,
    /// The version of a checkpoint that failed in a way that leaves open whether it is the durable one: live for good.
    pub(super) perhaps_durable: Option<Arc<Version>>,
    pub(super) retained: Retained,
    /// The named snapshots of the last durable checkpoint.
    pub(super) named: Named,
    /// Changes of them that the next checkpoint makes.
    pub(super) named_wanted: Vec<NamedChange>,
    /// Versions that were published with a bulk load which no durable checkpoint has yet: live until one does.
    pub(super) unsaved_loads: Vec<Arc<Version>>,
    pub(super) superblock: Superblock,
    pub(super) checkpoint: Checkpoint,
    /// Who waits for the checkpoint that has not begun yet.
    pub(super) checkpoint_replies: Vec<Reply>,
    pub(super) checkpoint_wanted: bool,
    /// After a failure: from when on a checkpoint that nobody asked for may be tried again.
    pub(super) retry_at: Nanos,
    pub(super) close_wanted: bool,
    pub(super) next_token: u64,
}

impl Flusher {
    /// A flusher that goes on from a checkpoint.
    pub fn new(shared: Arc<Shared>, start: FlusherStart) -> Flusher {
        let FlusherStart {
            space,
            superblock,
            next_stamp,
            version,
            named,
            kept,
        } = start;
        let mut waiting = WaitingLists::new();
        let live: BTreeSet<Seq> = named
            .values()
            .map(|named| named.seq)
            .chain([version.seq])
            .collect();
        for seq in live {
            let announced = waiting.publish(seq);
            debug_assert!(announced, "a set is in order");
        }
        let mut unseen = Vec::new();
        for (seq, retired) in &kept {
            waiting.retire_all(retired, seq.next(), &mut unseen);
        }
        debug_assert!(
            unseen.is_empty(),
            "what is kept is filed under a version that sees it"
        );
        let mut published = PageSet::default();
        let kept = kept
            .iter()
            .flat_map(|(_, retired)| retired.iter().map(|entry| entry.extent));
        for extent in space.reachable_runs().chain(kept) {
            extent.ids().for_each(|id| published.insert(id));
        }
        let retained = Retained::new(shared.settings.retention);
        shared.counters.set(Counter::CheckpointSeq, version.seq.0);
        Flusher {
            shared,
            space,
            waiting,
            published,
            dying: Vec::new(),
            wants_ids: VecDeque::new(),
            growing: false,
            compacting: Compacting::default(),
            growth_failure: None,
            dirty_pages: 0,
            dirty_pages_newest: 0,
            next_stamp: next_stamp.0,
            deltas_done: 0,
            reserved: PageSet::default(),
            file_ends: None,
            may_allocate: false,
            live: false,
            hand: 0,
            evicting: BTreeSet::new(),
            cleaning: 0,
            write_pause: WritePause::default(),
            starving_shards: BTreeSet::new(),
            pager_waits: false,
            fruitless_rounds: 0,
            newest: Arc::clone(&version),
            durable: version,
            unread_seen: 0,
            perhaps_durable: None,
            retained,
            unsaved_loads: Vec::new(),
            named,
            named_wanted: Vec::new(),
            superblock,
            checkpoint: Checkpoint::idle(),
            checkpoint_replies: Vec::new(),
            checkpoint_wanted: false,
            retry_at: 0,
            close_wanted: false,
            next_token: 0,
        }
    }

    /// The oldest version that anybody can still see, for statistics.
    pub(super) fn oldest_live(&self) -> Option<Seq> {
        self.waiting.oldest()
    }
}
