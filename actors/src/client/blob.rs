//! Values too large for a leaf: extents of their own, and the descriptor that the leaf holds instead.
//!
//! A blob is written by the client's own thread in pieces of [`PIECE_BYTES`], synced, and only then named by a
//! request (rule R18): whatever group names it, its bytes are durable before. Its extents belong to the request
//! until that is answered; if it is refused, they are free again.
//!
//! Descriptor, little endian: length u64 | CRC-32C of the value u32 | count of extents u16 | born u64 | then per
//! extent: start u32, pages u32.

use std::sync::Arc;

use treering_engine::log::{Record, RecordReader};
use treering_engine::{BLOCK_BYTES, Crc32c, Extent, PageId, Retired, Seq};
use treering_io::AlignedBuffer;

use super::db::Inner;
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::pager::{PagerMessage, Transfer, TransferKind, TransferReply};
use crate::runtime::Credit;
use crate::shared::{DATA_FILE, with_guard};
use crate::value::Value;

/// Bytes written or read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces of one blob under way at a time: what it costs in memory beyond the caller's own buffer. All clients together
/// are bounded by their credit.
const PIECES_MAX: usize = 4;
/// Bytes of a descriptor before its extents.
const HEAD_BYTES: usize = 22;
/// Bytes of one extent.
const EXTENT_BYTES: usize = 8;

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

impl Inner {
    /// Writes a value to extents of its own, durably, and returns the descriptor.
    pub(super) fn write_blob(self: &Arc<Inner>, value: &[u8]) -> Result<Vec<u8>> {
        self.runtime.check_wait()?;
        let page_bytes = self.runtime.shared.settings.page_bytes;
        let pages = value.len().div_ceil(page_bytes) as u32;
        let shared = &self.runtime.shared;
        let (sender, receiver) = oneshot::channel();
        self.runtime
            .send_flusher(FlusherMessage::ExtentRequest { pages, reply: sender });
        let extents = self.runtime.wait(receiver, None).unwrap_or(Err(Error::Closed))?;
        let born = with_guard(&shared.memory, |guard| shared.current.load(guard).seq.next());
        let mut crc = Crc32c::new();
        crc.update(value);
        let descriptor = BlobDescriptor {
            bytes: value.len() as u64,
            crc: crc.value(),
            born,
            extents,
        };
        if let Err(error) = self.write_extents(value, &descriptor.extents) {
            self.runtime.send_flusher(FlusherMessage::Release {
                extents: descriptor.extents,
            });
            return Err(error);
        }
        Ok(descriptor.encode())
    }

    /// Gives back the extents of a blob that no request names.
    pub(super) fn release_blob(&self, descriptor: &[u8]) {
        let extents = blob_extents(descriptor).map(|retired| retired.extent).collect();
        self.runtime.send_flusher(FlusherMessage::Release { extents });
    }

    fn write_extents(&self, value: &[u8], extents: &[Extent]) -> Result<()> {
        let page_bytes = self.runtime.shared.settings.page_bytes;
        let mut rest = value;
        let mut pieces = Pieces::new(self);
        for extent in extents {
            let mut offset = u64::from(extent.start.0) * page_bytes as u64;
            let (mine, others) = rest.split_at(rest.len().min(extent.pages as usize * page_bytes));
            rest = others;
            for piece in mine.chunks(PIECE_BYTES) {
                let (mut buffer, credit) = pieces.buffer(piece.len(), |_| Ok(()))?;
                buffer[..piece.len()].copy_from_slice(piece);
                pieces.send(TransferKind::Write, offset, Some(buffer), credit);
                offset += piece.len() as u64;
            }
        }
        pieces.finish(|_| Ok(()))?;
        pieces.send(TransferKind::Sync, 0, None, None);
        pieces.finish(|_| Ok(()))
    }

    /// Reads a blob whole. The caller holds a version that reaches it.
    pub(super) fn read_blob(&self, descriptor: &[u8]) -> Result<Value> {
        self.runtime.check_wait()?;
        let corrupt = |extent: Option<Extent>, reason: &str| Error::Corrupt {
            file: DATA_FILE.into(),
            offset: extent.map_or(0, |extent| {
                u64::from(extent.start.0) * self.runtime.shared.settings.page_bytes as u64
            }),
            page: extent.map(|extent| extent.start.0),
            reason: reason.into(),
        };
        let blob = BlobDescriptor::decode(descriptor)
            .ok_or_else(|| corrupt(None, "a leaf holds a malformed blob descriptor"))?;
        let page_bytes = self.runtime.shared.settings.page_bytes as u64;
        let pages: u64 = blob.extents.iter().map(|extent| u64::from(extent.pages)).sum();
        if blob.bytes > pages * page_bytes || blob.bytes > super::VALUE_BYTES_MAX {
            return Err(corrupt(
                blob.extents.first().copied(),
                "a blob is longer than its extents",
            ));
        }
        // Read to where the user will have it: a large value must not be in memory twice.
        let mut value: Arc<[u8]> = std::iter::repeat_n(0, blob.bytes as usize).collect();
        let Some(bytes) = Arc::get_mut(&mut value) else {
            unreachable!("nobody else has it yet")
        };
        let mut filled = 0;
        let mut crc = Crc32c::new();
        let mut take = |buffer: &[u8]| {
            let wanted = (bytes.len() - filled).min(buffer.len());
            crc.update(&buffer[..wanted]);
            bytes[filled..filled + wanted].copy_from_slice(&buffer[..wanted]);
            filled += wanted;
            Ok(())
        };
        self.stream_blob(&blob, &mut take)?;
        if filled as u64 != blob.bytes || crc.value() != blob.crc {
            return Err(corrupt(
                blob.extents.first().copied(),
                "a blob's checksum is wrong",
            ));
        }
        Ok(Value::part(&value, 0, filled))
    }
}

