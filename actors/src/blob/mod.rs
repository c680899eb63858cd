//! Values too large for a leaf: extents of their own, and the descriptor that the leaf holds instead.
//!
//! A blob is written in pieces of [`PIECE_BYTES`], synced, and only then named by a change (rule R18): whatever group
//! names it, its bytes are durable before. Its extents belong to the request until that is answered; if it is refused,
//! they are free again.
//!
//! Who does it: a client on its own thread, for the values that it brings (`client/blob.rs`), and for what it reads;
//! a shard, for values that a request at the owner needs or makes (`shard/large.rs`). Here is what both have in
//! common: the descriptor, the pieces, and putting them together.

mod descriptor;
mod reading;

pub(crate) use descriptor::{BlobDescriptor, DESCRIPTOR_BYTES, blob_extents, blobs_in};
pub(crate) use reading::{BlobReading, Piece, Pieces, checked, piece_buffer, wrong_checksum};

/// Bytes written or read at a time: what a blob costs in memory beyond the value itself. A multiple of every page size.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

const _: () = assert!(PIECE_BYTES.is_multiple_of(treering_engine::PAGE_BYTES_MAX));
