//! The groups of rows, and what they share.

pub mod beyond;
pub mod cached;
pub mod durable;
pub mod recovery;
pub mod ycsb;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Result;
use crate::disk;
use crate::measure::{self, Plan, Sample};
use crate::peers::{self, Profile, Promise, Store};
use crate::report::markdown::format_figure;
use crate::report::{Contender, Results, Size, catalog};
use crate::settings::Settings;
use crate::workload::{
    KEY_BYTES, Key, RECORD_BYTES, Random, Record, VALUE_BYTES, Value, Values, index_of, key_of,
};

/// What every group needs.
#[derive(Debug)]
pub struct Context {
    /// The options.
    pub settings: Settings,
    /// The engines to run.
    pub engines: Vec<Contender>,
    /// Makes values.
    pub values: Values,
}

impl Context {
    /// Checks the wanted engines against those that are built.
    ///
    /// # Errors
    /// When an engine was asked for that this build lacks.
    pub fn new(settings: Settings) -> Result<Self> {
        let built = peers::built();
        let engines = if settings.engines.is_empty() {
            built
        } else {
            let missing = settings.engines.iter().find(|name| !built.contains(name));
            if let Some(missing) = missing {
                return Err(format!("{} is not part of this build", missing.title()).into());
            }
            settings.engines.clone()
        };
        fs::create_dir_all(&settings.directory)?;
        Ok(Self {
            settings,
            engines,
            values: Values::default(),
        })
    }

    /// The engines in the order of a round: each round begins with another one.
    pub fn turn(&self, round: u32) -> impl Iterator<Item = Contender> + '_ {
        let count = self.engines.len().max(1);
        let first = round as usize % count;
        self.engines
            .iter()
            .cycle()
            .skip(first)
            .take(self.engines.len())
            .copied()
    }

    /// A new value for one of the first `records` records, chosen uniformly.
    pub fn update(&self, records: u64, random: &mut Random) -> Record {
        let index = random.below(records);
        self.values.record(index, random.next_u64())
    }

    /// A fresh directory for a database.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn directory(&self, engine: Contender) -> Result<TempDir> {
        Ok(tempfile::Builder::new()
            .prefix(engine.name())
            .tempdir_in(&self.settings.directory)?)
    }

    /// The profile of the rows where everything fits in memory.
    #[must_use]
    pub fn profile_cached(&self, promise: Promise) -> Profile {
        Profile {
            promise,
            cache_bytes: cache_bytes_ample(self.settings.records),
            direct: false,
            keep_log: false,
            records: self.settings.records,
        }
    }

    /// How a row with that many threads is run.
    #[must_use]
    pub fn plan(&self, threads: u64, round: u32) -> Plan {
        Plan {
            threads,
            warm_up: self.settings.warm_up(),
            window: self.settings.row_time,
            seed: u64::from(round) + 1,
            latencies: false,
        }
    }
}

/// A cache that holds every engine's data and its garbage.
#[must_use]
pub fn cache_bytes_ample(records: u64) -> u64 {
    const LEAST: u64 = 256 << 20;
    (records * RECORD_BYTES * 4).max(LEAST)
}

/// An open store with the directory that it lives in.
pub struct Opened {
    /// Which engine.
    pub engine: Contender,
    /// The store.
    pub store: Box<dyn Store>,
    directory: TempDir,
}

impl fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Opened")
            .field("engine", &self.engine)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Opened {
    /// Opens a fresh database.
    ///
    /// # Errors
    /// The engine's.
    pub fn fresh(context: &Context, engine: Contender, profile: &Profile) -> Result<Self> {
        let directory = context.directory(engine)?;
        Ok(Self {
            engine,
            store: peers::open(engine, directory.path(), profile)?,
            directory,
        })
    }

    /// Where the database lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Closes the database and removes it.
    ///
    /// # Errors
    /// The engine's.
    pub fn remove(self) -> Result<()> {
        self.store.close()?;
        Ok(self.directory.close()?)
    }

    /// Closes the database and keeps its directory.
    ///
    /// # Errors
    /// The engine's.
    pub fn close(self) -> Result<TempDir> {
        self.store.close()?;
        Ok(self.directory)
    }

    /// Takes note of what the directory occupies now.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn note_size(&self, results: &mut Results, after: &'static str) -> Result<Size> {
        let size = size_of(self.engine, self.path())?;
        results.add_size(after, self.engine, size);
        Ok(size)
    }
}

