//! The published picture of the whole database, and the list of those that nobody looks at any more.

use std::sync::{Arc, Mutex};

use treering_engine::catalog::Directory;
use treering_engine::log::LogPosition;
use treering_engine::{Seq, TreeId};

/// All trees after commit group `seq`. Immutable; its last user's departure is its death (rule R3).
#[derive(Debug)]
pub(crate) struct Version {
    /// The commit group that made this version.
    pub seq: Seq,
    /// Where the log group that holds this commit group follows: replay after this version starts here and skips
    /// what is not newer than `seq`.
    pub position: LogPosition,
    /// The roots of all partitions of all trees.
    pub directory: Directory,
    /// Higher than every tree id given until then, also those of trees that are gone.
    pub next_tree: TreeId,
    /// Where to report the death.
    pub dead: Arc<DeadVersions>,
}

impl Drop for Version {
    fn drop(&mut self) {
        self.dead.report(self.seq);
    }
}

/// Versions that died since the flusher last looked.
///
/// Bounded by the number of versions that can be alive: one per unfinished commit group and one per user
/// of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct DeadVersions(Mutex<Vec<Seq>>);

impl DeadVersions {
    pub fn report(&self, seq: Seq) {
        self.lock().push(seq);
    }

    /// Moves all reports into `taken`.
    pub fn take(&self, taken: &mut Vec<Seq>) {
        taken.append(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Seq>> {
        // A panic while holding this lock is impossible short of allocation failure; the list stays whole.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
