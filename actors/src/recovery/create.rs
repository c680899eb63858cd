//! A new database: written under another name, and renamed when it is whole.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use treering_engine::catalog::Directory as Catalog;
use treering_engine::image::ImageEncoder;
use treering_engine::log::segment::{segment_file_name, segment_file_number};
use treering_engine::log::{LogPosition, SegmentHeader, SegmentLayout};
use treering_engine::space::SpaceMap;
use treering_engine::superblock::{Slot, Superblock};
use treering_engine::{BLOCK_BYTES, Extent, PageId, Seq, Stamp, TreeId};
use treering_io::{AlignedBuffer, Directory, File};

use super::load::write_superblocks;
use crate::client::BACKUP_FILE;
use crate::error::{Error, Result};
use crate::options::{Options, PAGE_BYTES_DEFAULT};
use crate::shared::DATA_FILE;

/// Name of the data file until it is complete.
const UNFINISHED_FILE: &str = "data.new";
/// Name of the lock file.
const LOCK_FILE: &str = "lock";
/// Pages of a new data file.
const FILE_PAGES: u32 = 256;

/// Refuses directories that hold anything but what an interrupted creation leaves.
pub(crate) fn check_empty(path: &Path, names: &[String]) -> Result<()> {
    let foreign = names.iter().find(|name| {
        let left_behind = [LOCK_FILE, UNFINISHED_FILE, BACKUP_FILE].contains(&name.as_str());
        !left_behind && segment_file_number(name).is_none()
    });
    if let Some(name) = foreign {
        let reason = format!("it has no file {DATA_FILE:?}, but {name:?}");
        return Err(Error::NotADatabase {
            path: path.into(),
            reason,
        });
    }
    let segment = names.iter().find(|name| segment_file_number(name).is_some());
    if let Some(name) = segment
        && !names.iter().any(|name| name == UNFINISHED_FILE)
    {
        let reason = format!("the file {DATA_FILE:?} is missing beside {name:?}");
        return Err(Error::NotADatabase {
            path: path.into(),
            reason,
        });
    }
    Ok(())
}

/// What a new database begins with.
pub(crate) struct Content {
    pub catalog: Catalog,
    /// The commit group after which it was like that.
    pub seq: Seq,
    /// Higher than the stamps of all pages.
    pub next_stamp: Stamp,
    /// Higher than the ids of all trees that there ever were.
    pub next_tree: TreeId,
    /// That many pages from the first one on are in use: nodes and blobs.
    pub pages: u32,
}

/// Creates the files of an empty database, which is called `database_id`.
pub(super) fn create(directory: &dyn Directory, options: &Options, database_id: [u8; 16]) -> Result<()> {
    let page_bytes = options.page_bytes.unwrap_or(PAGE_BYTES_DEFAULT);
    options.check_cache(page_bytes, page_bytes)?;
    create_with(
        directory,
        page_bytes as u32,
        options.log_segment_bytes,
        database_id,
        |_| {
            Ok(Content {
                catalog: Catalog::new(),
                seq: Seq(0),
                next_stamp: Stamp(1),
                next_tree: TreeId(1),
                pages: 0,
            })
        },
    )
}

/// Creates the files of a database, whose pages `fill` writes.
pub(crate) fn create_with(
    directory: &dyn Directory,
    page_bytes: u32,
    segment_bytes: u64,
    database_id: [u8; 16],
    fill: impl FnOnce(&dyn File) -> Result<Content>,
) -> Result<()> {
    let failed = |error| Error::io("creating the database", error);
    let mut superblock = initial_superblock(page_bytes, segment_bytes, database_id);
    // What an earlier attempt has left is used again: removed and created, its name could be lost on the way.
    let file = directory.open_or_create(UNFINISHED_FILE).map_err(failed)?;
    file.truncate(0).map_err(failed)?;
    // This name says that the creation was interrupted: it is there before any other one can be.
    directory.sync().map_err(failed)?;
    let content = fill(&*file)?;
    create_segment(directory, &superblock)?;
    write_image(&*file, content, &mut superblock)?;
    write_superblocks(&*file, &superblock, Slot::B)?;
    directory.rename(UNFINISHED_FILE, DATA_FILE).map_err(failed)?;
    directory.sync().map_err(failed)
}

