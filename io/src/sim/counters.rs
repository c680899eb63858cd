//! What has happened on a simulated disk: counts, and a hash of it all.

/// How often each action was carried out, and how much it moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounters {
    /// Reads.
    pub reads: u64,
    /// Bytes asked for by reads.
    pub read_bytes: u64,
    /// Writes, durable ones too.
    pub writes: u64,
    /// Durable writes.
    pub durable_writes: u64,
    /// Bytes given to writes.
    pub written_bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Growths.
    pub grows: u64,
    /// Prefills.
    pub prefills: u64,
    /// Truncations.
    pub truncates: u64,
    /// Files created.
    pub creates: u64,
    /// Files removed.
    pub removes: u64,
    /// Files renamed.
    pub renames: u64,
    /// Syncs of the directory.
    pub directory_syncs: u64,
    /// Faults that struck, by probability or on demand.
    pub faults: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Writes whose buffer had changed while they were in flight: errors of the system under test.
    pub changed_buffers: u64,
}

/// An order-dependent hash of everything that happened. Not for adversaries, only for comparing runs.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    hash: u64,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self {
            hash: 0xCBF2_9CE4_8422_2325,
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn number(&mut self, number: u64) {
        self.hash = (self.hash ^ number)
            .wrapping_mul(0x0000_0100_0000_01B3)
            .rotate_left(23);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        // Four lanes, so that a page costs a fraction of a microsecond.
        let mut lanes = [1_u64, 2, 3, 4];
        let (groups, rest) = bytes.as_chunks::<32>();
        for group in groups {
            let (words, _none) = group.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane = mix(*lane, u64::from_le_bytes(*word));
            }
        }
        for lane in lanes {
            self.number(lane);
        }
        for byte in rest {
            self.number(u64::from(*byte));
        }
    }
}

fn mix(hash: u64, number: u64) -> u64 {
    (hash ^ number)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(23)
}
