//! The superblock: from where everything else in a database is found.
//!
//! There are two slots, pages 0 and 1 of the data file, each a block of 4096 bytes at the page's start.
//! A change is written to slot A, synced, written to slot B, synced (rule R17): at any moment one of the
//! two is whole, and [`choose`] takes the newest that is. Magic, format version and checksum stay at
//! their places in every future format, so that an older program can tell "newer" from "damaged". The
//! byte table is in `docs/FORMAT.md`.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::log::{LogPosition, SegmentLayout};
use crate::{BLOCK_BYTES, Extent, Lsn, PAGE_BYTES_MAX, PageId, Seq, Stamp, TreeId};

/// The first bytes of every Treering data file.
pub const SUPERBLOCK_MAGIC: [u8; 8] = *b"TREERING";
/// The format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 2;
/// Most extents that a checkpoint image may be scattered over.
pub const IMAGE_EXTENTS_MAX: usize = 64;
/// Smallest page of a database (tests of pages alone use smaller ones).
pub const DATABASE_PAGE_BYTES_MIN: usize = BLOCK_BYTES;

/// Set when the database was closed cleanly: nothing follows `log_known`.
const FLAG_CLEAN: u32 = 1;
/// The checksum is the last field of the block and covers everything before it.
const CHECKED_BYTES: usize = BLOCK_BYTES - 4;

/// A log position as it is stored.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawPosition {
    pub(crate) lsn: U64,
    pub(crate) generation: U32,
    pub(crate) previous_crc: U32,
}

/// An extent as it is stored.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtent {
    start: U32,
    pages: U32,
}

/// The block as it is stored, without its checksum and the zeros before that.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub(crate) magic: [u8; 8],
    pub(crate) format_version: U32,
    pub(crate) page_bytes: U32,
    pub(crate) database_id: [u8; 16],
    pub(crate) write_number: U64,
    pub(crate) checkpoint_seq: U64,
    pub(crate) log_start: RawPosition,
    pub(crate) log_known: RawPosition,
    pub(crate) next_stamp: U64,
    pub(crate) segment_bytes: U64,
    pub(crate) file_pages: U32,
    pub(crate) next_tree: U32,
    pub(crate) flags: U32,
    pub(crate) image_crc: U32,
    pub(crate) image_bytes: U64,
    pub(crate) image_extent_count: U32,
    pub(crate) image_extents: [RawExtent; IMAGE_EXTENTS_MAX],
}

/// What a superblock says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Bytes of a page; a power of two, fixed when the database is created.
    pub page_bytes: u32,
    /// Random, given when the database is created.
    pub database_id: [u8; 16],
    /// Grows by one with every change of the superblock: the higher slot is the newer one.
    pub write_number: u64,
    /// The version that the checkpoint holds: batches up to it are not replayed.
    pub checkpoint_seq: Seq,
    /// Where replay starts.
    pub log_start: LogPosition,
    /// The log is known to hold, durably, everything before this; and what follows it carries this
    /// generation or a later one. Never before `log_start`. Recovery raises the generation here before it
    /// appends (rule R17).
    pub log_known: LogPosition,
    /// Higher than every batch stamp given until now.
    pub next_stamp: Stamp,
    /// Bytes of a log segment, fixed when the database is created.
    pub segment_bytes: u64,
    /// Pages that the data file has at least, superblock slots included; no fewer than the image's map
    /// covers. It may have grown since, and the image itself may lie in what was added.
    pub file_pages: u32,
    /// Higher than every tree id given until now.
    pub next_tree: TreeId,
    /// Whether the database was closed cleanly: the log ends at `log_known`.
    pub clean: bool,
    /// Where the checkpoint image lies, in order; at most [`IMAGE_EXTENTS_MAX`].
    pub image_extents: Vec<Extent>,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// CRC-32C of the image.
    pub image_crc: u32,
}

/// Why a block is not a superblock that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuperblockDefect {
    /// The magic is missing.
    #[error("this is not a Treering database")]
    NotTreering,
    /// A whole superblock of another format.
    #[error("format {found} is not supported, only {supported}")]
    UnsupportedFormat {
        /// The format found.
        found: u32,
        /// The format that this code reads.
        supported: u32,
    },
    /// The block doesn't match its checksum.
    #[error("the superblock's checksum is wrong")]
    Checksum,
    /// The checksum is right, but the contents make no sense.
    #[error("the superblock is malformed: {0}")]
    Malformed(&'static str),
}