/// The stores in the order of a round.
pub fn turns<'s>(context: &'s Context, stores: &'s [Opened], round: u32) -> impl Iterator<Item = &'s Opened> {
    context
        .turn(round)
        .filter_map(move |engine| stores.iter().find(|opened| opened.engine == engine))
}

/// Lets every engine finish its background work and takes note of the sizes.
///
/// # Errors
/// The engines'.
pub fn settle(results: &mut Results, stores: &[Opened], row: &'static str) -> Result<()> {
    for opened in stores {
        opened.store.settle()?;
        opened.note_size(results, row)?;
    }
    Ok(())
}

/// What the directory of an engine occupies.
///
/// # Errors
/// When it can't be read.
pub fn size_of(engine: Contender, directory: &Path) -> Result<Size> {
    Ok(Size {
        total_bytes: disk::bytes_allocated(directory, |_| true)?,
        log_bytes: disk::bytes_allocated(directory, |path| peers::is_log(engine, path))?,
    })
}

/// Adds a figure and says so.
pub fn note(results: &mut Results, row: &'static str, contender: Contender, figure: f64) {
    let unit = catalog::row_named(row).map(|row| row.unit);
    let shown = unit.map_or_else(|| figure.to_string(), |unit| format_figure(figure, unit));
    eprintln!("{row:<22} {:<9} {shown}", contender.title());
    results.add(row, contender, figure);
}

/// Runs a row's operation and adds its rate.
///
/// # Errors
/// The operation's.
pub fn timed(
    results: &mut Results,
    row: &'static str,
    opened: &Opened,
    plan: Plan,
    operation: &measure::Operation<'_>,
) -> Result<Sample> {
    let sample = measure::run(&*opened.store, plan, operation)
        .map_err(|error| format!("{row} of {}: {error}", opened.engine.title()))?;
    note(results, row, opened.engine, sample.rate);
    Ok(sample)
}

/// Gets a record that is there and checks that it is the right one.
///
/// # Errors
/// The engine's, or a wrong answer.
#[inline]
pub fn get_checked(session: &mut dyn peers::Session, index: u64) -> Result<u64> {
    let mut value = [0; VALUE_BYTES];
    if !session.get(&key_of(index), &mut value)? {
        return Err(format!("record {index} is missing").into());
    }
    check(index, &value)?;
    Ok(1)
}

#[inline]
fn check(index: u64, value: &Value) -> Result<()> {
    if index_of(value) != index {
        return Err(format!("record {index} has the value of {}", index_of(value)).into());
    }
    Ok(())
}

/// Gets as many records as `keys` holds, chosen by `next_index`, in one call.
///
/// # Errors
/// The engine's, or a wrong answer.
pub fn get_many_checked<const COUNT: usize>(
    session: &mut dyn peers::Session,
    mut next_index: impl FnMut() -> u64,
) -> Result<u64> {
    let mut indices = [0; COUNT];
    let mut keys: [Key; COUNT] = [[0; KEY_BYTES]; COUNT];
    let mut values = [[0; VALUE_BYTES]; COUNT];
    for (index, key) in indices.iter_mut().zip(&mut keys) {
        *index = next_index();
        *key = key_of(*index);
    }
    if session.get_many(&keys, &mut values)? != COUNT as u64 {
        return Err("records are missing".into());
    }
    for (&index, value) in indices.iter().zip(&values) {
        check(index, value)?;
    }
    Ok(COUNT as u64)
}

/// Where a build's bench keeps its databases unless told otherwise.
#[must_use]
pub fn default_directory(target_directory: &str) -> PathBuf {
    Path::new(target_directory).join("peers")
}
