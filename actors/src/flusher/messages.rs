//! What the flusher is told.

use std::io;
use std::sync::Arc;

use treering_engine::log::{LogPosition, SegmentJob};
use treering_engine::memory::FrameId;
use treering_engine::{Extent, PageId, Retired, Seq, ShardId, Stamp};

use super::compact::CutReply;
use super::named::Named;
use crate::error::Result;
use crate::pager::Kept;
use crate::shared::Version;
use crate::ticket::Reply;

/// What one batch of a published group did to pages.
#[derive(Debug)]
pub(crate) struct PublishedPages {
    pub created: Vec<PageId>,
    pub retired: Vec<Retired>,
    /// Whether a bulk load is among it.
    pub loads: bool,
    pub extents_added: Vec<Extent>,
    pub extents_unused: Vec<Extent>,
    pub stamp: Stamp,
}

impl PublishedPages {
    /// How much memory a publication takes, as a number of pages and extents; at least 1.
    pub fn count(batches: &[PublishedPages]) -> usize {
        let count = |batch: &PublishedPages| {
            let extents = batch.extents_added.len() + batch.extents_unused.len();
            batch.created.len() + batch.retired.len() + extents
        };
        batches.iter().map(count).sum::<usize>() + 1
    }
}

/// Who waits for the extents of a blob.
pub(crate) enum ExtentWaiter {
    Client(oneshot::Sender<Result<Vec<Extent>>>),
    /// A shard, with its name for what it needs them for.
    Shard {
        shard: ShardId,
        job: u64,
    },
}

/// Everything that arrives at the flusher.
pub(crate) enum FlusherMessage {
    /// From the commit actor: this version is the current one now.
    Published {
        version: Arc<Version>,
        pages: Vec<PublishedPages>,
    },
    /// From who kept a version while later ones were published and gives it up: what it alone reached is free when this
    /// count, too, is given up, and nothing else may tell.
    Released { kept: Kept },
    /// Ids that were handed out and didn't get into any version.
    Release { extents: Vec<Extent> },
    /// From a shard: send ids.
    ChunkRequest { shard: ShardId, pages: u32 },
    /// Extents for a blob are wanted.
    ExtentRequest { pages: u32, waiter: ExtentWaiter },
    /// From a client that compacts: this room below an id, in so many extents at most, if there is any. The file doesn't
    /// grow for it; without room the answer is empty.
    HolesRequest {
        pages: u32,
        extents_max: u32,
        below: PageId,
        reply: oneshot::Sender<Vec<Extent>>,
    },
    /// From a shard, or from the pager (`None`): frames are short; tell when there are some.
    Pressure { shard: Option<ShardId> },
    /// From the pager.
    PageWritten {
        id: PageId,
        frame: FrameId,
        result: io::Result<()>,
    },
    /// From the pager: a transfer with this token has ended.
    Transferred { token: u64, result: io::Result<()> },
    /// From the commit actor: the log is durable up to here.
    LogSynced { token: u64, result: Result<LogPosition> },
    /// Write a checkpoint of the current version, or of a later one.
    Checkpoint { reply: Reply },
    /// Give the version of the next checkpoint a name; answered when that checkpoint is durable (rule R23).
    CreateNamed {
        name: Arc<str>,
        reply: oneshot::Sender<Result<Arc<Version>>>,
    },
    /// Give a named snapshot up; answered when a checkpoint without it is durable.
    DropNamed {
        name: Arc<str>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Which named snapshots there are.
    ListNamed { reply: oneshot::Sender<Named> },
    /// The version that was the newest one after commit group `seq`.
    VersionAt {
        seq: Seq,
        reply: oneshot::Sender<Result<Arc<Version>>>,
    },
    /// Give out low ids first, as soon as nobody else compacts; tells below which one everything that is in use has room.
    BeginCompaction { reply: oneshot::Sender<PageId> },
    /// The end of that. For whoever wants to be told, a checkpoint begins that cuts the file's free end off.
    EndCompaction { reply: Option<CutReply> },
    /// Write a last checkpoint that says that nothing follows it.
    Close { reply: Reply },
    /// From the runtime: the data file has this many pages now.
    Grown { result: io::Result<u32> },
    /// Recovery: the log names these extents of blobs; nothing else may be put there (rule R18).
    Reserve {
        extents: Vec<Extent>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Recovery is over: checkpoints may begin, and what was reserved and not used is free.
    GoLive,
    /// From the runtime: the data file was cut.
    Truncated { result: io::Result<()> },
}

/// Slow work on files, done by the flusher's thread.
#[derive(Debug)]
pub(crate) enum FileTask {
    /// Make, recycle or remove a log segment; the commit actor is told.
    Segment(SegmentJob),
    /// Make the data file this many pages long, durably.
    Grow { pages: u32 },
    /// Cut the data file after this many pages.
    Truncate { pages: u32 },
}
