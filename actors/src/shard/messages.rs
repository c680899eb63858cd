//! What a shard worker is asked for, and what it is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::{fmt, io};

use treering_engine::memory::FrameId;
use treering_engine::tree::Root;
use treering_engine::{Extent, PageId, PageRef, TreeId};
use treering_io::AlignedBuffer;

use super::moves::Wanted;
use super::replay::ReplayPart;
use super::transaction::{Transaction, Visit};
use super::update::UpdateFunction;
use crate::blob::Piece;
use crate::error::Error;
use crate::options::Durability;
use crate::runtime::{Credit, Shut};
use crate::ticket::{Reply, Resolution};

/// A key and a value in one allocation.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    bytes: Box<[u8]>,
    key_bytes: u32,
}

impl Pair {
    pub fn new(key: &[u8], value: &[u8]) -> Pair {
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        // Keys are at most 16 KiB (a quarter of the largest page): the length fits.
        Pair {
            bytes: bytes.into_boxed_slice(),
            key_bytes: key.len() as u32,
        }
    }

    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.key_bytes as usize]
    }

    pub fn value(&self) -> &[u8] {
        &self.bytes[self.key_bytes as usize..]
    }
}

/// When a write of one key applies at all.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// Always.
    None,
    /// The key must be absent.
    Absent,
    /// The key must be there.
    Present,
}

/// The lists of a published batch, emptied, for a batch to come.
///
/// A batch is filled by whichever thread runs the shard, and each that did it for the first time would grow lists of its
/// own. (With 256 clients and mimalloc, which gives every thread pages of its own for every size, zeroing fresh pages for
/// them took more time than all writes.)
#[derive(Default)]
pub(crate) struct EmptyLists {
    pub records: Vec<u8>,
    pub resolutions: Vec<Resolution>,
}

impl EmptyLists {
    /// Whether keeping them is worth it, and not too much.
    pub fn are_useful(&self) -> bool {
        let capacity = self.records.capacity();
        0 < capacity && capacity <= EMPTY_LIST_BYTES_MAX
    }
}

impl fmt::Debug for EmptyLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmptyLists")
            .field("record_bytes", &self.records.capacity())
            .field("resolutions", &self.resolutions.capacity())
            .finish()
    }
}

/// Most bytes of records that a batch may have room for when its lists are used again.
const EMPTY_LIST_BYTES_MAX: usize = 1 << 20;

/// What to do with one key, or several.
pub(crate) enum Action {
    /// Write a value that fits into a leaf, or the descriptor of a blob whose extents are written and synced.
    Put {
        pair: Pair,
        kind: ValueKind,
        condition: Condition,
    },
    Delete {
        key: Box<[u8]>,
    },
    Get {
        key: Box<[u8]>,
    },
    /// Replace exactly this state by that one.
    Swap {
        key: Box<[u8]>,
        /// The whole value, however it is stored.
        expected: Option<Box<[u8]>>,
        new: Stored,
    },
    Update {
        key: Box<[u8]>,
        function: UpdateFunction,
    },
    /// All or nothing.
    ///
    /// The writes as the log will hold them, each with its tree: they are encoded once, by the client.
    Batch {
        records: Vec<u8>,
    },
    /// All or nothing, over several partitions.
    Transaction(Arc<Transaction>),
    /// Answered at once when everything that was sent to the shard before has run.
    Fence,
    /// Records of the log, each key once, in order of (tree, key): only during recovery.
    Replay(ReplayPart),
    /// The value of a key has been copied to other extents: replace the one descriptor, if it is still that, by the other.
    MoveBlob {
        key: Box<[u8]>,
        old: Box<[u8]>,
        new: Box<[u8]>,
    },
    /// Copy some nodes from `from` on whose ids aren't below `below` to ids that are.
    Relocate {
        from: Box<[u8]>,
        below: PageId,
    },
    /// Forget the tree; its pages are retired step by step.
    DropTree,
    /// Answered with a stamp for the pages of a bulk load, if the tree is empty.
    PrepareLoad,
    /// Forget what this shard has of a tree, which is empty: another has all of it from now on. Only during recovery.
    ForgetEmpty,
    /// The content of the tree, if it is empty.
    Load(Box<LoadedTree>),
}

