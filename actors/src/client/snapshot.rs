//! Snapshots: all trees at one instant.

use std::sync::Arc;

use super::bounds::KeyBounds;
use super::db::{Inner, check_name};
use super::range::Range;
use super::read::tree_of;
use super::tree::Tree;
use crate::commit::DROPPED_PREFIX;
use crate::error::{Error, Result};
use crate::shared::Version;
use crate::value::Value;

/// All trees as they were at one instant. O(1) to take; its reads never change.
///
/// While it lives, the pages that it alone reaches stay on disk: at most one old copy of what was changed since,
/// however much was written.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) inner: Arc<Inner>,
    pub(super) version: Arc<Version>,
}

impl Snapshot {
    /// The commit group after which the snapshot was taken; grows with every change of the database.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.version.seq.0
    }

    /// Copies the database as this snapshot shows it, as [`Db::backup`](crate::Db::backup).
    ///
    /// # Errors
    /// As [`Db::backup`](crate::Db::backup).
    pub fn backup(&self, directory: impl AsRef<std::path::Path>) -> Result<super::Backup> {
        self.inner.runtime.shared.status.check_read()?;
        self.inner.backup_to(&self.version, directory.as_ref())
    }

    /// As [`backup`](Snapshot::backup), into any directory, under a given id.
    pub(crate) fn backup_into(
        &self,
        directory: &dyn treering_io::Directory,
        database_id: [u8; 16],
    ) -> Result<super::Backup> {
        self.inner.backup_into(&self.version, directory, database_id)
    }

    /// A tree of the snapshot by name, also if it was dropped since: then only snapshots can be asked for it.
    ///
    /// # Errors
    /// [`TreeNotFound`](crate::Error::TreeNotFound) if it did not exist yet,
    /// [`TreeNameInvalid`](crate::Error::TreeNameInvalid), [`Closed`](crate::Error::Closed).
    pub fn open_tree(&self, name: &str) -> Result<Tree> {
        check_name(name)?;
        let shared = &self.inner.runtime.shared;
        shared.status.check_read()?;
        let state = self.version.directory.by_name(name);
        let state = state.ok_or_else(|| Error::TreeNotFound { name: name.into() })?;
        Ok(Tree {
            inner: Arc::clone(&self.inner),
            id: state.id,
            name: Arc::clone(&state.name),
            durability: shared.settings.durability,
        })
    }

    /// Names of the trees that there were, in order.
    #[must_use]
    pub fn tree_names(&self) -> Vec<String> {
        let names = self.version.directory.names().map(|(name, _)| name);
        names
            .filter(|name| !name.starts_with(DROPPED_PREFIX))
            .map(str::to_owned)
            .collect()
    }

    /// The value that the key had.
    ///
    /// # Errors
    /// As [`Tree::get`]; [`TreeNotFound`](crate::Error::TreeNotFound) if the tree did not exist yet,
    /// [`ForeignTree`](crate::Error::ForeignTree) if it is one of another database.
    pub fn get(&self, tree: &Tree, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        self.inner.check_key(key)?;
        self.inner.runtime.shared.status.check_read()?;
        self.inner.get(Some(&self.version), tree.id_in(&self.inner)?, key)
    }

    /// The values that the keys had, as [`Tree::get_many`].
    ///
    /// # Errors
    /// As [`get`](Snapshot::get).
    pub fn get_many<K: AsRef<[u8]>>(&self, tree: &Tree, keys: &[K]) -> Result<Vec<Option<Value>>> {
        keys.iter()
            .try_for_each(|key| self.inner.check_key(key.as_ref()))?;
        self.inner.runtime.shared.status.check_read()?;
        self.inner.get_many(&self.version, tree.id_in(&self.inner)?, keys)
    }

    /// The entries that the tree had within `bounds`.
    ///
    /// # Errors
    /// As [`Tree::range`], and [`ForeignTree`](crate::Error::ForeignTree).
    pub fn range<K: AsRef<[u8]>>(&self, tree: &Tree, bounds: impl KeyBounds<K>) -> Result<Range> {
        self.inner.runtime.shared.status.check_read()?;
        let tree = tree.id_in(&self.inner)?;
        let version = Arc::clone(&self.version);
        Range::new(Arc::clone(&self.inner), version, tree, bounds.to_bytes())
    }

    /// Number of keys that the tree had.
    ///
    /// # Errors
    /// [`TreeNotFound`](crate::Error::TreeNotFound), [`ForeignTree`](crate::Error::ForeignTree).
    pub fn len(&self, tree: &Tree) -> Result<u64> {
        Ok(tree_of(&self.version, tree.id_in(&self.inner)?)?.entries())
    }

    /// Whether the tree had no keys.
    ///
    /// # Errors
    /// As [`len`](Snapshot::len).
    pub fn is_empty(&self, tree: &Tree) -> Result<bool> {
        Ok(self.len(tree)? == 0)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.inner.give_up(&self.version, 0);
    }
}
