//! Writing an image.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::{
    BLOCK_BITS, BLOCK_EMPTY, BLOCK_FULL, IMAGE_MAGIC, IMAGE_VERSION, ImageSnapshot, RawImageHeader, RawKept,
    RawPartition, RawSnapshot, RawTree,
};
use crate::catalog::{Directory, TreeState};
use crate::checksum::Crc32c;
use crate::space::{SpaceMap, map_blocks};

/// What the superblock says about an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageSummary {
    /// Its length.
    pub bytes: u64,
    /// Its CRC-32C.
    pub crc: u32,
}

/// What is encoded next.
#[derive(Debug)]
enum Stage {
    Tree,
    Partition { tree: Arc<TreeState>, index: usize },
    Block { index: usize },
    Snapshot { index: usize },
    Kept { index: usize },
    Done,
}

/// Encodes a directory and a frozen space map, piece by piece.
///
/// The map must have been [frozen](SpaceMap::freeze) before, and must stay so until the encoder is done:
/// it is given to each call, so that its owner can go on changing it in between.
#[derive(Debug)]
pub struct ImageEncoder {
    directory: Directory,
    snapshots: Vec<ImageSnapshot>,
    stage: Stage,
    /// Of which snapshot trees are encoded; `None`: those of the checkpoint's version.
    within: Option<usize>,
    last_tree: Option<crate::TreeId>,
    block_count: usize,
    /// Encoded, not yet handed out.
    staged: Vec<u8>,
    taken: usize,
    bytes: u64,
    crc: Crc32c,
}

impl ImageEncoder {
    /// Begins an image of `directory`, of what `space` has frozen, and of the named snapshots, ascending by `seq`.
    #[must_use]
    pub fn new(directory: Directory, snapshots: Vec<ImageSnapshot>, space: &SpaceMap) -> ImageEncoder {
        let (file_pages, reachable_pages) = space.frozen_counts();
        let header = RawImageHeader {
            magic: IMAGE_MAGIC,
            version: IMAGE_VERSION.into(),
            tree_count: (directory.len() as u32).into(),
            reachable_pages: reachable_pages.into(),
            file_pages: file_pages.into(),
            snapshot_count: (snapshots.len() as u32).into(),
        };
        ImageEncoder {
            directory,
            snapshots,
            stage: Stage::Tree,
            within: None,
            last_tree: None,
            block_count: map_blocks(file_pages),
            staged: header.as_bytes().to_vec(),
            taken: 0,
            bytes: 0,
            crc: Crc32c::new(),
        }
    }

    /// How many bytes the whole image will have: what its extents must hold. O(trees of all snapshots + file
    /// pages / 64).
    #[must_use]
    pub fn encoded_bytes(&self, space: &SpaceMap) -> u64 {
        let snapshots: usize = self
            .snapshots
            .iter()
            .map(|snapshot| {
                let kept = snapshot.kept.len() * size_of::<RawKept>();
                size_of::<RawSnapshot>() + snapshot.name.len() + trees_bytes(&snapshot.directory) + kept
            })
            .sum();
        let blocks: usize = (0..self.block_count)
            .map(|index| {
                let words = space.frozen_block(index);
                if block_kind(words) == BLOCK_BITS {
                    1 + size_of_val(words)
                } else {
                    1
                }
            })
            .sum();
        (size_of::<RawImageHeader>() + trees_bytes(&self.directory) + blocks + snapshots) as u64
    }

    /// Writes the next bytes of the image and returns how many: as many as fit, fewer only at the end.
    pub fn fill(&mut self, space: &SpaceMap, target: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < target.len() {
            if self.taken == self.staged.len() && !self.stage_next(space) {
                break;
            }
            let piece = (self.staged.len() - self.taken).min(target.len() - filled);
            target[filled..filled + piece].copy_from_slice(&self.staged[self.taken..self.taken + piece]);
            self.taken += piece;
            filled += piece;
        }
        self.crc.update(&target[..filled]);
        self.bytes += filled as u64;
        filled
    }

    /// Length and checksum of everything written; `None` before the end was reached.
    #[must_use]
    pub fn summary(&self) -> Option<ImageSummary> {
        let done = matches!(self.stage, Stage::Done) && self.taken == self.staged.len();
        done.then(|| ImageSummary {
            bytes: self.bytes,
            crc: self.crc.value(),
        })
    }

