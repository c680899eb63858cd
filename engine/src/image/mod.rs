//! The checkpoint image: what a checkpoint stores besides the pages themselves.
//!
//! ```text
//! header | trees with their partitions | map of the reachable pages
//! ```
//!
//! One stream of bytes, laid into the extents that the superblock names, with its length and checksum
//! there. It is written and read in pieces of any size: neither side holds more than one tree's entry or
//! one block of the map beside what it is made from or into. The byte tables are in `docs/FORMAT.md`.
//!
//! The map holds the pages reachable from the checkpoint's version and nothing else. The image's own extents
//! are not in it: whoever opens a database reserves them, as long as the superblock names them.

mod decode;
mod encode;

pub use decode::ImageDecoder;
pub use encode::{ImageEncoder, ImageSummary};

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "TRIMAGE" and a zero: the first bytes of every image.
pub const IMAGE_MAGIC: [u8; 8] = *b"TRIMAGE\0";
/// The version of the image format.
pub const IMAGE_VERSION: u32 = 1;

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
    pub(crate) reserved: U32,
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
