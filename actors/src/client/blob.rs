//! Large values on the client's own thread: those that it brings are written before a request names them, those that it
//! reads are read here (see [`crate::blob`]).

use std::collections::VecDeque;
use std::sync::Arc;

use treering_engine::{Crc32c, Extent, PageId};
use treering_io::AlignedBuffer;

use super::db::Inner;
use crate::blob::{
    BlobDescriptor, BlobReading, Piece, Pieces, blob_extents, checked, piece_buffer, wrong_checksum,
};
use crate::error::{Error, Result};
use crate::flusher::{ExtentWaiter, FlusherMessage};
use crate::pager::{PagerMessage, Transfer, TransferKind, TransferReply};
use crate::runtime::Credit;
use crate::shared::{DATA_FILE, with_guard};
use crate::value::Value;

/// Pieces of one blob under way at a time: what it costs in memory beyond the caller's own buffer. All clients together
/// are bounded by their credit.
const PIECES_MAX: usize = 4;

impl Inner {
    /// Writes a value to extents of its own and returns the descriptor. Unless it is synced here, the caller syncs the
    /// file before anything names it.
    pub(super) fn write_blob(self: &Arc<Inner>, value: &[u8], sync: bool) -> Result<Vec<u8>> {
        self.runtime.check_wait()?;
        let page_bytes = self.runtime.shared.settings.page_bytes;
        let extents = self.extents_for(value.len().div_ceil(page_bytes))?;
        let mut crc = Crc32c::new();
        crc.update(value);
        let descriptor = self.new_blob(value.len() as u64, crc.value(), extents);
        if let Err(error) = self.write_extents(value, &descriptor.extents, sync) {
            self.runtime.send_flusher(FlusherMessage::Release {
                extents: descriptor.extents,
            });
            return Err(error);
        }
        Ok(descriptor.encode())
    }

    /// Copies a blob to these extents, which have room for it, a piece at a time, and returns the copy's descriptor. The
    /// copy is synced. The caller holds a version that reaches the blob.
    pub(super) fn copy_blob(&self, descriptor: &[u8], extents: Vec<Extent>) -> Result<Vec<u8>> {
        let copied = checked(descriptor, self.runtime.shared.settings.page_bytes)
            .and_then(|blob| self.copy_extents(&blob, &extents).map(|()| blob));
        match copied {
            Ok(blob) => Ok(self.new_blob(blob.bytes, blob.crc, extents).encode()),
            Err(error) => {
                self.runtime.send_flusher(FlusherMessage::Release { extents });
                Err(error)
            }
        }
    }

    fn copy_extents(&self, blob: &BlobDescriptor, targets: &[Extent]) -> Result<()> {
        self.runtime.check_wait()?;
        let page_bytes = self.runtime.shared.settings.page_bytes;
        let nothing = |_: Piece, _: &[u8]| Ok(());
        let mut crc = Crc32c::new();
        let mut sources = Pieces::new(&blob.extents, page_bytes, blob.bytes as usize);
        // What was read and is not written yet: two pieces at most, as extents of both end where they want.
        let mut content = Vec::new();
        for target in Pieces::new(targets, page_bytes, blob.bytes as usize) {
            while content.len() < target.bytes
                && let Some(source) = sources.next()
            {
                self.read_pieces([source], |_, read| {
                    content.extend_from_slice(&read[..source.bytes]);
                    Ok(())
                })?;
            }
            crc.update(&content[..target.bytes]);
            let mut transfers = Transfers::new(self);
            transfers.send(TransferKind::Write, target, &content[..target.bytes], nothing)?;
            transfers.finish(nothing)?;
            content.drain(..target.bytes);
        }
        if crc.value() != blob.crc {
            return Err(wrong_checksum(blob, page_bytes));
        }
        let mut transfers = Transfers::new(self);
        transfers.send_sync();
        transfers.finish(nothing)
    }

