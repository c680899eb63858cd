//! The database on a simulated disk, in one thread, from one seed: for tests.
//!
//! The actors, the recovery and the clients are the ones of real databases; only what drives them differs (see
//! `runtime/sim`). Nothing here is covered by the promises of the public interface.

mod check;
mod script;

use std::path::Path;

use treering_io::{Directory, SimDirectory};

use crate::client::{Backup, Chain, Db, IncrementalBackup, Snapshot, Transaction};
use crate::error::Result;
use crate::options::Options;
use crate::recovery::{self, SIMULATED_PATH};
use crate::runtime::Sim;
use crate::ticket::Ticket;

pub use crate::runtime::{Planted, SimOptions, Turn};
pub use check::check;
pub use script::{Mail, give, hold, let_go, mail, owner, take};

/// Opens or creates the database on a simulated disk. Limits of [`Options`] are not checked.
///
/// # Errors
/// As [`Options::open`].
pub fn open(disk: &SimDirectory, options: &Options, simulation: SimOptions) -> Result<Db> {
    let sim = Sim::new(disk, simulation);
    Ok(Db::start(recovery::open_simulated(disk, options, sim)?, None))
}

/// Copies what a snapshot shows to another simulated disk, as [`Snapshot::backup`] does to a directory.
///
/// # Errors
/// As [`Db::backup`].
pub fn backup(snapshot: &Snapshot, disk: &SimDirectory) -> Result<Backup> {
    snapshot.backup_into(disk, recovery::SIMULATED_ID)
}

/// Writes what changed since `base` to another simulated disk, as [`Snapshot::backup_since`] does to a directory.
///
/// # Errors
/// As [`Snapshot::backup_since`].
pub fn backup_since(snapshot: &Snapshot, base: &Snapshot, disk: &SimDirectory) -> Result<IncrementalBackup> {
    snapshot.write_changes(base, disk)
}

/// Restores a backup and what follows it to another simulated disk, as [`Options::restore`] does to a directory.
///
/// # Errors
/// As [`Options::restore`].
pub fn restore(
    full: &SimDirectory,
    increments: &[SimDirectory],
    disk: &SimDirectory,
    options: &Options,
    simulation: SimOptions,
) -> Result<Db> {
    let path = Path::new(SIMULATED_PATH);
    let increments = increments.iter().map(|disk| (path, disk as &dyn Directory));
    let chain = Chain::check(full, path, increments)?;
    chain.restore(recovery::claim_simulated(disk)?, path, |claimed| {
        let sim = Sim::new(disk, simulation);
        let opened = recovery::open_restored(claimed, path, options, Some(sim))?;
        Ok(Db::start(opened, None))
    })
}

/// Commits a transaction as a thread of its own would that waits for it. Unlike [`Transaction::send`], which keeps the
/// order of what one thread sends, this lets transactions meet that write the same keys.
///
/// # Errors
/// As [`Transaction::commit`], some of them by the ticket.
pub fn commit(transaction: Transaction) -> Result<Ticket<()>> {
    transaction.committing()
}

/// Lets one thing happen; false when nothing can. Other calls do as much of this as they need.
///
/// # Panics
/// For a database that is not simulated, as all functions here.
pub fn step(db: &Db) -> bool {
    sim(db).step(&db.inner.runtime)
}

/// Runs until nothing is left to do.
pub fn settle(db: &Db) {
    sim(db).settle(&db.inner.runtime);
}

/// Steps taken since opening.
#[must_use]
pub fn steps(db: &Db) -> u64 {
    sim(db).steps()
}

/// Whether the power was cut.
#[must_use]
pub fn is_cut(db: &Db) -> bool {
    !sim(db).is_powered()
}

/// Cuts the power, if that has not happened yet, and ends the database as that does: nothing is drained or written.
/// The disk can be opened again at once; handles that are left say [`Error::Closed`](crate::Error::Closed).
pub fn crash(db: Db) {
    sim(&db).cut_power(&db.inner.runtime);
    db.inner.abandon();
}

fn sim(db: &Db) -> &Sim {
    match &db.inner.runtime.sim {
        Some(sim) => sim,
        None => panic!("the database runs on threads, not in a simulation"),
    }
}
