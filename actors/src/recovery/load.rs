//! The last checkpoint: superblocks and image.

use std::path::Path;
use std::sync::Arc;

use treering_engine::catalog::{CatalogError, Directory as Catalog, Partition, TreeState};
use treering_engine::image::{Image, ImageDecoder, ImageSnapshot};
use treering_engine::space::SpaceMap;
use treering_engine::superblock::{self, ChooseError, Slot, Superblock, SuperblockDefect};
use treering_engine::{BLOCK_BYTES, Extent, ShardId};
use treering_io::{AlignedBuffer, File};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::shared::DATA_FILE;

/// Bytes of the image read at a time.
const IMAGE_CHUNK_BYTES: u64 = 1 << 20;

/// What the data file says.
pub(super) struct Loaded {
    /// The slot that the superblock was read from: the other one may be damaged.
    pub slot: Slot,
    pub superblock: Superblock,
    pub catalog: Catalog,
    pub space: SpaceMap,
    pub snapshots: Vec<ImageSnapshot>,
}

/// Reads superblocks and image.
pub(super) fn load(data: &dyn File, path: &Path, options: &Options) -> Result<Loaded> {
    let (slot, superblock) = read_superblock(data, path)?;
    if let Some(asked) = options.page_bytes
        && asked != superblock.page_bytes as usize
    {
        let reason = format!(
            "the database was created with {}, not {asked}",
            superblock.page_bytes
        );
        return Err(Error::InvalidOption {
            option: "page_size",
            reason,
        });
    }
    let page_bytes = superblock.page_bytes as usize;
    options.check_cache(page_bytes, page_bytes)?;
    let bytes = data
        .len()
        .map_err(|error| Error::io(format!("measuring {DATA_FILE}"), error))?;
    let pages = u32::try_from(bytes / u64::from(superblock.page_bytes)).unwrap_or(u32::MAX);
    let Image {
        directory: catalog,
        mut space,
        snapshots,
    } = read_image(data, &superblock)?;
    if snapshots
        .last()
        .is_some_and(|last| last.seq > superblock.checkpoint_seq)
    {
        return Err(image_corrupt(
            &superblock,
            "a named snapshot is younger than the checkpoint",
        ));
    }
    let shards = options.shards_that_fit(superblock.page_bytes as usize);
    let catalog =
        reassign(catalog, shards).map_err(|error| image_corrupt(&superblock, &error.to_string()))?;
    let last = space
        .reachable_runs()
        .chain(
            snapshots
                .iter()
                .flat_map(|snapshot| snapshot.kept.iter().map(|kept| kept.extent)),
        )
        .map(|extent| extent.start.0 + extent.pages)
        .max()
        .unwrap_or(0);
    if last > pages {
        return Err(Error::Corrupt {
            file: DATA_FILE.into(),
            offset: bytes,
            page: Some(pages),
            reason: format!("the file ends here, but pages up to {last} are in use"),
        });
    }
    if pages > space.file_pages() {
        space.grow(pages);
    } else if pages < space.file_pages() {
        space
            .shrink(pages)
            .map_err(|error| image_corrupt(&superblock, &error.to_string()))?;
    }
    for &extent in &superblock.image_extents {
        space
            .reserve(extent)
            .map_err(|error| image_corrupt(&superblock, &error.to_string()))?;
    }
    Ok(Loaded {
        slot,
        superblock,
        catalog,
        space,
        snapshots,
    })
}

/// Gives the partitions of shards that this opening doesn't have to those that it has.
fn reassign(catalog: Catalog, shards: usize) -> std::result::Result<Catalog, CatalogError> {
    let is_foreign = |partition: &Partition| usize::from(partition.owner.0) >= shards;
    let foreign: Vec<Arc<TreeState>> = catalog
        .iter()
        .filter(|tree| tree.partitions.iter().any(is_foreign))
        .map(Arc::clone)
        .collect();
    foreign.into_iter().try_fold(catalog, |catalog, tree| {
        let mut partitions = tree.partitions.to_vec();
        for partition in partitions.iter_mut().filter(|partition| is_foreign(partition)) {
            // Below the number of shards, which is at most 256.
            partition.owner = ShardId((usize::from(partition.owner.0) % shards) as u16);
        }
        catalog.with_tree(TreeState {
            partitions: partitions.into(),
            ..(*tree).clone()
        })
    })
}

