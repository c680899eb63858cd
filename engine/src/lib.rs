//! What Treering stores, and how: pages, the persistent tree, versions, the formats of log and
//! superblock, space, and the shared memory that readers and writers meet in.
//!
//! Absent from here: threads, files and clocks. Everything is driven from outside, by the `treering`
//! crate, and so runs unchanged under its simulator.

pub mod catalog;
mod checksum;
#[cfg(test)]
mod format_document;
pub mod gate;
mod ids;
pub mod image;
pub mod log;
pub mod memory;
pub mod page;
pub mod sleeping;
pub mod space;
pub mod superblock;
mod sync;
pub mod tree;
pub mod version;

pub use checksum::{Crc32c, crc32c};
pub use gate::Gate;
pub use ids::{
    BLOCK_BYTES, Extent, Lsn, PAGE_BYTES_MAX, PAGE_BYTES_MIN, PageId, PageRef, Retired, Seq, ShardId, Stamp,
    TreeId,
};
pub use memory::{FrameId, Memory};
pub use sleeping::SleepFlag;
pub use version::VersionCell;
