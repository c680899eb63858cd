//! Reading an image. The bytes are looked at before their checksum is known, so nothing in them is believed:
//! memory is bounded by the length of what was pushed and by the size of the file.

use std::sync::Arc;

use zerocopy::FromBytes;

use super::{
    BLOCK_BITS, BLOCK_EMPTY, BLOCK_FULL, IMAGE_MAGIC, IMAGE_VERSION, ImageDefect, RawImageHeader,
    RawPartition, RawTree,
};
use crate::catalog::{Directory, Partition, TreeState};
use crate::checksum::Crc32c;
use crate::space::{SpaceMap, block_words, map_blocks};
use crate::tree::Root;
use crate::{PageId, PageRef, ShardId, TreeId};

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
    reachable_pages: u64,
    directory: Directory,
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
            reachable_pages: 0,
            directory: Directory::new(),
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

    /// Ends the image: its trees, and a space map in which exactly the reachable pages are allocated.
    ///
    /// # Errors
    /// If it is not complete, or does not match length and checksum in the superblock.
    pub fn finish(self, bytes: u64, crc: u32) -> Result<(Directory, SpaceMap), ImageDefect> {
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
        Ok((self.directory, self.space))
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
                self.map_pages = raw.file_pages.get();
                self.trees_missing = raw.tree_count.get();
                self.reachable_pages = raw.reachable_pages.get();
                self.stage = after_tree(self.trees_missing, self.map_pages);
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
                    Stage::Done
                };
                Ok(Some(used))
            }
            Stage::Done => Ok(None),
        }
    }

    fn finish_tree(&mut self, tree: TreeState) -> Result<(), ImageDefect> {
        if self.directory.get(tree.id).is_some() {
            return Err(ImageDefect::Malformed("a tree's id occurs twice"));
        }
        self.directory = self
            .directory
            .with_tree(tree)
            .map_err(|_| ImageDefect::Malformed("a tree's name or partitions are impossible"))?;
        self.trees_missing -= 1;
        self.stage = after_tree(self.trees_missing, self.map_pages);
        Ok(())
    }
}

fn after_tree(trees_missing: u32, map_pages: u32) -> Stage {
    if trees_missing > 0 {
        Stage::Tree
    } else if map_blocks(map_pages) > 0 {
        Stage::Block { index: 0 }
    } else {
        Stage::Done
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
    })
}

fn map_error(_: crate::space::SpaceError) -> ImageDefect {
    ImageDefect::Malformed("the map names pages outside the file")
}

/// The fixed part of an item, and what follows it.
fn prefix<T: FromBytes>(bytes: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(bytes).ok()
}
