//! The mixes of YCSB that the table shows (Cooper et al., "Benchmarking cloud serving systems with
//! YCSB", 2010): zipfian choice, here with 150-byte values and 24-byte keys.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Context, get_checked};
use crate::Result;
use crate::peers::Session;
use crate::workload::{Random, key_of};
use crate::zipfian::Zipfian;

/// A workload of YCSB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Half reads, half updates.
    A,
    /// 95% reads, 5% updates.
    B,
    /// Reads.
    C,
    /// 95% scans of 1 to 100 entries, 5% inserts.
    E,
    /// Half reads, half read-modify-writes.
    F,
}

/// Longest scan of [`Mix::E`].
const SCAN_ENTRIES_MAX: u64 = 100;

/// What the mixes draw from.
#[derive(Debug)]
pub struct Chooser<'c> {
    context: &'c Context,
    zipfian: Zipfian,
    inserted: AtomicU64,
}

impl<'c> Chooser<'c> {
    /// For the records that the rows of `context` load.
    #[must_use]
    pub fn new(context: &'c Context) -> Self {
        Self {
            context,
            zipfian: Zipfian::new(context.settings.records),
            inserted: AtomicU64::new(context.settings.records),
        }
    }

    /// One operation of `mix`.
    ///
    /// # Errors
    /// The engine's, or a wrong answer.
    pub fn operate(&self, mix: Mix, session: &mut dyn Session, random: &mut Random) -> Result<u64> {
        let dice = random.below(100);
        let index = self.zipfian.next_index(random);
        let mut record = || self.context.values.record(index, random.next_u64());
        match mix {
            Mix::A if dice < 50 => session.put(&record())?,
            Mix::B if dice < 5 => session.put(&record())?,
            Mix::F if dice < 50 => session.read_modify_write(&record())?,
            Mix::E if dice < 5 => {
                let new = self.inserted.fetch_add(1, Ordering::Relaxed);
                session.put(&self.context.values.record(new, 0))?;
            }
            Mix::E => {
                let limit = 1 + random.below(SCAN_ENTRIES_MAX);
                let seen = session.scan(&key_of(index), limit)?;
                std::hint::black_box(seen);
            }
            Mix::A | Mix::B | Mix::C | Mix::F => {
                get_checked(session, index)?;
            }
        }
        Ok(1)
    }
}
