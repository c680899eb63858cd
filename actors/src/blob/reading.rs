//! The pieces in which a blob moves, and the value that they make.

use std::collections::VecDeque;
use std::sync::Arc;

use treering_engine::{BLOCK_BYTES, Crc32c, Extent};
use treering_io::AlignedBuffer;

use super::{BlobDescriptor, PIECE_BYTES};
use crate::error::{Error, Result};
use crate::shared::DATA_FILE;
use crate::value::Value;

/// A part of a value that is read or written at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// Byte position in the data file.
    pub offset: u64,
    /// Byte position in the value.
    pub start: usize,
    /// Bytes of the value in it.
    pub bytes: usize,
}

/// The pieces of a value that lies in these extents, in its order.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    /// Byte position in the file and bytes of what is left of each extent.
    extents: VecDeque<(u64, u64)>,
    start: usize,
    bytes_left: usize,
}

impl Pieces {
    pub fn new(extents: &[Extent], page_bytes: usize, value_bytes: usize) -> Pieces {
        let page_bytes = page_bytes as u64;
        let place = |extent: &Extent| {
            (
                u64::from(extent.start.0) * page_bytes,
                u64::from(extent.pages) * page_bytes,
            )
        };
        Pieces {
            extents: extents.iter().map(place).collect(),
            start: 0,
            bytes_left: value_bytes,
        }
    }
}

impl Pieces {
    /// Whether there are no more.
    pub fn is_empty(&self) -> bool {
        self.bytes_left == 0 || self.extents.is_empty()
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.bytes_left == 0 {
            return None;
        }
        let (offset, room) = self.extents.front_mut()?;
        let bytes = self.bytes_left.min(*room as usize).min(PIECE_BYTES);
        let piece = Piece {
            offset: *offset,
            start: self.start,
            bytes,
        };
        *offset += bytes as u64;
        *room -= bytes as u64;
        if *room == 0 {
            self.extents.pop_front();
        }
        self.start += bytes;
        self.bytes_left -= bytes;
        Some(piece)
    }
}

/// A buffer for a piece that is read, or for one that is written, with these bytes in it.
pub(crate) fn piece_buffer(bytes: usize, content: &[u8]) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(bytes.next_multiple_of(BLOCK_BYTES));
    buffer[..content.len()].copy_from_slice(content);
    buffer
}

/// A value that is being read.
#[derive(Debug)]
pub(crate) struct BlobReading {
    blob: BlobDescriptor,
    page_bytes: usize,
    /// Read to where the user will have it: a large value must not be in memory twice.
    value: Arc<[u8]>,
    bytes_filled: usize,
}

impl BlobReading {
    /// Makes room for the value.
    ///
    /// # Errors
    /// [`Error::Corrupt`], if the descriptor can't be one.
    pub fn begin(descriptor: &[u8], page_bytes: usize) -> Result<BlobReading> {
        let blob = checked(descriptor, page_bytes)?;
        Ok(BlobReading {
            value: std::iter::repeat_n(0, blob.bytes as usize).collect(),
            blob,
            page_bytes,
            bytes_filled: 0,
        })
    }

    /// What has to be read.
    pub fn pieces(&self) -> Pieces {
        Pieces::new(&self.blob.extents, self.page_bytes, self.value.len())
    }

    /// Takes what was read for a piece; in any order.
    pub fn take(&mut self, piece: Piece, read: &[u8]) {
        let Some(value) = Arc::get_mut(&mut self.value) else {
            unreachable!("nobody else has it before it is finished")
        };
        value[piece.start..piece.start + piece.bytes].copy_from_slice(&read[..piece.bytes]);
        self.bytes_filled += piece.bytes;
    }

    /// The value, once all pieces were taken.
    ///
    /// # Errors
    /// [`Error::Corrupt`], if it isn't the one that was written.
    pub fn finish(self) -> Result<Value> {
        let mut crc = Crc32c::new();
        crc.update(&self.value);
        if self.bytes_filled != self.value.len() || crc.value() != self.blob.crc {
            return Err(wrong_checksum(&self.blob, self.page_bytes));
        }
        Ok(Value::part(&self.value, 0, self.value.len()))
    }
}