fn read_superblock(data: &dyn File, path: &Path) -> Result<(Slot, Superblock)> {
    let bytes = data
        .len()
        .map_err(|error| Error::io(format!("measuring {DATA_FILE}"), error))?;
    let read = |offset: u64| -> Result<std::result::Result<Superblock, SuperblockDefect>> {
        if offset + BLOCK_BYTES as u64 > bytes {
            return Ok(Err(SuperblockDefect::NotTreering));
        }
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        data.read_at(&mut block, offset)
            .map_err(|error| Error::io("reading a superblock", error))?;
        Ok(Superblock::decode(&block))
    };
    let a = read(0)?;
    let b = match &a {
        Ok(a) => read(u64::from(a.page_bytes))?,
        Err(_) => {
            // Slot A can't tell the page size: slot B is right only where its own page size puts it.
            let mut found = Err(SuperblockDefect::NotTreering);
            for offset in superblock::slot_b_offsets() {
                match read(offset)? {
                    Ok(b) if u64::from(b.page_bytes) == offset => {
                        found = Ok(b);
                        break;
                    }
                    Err(
                        defect @ (SuperblockDefect::Checksum | SuperblockDefect::UnsupportedFormat { .. }),
                    ) if found == Err(SuperblockDefect::NotTreering) => {
                        found = Err(defect);
                    }
                    _ => {}
                }
            }
            found
        }
    };
    match superblock::choose(a, b) {
        Ok((slot, superblock)) => {
            tracing::debug!(?slot, write_number = superblock.write_number, "superblock chosen");
            Ok((slot, superblock))
        }
        Err(ChooseError::NotADatabase) => Err(Error::NotADatabase {
            path: path.into(),
            reason: format!("{DATA_FILE} has no superblock"),
        }),
        Err(ChooseError::UnsupportedFormat { found, supported }) => {
            Err(Error::UnsupportedFormat { found, supported })
        }
        Err(error @ ChooseError::Corrupt { .. }) => Err(Error::Corrupt {
            file: DATA_FILE.into(),
            offset: 0,
            page: Some(0),
            reason: error.to_string(),
        }),
    }
}

fn read_image(data: &dyn File, superblock: &Superblock) -> Result<Image> {
    let mut decoder = ImageDecoder::new(superblock.file_pages);
    let mut left = superblock.image_bytes;
    for extent in &superblock.image_extents {
        let start = u64::from(extent.start.0) * u64::from(superblock.page_bytes);
        let length = left.min(u64::from(extent.pages) * u64::from(superblock.page_bytes));
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(IMAGE_CHUNK_BYTES);
            let mut buffer = AlignedBuffer::zeroed((piece as usize).next_multiple_of(BLOCK_BYTES));
            data.read_at(&mut buffer, start + done).map_err(|error| {
                if error.kind() == std::io::ErrorKind::UnexpectedEof {
                    image_corrupt(superblock, "the file ends within the checkpoint image")
                } else {
                    Error::io("reading the checkpoint image", error)
                }
            })?;
            decoder
                .push(&buffer[..piece as usize])
                .map_err(|defect| image_corrupt(superblock, &defect.to_string()))?;
            done += piece;
        }
        left -= length;
    }
    decoder
        .finish(superblock.image_bytes, superblock.image_crc)
        .map_err(|defect| image_corrupt(superblock, &defect.to_string()))
}

fn image_corrupt(superblock: &Superblock, reason: &str) -> Error {
    let first = superblock.image_extents.first().copied().unwrap_or(Extent {
        start: treering_engine::PageId::NONE,
        pages: 0,
    });
    Error::Corrupt {
        file: DATA_FILE.into(),
        offset: u64::from(first.start.0) * u64::from(superblock.page_bytes),
        page: Some(first.start.0),
        reason: format!("checkpoint image: {reason}"),
    }
}

/// One slot, sync, the other slot, sync. `last` is the slot that is known to be good, if one is: it stays until the
/// other one is durable. (Bad run: a crash tears slot B, the next opening writes slot A first, and the power is cut
/// again.)
pub(super) fn write_superblocks(data: &dyn File, superblock: &Superblock, last: Slot) -> Result<()> {
    let failed = |error| Error::io("writing a superblock", error);
    // What contradicts itself could not be opened again.
    superblock
        .validate()
        .map_err(|defect| failed(std::io::Error::other(defect)))?;
    let block = AlignedBuffer::copy_of(&superblock.encode());
    let page_bytes = u64::from(superblock.page_bytes);
    let offsets = match last {
        Slot::B => [0, page_bytes],
        Slot::A => [page_bytes, 0],
    };
    for offset in offsets {
        data.write_at(&block, offset).map_err(failed)?;
        data.sync_data().map_err(failed)?;
    }
    Ok(())
}
