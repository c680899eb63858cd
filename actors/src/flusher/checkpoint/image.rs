//! Stage *image*: catalog, named snapshots and the map of reachable pages, in an extent of their own.

use treering_engine::BLOCK_BYTES;
use treering_engine::image::ImageEncoder;
use treering_io::AlignedBuffer;

use super::{Flusher, Stage};
use crate::actor::Outbox;
use crate::error::Error;
use crate::pager::TransferKind;

/// Bytes of the image written at a time.
const IMAGE_CHUNK_BYTES: usize = 1 << 20;
/// Most of these chunks that are under way.
const IMAGE_CHUNKS_MAX: usize = 4;

impl Flusher {
    /// Finds a place for the image; grows the file if there is none.
    fn place_image(&mut self, outbox: &mut Outbox) {
        let Some(version) = &self.checkpoint.version else {
            return;
        };
        let snapshots = self.image_snapshots(&self.checkpoint.named);
        let image = ImageEncoder::new(version.directory.clone(), snapshots, &self.space);
        let page_bytes = self.shared.settings.page_bytes as u64;
        let Ok(pages) = u32::try_from(image.encoded_bytes(&self.space).div_ceil(page_bytes)) else {
            self.fail(Error::OutOfSpace {
                what: "pages for the checkpoint image".into(),
            });
            return;
        };
        if let Some(extent) = self.space.allocate_contiguous(pages) {
            self.checkpoint.image = Some(image);
            self.checkpoint.image_extents = vec![extent];
            return;
        }
        if !std::mem::replace(&mut self.checkpoint.image_wants_growth, true) {
            // An older failure says nothing of the present: the disk may have room again, and nobody else may ever try.
            // (Bad run: no checkpoint succeeds on a full disk, and when the log is at its longest all writes are refused
            // for that, before any shard runs out of ids; the disk has room again, and checkpoints are still told of the
            // old failure.)
            self.growth_failure = None;
        }
        self.grow(u64::from(pages), outbox);
        if let Some(error) = self.growth_failure.take() {
            self.fail(error);
        }
    }

    pub(super) fn write_image(&mut self, outbox: &mut Outbox) {
        if self.checkpoint.failure.is_some() {
            return;
        }
        if self.checkpoint.image.is_none() && !self.growing {
            self.place_image(outbox);
        }
        let page_bytes = self.shared.settings.page_bytes as u64;
        let Some(extent) = self.checkpoint.image_extents.first().copied() else {
            return;
        };
        loop {
            let Some(image) = self.checkpoint.image.as_mut() else {
                return;
            };
            if image.summary().is_some() {
                break;
            }
            if self.checkpoint.transfers >= IMAGE_CHUNKS_MAX {
                return;
            }
            let mut buffer = AlignedBuffer::zeroed(IMAGE_CHUNK_BYTES);
            let filled = image.fill(&self.space, &mut buffer);
            if filled == 0 {
                continue;
            }
            let offset = u64::from(extent.start.0) * page_bytes + self.checkpoint.image_sent;
            self.checkpoint.image_sent += filled as u64;
            let whole = AlignedBuffer::copy_of(&buffer[..filled.next_multiple_of(BLOCK_BYTES)]);
            self.send(TransferKind::Write, offset, Some(whole), outbox);
        }
        if self.checkpoint.transfers == 0 {
            self.checkpoint.stage = Stage::DataSync;
        }
    }
}