/// What a descriptor says, if that can be.
///
/// # Errors
/// [`Error::Corrupt`].
pub(crate) fn checked(descriptor: &[u8], page_bytes: usize) -> Result<BlobDescriptor> {
    let Some(blob) = BlobDescriptor::decode(descriptor) else {
        let reason = "a leaf holds a malformed blob descriptor";
        return Err(corrupt(None, page_bytes, reason));
    };
    let pages: u64 = blob.extents.iter().map(|extent| u64::from(extent.pages)).sum();
    if blob.bytes > pages * page_bytes as u64 || blob.bytes > crate::client::VALUE_BYTES_MAX {
        let reason = "a blob is longer than its extents";
        return Err(corrupt(blob.extents.first(), page_bytes, reason));
    }
    Ok(blob)
}

/// The error about a blob that isn't the one that was written.
pub(crate) fn wrong_checksum(blob: &BlobDescriptor, page_bytes: usize) -> Error {
    corrupt(blob.extents.first(), page_bytes, "a blob's checksum is wrong")
}

fn corrupt(extent: Option<&Extent>, page_bytes: usize, reason: &str) -> Error {
    Error::Corrupt {
        file: DATA_FILE.into(),
        offset: extent.map_or(0, |extent| u64::from(extent.start.0) * page_bytes as u64),
        page: extent.map(|extent| extent.start.0),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use treering_engine::{PageId, Seq};

    use super::*;

    fn extent(start: u32, pages: u32) -> Extent {
        Extent {
            start: PageId(start),
            pages,
        }
    }

    #[test]
    fn pieces_cover_the_value_and_nothing_else() {
        let extents = [extent(10, 1), extent(100, 600), extent(5, 2)];
        let bytes = 601 * 4096 + 5;
        let pieces: Vec<Piece> = Pieces::new(&extents, 4096, bytes).collect();
        let expected = [
            (10, 4096),
            (100, PIECE_BYTES),
            (356, PIECE_BYTES),
            (612, 88 * 4096),
            (5, 5),
        ];
        assert_eq!(pieces.len(), expected.len());
        let mut start = 0;
        for (piece, (page, bytes)) in pieces.into_iter().zip(expected) {
            assert_eq!(
                piece,
                Piece {
                    offset: page * 4096,
                    start,
                    bytes
                }
            );
            start += bytes;
        }
        assert_eq!(start, bytes);
        // Extents that are too short end the walk: `begin` refuses such descriptors.
        assert_eq!(Pieces::new(&extents[..1], 4096, 5000).count(), 1);
    }

    #[test]
    fn a_value_is_believed_by_its_checksum() {
        let content: Vec<u8> = (0..10_000_u32).map(|number| number as u8).collect();
        let mut crc = Crc32c::new();
        crc.update(&content);
        let blob = BlobDescriptor {
            bytes: content.len() as u64,
            crc: crc.value(),
            born: Seq(1),
            extents: vec![extent(7, 1), extent(3, 2)],
        };
        let read = |spoil: usize| {
            let mut reading = BlobReading::begin(&blob.encode(), 4096).expect("a descriptor");
            let pieces: Vec<Piece> = reading.pieces().collect();
            for piece in pieces.into_iter().rev() {
                let bytes = &content[piece.start..piece.start + piece.bytes];
                let mut buffer = piece_buffer(piece.bytes, bytes);
                if (piece.start..piece.start + piece.bytes).contains(&spoil) {
                    buffer[spoil - piece.start] ^= 1;
                }
                reading.take(piece, &buffer);
            }
            reading.finish()
        };
        assert_eq!(read(usize::MAX).expect("the value"), content);
        assert!(matches!(
            read(9_999),
            Err(Error::Corrupt {
                page: Some(7),
                offset: 28_672,
                ..
            })
        ));
        let too_long = BlobDescriptor {
            bytes: 4096 * 3 + 1,
            ..blob
        };
        assert!(matches!(
            BlobReading::begin(&too_long.encode(), 4096),
            Err(Error::Corrupt { .. })
        ));
        assert!(matches!(
            BlobReading::begin(b"short", 4096),
            Err(Error::Corrupt { page: None, .. })
        ));
    }
}