/// What a bulk load has built: everything is on disk, and synced.
pub(crate) struct LoadedTree {
    pub root: Root,
    /// The record for the log; recovery, which has it from there, leaves it empty.
    pub record: Vec<u8>,
    /// All that was written, nodes and blobs.
    pub extents: Vec<Extent>,
    /// During recovery, if the tree is in several partitions: their lowest keys. All are empty; they become one.
    pub joined: Vec<Arc<[u8]>>,
}

impl Action {
    /// The descriptor of the blob that comes with the request, if one does. (Batches say it of each write.)
    pub fn blob(&self) -> Option<&[u8]> {
        match self {
            Action::Put {
                pair,
                kind: ValueKind::Blob,
                ..
            } => Some(pair.value()),
            Action::Swap {
                new: Stored::Blob(descriptor),
                ..
            }
            | Action::MoveBlob { new: descriptor, .. } => Some(descriptor),
            _ => None,
        }
    }
}

/// How a value is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ValueKind {
    /// In the leaf.
    Inline,
    /// In extents of its own; the leaf holds their descriptor.
    Blob,
}

/// What a key holds, as its leaf sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stored {
    Absent,
    Inline(Box<[u8]>),
    /// The descriptor, which names one use of its extents and no other.
    Blob(Box<[u8]>),
}

impl Stored {
    pub fn bytes(&self) -> usize {
        match self {
            Stored::Absent => 0,
            Stored::Inline(bytes) | Stored::Blob(bytes) => bytes.len(),
        }
    }
}

/// A request of a client.
pub(crate) struct Request {
    pub tree: TreeId,
    pub action: Action,
    pub durability: Durability,
    pub reply: Reply,
    /// For the memory that the request takes until it has run; the runtime fills it in.
    pub credit: Option<Credit>,
}

impl Request {
    /// Bytes of keys, values and records that a client has brought.
    pub fn bytes(&self) -> usize {
        match &self.action {
            Action::Put { pair, .. } => pair.bytes.len(),
            Action::Delete { key } | Action::Get { key } | Action::Update { key, .. } => key.len(),
            Action::Swap { key, expected, new } => {
                key.len() + expected.as_ref().map_or(0, |expected| expected.len()) + new.bytes()
            }
            Action::MoveBlob { key, old, new } => key.len() + old.len() + new.len(),
            Action::Relocate { from, .. } => from.len(),
            Action::Batch { records } => records.capacity(),
            Action::Load(loaded) => loaded.record.len() + loaded.extents.len() * size_of::<Extent>(),
            // Recovery bounds its slices itself, and hands all shards their parts at once.
            Action::Transaction(transaction) => transaction.bytes(),
            Action::Replay(_)
            | Action::DropTree
            | Action::Fence
            | Action::PrepareLoad
            | Action::ForgetEmpty => 0,
        }
    }

    /// The one key that this request names; `None` for those that name several or none.
    pub fn key(&self) -> Option<&[u8]> {
        match &self.action {
            Action::Put { pair, .. } => Some(pair.key()),
            Action::Delete { key }
            | Action::Get { key }
            | Action::Swap { key, .. }
            | Action::Update { key, .. }
            | Action::MoveBlob { key, .. }
            | Action::Relocate { from: key, .. } => Some(key),
            Action::Batch { .. }
            | Action::Transaction(_)
            | Action::Fence
            | Action::Replay(_)
            | Action::DropTree
            | Action::PrepareLoad
            | Action::ForgetEmpty
            | Action::Load(_) => None,
        }
    }
}

