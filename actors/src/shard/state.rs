//! What a shard worker knows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use treering_engine::memory::FrameId;
use treering_engine::{Extent, PageId, Seq, ShardId, Stamp, TreeId};

use super::CHUNK_IDS;
use super::large::{Large, LargeJobs};
use super::messages::{EmptyLists, Request};
use super::moves::{Moves, PartitionChange};
use super::replay::ReplayJob;
use super::store::{OpenPages, Supply};
use super::tips::Tips;
use super::transaction::Transaction;
use super::transaction::apply_set::SetJob;
use super::transaction::visit::Visits;
use crate::error::Error;
use crate::runtime::Credit;
use crate::shared::Shared;
use crate::ticket::{Reply, Resolution};

/// The batch that is being filled.
pub(super) struct OpenBatch {
    pub pages: OpenPages,
    pub records: Vec<u8>,
    pub resolutions: Vec<Resolution>,
    pub operations: u32,
    pub sync: bool,
    pub trees_dropped: Vec<TreeId>,
    pub trees_forgotten: Vec<TreeId>,
    /// Partitions that were cut, joined or given away.
    pub partitions: Vec<PartitionChange>,
    /// Whether a bulk load is among what it did.
    pub loads: bool,
    /// Blobs, and whole trees, that the batch brought in.
    pub extents_added: Vec<Extent>,
    /// Blobs of requests that were refused: free at once.
    pub extents_unused: Vec<Extent>,
}

impl OpenBatch {
    pub fn is_empty(&self) -> bool {
        self.resolutions.is_empty()
            && self.records.is_empty()
            // Replay, which writes no records, may create nodes and retire none: a new tree's.
            && self.pages.created.is_empty()
            && self.pages.retired.is_empty()
            && self.extents_unused.is_empty()
            && self.trees_dropped.is_empty()
            && self.trees_forgotten.is_empty()
            && self.partitions.is_empty()
    }
}

/// A request with the frames that are held in memory until it has run.
#[derive(Debug)]
pub(super) struct ReadyRequest {
    pub request: Request,
    pub held: Vec<FrameId>,
    /// The large value that it needed.
    pub large: Option<Large>,
    /// Whether something that it needed was not in memory.
    pub missed: bool,
}

impl ReadyRequest {
    pub fn new(request: Request) -> ReadyRequest {
        ReadyRequest {
            request,
            held: Vec::new(),
            large: None,
            missed: false,
        }
    }
}

/// Requests that wait for pages.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// Which requests wait for which page.
    pub by_page: BTreeMap<PageId, Vec<ReadyRequest>>,
    /// Requests that arrived later for the key of a parked one, in order. An entry exists for as long as a request
    /// for that key is parked.
    pub behind: BTreeMap<(TreeId, Box<[u8]>), VecDeque<Request>>,
    /// Requests that have not run: those in `by_page` and in `Shard::large`, those behind them, and those in
    /// `Shard::ready`.
    pub count: usize,
}

/// A request for several keys, under way.
pub(super) struct Exclusive {
    pub job: ExclusiveJob,
    /// The transaction whose locks are given back at the end, if it is one.
    pub transaction: Option<Arc<Transaction>>,
    /// Whether it is answered when it is durable.
    pub sync: bool,
    pub reply: Reply,
    /// Given back when the job's records are.
    pub _credit: Option<Credit>,
    /// How far it got: offset of the next record.
    pub next: usize,
    /// The page it waits for, if any.
    pub waits_for: Option<PageId>,
    /// Frames of pages that were loaded for it, held until it ends.
    pub held: Vec<FrameId>,
}

/// What an exclusive request does.
pub(super) enum ExclusiveJob {
    /// All or nothing: these changes.
    Batch(Vec<u8>),
    /// These changes, which the log holds already.
    Replay(ReplayJob),
    /// This shard's parts of a set of transactions.
    Set(SetJob),
}

/// Why the shard can't go on, if it can't.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Starved {
    No,
    /// Waiting for ids or frames.
    Waiting,
}