    /// Room for a blob's copy below an id, in so many extents at most; none if there is no such room.
    pub(super) fn holes_for(&self, pages: u32, extents_max: u32, below: PageId) -> Result<Vec<Extent>> {
        let (reply, receiver) = oneshot::channel();
        self.runtime.send_flusher(FlusherMessage::HolesRequest {
            pages,
            extents_max,
            below,
            reply,
        });
        self.runtime.wait(receiver, None).ok_or(Error::Closed)
    }

    /// One extent, of at most 1 GiB.
    fn extents_for(&self, pages: usize) -> Result<Vec<Extent>> {
        let (sender, receiver) = oneshot::channel();
        self.runtime.send_flusher(FlusherMessage::ExtentRequest {
            pages: pages as u32,
            waiter: ExtentWaiter::Client(sender),
        });
        self.runtime.wait(receiver, None).unwrap_or(Err(Error::Closed))
    }

    /// A blob that the next group may name at the earliest.
    fn new_blob(&self, bytes: u64, crc: u32, extents: Vec<Extent>) -> BlobDescriptor {
        let shared = &self.runtime.shared;
        let born = with_guard(&shared.memory, |guard| shared.current.load(guard).seq.next());
        BlobDescriptor {
            bytes,
            crc,
            born,
            extents,
        }
    }

    /// Gives back the extents of a blob that no request names.
    pub(super) fn release_blob(&self, descriptor: &[u8]) {
        let extents = blob_extents(descriptor).map(|retired| retired.extent).collect();
        self.runtime.send_flusher(FlusherMessage::Release { extents });
    }

    fn write_extents(&self, value: &[u8], extents: &[Extent], sync: bool) -> Result<()> {
        let page_bytes = self.runtime.shared.settings.page_bytes;
        let nothing = |_: Piece, _: &[u8]| Ok(());
        let mut transfers = Transfers::new(self);
        for piece in Pieces::new(extents, page_bytes, value.len()) {
            let content = &value[piece.start..piece.start + piece.bytes];
            transfers.send(TransferKind::Write, piece, content, nothing)?;
        }
        transfers.finish(nothing)?;
        if sync {
            transfers.send_sync();
        }
        transfers.finish(nothing)
    }

    /// Reads a blob whole. The caller holds a version that reaches it.
    pub(super) fn read_blob(&self, descriptor: &[u8]) -> Result<Value> {
        let mut reading = BlobReading::begin(descriptor, self.runtime.shared.settings.page_bytes)?;
        let pieces = reading.pieces();
        self.read_pieces(pieces, |piece, read| {
            reading.take(piece, read);
            Ok(())
        })?;
        reading.finish()
    }

    /// Hands the bytes of a blob to `take`, in pieces, in order, and up to a block more at the end. The caller holds a
    /// version that reaches it.
    pub(super) fn stream_blob(
        &self,
        blob: &BlobDescriptor,
        take: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let page_bytes = self.runtime.shared.settings.page_bytes;
        let pieces = Pieces::new(&blob.extents, page_bytes, blob.bytes as usize);
        self.read_pieces(pieces, |_, read| take(read))
    }