impl Superblock {
    /// What the groups of this database's log carry, so that no other log is mistaken for it.
    #[must_use]
    pub fn log_id(&self) -> u64 {
        let [bytes @ .., _, _, _, _, _, _, _, _] = self.database_id;
        u64::from_le_bytes(bytes)
    }

    /// The segments of the log. `None` only if `segment_bytes` was set to something impossible.
    #[must_use]
    pub fn segment_layout(&self) -> Option<SegmentLayout> {
        SegmentLayout::new(self.segment_bytes)
    }

    /// The block to write. Only what [`validate`](Superblock::validate) accepts can be read again.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut image_extents = [RawExtent {
            start: 0.into(),
            pages: 0.into(),
        }; IMAGE_EXTENTS_MAX];
        for (raw, extent) in image_extents.iter_mut().zip(&self.image_extents) {
            *raw = RawExtent {
                start: extent.start.0.into(),
                pages: extent.pages.into(),
            };
        }
        let raw = RawSuperblock {
            magic: SUPERBLOCK_MAGIC,
            format_version: FORMAT_VERSION.into(),
            page_bytes: self.page_bytes.into(),
            database_id: self.database_id,
            write_number: self.write_number.into(),
            checkpoint_seq: self.checkpoint_seq.0.into(),
            log_start: encode_position(&self.log_start),
            log_known: encode_position(&self.log_known),
            next_stamp: self.next_stamp.0.into(),
            segment_bytes: self.segment_bytes.into(),
            file_pages: self.file_pages.into(),
            next_tree: self.next_tree.0.into(),
            flags: if self.clean { FLAG_CLEAN } else { 0 }.into(),
            image_crc: self.image_crc.into(),
            image_bytes: self.image_bytes.into(),
            image_extent_count: (self.image_extents.len().min(IMAGE_EXTENTS_MAX) as u32).into(),
            image_extents,
        };
        let mut block = [0; BLOCK_BYTES];
        block[..size_of::<RawSuperblock>()].copy_from_slice(raw.as_bytes());
        let crc = crc32c(&block[..CHECKED_BYTES]);
        block[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// If the block is not a whole, sensible superblock of this format.
    pub fn decode(block: &[u8]) -> Result<Superblock, SuperblockDefect> {
        let block: &[u8; BLOCK_BYTES] = block.first_chunk().ok_or(SuperblockDefect::NotTreering)?;
        let Ok((raw, _)) = RawSuperblock::ref_from_prefix(block) else {
            return Err(SuperblockDefect::NotTreering);
        };
        if raw.magic != SUPERBLOCK_MAGIC {
            return Err(SuperblockDefect::NotTreering);
        }
        if crc32c(&block[..CHECKED_BYTES]).to_le_bytes() != block[CHECKED_BYTES..] {
            return Err(SuperblockDefect::Checksum);
        }
        let found = raw.format_version.get();
        if found != FORMAT_VERSION {
            return Err(SuperblockDefect::UnsupportedFormat {
                found,
                supported: FORMAT_VERSION,
            });
        }
        let extents = raw
            .image_extents
            .get(..raw.image_extent_count.get() as usize)
            .ok_or(SuperblockDefect::Malformed("too many image extents"))?;
        let superblock = Superblock {
            page_bytes: raw.page_bytes.get(),
            database_id: raw.database_id,
            write_number: raw.write_number.get(),
            checkpoint_seq: Seq(raw.checkpoint_seq.get()),
            log_start: decode_position(&raw.log_start),
            log_known: decode_position(&raw.log_known),
            next_stamp: Stamp(raw.next_stamp.get()),
            segment_bytes: raw.segment_bytes.get(),
            file_pages: raw.file_pages.get(),
            next_tree: TreeId(raw.next_tree.get()),
            clean: raw.flags.get() & FLAG_CLEAN != 0,
            image_extents: extents
                .iter()
                .map(|raw| Extent {
                    start: PageId(raw.start.get()),
                    pages: raw.pages.get(),
                })
                .collect(),
            image_bytes: raw.image_bytes.get(),
            image_crc: raw.image_crc.get(),
        };
        superblock.validate()?;
        Ok(superblock)
    }

    /// Whether the fields fit together. Check before writing: what fails here could not be opened again.
    ///
    /// # Errors
    /// [`SuperblockDefect::Malformed`] with the first contradiction.
    pub fn validate(&self) -> Result<(), SuperblockDefect> {
        let malformed = |reason| Err(SuperblockDefect::Malformed(reason));
        let page_bytes = self.page_bytes as usize;
        if !page_bytes.is_power_of_two() || !(DATABASE_PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes)
        {
            return malformed("the page size is impossible");
        }
        let Some(layout) = self.segment_layout() else {
            return malformed("the segment size is impossible");
        };
        if self.file_pages < PageId::FIRST.0 {
            return malformed("the file has no room for the superblocks");
        }
        for position in [&self.log_start, &self.log_known] {
            if !position.lsn.0.is_multiple_of(BLOCK_BYTES as u64) || position.lsn < layout.first_lsn() {
                return malformed("a log position is impossible");
            }
        }
        let (start, known) = (&self.log_start, &self.log_known);
        let same_place = start.lsn == known.lsn;
        if known.lsn < start.lsn
            || known.generation < start.generation
            || (same_place && known.previous_crc != start.previous_crc)
        {
            return malformed("the known log ends before replay starts");
        }
        if self.image_extents.len() > IMAGE_EXTENTS_MAX {
            return malformed("too many image extents");
        }
        let mut room = 0;
        for extent in &self.image_extents {
            if extent.pages == 0
                || extent.start < PageId::FIRST
                || extent.start.0.checked_add(extent.pages).is_none()
            {
                return malformed("an image extent is impossible");
            }
            room += u64::from(extent.pages) * u64::from(self.page_bytes);
        }
        if self.image_bytes > room {
            return malformed("the image is longer than its extents");
        }
        Ok(())
    }
}