/// The state of one shard worker.
pub(crate) struct Shard {
    pub(super) id: ShardId,
    pub(super) shared: Arc<Shared>,
    pub(super) tips: Tips,
    pub(super) open: OpenBatch,
    /// Lists of published batches, for batches to come.
    pub(super) empty_lists: Vec<EmptyLists>,
    pub(super) supply: Supply,
    pub(super) incoming: VecDeque<Request>,
    /// Parked requests whose page has come, and those behind one that has run.
    pub(super) ready: VecDeque<ReadyRequest>,
    pub(super) parked: Parked,
    /// Requests that wait for large values.
    pub(super) large: LargeJobs,
    pub(super) exclusive: Option<Exclusive>,
    pub(super) visits: Visits,
    /// Sets that are to be applied, in order.
    pub(super) sets_due: VecDeque<(u64, Arc<[Arc<Transaction>]>)>,
    pub(super) moves: Moves,
    /// Frozen batches that are not published yet, and bytes of their records.
    pub(super) unpublished: u32,
    pub(super) unpublished_bytes: usize,
    /// Requests of this step that found all they needed in memory.
    pub(super) hits: u64,
    pub(super) tip_epoch: u64,
    pub(super) next_stamp: u64,
    /// Pages with stamps from this one on were created since the database was opened.
    pub(super) first_stamp: Stamp,
    pub(super) starved: Starved,
    /// Why the flusher has no more ids or frames to give; operations that need some fail with it.
    pub(super) shortage: Option<Error>,
    pub(super) chunk_requested: bool,
    /// Ids to ask for at a time.
    pub(super) chunk_ids: usize,
    /// While the database is compacted: whether high ids were given back since something was copied here.
    pub(super) high_ids_given_back: bool,
    pub(super) pressure_sent: bool,
    /// Dropped trees whose pages are being retired.
    pub(super) reclaiming: VecDeque<super::reclaim::Reclaim>,
    /// Whether there were no pages for reclaiming: until something is published, more of them are not to be expected.
    pub(super) reclaim_paused: bool,
    /// Dropped trees of which nothing more is retired, for as long as the published version still has them.
    pub(super) reclaimed: Vec<TreeId>,
}

impl Shard {
    /// A worker that starts from the current version. Stamps are `first_stamp`, then every
    /// `settings.shards`-th, so that no two shards ever give the same.
    pub fn new(id: ShardId, shared: Arc<Shared>, first_stamp: Stamp) -> Shard {
        let mut shard = Shard {
            id,
            shared,
            tips: Tips::default(),
            open: OpenBatch {
                pages: OpenPages {
                    stamp: Stamp(0),
                    born: Seq(0),
                    created: Vec::new(),
                    retired: Vec::new(),
                    retires_blobs: false,
                },
                records: Vec::new(),
                resolutions: Vec::new(),
                operations: 0,
                sync: false,
                loads: false,
                trees_dropped: Vec::new(),
                trees_forgotten: Vec::new(),
                partitions: Vec::new(),
                extents_added: Vec::new(),
                extents_unused: Vec::new(),
            },
            empty_lists: Vec::new(),
            supply: Supply::default(),
            incoming: VecDeque::new(),
            ready: VecDeque::new(),
            parked: Parked::default(),
            large: LargeJobs::default(),
            exclusive: None,
            visits: Visits::default(),
            sets_due: VecDeque::new(),
            moves: Moves::default(),
            unpublished: 0,
            unpublished_bytes: 0,
            hits: 0,
            tip_epoch: 0,
            next_stamp: first_stamp.0 + u64::from(id.0),
            first_stamp,
            starved: Starved::No,
            shortage: None,
            chunk_requested: false,
            chunk_ids: CHUNK_IDS,
            high_ids_given_back: false,
            pressure_sent: false,
            reclaiming: VecDeque::new(),
            reclaim_paused: false,
            reclaimed: Vec::new(),
        };
        shard.open_batch();
        shard
    }

    /// Ids that were handed out to this shard and not used, for the check of who owns which page.
    pub fn ids_in_hand(&self) -> impl Iterator<Item = PageId> + '_ {
        self.supply.ids.iter().copied()
    }

    /// Gives the empty open batch a stamp that was never used, and the truth about when it can be seen first.
    pub(super) fn open_batch(&mut self) {
        self.open.pages.stamp = Stamp(self.next_stamp);
        self.next_stamp += self.shared.settings.shards as u64;
        self.open.pages.born = crate::shared::with_guard(&self.shared.memory, |guard| {
            self.shared.current.load(guard).seq.next()
        });
    }
}

/// What waits for what, for tests that wait for ever.
impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("id", &self.id)
            .field("incoming", &self.incoming)
            .field("parked", &self.parked.count)
            .field("ready", &self.ready.len())
            .field("starved", &self.starved)
            .field("exclusive", &self.exclusive.is_some())
            .field("unpublished", &self.unpublished)
            .field("open_operations", &self.open.operations)
            .field("visits_arrived", &self.visits.arrived)
            .field("visits_waiting", &self.visits.waiting.len())
            .field("visits_held", &self.visits.held)
            .field("visits_admitted", &self.visits.admitted)
            .field("moves", &self.moves)
            .finish_non_exhaustive()
    }
}
