//! The persistent (copy-on-write) B+ tree.
//!
//! A version of a tree is a [`Root`]. Nodes are immutable once their batch is frozen: a write copies the
//! leaf and the path to the root (nodes of the open batch are changed in place) and leaves every other root
//! readable as it was.
//!
//! | file | subject |
//! |---|---|
//! | `store` | what the tree asks of the place where its nodes live |
//! | `read` | point lookups, one or many side by side |
//! | `cursor`, `run` | ordered scans in both directions: where one is, and the entries that it hands out |
//! | `ahead` | which nodes many keys will need that are not in memory |
//! | `bulk` | a tree from ascending entries, bottom up |
//! | `check` | everything that must hold, looked at |
//! | `cut` | one tree made two, two made one |
//! | `diff` | what differs between two versions |
//! | `write` | one write: descend, look, decide, change |
//! | `ascending` | many writes of ascending keys, a leaf at a time |
//! | `relocate` | the same tree under other ids |
//! | `path` | the nodes that a write goes through |
//! | `restructure` | leaves: splits, merges, evening out |
//! | `ascend` | what follows in the levels above |
//! | `sources` | nodes that are written anew together; how full nodes should be |
//! | `sequence`, `leaf_sequence`, `inner_sequence` | content about to be written, and where it may be cut |
//!
//! What holds after every operation: keys ascend within a leaf and from leaf to leaf; every key of child
//! `i` lies between separators `i` and `i + 1` of its parent; all leaves have the same depth; an open
//! node's ancestors are open.
//!
//! Absent: batches, versions, residency, blobs (a leaf may hold a descriptor, opaque here), I/O.

mod ahead;
mod ascend;
mod ascending;
mod bulk;
mod check;
mod cursor;
mod cut;
#[cfg(test)]
mod cut_tests;
mod diff;
mod inner_sequence;
mod leaf_sequence;
mod path;
mod read;
mod relocate;
#[cfg(test)]
mod relocate_tests;
mod restructure;
mod run;
mod sequence;
#[cfg(test)]
mod shape_tests;
mod sources;
mod store;
#[cfg(test)]
mod test_store;
#[cfg(test)]
mod tests;
mod write;

pub use ahead::{AscendingKeys, Looked, missing};
pub use ascending::{AscendingPairs, put_ascending};
pub use bulk::{BulkBuilder, NotAscending};
pub use check::{CheckError, Summary, check, check_part};
pub use cursor::{Bounds, Cursor};
pub use cut::{Halves, cut, join};
pub use diff::{Diff, Difference, Part};
pub use path::HEIGHT_MAX;
pub use read::{get, get_many, warm};
pub use relocate::{RELOCATED_LEAVES_MAX, Relocated, relocate};
pub use run::{Carry, Run};
pub use store::{Located, Miss, NewNodes, NodeStore, ReadNodes};
pub use write::{delete, modify, put};

use std::borrow::Cow;

use crate::ids::PageRef;

/// Everything that must be known about a tree to use it: two versions of a tree are two roots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Root {
    /// The topmost node; [`PageRef::NONE`] when the tree is empty.
    pub reference: PageRef,
    /// Number of levels: 0 when empty, 1 when the root is a leaf.
    pub height: u8,
    /// Number of keys. Of a part of a tree that was [cut]: its share of the tree's number, wrapping, which alone
    /// says nothing.
    pub entries: u64,
}

/// What a write did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The key was absent.
    Inserted,
    /// The key was present; its old value is gone.
    Replaced,
    /// The key was present and no longer is.
    Deleted,
}

/// What [`modify`] shall do, having seen the old value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision<'v> {
    /// Leave everything as it is.
    Keep,
    /// Store this value in the leaf; at most [`crate::page::max_inline_value_bytes`].
    Put(Cow<'v, [u8]>),
    /// Store this descriptor of a blob.
    PutBlob(Cow<'v, [u8]>),
    /// Remove the key, if it is there.
    Delete,
}

/// The most nodes that one write to a tree of this height can create: three leaves in the place of two, two
/// inner nodes in the place of one on every level above, and a new root.
#[must_use]
pub fn reserve_for(height: u8) -> usize {
    4 + 2 * usize::from(height)
}