impl Request {
    /// The request, out of the hands of somebody who keeps only the place where it stood.
    pub fn take(&mut self) -> Request {
        let empty = Request {
            tree: self.tree,
            action: Action::Fence,
            durability: self.durability,
            reply: Reply::none(),
            credit: None,
        };
        std::mem::replace(self, empty)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.action {
            Action::Put { .. } => "put",
            Action::Delete { .. } => "delete",
            Action::Get { .. } => "get",
            Action::Swap { .. } => "swap",
            Action::Update { .. } => "update",
            Action::Batch { .. } => "batch",
            Action::Transaction(_) => "transaction",
            Action::Fence => "fence",
            Action::Replay(_) => "replay",
            Action::MoveBlob { .. } => "move blob",
            Action::Relocate { .. } => "relocate",
            Action::DropTree => "drop tree",
            Action::PrepareLoad => "prepare load",
            Action::ForgetEmpty => "forget empty",
            Action::Load(_) => "load",
        };
        f.debug_struct("Request")
            .field("tree", &self.tree)
            .field("kind", &kind)
            .finish_non_exhaustive()
    }
}

/// Everything that arrives at a shard worker.
#[derive(Debug)]
pub(crate) enum ShardMessage {
    /// From a client.
    Request(Request),
    /// From another shard, which isn't the owner of its key any more.
    Forwarded(Request),
    /// From the former owner of a range: what was sent there. From now on the range is this shard's.
    HandOver {
        /// Number of the move.
        moved: u64,
        requests: VecDeque<Request>,
        /// The next move may begin when this one is over.
        shut: Option<Shut>,
    },
    /// From the commit actor: shares are uneven, or a tree is in too many pieces.
    Wanted(Wanted),
    /// From the pager: the page that was asked for is resident in this frame, held once for this shard, or can't
    /// be had.
    Loaded {
        reference: PageRef,
        result: Result<FrameId, Error>,
    },
    /// From the commit actor: that many more of this shard's batches are published.
    Published {
        batches: u32,
        record_bytes: usize,
        lists: EmptyLists,
    },
    /// From the commit actor: one more of this shard's batches is refused. Its pages may be given back, now that no tip
    /// refers to them: `TipsDropped` came before.
    Refused {
        extents: Vec<Extent>,
        record_bytes: usize,
    },
    /// From the commit actor: batches were refused; go back to what is published.
    TipsDropped { tip_epoch: u64, cause: Error },
    /// From the commit actor: the published version says that the tree is dropped, and gives this shard a part of it.
    TreeDropped { tree: TreeId },
    /// From another shard: a transaction comes to the next owner.
    Visit(Box<Visit>),
    /// From a shard or the commit actor: the transaction doesn't happen, its locks are free.
    Release(Arc<Transaction>),
    /// From the commit actor: these transactions happen together; apply your parts.
    Apply {
        set: u64,
        transactions: Arc<[Arc<Transaction>]>,
    },
    /// From the commit actor: all owners have answered; the set happens, or is to be taken back.
    SetClosed { set: u64, happens: bool },
    /// From the flusher: fresh page ids, or the reason why there are none; and whether the database is being compacted, so
    /// that few should be asked for.
    Chunk {
        extents: Vec<Extent>,
        shortage: Option<Error>,
        compacting: bool,
    },
    /// From the flusher: extents for a large value, or the reason why there are none.
    Extents {
        job: u64,
        result: Result<Vec<Extent>, Error>,
    },
    /// From the pager: a piece of a large value was read or written, or (`None`) the file was synced.
    Transferred {
        job: u64,
        piece: Option<Piece>,
        result: io::Result<()>,
        buffer: Option<AlignedBuffer>,
    },
    /// From the flusher: frames became free.
    FramesFreed,
    /// From the flusher: a compaction begins; ids in hand that aren't below this one are not to be used, nor many others
    /// kept.
    GiveHighIdsBack { below: PageId },
    /// From the flusher: frames can't become free (an in-memory database is full).
    FramesExhausted { cause: Error },
}
