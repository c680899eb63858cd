//! A simulated file's bytes: what is durable, and above it what isn't yet.
//!
//! Per block of 4096 bytes there is a durable layer (absent: zeros) and, in the order of their writes, layers
//! that no sync has covered. A layer has a mask of the 512-byte sectors that it holds. The live content of a
//! sector is the newest layer that holds it; a power cut picks any of them, or the durable one.

use std::collections::{BTreeMap, BTreeSet};

use super::random::Random;

/// The unit that a device writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

const BLOCK_BYTES: usize = crate::BLOCK_BYTES;

/// All sectors of a block.
const WHOLE_BLOCK: u8 = u8::MAX;

type BlockBytes = Box<[u8; BLOCK_BYTES]>;

/// A write that no sync has covered, within one block.
#[derive(Clone, Debug)]
struct Layer {
    /// Number of the write; larger is newer.
    sequence: u64,
    /// Bit i: sector i of the block is in this layer.
    sectors: u8,
    /// Made by a truncation: follows the length, see [`Content::grow`].
    of_truncation: bool,
    bytes: BlockBytes,
}

impl Layer {
    fn of(sequence: u64, sectors: u8, of_truncation: bool, bytes: BlockBytes) -> Self {
        Self {
            sequence,
            sectors,
            of_truncation,
            bytes,
        }
    }

    /// Copies those sectors of a part that are in this layer.
    fn read(&self, part: &Part, target: &mut [u8]) {
        let range = part.within..part.within + part.count;
        if self.sectors & sectors_of(part) == sectors_of(part) {
            target.copy_from_slice(&self.bytes[range]);
            return;
        }
        let sectors = target
            .chunks_exact_mut(SECTOR_BYTES)
            .zip(self.bytes[range].chunks_exact(SECTOR_BYTES));
        for (index, (to, from)) in sectors.enumerate() {
            if self.sectors & (1 << (part.within / SECTOR_BYTES + index)) != 0 {
                to.copy_from_slice(from);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Block {
    durable: BlockBytes,
    /// What each sector held durably before what it holds now, for stale reads.
    previous: BlockBytes,
    layers: Vec<Layer>,
}

impl Block {
    fn new() -> Self {
        let zeros = Box::new([0; BLOCK_BYTES]);
        Self {
            durable: zeros.clone(),
            previous: zeros,
            layers: Vec::new(),
        }
    }

    /// Copies the live bytes of a part.
    fn read(&self, part: &Part, target: &mut [u8]) {
        target.copy_from_slice(&self.durable[part.within..part.within + part.count]);
        for layer in &self.layers {
            layer.read(part, target);
        }
    }

    /// Copies what each sector of a part held before its newest write.
    fn read_stale(&self, part: &Part, target: &mut [u8]) {
        target.copy_from_slice(&self.previous[part.within..part.within + part.count]);
        let mut below = Layer::of(0, WHOLE_BLOCK, false, self.durable.clone());
        for layer in &self.layers {
            below.sectors = layer.sectors;
            below.read(part, target);
            copy_sectors(&mut below.bytes, &layer.bytes, layer.sectors);
        }
    }

    /// Moves a layer's sectors to the durable content and hides older layers there.
    fn settle(&mut self, index: usize) {
        let mut layer = self.layers.remove(index);
        self.replace_durable(&mut layer.bytes, layer.sectors);
        for older in &mut self.layers[..index] {
            older.sectors &= !layer.sectors;
        }
        self.layers.retain(|layer| layer.sectors != 0);
    }

    /// Puts sectors of `bytes` in place of the durable ones, which become the previous ones.
    fn replace_durable(&mut self, bytes: &mut BlockBytes, sectors: u8) {
        if sectors == WHOLE_BLOCK {
            std::mem::swap(&mut self.durable, bytes);
            std::mem::swap(&mut self.previous, bytes);
            return;
        }
        copy_sectors(&mut self.previous, &self.durable, sectors);
        copy_sectors(&mut self.durable, bytes, sectors);
    }

    /// Keeps each unsynced sector with a chance of `keep`, newest first, and drops what isn't kept.
    fn draw(&mut self, keep_parts_per_million: u32, random: &mut Random) {
        let mut layers = std::mem::take(&mut self.layers);
        for sector in 0..u8::BITS {
            let bit = 1 << sector;
            let mut holders = layers.iter_mut().rev().filter(|layer| layer.sectors & bit != 0);
            if let Some(kept) = holders.find(|_| random.chance(keep_parts_per_million)) {
                self.replace_durable(&mut kept.bytes, bit);
            }
        }
    }
}

fn copy_sectors(to: &mut [u8; BLOCK_BYTES], from: &[u8; BLOCK_BYTES], sectors: u8) {
    if sectors == WHOLE_BLOCK {
        to.copy_from_slice(from);
        return;
    }
    for sector in (0..8).filter(|sector| sectors & (1 << sector) != 0) {
        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        to[range.clone()].copy_from_slice(&from[range]);
    }
}

/// A file's bytes and length. Offsets and lengths of transfers are multiples of [`SECTOR_BYTES`].
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    live_len: u64,
    durable_len: u64,
    /// By number; a missing block is zeros everywhere.
    blocks: BTreeMap<u64, Block>,
    /// Numbers of the blocks that have layers.
    unsynced: BTreeSet<u64>,
}

/// The part of a transfer that lies in one block.
struct Part {
    number: u64,
    within: usize,
    count: usize,
}

fn parts(offset: u64, len: usize) -> impl Iterator<Item = Part> {
    let end = offset + len as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        let (number, within) = (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize);
        let count = (BLOCK_BYTES - within).min((end - at) as usize);
        at += count as u64;
        (count > 0).then_some(Part {
            number,
            within,
            count,
        })
    })
}

fn sectors_of(part: &Part) -> u8 {
    let first = part.within / SECTOR_BYTES;
    let end = (part.within + part.count) / SECTOR_BYTES;
    (first..end).fold(0, |sectors, sector| sectors | 1 << sector)
}

impl Content {
    /// Live length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.live_len
    }

