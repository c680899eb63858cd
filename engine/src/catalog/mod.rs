//! The directory of trees: names, partitions, roots and owners, as one version shows them.
//!
//! A [`Directory`] is part of every version. Copying it costs nothing, and a commit group that changes the
//! roots of a few trees copies those trees' entries and a list of chunks, however many trees there are
//! (rule R9). The routing table is in it too: a partition names its lowest key and its owner.

mod sorted_chunks;

use std::sync::Arc;

use self::sorted_chunks::SortedChunks;
use crate::tree::Root;
use crate::{ShardId, TreeId};

/// A key range of a tree, from its lowest key to the next partition's: a subtree with one owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Lowest key that belongs to it; empty for the first one.
    pub lower: Arc<[u8]>,
    /// The subtree.
    pub root: Root,
    /// The worker that alone may change it.
    pub owner: ShardId,
    /// Which move has brought it to its owner, 0 for none: it says whether the owner may begin with it. Not stored:
    /// opening ends all moves.
    pub moved: u64,
}

/// A tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeState {
    /// Its id, never given to another tree.
    pub id: TreeId,
    /// Its name, unique among the trees that exist.
    pub name: Arc<str>,
    /// Its partitions, ascending by `lower`; at least one.
    pub partitions: Arc<[Partition]>,
}

/// Longest name of a tree and longest `lower` of a partition, bytes: what the checkpoint image can store.
pub const CATALOG_STRING_BYTES_MAX: usize = u16::MAX as usize;

impl TreeState {
    /// A tree of one partition.
    #[must_use]
    pub fn new(id: TreeId, name: &str, root: Root, owner: ShardId) -> TreeState {
        let partition = Partition {
            lower: Arc::from([]),
            root,
            owner,
            moved: 0,
        };
        TreeState {
            id,
            name: Arc::from(name),
            partitions: Arc::from([partition]),
        }
    }

    /// Index of the partition that `key` belongs to. O(log partitions).
    #[must_use]
    #[inline]
    pub fn partition_for(&self, key: &[u8]) -> usize {
        self.partitions
            .partition_point(|partition| *partition.lower <= *key)
            .saturating_sub(1)
    }

    /// Number of keys in all partitions.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let counts = self.partitions.iter().map(|partition| partition.root.entries);
        counts.fold(0, u64::wrapping_add)
    }

    /// Index of the partition that begins at `lower`.
    fn partition_at(&self, lower: &[u8]) -> Option<usize> {
        self.partitions
            .binary_search_by(|partition| (*partition.lower).cmp(lower))
            .ok()
    }

    fn validate(&self) -> Result<(), CatalogError> {
        let ascending = self.partitions.is_sorted_by(|a, b| a.lower < b.lower);
        let starts_empty = self
            .partitions
            .first()
            .is_some_and(|first| first.lower.is_empty());
        let storable = self.name.len() <= CATALOG_STRING_BYTES_MAX
            && self
                .partitions
                .iter()
                .all(|partition| partition.lower.len() <= CATALOG_STRING_BYTES_MAX);
        if ascending && starts_empty && storable {
            Ok(())
        } else {
            Err(CatalogError::Malformed(self.id))
        }
    }
}

/// A change that the directory can't take. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no such tree.
    #[error("tree {} does not exist", .0.0)]
    UnknownTree(TreeId),
    /// No partition of the tree begins at that key.
    #[error("tree {} has no partition that begins there", .0.0)]
    UnknownPartition(TreeId),
    /// Another tree has the name.
    #[error("the name belongs to tree {}", .0.0)]
    NameTaken(TreeId),
    /// Partitions out of order, the first one not at the lowest key, or names too long to be stored.
    #[error("tree {} is malformed", .0.0)]
    Malformed(TreeId),
}

/// All trees of one version. Cloning is O(1).
#[derive(Clone, Debug, Default)]
pub struct Directory {
    trees: SortedChunks<TreeId, Arc<TreeState>>,
    names: SortedChunks<Arc<str>, TreeId>,
}

impl Directory {
    /// No trees.
    #[must_use]
    pub fn new() -> Directory {
        Directory::default()
    }