    fn read_pieces(
        &self,
        pieces: impl IntoIterator<Item = Piece>,
        mut take: impl FnMut(Piece, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.runtime.check_wait()?;
        let mut transfers = Transfers::new(self);
        for piece in pieces {
            transfers.send(TransferKind::Read, piece, &[], &mut take)?;
        }
        transfers.finish(take)
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

/// How a transfer ended, with its buffer.
type Answer = (std::io::Result<()>, Option<AlignedBuffer>);

/// A transfer under way.
struct UnderWay {
    /// `None` for a sync.
    piece: Option<Piece>,
    answer: oneshot::Receiver<Answer>,
    /// For its buffer.
    credit: Option<Credit>,
}

impl UnderWay {
    /// Waits, by `wait`, for the answer. The credit is out until it is there: as long as the buffer is.
    fn end(
        self,
        wait: impl FnOnce(oneshot::Receiver<Answer>) -> Option<Answer>,
    ) -> (Option<Piece>, Option<Answer>) {
        let UnderWay {
            piece,
            answer,
            credit,
        } = self;
        let answer = wait(answer);
        drop(credit);
        (piece, answer)
    }
}

/// Transfers under way, answered in the order in which they were sent.
struct Transfers<'i> {
    inner: &'i Inner,
    under_way: VecDeque<UnderWay>,
}

impl<'i> Transfers<'i> {
    fn new(inner: &'i Inner) -> Transfers<'i> {
        Transfers {
            inner,
            under_way: VecDeque::new(),
        }
    }

    /// Sends a piece, with this content if it is written, as soon as there is credit for its buffer. What is answered
    /// meanwhile goes to `take`.
    fn send(
        &mut self,
        kind: TransferKind,
        piece: Piece,
        content: &[u8],
        mut take: impl FnMut(Piece, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if self.under_way.len() >= PIECES_MAX {
            self.take_one(&mut take)?;
        }
        let runtime = &self.inner.runtime;
        let credit = loop {
            // Who holds credit doesn't wait for more: many clients with a piece each would wait for each other.
            match runtime.credit_now(piece.bytes) {
                None if self.under_way.is_empty() => break runtime.credit(piece.bytes),
                None => self.take_one(&mut take)?,
                credit => break credit,
            }
        };
        let buffer = piece_buffer(piece.bytes, content);
        self.push(kind, Some(piece), Some(buffer), credit);
        Ok(())
    }

    /// Has everything made durable that has been answered.
    fn send_sync(&mut self) {
        self.push(TransferKind::Sync, None, None, None);
    }

    fn push(
        &mut self,
        kind: TransferKind,
        piece: Option<Piece>,
        buffer: Option<AlignedBuffer>,
        credit: Option<Credit>,
    ) {
        let (sender, answer) = oneshot::channel();
        let reply = TransferReply::Client(sender.into());
        self.inner.runtime.send_pager(PagerMessage::Transfer(Transfer {
            kind,
            offset: piece.map_or(0, |piece| piece.offset),
            buffer,
            reply,
        }));
        self.under_way.push_back(UnderWay {
            piece,
            answer,
            credit,
        });
    }

    fn take_one(&mut self, mut take: impl FnMut(Piece, &[u8]) -> Result<()>) -> Result<()> {
        let Some(next) = self.under_way.pop_front() else {
            return Ok(());
        };
        let (piece, answer) = next.end(|answer| self.inner.runtime.wait(answer, None));
        let (result, buffer) = answer.ok_or(Error::Closed)?;
        result.map_err(|error| Error::io("transferring a large value", error))?;
        match (piece, buffer) {
            (Some(piece), Some(buffer)) => take(piece, &buffer),
            _ => Ok(()),
        }
    }

    /// Waits for all that is under way.
    fn finish(&mut self, mut take: impl FnMut(Piece, &[u8]) -> Result<()>) -> Result<()> {
        while !self.under_way.is_empty() {
            self.take_one(&mut take)?;
        }
        Ok(())
    }
}

impl Drop for Transfers<'_> {
    fn drop(&mut self) {
        // Extents must not be given back while writes to them are under way.
        while let Some(next) = self.under_way.pop_front() {
            let _ = next.end(|answer| self.inner.runtime.wait(answer, None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Credits;

    #[test]
    fn credit_is_out_until_the_answer_is_there() {
        let credits = Credits::new(100);
        let (_sender, answer) = oneshot::channel();
        let credit = credits.take(100);
        let under_way = UnderWay {
            piece: None,
            answer,
            credit,
        };
        under_way.end(|_| {
            assert!(credits.take(1).is_none(), "the buffer is still with the device");
            None
        });
        assert!(credits.take(1).is_some(), "it was not given back");
    }
}
