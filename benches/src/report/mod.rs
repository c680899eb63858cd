//! Figures, their medians, the targets, and the tables.
//!
//! A figure belongs to a row ([`catalog`]) and a contender. Rounds add figures; the median counts.
//! [`markdown`] writes the tables.

pub mod catalog;
pub mod markdown;

use std::collections::BTreeMap;

pub use catalog::{Goal, Row, Unit};

/// Who a figure belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contender {
    /// Treering.
    Treering,
    /// LMDB by `heed`.
    Lmdb,
    /// redb.
    Redb,
    /// fjall.
    Fjall,
    /// RocksDB.
    RocksDb,
    /// No engine: the device itself, as fast as plain calls drive it.
    Device,
}

impl Contender {
    /// The engines Treering is compared with.
    pub const PEERS: [Self; 4] = [Self::Lmdb, Self::Redb, Self::Fjall, Self::RocksDb];

    /// The name in `PEERS_ENGINES`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Treering => "treering",
            Self::Lmdb => "lmdb",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::RocksDb => "rocksdb",
            Self::Device => "device",
        }
    }

    /// The name in the tables.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Treering => "Treering",
            Self::Lmdb => "LMDB",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::RocksDb => "RocksDB",
            Self::Device => "device",
        }
    }

    /// The engine of that [`Contender::name`].
    #[must_use]
    pub fn engine_named(name: &str) -> Option<Self> {
        let mut engines = std::iter::once(Self::Treering).chain(Self::PEERS);
        engines.find(|engine| engine.name() == name)
    }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Results {
    figures: BTreeMap<(&'static str, Contender), Vec<f64>>,
    sizes: BTreeMap<(&'static str, Contender), Size>,
}

/// What an engine's directory occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Everything, bytes.
    pub total_bytes: u64,
    /// Log files among it, bytes.
    pub log_bytes: u64,
}

impl Results {
    /// Adds a round's figure, in the row's unit.
    pub fn add(&mut self, row: &'static str, contender: Contender, figure: f64) {
        self.figures.entry((row, contender)).or_default().push(figure);
    }

    /// Takes note of what a directory occupies after a row; the last round counts.
    pub fn add_size(&mut self, after: &'static str, contender: Contender, size: Size) {
        self.sizes.insert((after, contender), size);
    }

    /// The median of the rounds: the middle one, or the mean of the middle two.
    #[must_use]
    pub fn median(&self, row: &'static str, contender: Contender) -> Option<f64> {
        let figures = self.figures.get(&(row, contender))?;
        let mut sorted = figures.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            count if count % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        }
    }

    /// How far apart the rounds of a figure lie: (largest - smallest) / median.
    #[must_use]
    pub fn spread(&self, row: &'static str, contender: Contender) -> Option<f64> {
        let figures = self.figures.get(&(row, contender))?;
        let smallest = figures.iter().copied().min_by(f64::total_cmp)?;
        let largest = figures.iter().copied().max_by(f64::total_cmp)?;
        Some((largest - smallest) / self.median(row, contender)?)
    }

    /// What the directory of `contender` occupied after a row.
    #[must_use]
    pub fn size(&self, after: &'static str, contender: Contender) -> Option<Size> {
        self.sizes.get(&(after, contender)).copied()
    }

    /// How many times better Treering's median is than that of `rival`; `None` where a figure is
    /// missing or no merit.
    #[must_use]
    pub fn advantage(&self, row: &Row, rival: Contender) -> Option<f64> {
        if !row.unit.is_a_merit() {
            return None;
        }
        let own = self.median(row.key, Contender::Treering)?;
        let other = self.median(row.key, rival)?;
        Some(if row.unit.smaller_is_better() {
            other / own
        } else {
            own / other
        })
    }

    /// How many times better Treering's median is than the best peer's.
    #[must_use]
    pub fn advantage_over_best(&self, row: &Row) -> Option<f64> {
        Contender::PEERS
            .into_iter()
            .filter_map(|peer| self.advantage(row, peer))
            .min_by(f64::total_cmp)
    }

    /// Whether a goal is reached; `None` when a figure it needs is missing.
    #[must_use]
    pub fn reached(&self, row: &Row, goal: Goal) -> Option<bool> {
        Some(match goal {
            Goal::Over(rival, factor) => self.advantage(row, rival)? >= factor,
            Goal::OverBest(factor) => self.advantage_over_best(row)? >= factor,
            Goal::AtLeast(figure) => self.median(row.key, Contender::Treering)? >= figure,
            Goal::AtMost(figure) => self.median(row.key, Contender::Treering)? <= figure,
        })
    }
}

#[cfg(test)]
mod tests;
