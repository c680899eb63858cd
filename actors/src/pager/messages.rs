//! What the pager is asked for.

use std::any::Any;
use std::io;
use std::sync::Arc;

use treering_engine::memory::FrameId;
use treering_engine::{PageId, PageRef, ShardId};
use treering_io::{AlignedBuffer, Completion};

use crate::blob::Piece;
use crate::error::Error;
use crate::foreign::WakingSender;
use crate::shared::HeldFrame;

/// What reaches the page that is asked for: a version, or several. Who doesn't stay until the page has come gives this
/// to the pager. (Bad run: a page is asked for ahead of need, by a reader that ends. The page dies, its id is free, and
/// a worker has it for a new page; the pager doesn't find it in memory and reads what it was before. Now two frames have
/// the same page, one of them written: what the worker created is never written, and a checkpoint names it.)
pub(crate) type Kept = Arc<dyn Any + Send + Sync>;

/// Who waits for a page.
#[derive(Debug)]
pub(crate) enum Waiter {
    Shard(ShardId),
    /// A reader on its own thread. It gets the frame, held once for it.
    Client(oneshot::Sender<Result<FrameId, Error>>),
    /// A future that reads, and that may be dropped before the page comes, or just then.
    Future {
        sender: WakingSender<Result<HeldFrame, Error>>,
        kept: Kept,
    },
    /// Nobody: read-ahead.
    Nobody {
        kept: Kept,
    },
}

/// What to do with a buffer of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TransferKind {
    Read,
    Write,
    /// `fdatasync`: everything that completed before it was sent is durable afterwards.
    Sync,
}

/// Who is told about the end of a transfer.
#[derive(Debug)]
pub(crate) enum TransferReply {
    Flusher {
        token: u64,
    },
    /// A shard, with what it needs to know what this was.
    Shard {
        shard: ShardId,
        job: u64,
        piece: Option<Piece>,
    },
    Client(WakingSender<(io::Result<()>, Option<AlignedBuffer>)>),
}

/// A read, write or sync of the data file with a buffer that is not a frame.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub kind: TransferKind,
    /// Byte position in the data file.
    pub offset: u64,
    /// Moved with the request and back with the reply; none for a sync.
    pub buffer: Option<AlignedBuffer>,
    pub reply: TransferReply,
}

/// Everything that arrives at the pager.
#[derive(Debug)]
pub(crate) enum PagerMessage {
    Fetch {
        reference: PageRef,
        waiter: Waiter,
    },
    /// From the flusher: write this frozen page. The frame stays put until the flusher is told.
    WritePage {
        id: PageId,
        frame: FrameId,
    },
    Transfer(Transfer),
    /// From a shard during recovery: pages that it will need, ascending by id, in the place of those that it named
    /// before. They must stay what they are until they are read, or replaced by a later list.
    ReadAhead {
        shard: ShardId,
        references: Vec<PageRef>,
    },
    /// From the device.
    Completed(Completion),
    /// From the flusher: frames became free.
    FramesFreed,
}