    /// Number of trees.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trees.len()
    }

    /// Whether there are no trees.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tree with this id. O(log trees).
    #[must_use]
    pub fn get(&self, tree: TreeId) -> Option<&Arc<TreeState>> {
        self.trees.get(&tree)
    }

    /// The tree with this name. O(log trees).
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<TreeState>> {
        self.get(*self.names.get(name)?)
    }

    /// All trees, ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TreeState>> {
        self.trees.iter().map(|(_, state)| state)
    }

    /// All names, in ascending byte order.
    pub fn names(&self) -> impl Iterator<Item = (&str, TreeId)> {
        self.names.iter().map(|(name, tree)| (&**name, *tree))
    }

    /// The tree with the lowest id, or the lowest above `tree`: for walks that pause. O(log trees).
    #[must_use]
    pub fn next_after(&self, tree: Option<TreeId>) -> Option<&Arc<TreeState>> {
        let entry = match tree {
            Some(tree) => self.trees.first_after(&tree),
            None => self.trees.first(),
        };
        entry.map(|(_, state)| state)
    }

    /// This directory with other roots: (tree, lowest key of the partition, its new root). Later changes of the
    /// same partition win. O(changes × (64 + partitions of the tree) + trees / 64).
    ///
    /// # Errors
    /// If a tree or partition does not exist.
    pub fn with_roots(&self, changes: &[(TreeId, Arc<[u8]>, Root)]) -> Result<Directory, CatalogError> {
        let mut directory = self.clone();
        for (tree, lower, root) in changes {
            let state = directory
                .trees
                .get_mut(tree)
                .ok_or(CatalogError::UnknownTree(*tree))?;
            let index = state
                .partition_at(lower)
                .ok_or(CatalogError::UnknownPartition(*tree))?;
            Arc::make_mut(&mut Arc::make_mut(state).partitions)[index].root = *root;
        }
        Ok(directory)
    }

    /// This directory with the partitions of a tree that begin in `replaced` (at least one, neighbours, ascending)
    /// replaced by others, which cover the same range. O(partitions of the tree + trees / 64).
    ///
    /// # Errors
    /// If the tree or one of the partitions does not exist, or the result breaks the rules of [`TreeState`].
    pub fn with_partitions(
        &self,
        tree: TreeId,
        replaced: &[Arc<[u8]>],
        partitions: &[Partition],
    ) -> Result<Directory, CatalogError> {
        let state = self.get(tree).ok_or(CatalogError::UnknownTree(tree))?;
        let unknown = CatalogError::UnknownPartition(tree);
        let first = replaced
            .first()
            .and_then(|lower| state.partition_at(lower))
            .ok_or(unknown)?;
        let behind = first + replaced.len();
        let old = state.partitions.get(first..behind).ok_or(unknown)?;
        if !old.iter().map(|partition| &partition.lower).eq(replaced) {
            return Err(unknown);
        }
        if partitions.first().map(|partition| &partition.lower) != replaced.first() {
            return Err(CatalogError::Malformed(tree));
        }
        let (before, after) = (&state.partitions[..first], &state.partitions[behind..]);
        self.with_tree(TreeState {
            partitions: [before, partitions, after].concat().into(),
            ..(**state).clone()
        })
    }

    /// This directory with one more tree, or with another state of a tree that it has.
    ///
    /// # Errors
    /// If another tree has the name, or the state breaks the rules of its fields.
    pub fn with_tree(&self, state: TreeState) -> Result<Directory, CatalogError> {
        state.validate()?;
        if let Some(&other) = self.names.get(&*state.name)
            && other != state.id
        {
            return Err(CatalogError::NameTaken(other));
        }
        let mut directory = self.clone();
        let old_name = self.get(state.id).map(|old| &*old.name);
        if old_name != Some(&*state.name) {
            if let Some(old_name) = old_name {
                directory.names.remove(old_name);
            }
            directory.names.insert(Arc::clone(&state.name), state.id);
        }
        directory.trees.insert(state.id, Arc::new(state));
        Ok(directory)
    }

    /// This directory without a tree.
    ///
    /// # Errors
    /// If there is no such tree.
    pub fn without_tree(&self, tree: TreeId) -> Result<Directory, CatalogError> {
        let mut directory = self.clone();
        let state = directory
            .trees
            .remove(&tree)
            .ok_or(CatalogError::UnknownTree(tree))?;
        directory.names.remove(&*state.name);
        Ok(directory)
    }
}

#[cfg(test)]
mod tests;
