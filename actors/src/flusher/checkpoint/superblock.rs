//! The stages from *data sync* on: the data is durable, then the log up to the version, then both superblocks.

use std::sync::Arc;

use treering_engine::Stamp;
use treering_engine::image::ImageEncoder;
use treering_engine::log::LogPosition;
use treering_engine::superblock::{Slot, Superblock};
use treering_io::AlignedBuffer;

use super::{Flusher, Stage};
use crate::actor::{Nanos, Outbox};
use crate::commit::CommitMessage;
use crate::error::{Error, Result};
use crate::flusher::{STAMPS_RESERVED, STAMPS_RESERVED_CLOSING};
use crate::pager::TransferKind;
use crate::shared::DATA_FILE;

impl Flusher {
    /// A transfer of the checkpoint has ended.
    pub(in crate::flusher) fn transferred(
        &mut self,
        result: std::io::Result<()>,
        now: Nanos,
        outbox: &mut Outbox,
    ) {
        self.checkpoint.transfers -= 1;
        let stage = self.checkpoint.stage;
        if result.is_ok()
            && let Some(cause) = self.shared.status.cause()
        {
            // A failed sync, whoever asked for it, may have lost what this checkpoint has written; its own syncs may
            // succeed all the same. (Bad run: a blob's sync fails and takes a page with it, the checkpoint's sync
            // succeeds, and a superblock names the page.)
            self.fail(Error::Poisoned { cause });
            return;
        }
        if let Err(error) = result {
            if let Stage::Slot(_) | Stage::SlotSync(_) = stage {
                // Nobody knows which superblock is on disk now (rule R17).
                self.shared.status.poison(&Arc::new(error));
                let cause = self
                    .shared
                    .status
                    .cause()
                    .unwrap_or_else(|| Arc::new(std::io::Error::other("?")));
                self.fail(Error::Poisoned { cause });
            } else {
                self.fail(Error::io(format!("writing a checkpoint to {DATA_FILE}"), error));
            }
            return;
        }
        match stage {
            Stage::DataSync => {
                self.checkpoint.stage = Stage::LogSync;
                if self.shared.settings.log {
                    let token = self.checkpoint.token;
                    outbox.commit.push(CommitMessage::SyncForCheckpoint { token });
                } else if let Some(version) = &self.checkpoint.version {
                    let position = version.position;
                    self.log_synced(Ok(position), outbox);
                }
            }
            Stage::Slot(slot) => {
                self.checkpoint.stage = Stage::SlotSync(slot);
                self.send(TransferKind::Sync, 0, None, outbox);
            }
            Stage::SlotSync(Slot::A) => self.write_slot(Slot::B, outbox),
            Stage::SlotSync(Slot::B) => self.end_checkpoint(now, outbox),
            Stage::Idle | Stage::Walking | Stage::Writing | Stage::Image | Stage::LogSync => {}
        }
    }

    /// What the next superblock reserves: until the one after it, no stamp reaches that.
    fn reserved_stamps(&self, closing: bool) -> Stamp {
        let reserved = if closing {
            STAMPS_RESERVED_CLOSING
        } else {
            STAMPS_RESERVED
        };
        Stamp(self.next_stamp + reserved)
    }

    /// Whether half of the stamps that the superblock reserves is used up: then it is time for the next one, however
    /// little there is to write.
    pub(super) fn stamps_run_out(&self, now: Nanos) -> bool {
        self.next_stamp + STAMPS_RESERVED / 2 > self.superblock.next_stamp.0
            && !self.shared.settings.in_memory
            && !self.superblock.clean
            && now >= self.retry_at
    }

    /// The log is durable up to the version (rule R17): the superblock may name it.
    pub(in crate::flusher) fn log_synced(&mut self, result: Result<LogPosition>, outbox: &mut Outbox) {
        if self.checkpoint.stage != Stage::LogSync {
            return;
        }
        let Some(version) = self.checkpoint.version.clone() else {
            return;
        };
        match result {
            Err(error) => {
                self.fail(error);
                self.checkpoint.stage = Stage::Writing;
            }
            Ok(known) => {
                self.checkpoint.log_known = Some(known);
                let Some(image) = self.checkpoint.image.as_ref().and_then(ImageEncoder::summary) else {
                    return;
                };
                let next = Superblock {
                    write_number: self.superblock.write_number + 1,
                    checkpoint_seq: version.seq,
                    log_start: version.position,
                    log_known: known,
                    next_stamp: self.reserved_stamps(self.checkpoint.closing),
                    file_pages: self.space.frozen_counts().0,
                    next_tree: version.next_tree,
                    // Who closes has drained and synced everything, and refuses what comes.
                    clean: self.checkpoint.closing,
                    image_extents: self.checkpoint.image_extents.clone(),
                    image_bytes: image.bytes,
                    image_crc: image.crc,
                    ..self.superblock.clone()
                };
                // What contradicts itself could not be opened again.
                if let Err(defect) = next.validate() {
                    self.fail(Error::io("making a superblock", std::io::Error::other(defect)));
                    self.checkpoint.stage = Stage::Writing;
                    return;
                }
                self.checkpoint.next = Some(next);
                self.write_slot(Slot::A, outbox);
            }
        }
    }

    fn write_slot(&mut self, slot: Slot, outbox: &mut Outbox) {
        let Some(superblock) = &self.checkpoint.next else {
            return;
        };
        let buffer = AlignedBuffer::copy_of(&superblock.encode());
        let offset = match slot {
            Slot::A => 0,
            Slot::B => self.shared.settings.page_bytes as u64,
        };
        self.checkpoint.stage = Stage::Slot(slot);
        self.send(TransferKind::Write, offset, Some(buffer), outbox);
    }
}
