//! Reading an image. The bytes are looked at before their checksum is known, so nothing in them is believed:
//! memory is bounded by the length of what was pushed and by the size of the file.

use std::sync::Arc;

use zerocopy::FromBytes;

use super::{
    BLOCK_BITS, BLOCK_EMPTY, BLOCK_FULL, IMAGE_MAGIC, IMAGE_VERSION, Image, ImageDefect, ImageSnapshot,
    RawImageHeader, RawKept, RawPartition, RawSnapshot, RawTree, SNAPSHOTS_MAX,
};
use crate::catalog::{Directory, Partition, TreeState};
use crate::checksum::Crc32c;
use crate::space::{SpaceMap, block_words, map_blocks};
use crate::tree::{HEIGHT_MAX, Root};
use crate::{Extent, PageId, PageRef, Retired, Seq, ShardId, TreeId};

/// What is expected next.
#[derive(Debug)]
enum Stage {
    Header,
    Tree,
    Partition {
        tree: TreeState,
        partitions: Vec<Partition>,
        missing: u32,
    },
    Block {
        index: usize,
    },
    Snapshot,
    Kept,
    Done,
}

/// Decodes an image from pieces of any size.
#[derive(Debug)]
pub struct ImageDecoder {
    file_pages: u32,
    /// Pages that the map covers; the file may have grown since it was frozen.
    map_pages: u32,
    stage: Stage,
    trees_missing: u32,
    snapshots_missing: u32,
    kept_missing: u64,
    reachable_pages: u64,
    directory: Directory,
    /// The last one is not complete before the next begins.
    snapshots: Vec<ImageSnapshot>,
    space: SpaceMap,
    /// The beginning of an item whose end was not pushed yet.
    pending: Vec<u8>,
    bytes: u64,
    crc: Crc32c,
}

impl ImageDecoder {
    /// Expects the image of a database whose file has at least `file_pages` pages, as the superblock says.
    #[must_use]
    pub fn new(file_pages: u32) -> ImageDecoder {
        ImageDecoder {
            file_pages,
            map_pages: 0,
            stage: Stage::Header,
            trees_missing: 0,
            snapshots_missing: 0,
            kept_missing: 0,
            reachable_pages: 0,
            directory: Directory::new(),
            snapshots: Vec::new(),
            space: SpaceMap::new(file_pages),
            pending: Vec::new(),
            bytes: 0,
            crc: Crc32c::new(),
        }
    }