impl Inner {
    /// Hands the bytes of a blob to `take`, in pieces, in order, and up to a block more at the end. The caller holds a
    /// version that reaches it.
    pub(super) fn stream_blob(
        &self,
        blob: &BlobDescriptor,
        take: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let page_bytes = self.runtime.shared.settings.page_bytes as u64;
        let mut pieces = Pieces::new(self);
        let mut left = blob.bytes.next_multiple_of(BLOCK_BYTES as u64);
        for extent in &blob.extents {
            let start = u64::from(extent.start.0) * page_bytes;
            let bytes = left.min(u64::from(extent.pages) * page_bytes);
            left -= bytes;
            let mut done = 0;
            while done < bytes {
                let piece = (bytes - done).min(PIECE_BYTES as u64);
                let (buffer, credit) = pieces.buffer(piece as usize, &mut *take)?;
                pieces.send(TransferKind::Read, start + done, Some(buffer), credit);
                done += piece;
            }
        }
        pieces.finish(&mut *take)
    }
}

/// The error about a page of the data file.
pub(super) fn corrupt_page(inner: &Inner, page: PageId, reason: &str) -> Error {
    Error::Corrupt {
        file: DATA_FILE.into(),
        offset: u64::from(page.0) * inner.runtime.shared.settings.page_bytes as u64,
        page: (page != PageId::NONE).then_some(page.0),
        reason: reason.into(),
    }
}

/// A transfer under way.
struct Piece {
    answer: oneshot::Receiver<(std::io::Result<()>, Option<AlignedBuffer>)>,
    /// For its buffer.
    _credit: Option<Credit>,
}

/// Transfers under way, answered in the order in which they were sent.
struct Pieces<'i> {
    inner: &'i Inner,
    under_way: std::collections::VecDeque<Piece>,
}

impl<'i> Pieces<'i> {
    fn new(inner: &'i Inner) -> Pieces<'i> {
        Pieces {
            inner,
            under_way: std::collections::VecDeque::new(),
        }
    }

    /// A buffer for the next piece, as soon as there is credit for one.
    fn buffer(
        &mut self,
        bytes: usize,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(AlignedBuffer, Option<Credit>)> {
        if self.under_way.len() >= PIECES_MAX {
            self.take_one(&mut take)?;
        }
        let runtime = &self.inner.runtime;
        let credit = loop {
            // Who holds credit doesn't wait for more: many clients with a piece each would wait for each other.
            match runtime.credit_now(bytes) {
                None if self.under_way.is_empty() => break runtime.credit(bytes),
                None => self.take_one(&mut take)?,
                credit => break credit,
            }
        };
        Ok((AlignedBuffer::zeroed(bytes.next_multiple_of(BLOCK_BYTES)), credit))
    }

    fn send(
        &mut self,
        kind: TransferKind,
        offset: u64,
        buffer: Option<AlignedBuffer>,
        credit: Option<Credit>,
    ) {
        let (sender, answer) = oneshot::channel();
        let reply = TransferReply::Client(sender);
        self.inner.runtime.send_pager(PagerMessage::Transfer(Transfer {
            kind,
            offset,
            buffer,
            reply,
        }));
        self.under_way.push_back(Piece {
            answer,
            _credit: credit,
        });
    }

    fn take_one(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some(piece) = self.under_way.pop_front() else {
            return Ok(());
        };
        let answer = self.inner.runtime.wait(piece.answer, None);
        let (result, buffer) = answer.ok_or(Error::Closed)?;
        result.map_err(|error| Error::io("transferring a large value", error))?;
        buffer.map_or(Ok(()), |buffer| take(&buffer))
    }

    /// Waits for all that is under way.
    fn finish(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while !self.under_way.is_empty() {
            self.take_one(&mut take)?;
        }
        Ok(())
    }
}

impl Drop for Pieces<'_> {
    fn drop(&mut self) {
        // Extents must not be given back while writes to them are under way.
        while let Some(piece) = self.under_way.pop_front() {
            let _ = self.inner.runtime.wait(piece.answer, None);
        }
    }
}
