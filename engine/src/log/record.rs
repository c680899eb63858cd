//! Records: the changes that a group carries, as bytes.
//!
//! ```text
//! group records := ( batch | transaction | checkpoint )*
//! batch         := BatchBegin change* BatchEnd        what one worker froze; belongs to one commit group
//! transaction   := Transaction{ change* }             all parts on all shards, in one record
//! change        := Put | PutBlob | Delete | TreeCreate | TreeDrop | TreeLoad
//! ```
//!
//! A record is one kind byte and its fields. Tree ids and lengths are varints (7 bits a byte, lowest
//! first), so a small put costs four bytes beyond its key and value; fields that are filled in by somebody
//! else than the writer of the rest (sequence, shard, stamp) are of fixed size. Records hold absolute
//! results only: replaying them twice gives what replaying them once gives. The byte tables are in
//! `docs/FORMAT.md`.
//!
//! The [reader](super::RecordReader) checks this grammar. It meets only bytes whose checksum was right, but
//! makes no use of that: any bytes give records or a [`LogDefect`](super::LogDefect), never a panic.

use super::RecordReader;
use crate::tree::Root;
use crate::{Extent, Lsn, PageId, Seq, ShardId, Stamp, TreeId};

pub(crate) const KIND_BATCH_BEGIN: u8 = 1;
pub(crate) const KIND_BATCH_END: u8 = 2;
pub(crate) const KIND_PUT: u8 = 3;
pub(crate) const KIND_PUT_BLOB: u8 = 4;
pub(crate) const KIND_DELETE: u8 = 5;
pub(crate) const KIND_TREE_CREATE: u8 = 6;
pub(crate) const KIND_TREE_DROP: u8 = 7;
pub(crate) const KIND_TRANSACTION: u8 = 8;
pub(crate) const KIND_CHECKPOINT: u8 = 9;
pub(crate) const KIND_TREE_LOAD: u8 = 10;

/// Bytes of a tree load's fixed fields: height, root id, root birth, entries, number of extents.
pub(super) const LOAD_BYTES: usize = 1 + 4 + 4 + 8 + 4;
/// Bytes of one of its extents: start and pages.
pub(super) const LOAD_EXTENT_BYTES: usize = 8;

/// Bytes of a batch's begin and end records together: what a batch costs beyond its changes.
pub const BATCH_FRAME_BYTES: usize = 1 + 8 + 2 + 8 + 1;

/// What a transaction costs beyond its changes, bytes.
pub const TRANSACTION_FRAME_BYTES: usize = 1 + 8 + 4;

/// Most bytes of a varint that holds 32 bits.
pub(super) const VARINT_BYTES_MAX: usize = 5;

/// Appends records to a buffer. Nothing is checked: what a worker writes here, it has applied before.
#[derive(Debug)]
pub struct RecordWriter<'a>(pub &'a mut Vec<u8>);

impl RecordWriter<'_> {
    /// Opens a batch of commit group `seq`, written by `shard` under `stamp`.
    pub fn batch_begin(&mut self, seq: Seq, shard: ShardId, stamp: Stamp) {
        let mut bytes = [0; BATCH_FRAME_BYTES - 1];
        bytes[0] = KIND_BATCH_BEGIN;
        bytes[1..9].copy_from_slice(&seq.0.to_le_bytes());
        bytes[9..11].copy_from_slice(&shard.0.to_le_bytes());
        bytes[11..19].copy_from_slice(&stamp.0.to_le_bytes());
        self.0.extend_from_slice(&bytes);
    }

    /// Closes the batch.
    pub fn batch_end(&mut self) {
        self.0.push(KIND_BATCH_END);
    }

    /// `key` has the inline value `value` now. Neither may reach 4 GiB.
    pub fn put(&mut self, tree: TreeId, key: &[u8], value: &[u8]) {
        self.key_and_value(KIND_PUT, tree, key, value);
    }

    /// `key` has a value now that lies in a blob; `descriptor` is what the leaf holds for it.
    pub fn put_blob(&mut self, tree: TreeId, key: &[u8], descriptor: &[u8]) {
        self.key_and_value(KIND_PUT_BLOB, tree, key, descriptor);
    }

    /// `key` is absent now.
    pub fn delete(&mut self, tree: TreeId, key: &[u8]) {
        self.key_only(KIND_DELETE, tree, key);
    }

    /// The tree exists now, under `name`.
    pub fn tree_create(&mut self, tree: TreeId, name: &str) {
        self.key_only(KIND_TREE_CREATE, tree, name.as_bytes());
    }

    /// The tree is gone now, with everything in it.
    pub fn tree_drop(&mut self, tree: TreeId) {
        let mut head = Head::new(KIND_TREE_DROP);
        head.varint(tree.0);
        self.0.extend_from_slice(head.bytes());
    }

    /// The empty tree has this root now; `extents` are all that was written for it, nodes and blobs.
    pub fn tree_load(&mut self, tree: TreeId, root: &Root, extents: &[Extent]) {
        let mut head = Head::new(KIND_TREE_LOAD);
        head.varint(tree.0);
        self.0
            .reserve(HEAD_BYTES_MAX + LOAD_BYTES + extents.len() * LOAD_EXTENT_BYTES);
        self.0.extend_from_slice(head.bytes());
        self.0.push(root.height);
        self.0.extend_from_slice(&root.reference.id.0.to_le_bytes());
        self.0.extend_from_slice(&root.reference.birth.to_le_bytes());
        self.0.extend_from_slice(&root.entries.to_le_bytes());
        self.0.extend_from_slice(&(extents.len() as u32).to_le_bytes());
        for extent in extents {
            self.0.extend_from_slice(&extent.start.0.to_le_bytes());
            self.0.extend_from_slice(&extent.pages.to_le_bytes());
        }
    }

    /// A transaction of commit group `seq`; `write` writes its changes, on any trees.
    pub fn transaction(&mut self, seq: Seq, write: impl FnOnce(&mut RecordWriter<'_>)) {
        self.0.push(KIND_TRANSACTION);
        self.0.extend_from_slice(&seq.0.to_le_bytes());
        let length_at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        write(&mut RecordWriter(self.0));
        let length = (self.0.len() - length_at - 4) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// A checkpoint of version `seq` is durable; replay from `lsn` would give what follows.
    pub fn checkpoint(&mut self, seq: Seq, lsn: Lsn) {
        self.0.push(KIND_CHECKPOINT);
        self.0.extend_from_slice(&seq.0.to_le_bytes());
        self.0.extend_from_slice(&lsn.0.to_le_bytes());
    }

    fn key_only(&mut self, kind: u8, tree: TreeId, key: &[u8]) {
        let mut head = Head::new(kind);
        head.varint(tree.0);
        head.varint(key.len() as u32);
        self.0.reserve(HEAD_BYTES_MAX + key.len());
        self.0.extend_from_slice(head.bytes());
        self.0.extend_from_slice(key);
    }

    fn key_and_value(&mut self, kind: u8, tree: TreeId, key: &[u8], value: &[u8]) {
        let mut head = Head::new(kind);
        head.varint(tree.0);
        head.varint(key.len() as u32);
        head.varint(value.len() as u32);
        self.0.reserve(HEAD_BYTES_MAX + key.len() + value.len());
        self.0.extend_from_slice(head.bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value);
    }
}

/// Most bytes that a put costs beyond its key and value.
pub const HEAD_BYTES_MAX: usize = 1 + 3 * VARINT_BYTES_MAX;

/// The fields before a record's payload, gathered so that the buffer grows once.
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    length: usize,
}