/// The superblock of an empty database, without an image.
pub(super) fn initial_superblock(page_bytes: u32, segment_bytes: u64, database_id: [u8; 16]) -> Superblock {
    let first_lsn = SegmentLayout::new(segment_bytes)
        .map(SegmentLayout::first_lsn)
        .unwrap_or_default();
    let start = LogPosition {
        lsn: first_lsn,
        generation: 1,
        previous_crc: 0,
    };
    Superblock {
        page_bytes,
        database_id,
        write_number: 1,
        checkpoint_seq: Seq(0),
        log_start: start,
        log_known: start,
        next_stamp: Stamp(1),
        segment_bytes,
        file_pages: FILE_PAGES,
        next_tree: TreeId(1),
        clean: true,
        image_extents: Vec::new(),
        image_bytes: 0,
        image_crc: 0,
    }
}

fn create_segment(directory: &dyn Directory, superblock: &Superblock) -> Result<()> {
    let failed = |error| Error::io("creating the first log segment", error);
    let name = segment_file_name(0);
    let segment = directory.open_or_create(&name).map_err(failed)?;
    segment.prefill(superblock.segment_bytes).map_err(failed)?;
    let header = SegmentHeader {
        log_id: superblock.log_id(),
        number: 0,
        segment_bytes: superblock.segment_bytes,
    };
    segment
        .write_at(&AlignedBuffer::copy_of(&header.encode()), 0)
        .map_err(failed)?;
    segment.sync_data().map_err(failed)?;
    directory.sync().map_err(failed)
}

/// Writes the image behind the pages, and says so in the superblock.
fn write_image(file: &dyn File, content: Content, superblock: &mut Superblock) -> Result<()> {
    let failed = |error| Error::io("writing the first checkpoint image", error);
    let page_bytes = superblock.page_bytes as usize;
    let start = PageId::FIRST.0 + content.pages;
    let mut space = SpaceMap::new(start);
    if content.pages > 0 {
        let extent = Extent {
            start: PageId::FIRST,
            pages: content.pages,
        };
        let marked = space.reserve(extent).and_then(|()| space.mark_reachable(extent));
        marked.map_err(|error| failed(std::io::Error::other(error)))?;
    }
    space.freeze();
    let mut image = ImageEncoder::new(content.catalog, Vec::new(), &space);
    let bytes = image.encoded_bytes(&space) as usize;
    let pages = bytes.div_ceil(page_bytes) as u32;
    // One byte longer, so that filling it ends the image.
    let mut buffer = AlignedBuffer::zeroed((bytes + 1).next_multiple_of(BLOCK_BYTES));
    let filled = image.fill(&space, &mut buffer);
    let Some(summary) = image.summary() else {
        unreachable!("the buffer is longer than the image")
    };
    superblock.file_pages = FILE_PAGES.max(start + pages);
    let file_bytes = u64::from(superblock.file_pages) * page_bytes as u64;
    file.grow(file_bytes).map_err(failed)?;
    file.truncate(file_bytes).map_err(failed)?;
    let written = &buffer[..filled.next_multiple_of(BLOCK_BYTES)];
    file.write_at(written, u64::from(start) * page_bytes as u64)
        .map_err(failed)?;
    superblock.checkpoint_seq = content.seq;
    superblock.next_stamp = content.next_stamp;
    superblock.next_tree = content.next_tree;
    superblock.image_extents = vec![Extent {
        start: PageId(start),
        pages,
    }];
    superblock.image_bytes = summary.bytes;
    superblock.image_crc = summary.crc;
    Ok(())
}

/// An id that no other database has: the standard library's per-process random keys, hashed with the time.
pub(crate) fn random_id() -> [u8; 16] {
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let mut id = [0; 16];
    for half in id.chunks_exact_mut(8) {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(time);
        half.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    id
}
