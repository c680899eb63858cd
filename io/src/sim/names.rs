//! The names of a simulated directory: live ones, durable ones, and the changes in between.

use std::collections::BTreeMap;

use super::random::Random;

/// Number of a file, whatever it is called.
pub(super) type FileNumber = u64;

#[derive(Clone, Debug)]
enum Change {
    Create(String, FileNumber),
    Remove(String, FileNumber),
    Rename(String, String, FileNumber),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    live: BTreeMap<String, FileNumber>,
    durable: BTreeMap<String, FileNumber>,
    /// Changes since the last sync, oldest first.
    unsynced: Vec<Change>,
}

impl Names {
    pub(super) fn get(&self, name: &str) -> Option<FileNumber> {
        self.live.get(name).copied()
    }

    pub(super) fn list(&self) -> Vec<String> {
        self.live.keys().cloned().collect()
    }

    pub(super) fn create(&mut self, name: &str, number: FileNumber) {
        self.live.insert(name.to_owned(), number);
        self.unsynced.push(Change::Create(name.to_owned(), number));
    }

    /// Returns whether there was such a name.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(number) = self.live.remove(name) else {
            return false;
        };
        self.unsynced.push(Change::Remove(name.to_owned(), number));
        true
    }

    /// Returns the file that now has the name `to`.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Option<FileNumber> {
        let number = self.live.remove(from)?;
        self.live.insert(to.to_owned(), number);
        self.unsynced
            .push(Change::Rename(from.to_owned(), to.to_owned(), number));
        Some(number)
    }

    pub(super) fn sync(&mut self) {
        self.durable = self.live.clone();
        self.unsynced.clear();
    }

    /// What a power cut, or a failed sync, leaves: each change kept with the given chance by itself.
    pub(super) fn draw(&mut self, keep_parts_per_million: u32, random: &mut Random) {
        for change in std::mem::take(&mut self.unsynced) {
            if random.chance(keep_parts_per_million) {
                self.apply_durably(change);
            }
        }
        self.live = self.durable.clone();
    }

    /// A change that builds on one that was lost has nothing to change.
    fn apply_durably(&mut self, change: Change) {
        match change {
            Change::Create(name, number) => {
                self.durable.insert(name, number);
            }
            Change::Remove(name, number) => {
                if self.durable.get(&name) == Some(&number) {
                    self.durable.remove(&name);
                }
            }
            Change::Rename(from, to, number) => {
                if self.durable.get(&from) == Some(&number) {
                    self.durable.remove(&from);
                    self.durable.insert(to, number);
                }
            }
        }
    }

    /// Whether any live or durable name leads to the file.
    pub(super) fn reaches(&self, number: FileNumber) -> bool {
        self.live
            .values()
            .chain(self.durable.values())
            .any(|known| *known == number)
    }
}