    /// Takes the next bytes of the image. After a defect the decoder is of no use.
    ///
    /// # Errors
    /// If the bytes can't be part of an image.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ImageDefect> {
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut rest = &pending[..];
        while let Some(used) = self.item(rest)? {
            rest = &rest[used..];
        }
        if matches!(self.stage, Stage::Done) && !rest.is_empty() {
            return Err(ImageDefect::Length);
        }
        let used = pending.len() - rest.len();
        pending.drain(..used);
        self.pending = pending;
        Ok(())
    }

    /// Ends the image.
    ///
    /// # Errors
    /// If it is not complete, or does not match length and checksum in the superblock.
    pub fn finish(self, bytes: u64, crc: u32) -> Result<Image, ImageDefect> {
        if self.bytes != bytes {
            return Err(ImageDefect::Length);
        }
        if self.crc.value() != crc {
            return Err(ImageDefect::Checksum);
        }
        if !matches!(self.stage, Stage::Done) {
            return Err(ImageDefect::Length);
        }
        if self.space.reachable_pages() != self.reachable_pages {
            return Err(ImageDefect::Malformed(
                "the map's count of reachable pages is wrong",
            ));
        }
        Ok(Image {
            directory: self.directory,
            space: self.space,
            snapshots: self.snapshots,
        })
    }

    /// Takes one item from the start of `bytes` and returns its length; `None` if it is not complete.
    fn item(&mut self, bytes: &[u8]) -> Result<Option<usize>, ImageDefect> {
        match &mut self.stage {
            Stage::Header => {
                let Some((raw, _)) = prefix::<RawImageHeader>(bytes) else {
                    return Ok(None);
                };
                if raw.magic != IMAGE_MAGIC {
                    return Err(ImageDefect::NotAnImage);
                }
                if raw.version.get() != IMAGE_VERSION {
                    return Err(ImageDefect::Version {
                        found: raw.version.get(),
                    });
                }
                if raw.file_pages.get() > self.file_pages {
                    return Err(ImageDefect::Malformed("the map is of a larger file"));
                }
                if raw.snapshot_count.get() as usize > SNAPSHOTS_MAX {
                    return Err(ImageDefect::Malformed("too many named snapshots"));
                }
                self.map_pages = raw.file_pages.get();
                self.trees_missing = raw.tree_count.get();
                self.snapshots_missing = raw.snapshot_count.get();
                self.reachable_pages = raw.reachable_pages.get();
                self.stage = self.after_tree();
                Ok(Some(size_of::<RawImageHeader>()))
            }
            Stage::Tree => {
                let Some((raw, rest)) = prefix::<RawTree>(bytes) else {
                    return Ok(None);
                };
                let Some(name) = rest.get(..raw.name_bytes.get().into()) else {
                    return Ok(None);
                };
                let text = std::str::from_utf8(name)
                    .map_err(|_| ImageDefect::Malformed("a tree's name is not UTF-8"))?;
                let missing = raw.partition_count.get();
                if missing == 0 {
                    return Err(ImageDefect::Malformed("a tree has no partition"));
                }
                let tree = TreeState {
                    id: TreeId(raw.id.get()),
                    name: Arc::from(text),
                    partitions: Arc::from([]),
                };
                let used = size_of::<RawTree>() + name.len();
                self.stage = Stage::Partition {
                    tree,
                    partitions: Vec::new(),
                    missing,
                };
                Ok(Some(used))
            }
            Stage::Partition {
                tree,
                partitions,
                missing,
            } => {
                let Some((raw, rest)) = prefix::<RawPartition>(bytes) else {
                    return Ok(None);
                };
                let Some(lower) = rest.get(..raw.lower_bytes.get().into()) else {
                    return Ok(None);
                };
                let used = size_of::<RawPartition>() + lower.len();
                partitions.push(decode_partition(&raw, lower, self.file_pages)?);
                *missing -= 1;
                if *missing == 0 {
                    let tree = TreeState {
                        partitions: std::mem::take(partitions).into(),
                        ..tree.clone()
                    };
                    self.finish_tree(tree)?;
                }
                Ok(Some(used))
            }
            Stage::Block { index } => {
                let Some((&kind, rest)) = bytes.split_first() else {
                    return Ok(None);
                };
                let words = block_words(self.map_pages, *index);
                let used = match kind {
                    BLOCK_EMPTY => 1,
                    BLOCK_FULL => {
                        self.space
                            .load_block(*index, std::iter::repeat_n(u64::MAX, words))
                            .map_err(map_error)?;
                        1
                    }
                    BLOCK_BITS => {
                        let Some(bits) = rest.get(..words * 8) else {
                            return Ok(None);
                        };
                        let words = bits.chunks_exact(8).map(|word| {
                            u64::from_le_bytes([
                                word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
                            ])
                        });
                        self.space.load_block(*index, words).map_err(map_error)?;
                        1 + bits.len()
                    }
                    _ => return Err(ImageDefect::Malformed("an unknown kind of map block")),
                };
                let next = *index + 1;
                self.stage = if next < map_blocks(self.map_pages) {
                    Stage::Block { index: next }
                } else {
                    self.after_snapshot()
                };
                Ok(Some(used))
            }
            Stage::Snapshot => {
                let Some((raw, rest)) = prefix::<RawSnapshot>(bytes) else {
                    return Ok(None);
                };
                let Some(name) = rest.get(..raw.name_bytes.get().into()) else {
                    return Ok(None);
                };
                let used = size_of::<RawSnapshot>() + name.len();
                let name = std::str::from_utf8(name)
                    .map_err(|_| ImageDefect::Malformed("a snapshot's name is not UTF-8"))?;
                self.begin_snapshot(&raw, name)?;
                Ok(Some(used))
            }
            Stage::Kept => {
                let Some((raw, _)) = prefix::<RawKept>(bytes) else {
                    return Ok(None);
                };
                self.keep(&raw)?;
                Ok(Some(size_of::<RawKept>()))
            }
            Stage::Done => Ok(None),
        }
    }

    fn begin_snapshot(&mut self, raw: &RawSnapshot, name: &str) -> Result<(), ImageDefect> {
        let seq = Seq(raw.seq.get());
        if self.snapshots.last().is_some_and(|last| last.seq > seq) {
            return Err(ImageDefect::Malformed("snapshots are out of order"));
        }
        if name.is_empty() || self.snapshots.iter().any(|other| &*other.name == name) {
            return Err(ImageDefect::Malformed(
                "a snapshot's name is missing or occurs twice",
            ));
        }
        self.snapshots.push(ImageSnapshot {
            name: Arc::from(name),
            seq,
            directory: Directory::new(),
            kept: Vec::new(),
        });
        self.snapshots_missing -= 1;
        self.trees_missing = raw.tree_count.get();
        self.kept_missing = raw.kept_count.get();
        self.stage = self.after_tree();
        Ok(())
    }

    fn keep(&mut self, raw: &RawKept) -> Result<(), ImageDefect> {
        let extent = Extent {
            start: PageId(raw.start.get()),
            pages: raw.pages.get(),
        };
        let born = Seq(raw.born.get());
        // Neither reachable nor kept by another one.
        self.space.reserve(extent).map_err(|_| {
            ImageDefect::Malformed("a snapshot keeps pages that are outside the file or not its own")
        })?;
        if let Some(snapshot) = self.snapshots.last_mut() {
            if born > snapshot.seq {
                return Err(ImageDefect::Malformed(
                    "a snapshot keeps pages younger than itself",
                ));
            }
            snapshot.kept.push(Retired { extent, born });
        }
        self.kept_missing -= 1;
        if self.kept_missing == 0 {
            self.stage = self.after_snapshot();
        }
        Ok(())
    }

    fn finish_tree(&mut self, tree: TreeState) -> Result<(), ImageDefect> {
        let directory = match self.snapshots.last_mut() {
            Some(snapshot) => &mut snapshot.directory,
            None => &mut self.directory,
        };
        if directory.get(tree.id).is_some() {
            return Err(ImageDefect::Malformed("a tree's id occurs twice"));
        }
        *directory = directory
            .with_tree(tree)
            .map_err(|_| ImageDefect::Malformed("a tree's name or partitions are impossible"))?;
        self.trees_missing -= 1;
        self.stage = self.after_tree();
        Ok(())
    }

    fn after_tree(&self) -> Stage {
        if self.trees_missing > 0 {
            Stage::Tree
        } else if self.snapshots.is_empty() && map_blocks(self.map_pages) > 0 {
            Stage::Block { index: 0 }
        } else if self.kept_missing > 0 {
            Stage::Kept
        } else {
            self.after_snapshot()
        }
    }

    fn after_snapshot(&self) -> Stage {
        if self.snapshots_missing > 0 {
            Stage::Snapshot
        } else {
            Stage::Done
        }
    }
}

fn decode_partition(raw: &RawPartition, lower: &[u8], file_pages: u32) -> Result<Partition, ImageDefect> {
    let reference = PageRef {
        id: PageId(raw.root_id.get()),
        birth: raw.root_birth.get(),
    };
    let root = Root {
        reference,
        height: raw.height,
        entries: raw.entries.get(),
    };
    if usize::from(root.height) > HEIGHT_MAX {
        return Err(ImageDefect::Malformed("a tree is higher than any can be"));
    }
    if reference.is_none() != (root.height == 0) {
        return Err(ImageDefect::Malformed(
            "a root and its height contradict each other",
        ));
    }
    if !reference.is_none() && !(PageId::FIRST.0..file_pages).contains(&reference.id.0) {
        return Err(ImageDefect::Malformed("a root lies outside the file"));
    }
    Ok(Partition {
        lower: Arc::from(lower),
        root,
        owner: ShardId(raw.owner.get()),
        moved: 0,
    })
}

fn map_error(_: crate::space::SpaceError) -> ImageDefect {
    ImageDefect::Malformed("the map names pages outside the file")
}

/// The fixed part of an item, and what follows it.
fn prefix<T: FromBytes>(bytes: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(bytes).ok()
}