impl Head {
    fn new(kind: u8) -> Head {
        let mut bytes = [0; HEAD_BYTES_MAX];
        bytes[0] = kind;
        Head { bytes, length: 1 }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes[self.length] = value as u8 | 0x80;
            self.length += 1;
            value >>= 7;
        }
        self.bytes[self.length] = value as u8;
        self.length += 1;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// One record, borrowed from the group that holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// What follows, up to the [`BatchEnd`](Record::BatchEnd), was frozen together by one worker.
    BatchBegin {
        /// The commit group.
        seq: Seq,
        /// The worker.
        shard: ShardId,
        /// The batch stamp that its new pages carry.
        stamp: Stamp,
    },
    /// The batch is complete.
    BatchEnd,
    /// The key has this value now.
    Put {
        /// The tree.
        tree: TreeId,
        /// The key.
        key: &'a [u8],
        /// The whole value.
        value: &'a [u8],
    },
    /// The key has a value now that lies in a blob.
    PutBlob {
        /// The tree.
        tree: TreeId,
        /// The key.
        key: &'a [u8],
        /// What the leaf holds: extents, checksum, birth stamp.
        descriptor: &'a [u8],
    },
    /// The key is absent now.
    Delete {
        /// The tree.
        tree: TreeId,
        /// The key.
        key: &'a [u8],
    },
    /// The tree exists now.
    TreeCreate {
        /// Its id, never given before.
        tree: TreeId,
        /// Its name.
        name: &'a str,
    },
    /// The tree is gone now.
    TreeDrop {
        /// Its id, never given again.
        tree: TreeId,
    },
    /// The tree, which was empty, has this content now.
    TreeLoad {
        /// The tree.
        tree: TreeId,
        /// Its content.
        root: Root,
        /// All that was written for it, nodes and blobs.
        extents: LoadedExtents<'a>,
    },
    /// All of these changes, or none.
    Transaction {
        /// The commit group.
        seq: Seq,
        /// The changes, in order.
        changes: RecordReader<'a>,
    },
    /// A checkpoint became durable.
    Checkpoint {
        /// Its version.
        seq: Seq,
        /// Where replay starts for it.
        lsn: Lsn,
    },
}

/// The extents of a loaded tree, as the record holds them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadedExtents<'a>(pub(super) &'a [u8]);

impl LoadedExtents<'_> {
    /// The extents, in the order in which they were written. None reaches beyond the largest page id.
    pub fn iter(&self) -> impl Iterator<Item = Extent> {
        let word = |bytes: &[u8]| {
            bytes
                .first_chunk::<4>()
                .map_or(0, |word| u32::from_le_bytes(*word))
        };
        self.0.chunks_exact(LOAD_EXTENT_BYTES).map(move |extent| Extent {
            start: PageId(word(extent)),
            pages: word(&extent[4..]),
        })
    }
}

impl Record<'_> {
    /// The key that the record changes, with its tree, if it changes one.
    #[must_use]
    pub fn change(&self) -> Option<(TreeId, &[u8])> {
        match *self {
            Record::Put { tree, key, .. }
            | Record::PutBlob { tree, key, .. }
            | Record::Delete { tree, key } => Some((tree, key)),
            _ => None,
        }
    }

    /// The tree that the record changes, if it changes one.
    #[must_use]
    pub fn tree(&self) -> Option<TreeId> {
        match *self {
            Record::Put { tree, .. }
            | Record::PutBlob { tree, .. }
            | Record::Delete { tree, .. }
            | Record::TreeCreate { tree, .. }
            | Record::TreeDrop { tree }
            | Record::TreeLoad { tree, .. } => Some(tree),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
