//! Trees that a client has built: their roots, taken over into empty trees (see `client::bulk_load`).
//!
//! A tree that is loaded is in one piece. During recovery it may be in several: joins aren't in the log, so what was
//! joined since the checkpoint is in pieces again. All of them are empty when the load's turn comes, as the tree was
//! then; the owner of the first takes them all, after the others have forgotten theirs ([`Action::ForgetEmpty`]).
//!
//! [`Action::ForgetEmpty`]: super::messages::Action::ForgetEmpty

use std::sync::Arc;

use crossbeam_epoch::Guard;
use treering_engine::catalog::Partition;
use treering_engine::tree::Root;
use treering_engine::{Stamp, TreeId};

use super::messages::LoadedTree;
use super::moves::PartitionChange;
use super::single::Place;
use super::state::Shard;
use super::tips::TipPlace;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::ticket::{Outcome, Reply, Resolution};

impl Shard {
    /// Gives a load a stamp of its own for its pages, if the tree is empty. The open batch is empty.
    pub(super) fn prepare_load(&mut self, tree: TreeId, reply: Reply, guard: &Guard) {
        let result = self.find_empty(tree, guard).map(|_| {
            let stamp = Stamp(self.next_stamp);
            self.next_stamp += self.shared.settings.shards as u64;
            Outcome::Stamp(stamp)
        });
        self.open.operations += 1;
        self.open.resolutions.push(Resolution { reply, result });
    }

    /// Makes what a client has built the content of an empty tree. The open batch is empty.
    pub(super) fn load_tree(
        &mut self,
        tree: TreeId,
        loaded: LoadedTree,
        durability: Durability,
        reply: Reply,
        guard: &Guard,
    ) {
        let LoadedTree {
            root,
            record,
            extents,
            joined,
        } = loaded;
        let result = if joined.is_empty() {
            self.find_empty(tree, guard).map(|place| {
                self.tips.change(place, |tip| *tip = root);
            })
        } else {
            self.join_empty(tree, root, joined);
            Ok(())
        };
        if result.is_ok() {
            self.open.records.extend_from_slice(&record);
            self.open.extents_added.extend(extents);
            self.open.loads = true;
        } else {
            self.open.extents_unused.extend(extents);
        }
        self.open.operations += 1;
        self.open.sync |= durability == Durability::Sync;
        let result = result.map(|()| Outcome::Done);
        self.open.resolutions.push(Resolution { reply, result });
    }

    /// Recovery: gives a tree whose partitions are all empty this root, in their place.
    fn join_empty(&mut self, tree: TreeId, root: Root, replaced: Vec<Arc<[u8]>>) {
        self.tips.remove_tree(tree);
        self.open.partitions.push(PartitionChange {
            tree,
            replaced,
            partitions: vec![Partition {
                lower: Arc::from([]),
                root,
                owner: self.id,
                moved: 0,
            }],
        });
    }

    /// Recovery: this shard's partitions of a tree, which are empty, become another's. The open batch is empty.
    pub(super) fn forget_empty(&mut self, tree: TreeId, reply: Reply) {
        self.tips.remove_tree(tree);
        self.open.operations += 1;
        let result = Ok(Outcome::Done);
        self.open.resolutions.push(Resolution { reply, result });
    }

    /// The tip of a tree that is empty and in one piece.
    fn find_empty(&mut self, tree: TreeId, guard: &Guard) -> Result<TipPlace> {
        match self.locate(tree, &[], guard) {
            Place::Here(place) => match self.tips.at(place) {
                Some(tip) if tip.root.reference.is_none() && tip.upper.is_none() => Ok(place),
                tip => Err(Error::TreeNotEmpty {
                    entries: tip.map_or(0, |tip| tip.root.entries),
                }),
            },
            // Nothing moves while such a request is under way (`runtime/gate.rs`).
            Place::Elsewhere(_) | Place::Leaving | Place::Coming(_) => Err(Error::Conflict),
            Place::Nowhere => Err(Error::no_tree(tree)),
        }
    }
}
