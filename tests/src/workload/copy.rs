//! Backups in the workload: each opens as a database of its own, and shows what its snapshot shows.

use treering::sim::{self, SimOptions};
use treering_io::SimDirectory;

use super::Run;
use super::life::{Hands, tree_name};

impl Run {
    /// Copies a snapshot, or the database as it is, to another disk, and looks at the copy.
    pub(super) fn back_up(&mut self, hands: &mut Hands) -> Result<(), String> {
        let (snapshot, expected) = match hands.snapshots.first() {
            Some((snapshot, shows)) => (snapshot.clone(), Some(shows.clone())),
            None => (hands.client.snapshot(), None),
        };
        let disk = SimDirectory::with_options(treering_io::SimOptions::new(self.random.word()));
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
        let simulation = SimOptions {
            seed: self.random.word(),
            ..SimOptions::default()
        };
        // What a crash leaves of it is all of it.
        disk.power_cut();
        let copy = sim::open(&disk, &self.profile.options(), simulation)
            .map_err(|error| format!("opening a backup: {error}"))?;
        let client = copy.client();
        for number in 0..hands.trees.len() {
            let tree = client
                .open_tree(&tree_name(number))
                .map_err(|error| format!("a backup: {error}"))?;
            let found = super::life::read_tree(&tree).map_err(|error| format!("a backup: {error}"))??;
            let mut expected = shows.iter().filter(|((tree, _), _)| *tree == number);
            let same = found.len() == expected.clone().count()
                && found.iter().all(|(key, content)| {
                    expected
                        .next()
                        .is_some_and(|((_, other), shown)| key == other && content == shown)
                });
            if !same {
                return Err(format!(
                    "tree {number} of a backup holds {found:?}, not {shows:?}"
                ));
            }
        }
        sim::check(&copy).map_err(|error| format!("a backup: {error}"))?;
        copy.close().map_err(|error| format!("closing a backup: {error}"))
    }
}
