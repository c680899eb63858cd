//! What the commit actor is told, and what it wants done.

use std::io;
use std::sync::Arc;

use treering_engine::log::LogPosition;
use treering_engine::tree::Root;
use treering_engine::{Extent, PageId, Retired, Seq, ShardId, Stamp, TreeId};
use treering_io::AlignedBuffer;

use super::feeds::LogRange;
use crate::error::Error;
use crate::shard::{PartitionChange, Visit};
use crate::shared::Feed;
use crate::ticket::{Reply, Resolution};

/// What one shard changed, frozen.
pub(crate) struct Batch {
    pub shard: ShardId,
    /// Batches of an older epoch than the shard's are refused (rule R13).
    pub tip_epoch: u64,
    pub stamp: Stamp,
    /// Empty as soon as they stand in the log's buffer.
    pub records: Vec<u8>,
    /// Bytes of `records` when the batch was frozen.
    pub record_bytes: usize,
    /// New roots by tree and lowest key of the partition.
    pub roots: Vec<(TreeId, Arc<[u8]>, Root)>,
    pub created: Vec<PageId>,
    pub retired: Vec<Retired>,
    /// Whether blobs are among the retired.
    pub retires_blobs: bool,
    /// Whether a bulk load is among what it did.
    pub loads: bool,
    pub extents_added: Vec<Extent>,
    /// Blobs of refused requests.
    pub extents_unused: Vec<Extent>,
    pub trees_dropped: Vec<TreeId>,
    /// Dropped trees of which the shard has nothing left.
    pub trees_forgotten: Vec<TreeId>,
    /// Partitions that were cut, joined or given away; then come the roots.
    pub partitions: Vec<PartitionChange>,
    pub resolutions: Vec<Resolution>,
    pub operations: u32,
    /// Whether one of its requests wants to be durable before it is answered.
    pub sync: bool,
}

/// What changes which trees there are. (Shards drop theirs, in batches.)
#[derive(Debug)]
pub(crate) enum TreeChange {
    /// Open a tree by name, creating it if it isn't there (or only if it isn't).
    Create { name: String, must_be_new: bool },
    /// Recovery: the log holds the creation of this tree under this id.
    Restore { id: TreeId, name: String },
    /// Recovery: the log holds the end of this tree.
    RestoreDrop { id: TreeId },
}

/// Everything that arrives at the commit actor.
pub(crate) enum CommitMessage {
    Batch(Batch),
    /// From the last owner: the transaction has all its locks, and shall happen.
    Decided(Box<Visit>),
    /// From an owner: its parts of the set are applied, or the transaction of this index can't be.
    SetPart {
        set: u64,
        shard: ShardId,
        result: Result<Box<Batch>, (usize, Error)>,
    },
    /// Changes which trees there are.
    ChangeTrees {
        change: TreeChange,
        reply: Reply,
    },
    /// Answered when everything before it is durable.
    Flush {
        reply: Reply,
    },
    /// From the flusher: as `Flush`, answered with `FlusherMessage::LogSynced`.
    SyncForCheckpoint {
        token: u64,
    },
    /// From the runtime: the log task is done.
    LogDone {
        result: io::Result<()>,
        buffer: Option<AlignedBuffer>,
    },
    /// From the runtime: the segment job is done.
    SegmentDone {
        result: io::Result<()>,
    },
    /// From the flusher: publications with that many pages are taken note of.
    DeltasDone {
        pages: usize,
    },
    /// From the flusher: the log before this position is not needed any more.
    Checkpointed {
        seq: Seq,
        position: LogPosition,
    },
    /// From the flusher: the checkpoint failed; the log can't be truncated.
    CheckpointFailed {
        cause: Error,
    },
    /// From a client: push what published groups change to this feed. Answered with the first group that it sees, when
    /// everything before that is published.
    Subscribe {
        feed: Arc<Feed>,
        reply: oneshot::Sender<crate::error::Result<LogRange>>,
    },
    /// From a client: what is in the log.
    AskLog {
        reply: oneshot::Sender<LogRange>,
    },
    /// Recovery is over: from here on changes are logged.
    GoLive,
}

/// A write of the log: `bytes` of `buffer` to byte `offset` of segment `segment`.
#[derive(Debug)]
pub(crate) struct LogWrite {
    pub segment: u64,
    pub offset: u64,
    pub buffer: AlignedBuffer,
    pub bytes: usize,
    /// Whether the write itself has to be durable when it returns (`RWF_DSYNC`). It says nothing about earlier ones: those
    /// are durable (rule R15).
    pub durable: bool,
}

/// One write, then one sync of each segment listed; both may be missing.
#[derive(Debug)]
pub(crate) struct LogTask {
    pub write: Option<LogWrite>,
    pub sync: Vec<u64>,
}
