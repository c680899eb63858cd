//! Backups in the workload: each opens as a database of its own, and shows what its snapshot shows; restored with the
//! incremental ones that follow it, it shows what the last of these shows.

use std::collections::BTreeMap;

use treering::sim::{self, SimOptions};
use treering::{Db, Error, Tree};
use treering_io::{Directory as _, SimDirectory};

use super::Run;
use super::life::{Hands, PASSING, read_tree, tree_name};
use crate::model::{Content, Place};

/// About how many actions of the disk a restore takes.
const RESTORING_ACTIONS: u64 = 150;

impl Run {
    /// Copies a snapshot, or the database as it is, to another disk, and looks at the copy.
    pub(super) fn back_up(&mut self, hands: &mut Hands) -> Result<(), String> {
        let (snapshot, expected) = match hands.snapshots.first() {
            Some((snapshot, shows)) => (snapshot.clone(), Some(shows.clone())),
            None => (hands.client.snapshot(), None),
        };
        let disk = self.other_disk();
        let backup = match sim::backup(&snapshot, &disk) {
            Ok(backup) => backup,
            Err(error) => return self.excuse(hands, &error, "a backup"),
        };
        let Some(shows) = self.picture(hands, Some(&snapshot))? else {
            return Ok(());
        };
        if backup.seq != snapshot.seq() || expected.is_some_and(|expected| expected != shows) {
            return Err("a backup's snapshot has changed".into());
        }
        let simulation = self.simulation();
        // What a crash leaves of it is all of it.
        disk.power_cut();
        let copy = sim::open(&disk, &self.profile.options(), simulation)
            .map_err(|error| format!("opening a backup: {error}"))?;
        compare_copy(&copy, hands.trees.len(), &shows)?;
        sim::check(&copy).map_err(|error| format!("a backup: {error}"))?;
        copy.close().map_err(|error| format!("closing a backup: {error}"))
    }

    /// Backs up a snapshot and what changed since, and restores it on another disk, whose power may be cut meanwhile.
    pub(super) fn restore(&mut self, hands: &mut Hands) -> Result<(), String> {
        // The oldest one, so that much has changed.
        let mut snapshots = hands.snapshots.clone();
        snapshots.sort_by_key(|(snapshot, _)| snapshot.seq());
        let now = hands.client.snapshot();
        let Some(shows) = self.picture(hands, Some(&now))? else {
            return Ok(());
        };
        let passing = self.passing.perhaps.is_none().then(|| self.passing.now.clone());
        snapshots.push((now, shows.clone()));
        let full = self.other_disk();
        if let Err(error) = sim::backup(&snapshots[0].0, &full) {
            return self.excuse(hands, &error, "a backup");
        }
        let mut increments = Vec::new();
        for pair in snapshots.windows(2) {
            let disk = self.other_disk();
            if let Err(error) = sim::backup_since(&pair[1].0, &pair[0].0, &disk) {
                return self.excuse(hands, &error, "an incremental backup");
            }
            increments.push(disk);
        }
        // What a crash leaves of them is all of them.
        full.power_cut();
        increments.iter().for_each(SimDirectory::power_cut);
        let target = self.other_disk();
        if self.random.one_in(2) {
            target.cut_power_after(self.random.below(RESTORING_ACTIONS));
            match self.restored(&full, &increments, &target) {
                Ok(db) => {
                    target.restore_power();
                    sim::crash(db);
                }
                Err(_) if target.restore_power() => {}
                Err(error) => return Err(format!("restoring: {error}")),
            }
            if let Some(db) = self.open_interrupted(&target)? {
                // The power was cut when nothing was left to do.
                return self.compare_restored(db, hands.trees.len(), &shows, passing.as_ref());
            }
        }
        let db = self
            .restored(&full, &increments, &target)
            .map_err(|error| format!("restoring: {error}"))?;
        self.compare_restored(db, hands.trees.len(), &shows, passing.as_ref())
    }

    /// What an interrupted restore has left, if it can be opened. Where there is no data yet, nobody is misled: opening
    /// would make an empty database.
    fn open_interrupted(&mut self, target: &SimDirectory) -> Result<Option<Db>, String> {
        let names = target
            .names()
            .map_err(|error| format!("listing a restored directory: {error}"))?;
        if !names.iter().any(|name| name == "data") {
            return Ok(None);
        }
        match sim::open(target, &self.profile.options(), self.simulation()) {
            Ok(db) => Ok(Some(db)),
            Err(Error::NotADatabase { .. }) => Ok(None),
            Err(error) => Err(format!("opening what an interrupted restore has left: {error}")),
        }
    }

    fn restored(
        &mut self,
        full: &SimDirectory,
        increments: &[SimDirectory],
        target: &SimDirectory,
    ) -> treering::Result<Db> {
        let (options, simulation) = (self.profile.options(), self.simulation());
        sim::restore(full, increments, target, &options, simulation)
    }

    fn compare_restored(
        &mut self,
        db: Db,
        trees: usize,
        shows: &BTreeMap<Place, Content>,
        passing: Option<&Option<BTreeMap<Vec<u8>, Content>>>,
    ) -> Result<(), String> {
        compare_copy(&db, trees, shows)?;
        let found = match db.client().open_tree(PASSING) {
            Ok(tree) => Some(read(&tree)?),
            Err(Error::TreeNotFound { .. }) => None,
            Err(error) => return Err(format!("a copy: {error}")),
        };
        if passing.is_some_and(|passing| *passing != found) {
            return Err(format!("a restored passing tree is {found:?}, not {passing:?}"));
        }
        sim::check(&db).map_err(|error| format!("a restored database: {error}"))?;
        db.close()
            .map_err(|error| format!("closing a restored database: {error}"))
    }

    fn other_disk(&mut self) -> SimDirectory {
        SimDirectory::with_options(treering_io::SimOptions::new(self.random.word()))
    }

    fn simulation(&mut self) -> SimOptions {
        SimOptions {
            seed: self.random.word(),
            ..SimOptions::default()
        }
    }
}

/// Compares all trees of a copy with what a snapshot showed.
fn compare_copy(copy: &Db, trees: usize, shows: &BTreeMap<Place, Content>) -> Result<(), String> {
    let client = copy.client();
    for number in 0..trees {
        let tree = client
            .open_tree(&tree_name(number))
            .map_err(|error| format!("a copy: {error}"))?;
        let found = read(&tree)?;
        let mut expected = shows.iter().filter(|((tree, _), _)| *tree == number);
        let same = found.len() == expected.clone().count()
            && found.iter().all(|(key, content)| {
                expected
                    .next()
                    .is_some_and(|((_, other), shown)| key == other && content == shown)
            });
        if !same {
            return Err(format!("tree {number} of a copy holds {found:?}, not {shows:?}"));
        }
    }
    Ok(())
}

fn read(tree: &Tree) -> Result<BTreeMap<Vec<u8>, Content>, String> {
    read_tree(tree).map_err(|error| format!("a copy: {error}"))?
}
