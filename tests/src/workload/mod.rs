//! Several clients with random operations on a simulated database, with power cuts, all from one seed.
//!
//! A run has several *lives*: open, work, and an end by a power cut (at some step, or between two operations) or a
//! clean close. After each opening everything is read and compared with the model, every tree is checked, and every
//! page must have exactly one owner.

mod answers;
mod copy;
mod follow;
mod history;
mod life;
mod named;
mod operations;
mod profile;
mod reads;
mod writes;

use std::collections::BTreeMap;

use treering::sim::Planted;
use treering_io::{FaultRates, SimDirectory, SimOptions};

use crate::model::{Model, Need};
use crate::random::Random;

pub use profile::Profile;

/// What a run is like, beside its seed.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// A bug to bring in.
    pub planted: Planted,
    /// Faults of the disk, by prefix of file names.
    pub faults: Vec<(&'static str, FaultRates)>,
    /// Faults of the disk that the comparison knows nothing of: they must be found.
    pub lies: Vec<(&'static str, FaultRates)>,
    /// Whether the faults are silent: then what was acknowledged may be gone, but nothing may be wrong.
    pub silent: bool,
    /// Bytes that the disk holds.
    pub capacity_bytes: Option<u64>,
}

impl Setting {
    /// Whether requests may be refused because of the disk.
    fn can_refuse(&self) -> bool {
        !self.faults.is_empty() || self.capacity_bytes.is_some()
    }
}

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Hash over everything that was done to the disk.
    pub trace_hash: u64,
    /// Steps of the simulation.
    pub steps: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Operations that were answered.
    pub operations: u64,
    /// Operations that were refused because of faults.
    pub refused: u64,
    /// Pages evicted.
    pub evictions: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Records replayed.
    pub replayed: u64,
    /// Pages that compactions moved.
    pub relocated: u64,
    /// Ranges that went to another shard.
    pub moves: u64,
    /// Neighbouring partitions that were joined.
    pub joins: u64,
}

impl Outcome {
    /// Adds what another run did. Hashes are joined, whatever the order.
    pub fn add(&mut self, other: &Outcome) {
        self.trace_hash ^= other.trace_hash;
        self.steps += other.steps;
        self.power_cuts += other.power_cuts;
        self.operations += other.operations;
        self.refused += other.refused;
        self.evictions += other.evictions;
        self.checkpoints += other.checkpoints;
        self.replayed += other.replayed;
        self.relocated += other.relocated;
        self.moves += other.moves;
        self.joins += other.joins;
    }
}

/// Runs one seed.
///
/// # Errors
/// What was wrong, in words.
///
/// # Panics
/// Where the database does, or where it waits for ever.
pub fn run(seed: u64, setting: &Setting) -> Result<Outcome, String> {
    let mut random = Random::new(seed);
    let profile = Profile::draw(&mut random);
    let disk = SimDirectory::with_options(SimOptions {
        capacity_bytes: None,
        delay_nanos: profile.delay_nanos.clone(),
        ..SimOptions::new(random.word())
    });
    let mut run = Run {
        setting: setting.clone(),
        profile,
        random,
        disk,
        model: Model::new(setting.can_refuse()),
        created: Vec::new(),
        passing: life::Passing::default(),
        named: BTreeMap::new(),
        outcome: Outcome::default(),
    };
    for life in 0..run.profile.lives {
        run.live(life)
            .map_err(|error| format!("seed {seed}, life {life}: {error}"))?;
    }
    run.disk.clear_faults();
    run.disk.set_capacity(None);
    run.last_look()
        .map_err(|error| format!("seed {seed}, at the end: {error}"))?;
    run.outcome.trace_hash = run.disk.trace_hash();
    run.outcome.power_cuts = run.disk.counters().power_cuts;
    Ok(run.outcome)
}

/// A run under way.
struct Run {
    setting: Setting,
    profile: Profile,
    random: Random,
    disk: SimDirectory,
    model: Model,
    /// Trees whose creation was acknowledged.
    created: Vec<bool>,
    passing: life::Passing,
    /// Named snapshots that may be there.
    named: BTreeMap<String, life::Named>,
    outcome: Outcome,
}

impl Run {
    fn has_faults(&self) -> bool {
        self.setting.can_refuse()
    }

    /// What recovery must bring back.
    fn need(&self) -> Need {
        if self.setting.silent {
            Need::Nothing
        } else {
            Need::Durable
        }
    }
}