fn encode_position(position: &LogPosition) -> RawPosition {
    RawPosition {
        lsn: position.lsn.0.into(),
        generation: position.generation.into(),
        previous_crc: position.previous_crc.into(),
    }
}

fn decode_position(raw: &RawPosition) -> LogPosition {
    LogPosition {
        lsn: Lsn(raw.lsn.get()),
        generation: raw.generation.get(),
        previous_crc: raw.previous_crc.get(),
    }
}

/// The two places of a superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// Page 0.
    A,
    /// Page 1.
    B,
}

/// Why a database can't be opened from its superblocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChooseError {
    /// Neither slot carries the magic.
    #[error("this is not a Treering database")]
    NotADatabase,
    /// A slot is of another format; nothing may be guessed from the other one.
    #[error("format {found} is not supported, only {supported}")]
    UnsupportedFormat {
        /// The format found.
        found: u32,
        /// The format that this code reads.
        supported: u32,
    },
    /// It was a database, but neither slot is whole.
    #[error("both superblocks are damaged: {a}; {b}")]
    Corrupt {
        /// What is wrong with slot A.
        a: SuperblockDefect,
        /// What is wrong with slot B.
        b: SuperblockDefect,
    },
}

/// Takes the newest whole superblock of the two slots.
///
/// # Errors
/// If there is none, or if one is of another format: that program's word is newer than ours.
pub fn choose(
    a: Result<Superblock, SuperblockDefect>,
    b: Result<Superblock, SuperblockDefect>,
) -> Result<(Slot, Superblock), ChooseError> {
    for slot in [&a, &b] {
        if let Err(SuperblockDefect::UnsupportedFormat { found, supported }) = *slot {
            return Err(ChooseError::UnsupportedFormat { found, supported });
        }
    }
    match (a, b) {
        (Ok(a), Ok(b)) if b.write_number > a.write_number => Ok((Slot::B, b)),
        (Ok(a), _) => Ok((Slot::A, a)),
        (Err(_), Ok(b)) => Ok((Slot::B, b)),
        (Err(SuperblockDefect::NotTreering), Err(SuperblockDefect::NotTreering)) => {
            Err(ChooseError::NotADatabase)
        }
        (Err(a), Err(b)) => Err(ChooseError::Corrupt { a, b }),
    }
}

/// Where slot B may stand when slot A can't tell the page size: the offset of page 1 for each page size.
/// A superblock found at one of them is right only if its `page_bytes` equals that offset.
pub fn slot_b_offsets() -> impl Iterator<Item = u64> {
    (DATABASE_PAGE_BYTES_MIN.ilog2()..=PAGE_BYTES_MAX.ilog2()).map(|bits| 1 << bits)
}

#[cfg(test)]
#[path = "superblock_tests.rs"]
mod tests;
