//! Where a blob lies and how to know it.
//!
//! Little endian: length u64 | CRC-32C of the value u32 | count of extents u16 | born u64 | then per extent: start u32,
//! pages u32.

use treering_engine::log::{Record, RecordReader};
use treering_engine::{Extent, PageId, Retired, Seq};

/// Bytes of a descriptor before its extents.
const HEAD_BYTES: usize = 22;
/// Bytes of one extent.
const EXTENT_BYTES: usize = 8;

/// Bytes of the descriptor of a blob in one extent, as clients write them.
pub(crate) const DESCRIPTOR_BYTES: usize = HEAD_BYTES + EXTENT_BYTES;

/// Where a blob lies and how to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BlobDescriptor {
    pub bytes: u64,
    pub crc: u32,
    /// First group that can name it, at the earliest.
    pub born: Seq,
    pub extents: Vec<Extent>,
}

impl BlobDescriptor {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.extents.len() * EXTENT_BYTES);
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(&(self.extents.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&self.born.0.to_le_bytes());
        for extent in &self.extents {
            bytes.extend_from_slice(&extent.start.0.to_le_bytes());
            bytes.extend_from_slice(&extent.pages.to_le_bytes());
        }
        bytes
    }

    /// `None` if the bytes are not a whole descriptor.
    pub fn decode(bytes: &[u8]) -> Option<BlobDescriptor> {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let (born, rest) = rest.split_first_chunk::<8>()?;
        if rest.len() != usize::from(u16::from_le_bytes(*count)) * EXTENT_BYTES {
            return None;
        }
        let word = |bytes: &[u8]| bytes.first_chunk::<4>().map(|word| u32::from_le_bytes(*word));
        let extents = rest
            .chunks_exact(EXTENT_BYTES)
            .map(|extent| {
                let (start, pages) = (word(extent)?, word(&extent[4..])?);
                start.checked_add(pages)?;
                Some(Extent {
                    start: PageId(start),
                    pages,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(BlobDescriptor {
            bytes: u64::from_le_bytes(*length),
            crc: u32::from_le_bytes(*crc),
            born: Seq(u64::from_le_bytes(*born)),
            extents,
        })
    }
}

/// The extents that a descriptor names, as they are retired with it. A descriptor that can't be read names none.
pub(crate) fn blob_extents(descriptor: &[u8]) -> impl Iterator<Item = Retired> {
    let descriptor = BlobDescriptor::decode(descriptor);
    descriptor.into_iter().flat_map(|blob| {
        let born = blob.born;
        blob.extents
            .into_iter()
            .map(move |extent| Retired { extent, born })
    })
}

/// The extents of all blobs that encoded changes bring into trees.
pub(crate) fn blobs_in(records: &[u8]) -> impl Iterator<Item = Extent> {
    RecordReader::resume(records, 0)
        .map_while(|record| match record {
            Ok(Record::PutBlob { descriptor, .. }) => Some(Some(descriptor)),
            Ok(Record::BatchEnd) | Err(_) => None,
            Ok(_) => Some(None),
        })
        .flatten()
        .flat_map(|descriptor| blob_extents(descriptor).map(|retired| retired.extent))
}
