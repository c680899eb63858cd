//! What the threads of the killed process do, computable again by the process that judges it.
//!
//! Operation `index` of a thread depends on nothing but the seed, the thread and the index. Each thread works on keys
//! of its own, one operation at a time: so whoever knows how many operations a thread has finished knows what all of
//! its keys must hold.

use std::collections::BTreeMap;

/// Trees that every thread writes to.
pub const TREES: [&str; 2] = ["left", "right"];
/// Keys that each thread has in each tree.
const KEYS: u64 = 300;

/// A write: tree, key, and the new value or `None` for a removal.
pub type Change = (usize, Vec<u8>, Option<Vec<u8>>);

/// One acknowledged step of a thread: its changes become durable together.
pub struct Operation {
    pub changes: Vec<Change>,
}

/// What a thread's keys hold, by tree and key.
pub type State = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

/// A small generator with good enough bits (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The prefix of all keys of a thread.
pub fn prefix(thread: u64) -> Vec<u8> {
    format!("{thread:03}/").into_bytes()
}

impl Operation {
    /// The operation that `thread` does at place `index`.
    pub fn at(seed: u64, thread: u64, index: u64) -> Operation {
        let mut random = Random(seed ^ (thread << 48) ^ index.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let count = match random.below(10) {
            0 => 2 + random.below(30),
            _ => 1,
        };
        let mut changes = Vec::new();
        for _ in 0..count {
            let tree = random.below(TREES.len() as u64) as usize;
            let mut key = prefix(thread);
            key.extend_from_slice(&random.below(KEYS).to_be_bytes());
            let length = match random.below(40) {
                // Far beyond a quarter of a page: a blob.
                0 => 2_000 + random.below(30_000),
                _ => random.below(400),
            };
            let value = (random.below(6) > 0).then(|| value(&mut random, length));
            changes.push((tree, key, value));
        }
        Operation { changes }
    }

    /// Does to `state` what the operation does to the database.
    pub fn apply(&self, state: &mut State) {
        for (tree, key, value) in &self.changes {
            match value {
                Some(value) => state.insert((*tree, key.clone()), value.clone()),
                None => state.remove(&(*tree, key.clone())),
            };
        }
    }
}

fn value(random: &mut Random, length: u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(length as usize + 8);
    while value.len() < length as usize {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(length as usize);
    value
}

/// What a child tells its parent, in one write to a pipe: never torn, never mixed with another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Whether everything up to the operation is durable, or only visible.
    pub durable: bool,
    pub thread: u64,
    /// Operations that the thread has finished.
    pub finished: u64,
}

impl Report {
    pub const BYTES: usize = 24;

    pub fn encode(self) -> [u8; Report::BYTES] {
        let mut bytes = [0; Report::BYTES];
        bytes[..8].copy_from_slice(&u64::from(self.durable).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.thread.to_le_bytes());
        bytes[16..].copy_from_slice(&self.finished.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; Report::BYTES]) -> Report {
        let word = |at: usize| {
            bytes[at..]
                .first_chunk()
                .map_or(0, |word| u64::from_le_bytes(*word))
        };
        Report {
            durable: word(0) == 1,
            thread: word(8),
            finished: word(16),
        }
    }
}
