//! The bytes of gathered records, in chunks that never move.
//!
//! A record is kept as kind, length of its key (u16), length of its value (u16), key, value. Where it lies is one number
//! that grows in log order.

use treering_engine::memory::HugeBytes;

/// Bits of a place that say where in its chunk a record lies.
const OFFSET_BITS: u32 = 22;
pub(super) const CHUNK_BYTES: usize = 1 << OFFSET_BITS;
/// Bytes before a record's key.
const HEADER_BYTES: usize = 5;
/// Bytes that all chunks can hold at most: so no record lies at `u32::MAX`.
pub(super) const CHUNKS_BYTES_MAX: usize = 1 << 30;

/// What a record does to its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Put,
    /// The value is the descriptor of a blob.
    PutBlob,
    Delete,
}

impl Kind {
    fn from_byte(byte: u8) -> Kind {
        match byte {
            0 => Kind::Put,
            1 => Kind::PutBlob,
            _ => Kind::Delete,
        }
    }
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Change<'r> {
    pub kind: Kind,
    pub key: &'r [u8],
    /// Empty if the key is deleted.
    pub value: &'r [u8],
}

/// Memory of its own: from the allocator it would come in small pages, and a fault for each costs as much as all the
/// rest of gathering.
#[derive(Debug)]
struct Chunk {
    memory: HugeBytes,
    used: usize,
}

/// Records, appended one after the other.
#[derive(Debug, Default)]
pub(super) struct Chunks(Vec<Chunk>);

impl Chunks {
    /// Bytes of memory that are in use.
    pub fn bytes(&self) -> usize {
        self.0.len() * CHUNK_BYTES
    }

    /// Appends a record, which must be shorter than a chunk. Gives its place.
    pub fn push(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> u32 {
        let bytes = HEADER_BYTES + key.len() + value.len();
        let full = |chunk: &Chunk| chunk.used + bytes > CHUNK_BYTES;
        if self.0.last().is_none_or(full) {
            self.0.push(Chunk {
                memory: HugeBytes::zeroed(CHUNK_BYTES),
                used: 0,
            });
        }
        let index = self.0.len() - 1;
        let Chunk { memory, used } = &mut self.0[index];
        let at = (index << OFFSET_BITS | *used) as u32;
        let record = &mut memory[*used..*used + bytes];
        record[0] = kind as u8;
        record[1..3].copy_from_slice(&(key.len() as u16).to_le_bytes());
        record[3..5].copy_from_slice(&(value.len() as u16).to_le_bytes());
        let (key_place, value_place) = record[HEADER_BYTES..].split_at_mut(key.len());
        key_place.copy_from_slice(key);
        value_place.copy_from_slice(value);
        *used += bytes;
        at
    }

    /// Makes a record a deletion of its key.
    pub fn make_deletion(&mut self, at: u32) {
        self.0[(at >> OFFSET_BITS) as usize].memory[at as usize % CHUNK_BYTES] = Kind::Delete as u8;
    }

    /// The record's first bytes, and what follows.
    pub fn at(&self, at: u32) -> &[u8] {
        &self.0[(at >> OFFSET_BITS) as usize].memory[at as usize % CHUNK_BYTES..]
    }

    /// The record.
    pub fn change(&self, at: u32) -> Change<'_> {
        let bytes = self.at(at);
        let length = |from: usize| usize::from(u16::from_le_bytes([bytes[from], bytes[from + 1]]));
        let (key, rest) = bytes[HEADER_BYTES..].split_at(length(1));
        Change {
            kind: Kind::from_byte(bytes[0]),
            key,
            value: &rest[..length(3)],
        }
    }

    /// Its key.
    pub fn key(&self, at: u32) -> &[u8] {
        self.change(at).key
    }
}
