//! What the commit actor knows.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use treering_engine::catalog::Directory;
use treering_engine::log::{GroupBuilder, LogPosition, SegmentLayout, SegmentSet};
use treering_engine::{Seq, ShardId, TreeId};
use treering_io::AlignedBuffer;

use super::balance::Balance;
use super::feeds::FeedSource;
use super::messages::{Batch, TreeChange};
use super::set::{Applied, Sets};
use crate::actor::Nanos;
use crate::error::Error;
use crate::shared::Shared;
use crate::ticket::{Reply, Resolution};

/// A change of the set of trees, or a wish to know that everything before is durable: they take their turn among
/// the batches.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are batches; boxing them would cost each commit an allocation"
)]
pub(super) enum Gathered {
    Batch(Batch),
    /// A set of transactions, with the batches of all its owners.
    Set(Box<Applied>),
    ChangeTrees {
        change: TreeChange,
        reply: Reply,
    },
    Flush {
        reply: Reply,
    },
    CheckpointSync {
        token: u64,
    },
}

impl Gathered {
    /// Bytes that it adds to the log, without what opens and closes a batch.
    pub fn record_bytes(&self) -> usize {
        match self {
            Gathered::Batch(Batch { records, .. }) => records.len(),
            Gathered::Set(set) => set.record_bytes(),
            Gathered::ChangeTrees {
                change: TreeChange::Create { name, .. },
                ..
            } => name.len() + 16,
            _ => 0,
        }
    }

    /// Whether it must not be published, nor answered, before the log is durable up to it. Retired blobs wait for that
    /// so that their extents aren't reused earlier (rule R18): unlike pages, which replay makes anew, a blob is
    /// what the log says only for as long as its extents are left alone.
    pub fn sync(&self) -> bool {
        match self {
            Gathered::Batch(batch) => batch.sync || batch.retires_blobs,
            Gathered::Set(set) => set.sync(),
            Gathered::ChangeTrees { change, .. } => matches!(change, TreeChange::Create { .. }),
            Gathered::Flush { .. } | Gathered::CheckpointSync { .. } => true,
        }
    }
}

/// A commit group that has its place in the log and is not published yet.
pub(super) struct Pending {
    pub seq: Seq,
    /// Whether it makes a new version: it changed something.
    pub changes: bool,
    pub sync: bool,
    pub position: LogPosition,
    pub directory: Directory,
    pub batches: Vec<Batch>,
    pub resolutions: Vec<Resolution>,
    pub checkpoint_syncs: Vec<u64>,
    /// What it changes, if there are subscriptions: records, as in the log.
    pub told: Vec<Vec<u8>>,
    /// Shards that have parts of trees which are dropped as of this group.
    pub reclaims: Vec<(ShardId, TreeId)>,
}

/// The log task that is out.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Where the log ends with it.
    pub end: LogPosition,
    /// The last commit group that it (or what was before it) contains.
    pub last_seq: Seq,
    pub syncs: bool,
}

/// Where the commit actor starts from.
#[derive(Debug)]
pub(crate) struct CommitStart {
    pub log_id: u64,
    pub layout: SegmentLayout,
    pub segments: SegmentSet,
    pub position: LogPosition,
    /// Start of the log that a crash would replay.
    pub log_start: LogPosition,
    /// The version of the checkpoint that replay would start from.
    pub log_seq: Seq,
    pub next_seq: Seq,
    pub next_tree: TreeId,
    pub directory: Directory,
    /// False during recovery and for databases without a log.
    pub logging: bool,
}

/// The state of the commit actor.
pub(crate) struct Commit {
    pub(super) shared: Arc<Shared>,
    pub(super) layout: SegmentLayout,
    pub(super) segments: SegmentSet,
    pub(super) logging: bool,
    /// End of the last sealed log group.
    pub(super) position: LogPosition,
    pub(super) log_start: LogPosition,
    pub(super) log_seq: Seq,
    /// The open log group.
    pub(super) builder: GroupBuilder,
    pub(super) gathered: VecDeque<Gathered>,
    /// Since when something is gathered.
    pub(super) gathering_since: Option<Nanos>,
    pub(super) sets: Sets,
    pub(super) pending: VecDeque<Pending>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) next_seq: Seq,
    pub(super) next_tree: TreeId,
    /// The directory after all groups that have a sequence number, published or not.
    pub(super) planned: Directory,
    /// Everything up to this group is durable.
    pub(super) durable_seq: Seq,
    pub(super) durable: LogPosition,
    /// Segments that were written to since they were last synced.
    pub(super) unsynced: BTreeSet<u64>,
    /// When the oldest record that is not durable was appended.
    pub(super) unsynced_since: Option<Nanos>,
    /// By shard.
    pub(super) tip_epochs: Vec<u64>,
    /// Pages in publications that the flusher has not taken note of, as `PublishedPages::count` counts them.
    pub(super) deltas_outstanding: usize,
    pub(super) spare_buffer: Option<AlignedBuffer>,
    /// Why no segment could be prepared, if that failed since the last success.
    pub(super) segment_shortage: Option<Error>,
    /// Whether a batch was refused for that since the last attempt: the disk may have room again.
    pub(super) segment_wanted: bool,
    /// Whether a batch waits for a segment: the next failure to prepare one is the reason to refuse it.
    pub(super) segment_awaited: bool,
    pub(super) balance: Balance,
    /// Whether recovery is over.
    pub(super) is_live: bool,
    pub(super) checkpoint_requested: bool,
    /// Why the last checkpoint failed, if the log was as long as it may get then.
    pub(super) checkpoint_failure: Option<Error>,
    /// After a failed checkpoint: how long the log is when another one is asked for.
    pub(super) checkpoint_again_bytes: u64,
    pub(super) feeds: Vec<FeedSource>,
}

impl Commit {
    /// A commit actor that goes on from `start`.
    pub fn new(shared: Arc<Shared>, start: CommitStart) -> Commit {
        let shards = shared.settings.shards;
        Commit {
            shared,
            layout: start.layout,
            segments: start.segments,
            logging: start.logging,
            position: start.position,
            log_start: start.log_start,
            log_seq: start.log_seq,
            builder: GroupBuilder::new(start.log_id),
            gathered: VecDeque::new(),
            gathering_since: None,
            sets: Sets::default(),
            pending: VecDeque::new(),
            in_flight: None,
            next_seq: start.next_seq,
            next_tree: start.next_tree,
            planned: start.directory,
            durable_seq: Seq(start.next_seq.0.saturating_sub(1)),
            durable: start.position,
            unsynced: BTreeSet::new(),
            unsynced_since: None,
            tip_epochs: vec![0; shards],
            deltas_outstanding: 0,
            spare_buffer: None,
            segment_shortage: None,
            segment_wanted: false,
            segment_awaited: false,
            balance: Balance::default(),
            is_live: false,
            checkpoint_requested: false,
            checkpoint_failure: None,
            checkpoint_again_bytes: 0,
            feeds: Vec::new(),
        }
    }

    /// Bytes of log that a crash now would have replayed.
    pub(super) fn log_length(&self) -> u64 {
        (self.position.lsn.0 + self.builder.encoded_bytes() as u64).saturating_sub(self.log_start.lsn.0)
    }
}
