//! The checkpoint image: what a checkpoint stores besides the pages themselves.
//!
//! ```text
//! header | trees with their partitions | map of the reachable pages | named snapshots
//! ```
//!
//! One stream of bytes, laid into the extents that the superblock names, with its length and checksum
//! there. It is written and read in pieces of any size: neither side holds more than one tree's entry or
//! one block of the map beside what it is made from or into. The byte tables are in `docs/FORMAT.md`.
//!
//! The map holds the pages reachable from the checkpoint's version and nothing else. The image's own extents
//! are not in it: whoever opens a database reserves them, as long as the superblock names them.
//!
//! A named snapshot is stored with its trees, and with the pages that it keeps from being used again although the
//! checkpoint's version doesn't reach them, as [`WaitingLists`](crate::space::WaitingLists) files them (rule R8): under
//! the newest of the named snapshots that see them. So a dropped snapshot's pages can be told from its neighbours'.

mod decode;
mod encode;

pub use decode::ImageDecoder;
pub use encode::{ImageEncoder, ImageSummary};

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::catalog::Directory;
use crate::space::SpaceMap;
use crate::{Retired, Seq};

/// "TRIMAGE" and a zero: the first bytes of every image.
pub const IMAGE_MAGIC: [u8; 8] = *b"TRIMAGE\0";
/// The version of the image format.
pub const IMAGE_VERSION: u32 = 2;

/// Most named snapshots of an image.
pub const SNAPSHOTS_MAX: usize = 1024;

/// A block of the map without a reachable page.
const BLOCK_EMPTY: u8 = 0;
/// A block of the map with nothing else.
const BLOCK_FULL: u8 = 1;
/// A block of the map whose bits follow.
const BLOCK_BITS: u8 = 2;

/// Start of the image.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawImageHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) tree_count: U32,
    pub(crate) reachable_pages: U64,
    pub(crate) file_pages: U32,
    pub(crate) snapshot_count: U32,
}

/// Start of a tree; its name follows, then its partitions.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawTree {
    pub(crate) id: U32,
    pub(crate) partition_count: U32,
    pub(crate) name_bytes: U16,
}

/// Start of a partition; its lowest key follows.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawPartition {
    pub(crate) entries: U64,
    pub(crate) root_id: U32,
    pub(crate) root_birth: U32,
    pub(crate) owner: U16,
    pub(crate) lower_bytes: U16,
    pub(crate) height: u8,
}

/// Start of a named snapshot; its name follows, then its trees, then what it keeps.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSnapshot {
    pub(crate) seq: U64,
    pub(crate) kept_count: U64,
    pub(crate) tree_count: U32,
    pub(crate) name_bytes: U16,
}

/// Pages that a named snapshot keeps.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawKept {
    pub(crate) born: U64,
    pub(crate) start: U32,
    pub(crate) pages: U32,
}

/// What an image says.
#[derive(Debug)]
pub struct Image {
    /// The trees of the checkpoint's version.
    pub directory: Directory,
    /// In use are exactly the pages that this version reaches, and those that the snapshots keep.
    pub space: SpaceMap,
    /// Ascending by `seq`.
    pub snapshots: Vec<ImageSnapshot>,
}

/// A named snapshot.
#[derive(Clone, Debug)]
pub struct ImageSnapshot {
    /// Its name, unique among the named snapshots; 1 to 65,535 bytes.
    pub name: Arc<str>,
    /// The commit group after which it was taken.
    pub seq: Seq,
    /// Its trees.
    pub directory: Directory,
    /// Pages that it is the newest named snapshot to reach, and that the checkpoint's version doesn't. Where several
    /// snapshots have one `seq`, the first of them has these.
    pub kept: Vec<Retired>,
}

/// Why bytes are not a checkpoint image.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageDefect {
    /// The magic is missing.
    #[error("there is no checkpoint image")]
    NotAnImage,
    /// A version that this code doesn't know.
    #[error("the checkpoint image has version {found}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The bytes end before the image does, or go on behind it.
    #[error("the checkpoint image has the wrong length")]
    Length,
    /// The image doesn't match the checksum in the superblock.
    #[error("the checkpoint image's checksum is wrong")]
    Checksum,
    /// The contents make no sense.
    #[error("the checkpoint image is malformed: {0}")]
    Malformed(&'static str),
}

#[cfg(test)]
mod tests;
