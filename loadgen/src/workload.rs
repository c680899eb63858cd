//! What is done: the YCSB core workloads and five plain ones, as shares of operations and a request
//! distribution.
//!
//! | workload | operations | records |
//! |---|---|---|
//! | `a` | 50% read, 50% update | zipfian |
//! | `b` | 95% read, 5% update | zipfian |
//! | `c` | read | zipfian |
//! | `d` | 95% read, 5% insert | latest |
//! | `e` | 95% scan of 1 to `scan-length` records (uniform), 5% insert | zipfian starts |
//! | `f` | 50% read, 50% read-modify-write | zipfian |
//! | `put` | put (new or overwriting) | uniform |
//! | `get` | read | uniform |
//! | `scan` | scan, as in `e` | uniform starts |
//! | `load` | every record once, in batches | in turn |
//!
//! An update writes the whole value; a read-modify-write is one atomic `update` at the record's owner.

use std::fmt;

use crate::random::Xoshiro256;

/// A workload by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Workload {
    /// YCSB A: update heavy.
    A,
    /// YCSB B: read mostly.
    B,
    /// YCSB C: read only.
    C,
    /// YCSB D: read the latest.
    D,
    /// YCSB E: short ranges.
    E,
    /// YCSB F: read-modify-write.
    F,
    /// Random puts; needs no records to be there.
    Put,
    /// Random reads, all records alike.
    Get,
    /// Random short ranges.
    Scan,
    /// Bulk load; ends when every record is in.
    Load,
}

/// What one operation does; latencies are kept apart by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OperationKind {
    /// Read one record.
    Read,
    /// Overwrite one record (or create it, in `put`).
    Update,
    /// Create the next record.
    Insert,
    /// Read records in key order.
    Scan,
    /// Change one record by a closure that runs at its owner.
    ReadModifyWrite,
    /// Write one record as part of a batch.
    Load,
}

impl OperationKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [OperationKind; 6] = [
        OperationKind::Read,
        OperationKind::Update,
        OperationKind::Insert,
        OperationKind::Scan,
        OperationKind::ReadModifyWrite,
        OperationKind::Load,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OperationKind::Read => "read",
            OperationKind::Update => "update",
            OperationKind::Insert => "insert",
            OperationKind::Scan => "scan",
            OperationKind::ReadModifyWrite => "read_modify_write",
            OperationKind::Load => "load",
        }
    }
}

/// How records are picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// [`crate::distribution::Chooser::Uniform`].
    Uniform,
    /// [`crate::distribution::ScrambledZipfian`].
    Zipfian,
    /// [`crate::distribution::Latest`].
    Latest,
}

/// Shares of operations in percent.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    shares: &'static [(OperationKind, u8)],
}

impl Mix {
    /// Draws what to do next.
    pub fn choose(self, random: &mut Xoshiro256) -> OperationKind {
        let [(first, _), rest @ ..] = self.shares else {
            return OperationKind::Read;
        };
        if rest.is_empty() {
            return *first;
        }
        let mut drawn = random.below(100) as u8;
        for &(kind, share) in self.shares {
            if drawn < share {
                return kind;
            }
            drawn -= share;
        }
        *first
    }

    /// Whether `kind` has a share.
    #[must_use]
    pub fn includes(self, kind: OperationKind) -> bool {
        self.shares.iter().any(|&(included, _)| included == kind)
    }

    /// Whether all it does is read single records.
    #[must_use]
    pub fn only_reads(self) -> bool {
        self.shares.iter().all(|&(kind, _)| kind == OperationKind::Read)
    }
}

impl Workload {
    /// Shares of its operations.
    #[must_use]
    pub fn mix(self) -> Mix {
        use OperationKind::{Insert, Load, Read, ReadModifyWrite, Scan, Update};
        let shares: &'static [(OperationKind, u8)] = match self {
            Workload::A => &[(Read, 50), (Update, 50)],
            Workload::B => &[(Read, 95), (Update, 5)],
            Workload::C | Workload::Get => &[(Read, 100)],
            Workload::D => &[(Read, 95), (Insert, 5)],
            Workload::E => &[(Scan, 95), (Insert, 5)],
            Workload::F => &[(Read, 50), (ReadModifyWrite, 50)],
            Workload::Put => &[(Update, 100)],
            Workload::Scan => &[(Scan, 100)],
            Workload::Load => &[(Load, 100)],
        };
        Mix { shares }
    }

    /// How its records are picked.
    #[must_use]
    pub fn access(self) -> Access {
        match self {
            Workload::A | Workload::B | Workload::C | Workload::E | Workload::F => Access::Zipfian,
            Workload::D => Access::Latest,
            Workload::Put | Workload::Get | Workload::Scan | Workload::Load => Access::Uniform,
        }
    }

    /// Whether the records must be there before it starts.
    #[must_use]
    pub fn needs_records(self) -> bool {
        !matches!(self, Workload::Put | Workload::Load)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Workload::A => "a",
            Workload::B => "b",
            Workload::C => "c",
            Workload::D => "d",
            Workload::E => "e",
            Workload::F => "f",
            Workload::Put => "put",
            Workload::Get => "get",
            Workload::Scan => "scan",
            Workload::Load => "load",
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn shares_are_whole_and_kept() {
        for &workload in Workload::value_variants() {
            let mix = workload.mix();
            assert_eq!(
                mix.shares.iter().map(|&(_, share)| u32::from(share)).sum::<u32>(),
                100,
                "{workload}"
            );
            let mut random = Xoshiro256::new(21, 0);
            let mut counts = [0u32; OperationKind::ALL.len()];
            for _ in 0..100_000 {
                counts[mix.choose(&mut random) as usize] += 1;
            }
            for kind in OperationKind::ALL {
                let share = mix
                    .shares
                    .iter()
                    .find(|&&(shared, _)| shared == kind)
                    .map_or(0, |&(_, share)| share);
                // Six standard deviations of a fair coin thrown 100,000 times are 949.
                assert!(
                    counts[kind as usize].abs_diff(u32::from(share) * 1000) < 949,
                    "{workload} {counts:?}"
                );
                assert_eq!(mix.includes(kind), share > 0);
            }
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for &workload in Workload::value_variants() {
            let value = workload.to_possible_value().expect("no workload is hidden");
            assert_eq!(value.get_name(), workload.to_string());
        }
    }
}
