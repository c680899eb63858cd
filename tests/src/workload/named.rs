//! Named snapshots in the workload: made, read, dropped, and there again after every end of a life (rule R23).

use treering::Snapshot;

use super::Run;
use super::life::{Hands, Named};

/// Most that there are at a time.
const NAMED_MAX: usize = 3;

impl Run {
    /// Makes a named snapshot, drops one, or looks whether one still shows what it showed first.
    pub(super) fn named_snapshot(&mut self, hands: &mut Hands) -> Result<(), String> {
        let name = format!("snapshot {}", self.random.below(2 * NAMED_MAX as u64));
        let Some(known) = self.named.get(&name).cloned() else {
            return if self.named.len() < NAMED_MAX {
                self.create_named(hands, name)
            } else {
                Ok(())
            };
        };
        if !known.certain {
            return Ok(());
        }
        match hands.db.named_snapshot(&name) {
            Ok(snapshot) => drop(self.look_at_named(hands, &snapshot, &known)?),
            Err(error) => self.excuse(hands, &error, "opening a named snapshot")?,
        }
        if self.random.one_in(2) {
            return Ok(());
        }
        if let Some(entry) = self.named.get_mut(&name) {
            entry.certain = false;
        }
        let answer = hands.db.drop_named_snapshot(&name);
        if self
            .answered(&hands.db, answer, &[], "dropping a named snapshot")?
            .is_some()
        {
            self.named.remove(&name);
        }
        Ok(())
    }

    fn create_named(&mut self, hands: &mut Hands, name: String) -> Result<(), String> {
        self.named.insert(
            name.clone(),
            Named {
                shows: None,
                certain: false,
            },
        );
        let began = self.model.tick();
        let answer = hands.db.create_named_snapshot(&name);
        let Some(snapshot) = self.answered(&hands.db, answer, &[], "making a named snapshot")? else {
            return Ok(());
        };
        // Its version is on disk, and so is everything before.
        self.model.flushed(began);
        let Some(found) = self.picture(hands, Some(&snapshot))? else {
            // It is there, but what it shows is not known before it is looked at again.
            self.named.insert(
                name,
                Named {
                    shows: None,
                    certain: true,
                },
            );
            return Ok(());
        };
        self.check_picture(&found)?;
        self.named.insert(
            name,
            Named {
                shows: Some(found),
                certain: true,
            },
        );
        Ok(())
    }

    /// After opening: what must be there is, nothing else is, and all of it shows what it showed.
    pub(super) fn compare_named(&mut self, hands: &Hands) -> Result<bool, String> {
        let names = match hands.db.named_snapshot_names() {
            Ok(names) => names,
            Err(error) => {
                return self
                    .excuse(hands, &error, "listing named snapshots")
                    .map(|()| false);
            }
        };
        if let Some(unknown) = names.iter().find(|name| !self.named.contains_key(*name)) {
            return Err(format!("there is a named snapshot {unknown:?}"));
        }
        for (name, known) in self.named.clone() {
            if !names.contains(&name) {
                if known.certain && !self.setting.silent {
                    return Err(format!("the named snapshot {name:?} is gone"));
                }
                self.named.remove(&name);
                continue;
            }
            let snapshot = match hands.db.named_snapshot(&name) {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    return self
                        .excuse(hands, &error, "opening a named snapshot")
                        .map(|()| false);
                }
            };
            if !self.look_at_named(hands, &snapshot, &known)? {
                return Ok(false);
            }
            let Some(shows) = self.picture(hands, Some(&snapshot))? else {
                return Ok(false);
            };
            let named = Named {
                shows: Some(shows),
                certain: true,
            };
            self.named.insert(name, named);
        }
        Ok(true)
    }

    /// Whether it shows what it showed; false: something hindered that.
    fn look_at_named(&mut self, hands: &Hands, snapshot: &Snapshot, known: &Named) -> Result<bool, String> {
        let Some(found) = self.picture(hands, Some(snapshot))? else {
            return Ok(false);
        };
        match &known.shows {
            Some(first) if *first != found => Err("a named snapshot has changed".into()),
            Some(_) => Ok(true),
            // Made by a checkpoint that nobody was told of: a cut of the moment before the power went. Where it was
            // a fault that hindered the answer, more may have happened since.
            None if self.has_faults() || self.setting.silent => Ok(true),
            None => self.check_picture(&found).map(|()| true),
        }
    }
}
