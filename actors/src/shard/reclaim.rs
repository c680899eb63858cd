//! Dropped trees: forgotten at once, their pages retired step by step.
//!
//! A dropped tree stays in the catalog under a name that nobody can ask for, and shrinks from its left end, a few
//! leaves a batch, until it is empty. At every moment it is a whole tree: a crash or a checkpoint in the middle
//! leaves a smaller one, with which the next opening goes on (rule R8). None of that is logged: the record of
//! the drop is enough for recovery to do it again.

use std::ops::{Bound, ControlFlow};

use crossbeam_epoch::Guard;
use treering_engine::log::RecordWriter;
use treering_engine::tree::{self, Cursor, Miss};
use treering_engine::{PageId, PageRef, TreeId};

use super::state::{Shard, Starved};
use super::store::TipStore;
use super::tips::Tip;
use crate::actor::Outbox;
use crate::commit::DROPPED_PREFIX;
use crate::error::Error;
use crate::pager::{PagerMessage, Waiter};
use crate::ticket::{Outcome, Reply, Resolution};

/// Leaves that are emptied in one step.
const LEAVES: usize = 4;
/// No more is retired while that many batches are not published: live work comes first.
const UNPUBLISHED_MAX: u32 = 2;

/// A dropped tree whose pages are being retired.
#[derive(Debug)]
pub(super) struct Reclaim {
    pub tree: TreeId,
    /// The page that was asked for.
    pub waits_for: Option<PageId>,
}

impl Shard {
    /// Forgets a tree (or goes on forgetting one that an earlier opening has left). The open batch is empty.
    pub(super) fn drop_tree(&mut self, tree: TreeId, reply: Reply, guard: &Guard) {
        let known = self.shared.current.load(guard).directory.get(tree).is_some();
        let result = if known && !self.is_dropped(tree) {
            if !self.is_hidden(tree, guard) {
                RecordWriter(&mut self.open.records).tree_drop(tree);
                self.open.trees_dropped.push(tree);
            }
            self.begin_reclaiming(tree);
            Ok(Outcome::Done)
        } else {
            Err(Error::TreeNotFound {
                name: format!("#{}", tree.0),
            })
        };
        self.open.operations += 1;
        self.open.resolutions.push(Resolution { reply, result });
    }

    /// Retires what this shard has of a dropped tree, from now on. Once more, where more of it came to this shard since.
    pub(super) fn begin_reclaiming(&mut self, tree: TreeId) {
        self.reclaimed.retain(|reclaimed| *reclaimed != tree);
        if !self.is_dropped(tree) {
            self.reclaiming.push_back(Reclaim {
                tree,
                waits_for: None,
            });
        }
    }

    /// Whether requests for the tree are refused because it was dropped. (Bad run: a small tree is reclaimed in one
    /// step; before that is published, a write finds the tree in the published version and retires its pages again.)
    pub(super) fn is_dropped(&self, tree: TreeId) -> bool {
        self.reclaiming.iter().any(|reclaim| reclaim.tree == tree) || self.reclaimed.contains(&tree)
    }

    /// Whether the published version says that the tree is dropped.
    fn is_hidden(&self, tree: TreeId, guard: &Guard) -> bool {
        let directory = &self.shared.current.load(guard).directory;
        directory
            .get(tree)
            .is_some_and(|state| state.name.starts_with(DROPPED_PREFIX))
    }

    /// Forgets the reclaimed trees that the published version has forgotten, too.
    pub(super) fn forget_reclaimed(&mut self, guard: &Guard) {
        if !self.reclaimed.is_empty() {
            let directory = &self.shared.current.load(guard).directory;
            let Shard { reclaimed, tips, .. } = self;
            reclaimed.retain(|tree| {
                let known = directory.get(*tree).is_some();
                if !known {
                    tips.remove_tree(*tree);
                }
                known
            });
        }
    }