    /// Encodes one more item; false when there is none.
    fn stage_next(&mut self, space: &SpaceMap) -> bool {
        self.staged.clear();
        self.taken = 0;
        if let Stage::Partition { tree, index } = &mut self.stage {
            if let Some(partition) = tree.partitions.get(*index) {
                let raw = RawPartition {
                    entries: partition.root.entries.into(),
                    root_id: partition.root.reference.id.0.into(),
                    root_birth: partition.root.reference.birth.into(),
                    owner: partition.owner.0.into(),
                    lower_bytes: (partition.lower.len() as u16).into(),
                    height: partition.root.height,
                };
                self.staged.extend_from_slice(raw.as_bytes());
                self.staged.extend_from_slice(&partition.lower);
                *index += 1;
                return true;
            }
            self.last_tree = Some(tree.id);
            self.stage = Stage::Tree;
        }
        if let Stage::Tree = self.stage {
            let directory = match self.within {
                Some(index) => &self.snapshots[index].directory,
                None => &self.directory,
            };
            if let Some(tree) = directory.next_after(self.last_tree) {
                let raw = RawTree {
                    id: tree.id.0.into(),
                    partition_count: (tree.partitions.len() as u32).into(),
                    name_bytes: (tree.name.len() as u16).into(),
                };
                self.staged.extend_from_slice(raw.as_bytes());
                self.staged.extend_from_slice(tree.name.as_bytes());
                self.stage = Stage::Partition {
                    tree: Arc::clone(tree),
                    index: 0,
                };
                return true;
            }
            self.last_tree = None;
            self.stage = match self.within {
                Some(_) => Stage::Kept { index: 0 },
                None => Stage::Block { index: 0 },
            };
        }
        if let (Stage::Kept { index }, Some(within)) = (&mut self.stage, self.within) {
            if let Some(kept) = self.snapshots[within].kept.get(*index) {
                let raw = RawKept {
                    born: kept.born.0.into(),
                    start: kept.extent.start.0.into(),
                    pages: kept.extent.pages.into(),
                };
                self.staged.extend_from_slice(raw.as_bytes());
                *index += 1;
                return true;
            }
            self.stage = Stage::Snapshot { index: within + 1 };
        }
        if let Stage::Block { index } = &mut self.stage {
            if *index < self.block_count {
                let words = space.frozen_block(*index);
                let kind = block_kind(words);
                self.staged.push(kind);
                if kind == BLOCK_BITS {
                    self.staged
                        .extend(words.iter().flat_map(|word| word.to_le_bytes()));
                }
                *index += 1;
                return true;
            }
            self.stage = Stage::Snapshot { index: 0 };
        }
        if let Stage::Snapshot { index } = self.stage {
            if let Some(snapshot) = self.snapshots.get(index) {
                let raw = RawSnapshot {
                    seq: snapshot.seq.0.into(),
                    kept_count: (snapshot.kept.len() as u64).into(),
                    tree_count: (snapshot.directory.len() as u32).into(),
                    name_bytes: (snapshot.name.len() as u16).into(),
                };
                self.staged.extend_from_slice(raw.as_bytes());
                self.staged.extend_from_slice(snapshot.name.as_bytes());
                self.within = Some(index);
                self.stage = Stage::Tree;
                return true;
            }
            self.stage = Stage::Done;
        }
        false
    }
}

fn trees_bytes(directory: &Directory) -> usize {
    directory
        .iter()
        .map(|tree| {
            let lowers: usize = tree
                .partitions
                .iter()
                .map(|partition| partition.lower.len())
                .sum();
            let partitions = tree.partitions.len() * size_of::<RawPartition>() + lowers;
            size_of::<RawTree>() + tree.name.len() + partitions
        })
        .sum()
}

fn block_kind(words: &[u64]) -> u8 {
    if words.iter().all(|&word| word == 0) {
        BLOCK_EMPTY
    } else if words.iter().all(|&word| word == u64::MAX) {
        BLOCK_FULL
    } else {
        BLOCK_BITS
    }
}
