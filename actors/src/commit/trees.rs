//! What trees there will be when all that has its place is published.

use std::collections::BTreeSet;
use std::sync::Arc;

use treering_engine::catalog::{CatalogError, Directory, TreeState};
use treering_engine::log::RecordWriter;
use treering_engine::tree::Root;
use treering_engine::{ShardId, Stamp, TreeId};

use super::DROPPED_PREFIX;
use super::messages::TreeChange;
use super::state::{Commit, Pending};
use crate::error::Error;

impl Commit {
    /// Makes a change a part of the group.
    ///
    /// # Errors
    /// [`Error::TreeExists`].
    pub(super) fn change_trees(&mut self, change: TreeChange, group: &mut Pending) -> Result<(), Error> {
        match change {
            TreeChange::Create { name, must_be_new } => {
                if self.planned.by_name(&name).is_some() {
                    return if must_be_new {
                        Err(Error::TreeExists { name })
                    } else {
                        Ok(())
                    };
                }
                let id = self.next_tree;
                if self.logging {
                    let mut records = Vec::new();
                    RecordWriter(&mut records).tree_create(id, &name);
                    self.builder
                        .append_batch(group.seq, self.owner_of(id), Stamp(0), &records);
                }
                self.add_tree(id, &name);
            }
            TreeChange::Restore { id, name } => self.add_tree(id, &name),
            TreeChange::RestoreDrop { id } => self.hide_tree(id),
        }
        group.changes = true;
        Ok(())
    }

    pub(super) fn add_tree(&mut self, id: TreeId, name: &str) {
        self.next_tree = self.next_tree.max(TreeId(id.0 + 1));
        let owner = self.owner_of(id);
        self.plan(|planned| planned.with_tree(TreeState::new(id, name, Root::default(), owner)));
    }

    pub(super) fn owner_of(&self, tree: TreeId) -> ShardId {
        // At most 256 shards.
        ShardId((tree.0 as usize % self.shared.settings.shards) as u16)
    }

    /// Changes the directory. A contradiction there means that a shard and this actor disagree about what trees
    /// there are: stop before it reaches the disk.
    pub(super) fn plan(&mut self, change: impl FnOnce(&Directory) -> Result<Directory, CatalogError>) {
        match change(&self.planned) {
            Ok(planned) => self.planned = planned,
            Err(error) => self.shared.status.poison(&Arc::new(std::io::Error::other(error))),
        }
    }

    /// A dropped tree keeps its roots, under a name that nobody can ask for, until its pages are retired (rule R8).
    pub(super) fn hide_tree(&mut self, id: TreeId) {
        let Some(state) = self.planned.get(id) else { return };
        let hidden = TreeState {
            id,
            name: Arc::from(format!("{DROPPED_PREFIX}{}", id.0)),
            partitions: Arc::clone(&state.partitions),
        };
        self.plan(|planned| planned.without_tree(id)?.with_tree(hidden));
    }

    pub(super) fn is_dropped(&self, tree: TreeId) -> bool {
        let state = self.planned.get(tree);
        state.is_some_and(|state| state.name.starts_with(DROPPED_PREFIX))
    }

    /// Who has parts of a tree.
    pub(super) fn owners(&self, tree: TreeId) -> impl Iterator<Item = ShardId> {
        let partitions = self.planned.get(tree).map(|state| Arc::clone(&state.partitions));
        let owners: BTreeSet<ShardId> = partitions
            .iter()
            .flat_map(|all| all.iter())
            .map(|part| part.owner)
            .collect();
        owners.into_iter()
    }

    /// Whether no part of a tree has any nodes.
    pub(super) fn is_empty(&self, tree: TreeId) -> bool {
        self.planned.get(tree).is_some_and(|state| {
            state
                .partitions
                .iter()
                .all(|partition| partition.root.reference.is_none())
        })
    }
}