    /// After the tips were dropped: goes on with what is dropped according to the published version.
    pub(super) fn restart_reclaiming(&mut self, guard: &Guard) {
        let reclaiming = std::mem::take(&mut self.reclaiming)
            .into_iter()
            .map(|reclaim| reclaim.tree);
        let trees: Vec<TreeId> = reclaiming.chain(std::mem::take(&mut self.reclaimed)).collect();
        let hidden = trees.into_iter().filter(|tree| self.is_hidden(*tree, guard));
        self.reclaiming = hidden
            .map(|tree| Reclaim {
                tree,
                waits_for: None,
            })
            .collect();
    }

    /// The page that reclaiming may have waited for came, or can't.
    pub(super) fn reclaim_loaded(&mut self, reference: PageRef, failure: Option<&Error>) {
        let Some(first) = self
            .reclaiming
            .front_mut()
            .filter(|first| first.waits_for == Some(reference.id))
        else {
            return;
        };
        first.waits_for = None;
        if let Some(error) = failure
            && let Some(Reclaim { tree, .. }) = self.reclaiming.pop_front()
        {
            // Its pages stay in use until the next opening tries again.
            tracing::warn!(tree = tree.0, %error, "a dropped tree can't be reclaimed");
            self.reclaimed.push(tree);
        }
    }

    /// Whether there is something to reclaim now.
    pub(super) fn can_reclaim(&self) -> bool {
        self.exclusive.is_none()
            && self.starved == Starved::No
            && !self.reclaim_paused
            && !self.shared.status.is_poisoned()
            && self.unpublished < UNPUBLISHED_MAX
            && self
                .reclaiming
                .front()
                .is_some_and(|reclaim| reclaim.waits_for.is_none())
    }

    /// Retires the next leaves of the first dropped tree.
    pub(super) fn reclaim(&mut self, guard: &Guard, outbox: &mut Outbox) {
        if !self.can_reclaim() {
            return;
        }
        let Some(tree) = self.reclaiming.front().map(|reclaim| reclaim.tree) else {
            return;
        };
        match self.reclaim_leaves(tree, guard, outbox) {
            Ok(true) => {
                self.reclaiming.pop_front();
                self.open.trees_forgotten.push(tree);
                self.reclaimed.push(tree);
            }
            Ok(false) => {}
            Err(Miss(reference)) => {
                if let Some(reclaim) = self.reclaiming.front_mut() {
                    reclaim.waits_for = Some(reference.id);
                }
                outbox.pager.push(PagerMessage::Fetch {
                    reference,
                    waiter: Waiter::Shard(self.id),
                });
            }
        }
    }

    /// Whether nothing is left of what this shard has of the tree.
    fn reclaim_leaves(&mut self, tree: TreeId, guard: &Guard, outbox: &mut Outbox) -> Result<bool, Miss> {
        if let Some(state) = self.shared.current.load(guard).directory.get(tree) {
            let (id, moves) = (self.id, &self.moves);
            self.tips.insert_all(state, |partition| {
                partition.owner == id && moves.has(tree, partition)
            });
        }
        for _ in 0..LEAVES {
            let full = |tip: &&Tip| !tip.root.reference.is_none();
            let Some(tip) = self.tips.of_tree(tree).iter().find(full) else {
                return Ok(true);
            };
            let (root, lower) = (tip.root, std::sync::Arc::clone(&tip.lower));
            let mut keys: Vec<Box<[u8]>> = Vec::new();
            let view = self.shared.memory.view(guard);
            let everything = (Bound::Unbounded, Bound::Unbounded);
            Cursor::ascending(root).next_run(&crate::client::NodeView::new(view), everything, |key, _| {
                keys.push(key.into());
                ControlFlow::Continue(())
            })?;
            for key in keys {
                let Some(place) = self.tips.find(tree, &lower) else {
                    return Ok(true);
                };
                if !self.supply_for(tree::reserve_for(self.height(place)), outbox) {
                    self.reclaim_paused = self.shortage.is_some();
                    return Ok(false);
                }
                let mut store = TipStore {
                    memory: &self.shared.memory,
                    guard,
                    supply: &mut self.supply,
                    open: &mut self.open.pages,
                };
                self.tips
                    .change(place, |root| tree::delete(&mut store, root, &key))
                    .transpose()?;
            }
        }
        Ok(false)
    }
}