    /// Copies live bytes; the caller has checked the length.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) {
        self.read_with(offset, buffer, Block::read);
    }

    /// Copies what the sectors held before their last write.
    pub(super) fn read_stale(&self, offset: u64, buffer: &mut [u8]) {
        self.read_with(offset, buffer, Block::read_stale);
    }

    fn read_with(&self, offset: u64, buffer: &mut [u8], read: impl Fn(&Block, &Part, &mut [u8])) {
        let mut rest = buffer;
        for part in parts(offset, rest.len()) {
            let (target, after) = rest.split_at_mut(part.count);
            match self.blocks.get(&part.number) {
                Some(block) => read(block, &part, target),
                None => target.fill(0),
            }
            rest = after;
        }
    }

    /// Writes live bytes, extending the live length. `lands` says of each sector, counted from the write's start,
    /// whether it is carried out.
    pub(super) fn write(
        &mut self,
        sequence: u64,
        offset: u64,
        bytes: &[u8],
        mut lands: impl FnMut(usize) -> bool,
    ) {
        let mut rest = bytes;
        let mut sector = 0;
        for part in parts(offset, bytes.len()) {
            let (source, after) = rest.split_at(part.count);
            rest = after;
            let mut sectors = 0;
            let covered = sectors_of(&part);
            for bit in (0..8).filter(|bit| covered & (1 << bit) != 0) {
                sectors |= u8::from(lands(sector)) << bit;
                sector += 1;
            }
            if sectors == 0 {
                continue;
            }
            let block = self.blocks.entry(part.number).or_insert_with(Block::new);
            let mut layer_bytes = Box::new([0; BLOCK_BYTES]);
            layer_bytes[part.within..part.within + part.count].copy_from_slice(source);
            block.layers.push(Layer {
                sequence,
                sectors,
                of_truncation: false,
                bytes: layer_bytes,
            });
            self.unsynced.insert(part.number);
        }
        self.live_len = self.live_len.max(offset + bytes.len() as u64);
    }

    /// Makes the write `sequence`, which covers `offset..offset + len`, durable by itself.
    pub(super) fn settle_write(&mut self, sequence: u64, offset: u64, len: usize) {
        for part in parts(offset, len) {
            let Some(block) = self.blocks.get_mut(&part.number) else {
                continue;
            };
            if let Some(index) = block.layers.iter().position(|layer| layer.sequence == sequence) {
                block.settle(index);
            }
            if block.layers.is_empty() {
                self.unsynced.remove(&part.number);
            }
        }
        self.durable_len = self.durable_len.max(offset + len as u64).min(self.live_len);
    }

    /// Makes all writes before `sequence_end`, and the length, durable.
    pub(super) fn sync(&mut self, sequence_end: u64) {
        self.unsynced.retain(|number| {
            let Some(block) = self.blocks.get_mut(number) else {
                return false;
            };
            while block
                .layers
                .first()
                .is_some_and(|layer| layer.sequence < sequence_end)
            {
                block.settle(0);
            }
            !block.layers.is_empty()
        });
        self.durable_len = self.live_len;
        self.drop_beyond(self.durable_len);
    }

    /// A sync that failed: each unsynced sector is durable now, or gone.
    pub(super) fn lose(&mut self, random: &mut Random) {
        for number in std::mem::take(&mut self.unsynced) {
            if let Some(block) = self.blocks.get_mut(&number) {
                block.draw(500_000, random);
            }
        }
        self.durable_len = self.live_len;
        self.drop_beyond(self.durable_len);
    }

    /// What a power cut leaves, each unsynced sector kept with the given chance.
    pub(super) fn power_cut(&mut self, keep_parts_per_million: u32, random: &mut Random) {
        for number in std::mem::take(&mut self.unsynced) {
            if let Some(block) = self.blocks.get_mut(&number) {
                block.draw(keep_parts_per_million, random);
            }
        }
        if self.live_len != self.durable_len && random.chance(keep_parts_per_million) {
            self.durable_len = self.live_len;
        }
        self.live_len = self.durable_len;
        self.drop_beyond(self.durable_len);
    }

    /// Extends to `len` durably. A truncation before becomes durable with it, or the old bytes could come back.
    pub(super) fn grow(&mut self, len: u64) {
        self.unsynced.retain(|number| {
            let Some(block) = self.blocks.get_mut(number) else {
                return false;
            };
            while let Some(index) = block.layers.iter().position(|layer| layer.of_truncation) {
                block.settle(index);
            }
            !block.layers.is_empty()
        });
        self.live_len = self.live_len.max(len);
        self.durable_len = self.live_len;
    }

    /// Shortens the live content to `len`, a multiple of the sector.
    pub(super) fn truncate(&mut self, sequence: u64, len: u64) {
        let first = len / BLOCK_BYTES as u64;
        for (number, block) in self.blocks.range_mut(first..) {
            let within = if *number == first {
                (len % BLOCK_BYTES as u64) as usize
            } else {
                0
            };
            let sectors = WHOLE_BLOCK << (within / SECTOR_BYTES);
            let bytes = Box::new([0; BLOCK_BYTES]);
            block.layers.push(Layer {
                sequence,
                sectors,
                of_truncation: true,
                bytes,
            });
            self.unsynced.insert(*number);
        }
        self.live_len = len;
    }

    /// Overwrites `0..len` (whole blocks) with durable zeros, extending to `len`.
    pub(super) fn prefill(&mut self, len: u64) {
        let kept = self.blocks.split_off(&(len / BLOCK_BYTES as u64));
        self.blocks = kept;
        self.unsynced = self.unsynced.split_off(&(len / BLOCK_BYTES as u64));
        self.grow(len);
    }

    /// Flips one bit of the stored live content.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let number = offset / BLOCK_BYTES as u64;
        let within = (offset % BLOCK_BYTES as u64) as usize;
        let block = self.blocks.entry(number).or_insert_with(Block::new);
        let sector = 1_u8 << (within / SECTOR_BYTES);
        let top = block
            .layers
            .iter_mut()
            .rev()
            .find(|layer| layer.sectors & sector != 0);
        let bytes = match top {
            Some(layer) => &mut layer.bytes,
            None => &mut block.durable,
        };
        bytes[within] ^= 1 << (bit % 8);
    }

    /// Forgets durable bytes beyond `len`, unless an unsynced write covers them.
    fn drop_beyond(&mut self, len: u64) {
        let first = len / BLOCK_BYTES as u64;
        let beyond: Vec<u64> = self.blocks.range(first..).map(|(number, _)| *number).collect();
        for number in beyond
            .into_iter()
            .filter(|number| !self.unsynced.contains(number))
        {
            let within = if number == first {
                (len % BLOCK_BYTES as u64) as usize
            } else {
                0
            };
            match self.blocks.get_mut(&number) {
                Some(block) if within > 0 => block.durable[within..].fill(0),
                _ => drop(self.blocks.remove(&number)),
            }
        }
    }
}
