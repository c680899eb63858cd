//! Dropped trees: forgotten at once, their pages retired step by step.
//!
//! A dropped tree stays in the catalog under a name that nobody can ask for, and shrinks from its left end, a few
//! leaves a batch, until it is empty. At every moment it is a whole tree: a crash or a checkpoint in the middle
//! leaves a smaller one, with which the next opening goes on (rule R8). None of that is logged: the record of
//! the drop is enough for recovery to do it again.

use std::ops::{Bound, ControlFlow};

use crossbeam_epoch::Guard;
use treering_engine::log::RecordWriter;
use treering_engine::memory::FrameId;
use treering_engine::tree::{self, Cursor, Miss};
use treering_engine::{PageId, PageRef, TreeId};

use super::state::{Shard, Starved};
use super::store::TipStore;
use super::tips::Tip;
use crate::actor::Outbox;
use crate::commit::DROPPED_PREFIX;
use crate::error::Error;
use crate::pager::{PagerMessage, Waiter};
use crate::shared::HeldFrame;
use crate::ticket::{Outcome, Reply, Resolution};

/// Leaves that are emptied in one step.
const LEAVES: usize = 4;
/// No more is retired while that many batches are not published: live work comes first.
const UNPUBLISHED_MAX: u32 = 2;

/// Pages that are held for it at most, in large caches: more than the ways to that many leaves and their neighbours have.
const HELD_PAGES_MAX: usize = 64;
/// The same in small ones: the ways to a leaf and its neighbour.
const HELD_PAGES_MIN: usize = 8;

/// A dropped tree whose pages are being retired.
#[derive(Debug)]
pub(super) struct Reclaim {
    pub tree: TreeId,
    /// The page that was asked for.
    pub waits_for: Option<PageId>,
    /// Pages that came, held until some leaves are emptied: those of a way must be in memory at once (rule R10).
    held: Vec<HeldFrame>,
}

impl Reclaim {
    fn new(tree: TreeId) -> Reclaim {
        Reclaim {
            tree,
            waits_for: None,
            held: Vec::new(),
        }
    }
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
            Err(Error::no_tree(tree))
        };
        self.open.operations += 1;
        self.open.resolutions.push(Resolution { reply, result });
    }

    /// Retires what this shard has of a dropped tree, from now on. Once more, where more of it came to this shard since.
    pub(super) fn begin_reclaiming(&mut self, tree: TreeId) {
        self.reclaimed.retain(|reclaimed| *reclaimed != tree);
        if !self.is_dropped(tree) {
            self.reclaiming.push_back(Reclaim::new(tree));
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
        self.reclaiming = hidden.map(Reclaim::new).collect();
    }

    /// The page that reclaiming may have waited for came, or can't. Gives the hold that came with it back if it isn't
    /// wanted.
    pub(super) fn reclaim_loaded(
        &mut self,
        reference: PageRef,
        failure: Option<&Error>,
        hold: Option<FrameId>,
    ) -> Option<FrameId> {
        let Some(first) = self
            .reclaiming
            .front_mut()
            .filter(|first| first.waits_for == Some(reference.id))
        else {
            return hold;
        };
        first.waits_for = None;
        if let Some(error) = failure {
            if let Some(Reclaim { tree, .. }) = self.reclaiming.pop_front() {
                // Its pages stay in use until the next opening tries again.
                tracing::warn!(tree = tree.0, %error, "a dropped tree can't be reclaimed");
                self.reclaimed.push(tree);
            }
            return hold;
        }
        let frames_share = self.shared.memory.frames() / 32 / self.shared.settings.shards;
        if first.held.len() >= frames_share.clamp(HELD_PAGES_MIN, HELD_PAGES_MAX) {
            first.held.clear();
        }
        let held = hold.map(|frame| HeldFrame::new(&self.shared, frame));
        first.held.extend(held);
        None
    }

    /// Gives the pages up that are held for reclaiming, if this shard waits for frames: live work comes first. They may
    /// have to be read again.
    pub(super) fn give_up_held(&mut self) {
        if self.starved != Starved::No
            && self.pressure_sent
            && let Some(first) = self.reclaiming.front_mut()
        {
            first.held.clear();
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
            Ok(false) => {
                if let Some(reclaim) = self.reclaiming.front_mut() {
                    reclaim.held.clear();
                }
            }
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

#[cfg(test)]
mod tests {
    use treering_io::SimDirectory;

    use super::*;
    use crate::actor::Actor;
    use crate::client::Db;
    use crate::options::Options;
    use crate::runtime::SimOptions;
    use crate::shard::ShardMessage;
    use crate::shared::with_guard;

    /// A database with a page in memory that reclaiming might need.
    fn with_a_page() -> (Db, PageRef, FrameId) {
        let disk = SimDirectory::new(1);
        let db = crate::sim::open(&disk, &Options::new().shards(1), SimOptions::default()).expect("it opens");
        let tree = db.client().tree("tree").expect("a tree");
        tree.put(b"k", b"v").expect("written");
        drop(tree);
        crate::sim::settle(&db);
        let memory = &db.inner.runtime.shared.memory;
        let (reference, frame) = with_guard(memory, |guard| {
            let version = db.inner.runtime.shared.current.load(guard);
            let state = version.directory.by_name("tree").expect("there");
            let reference = state.partitions[0].root.reference;
            (
                reference,
                memory.lookup(reference.id, guard).expect("in memory").id,
            )
        });
        (db, reference, frame)
    }

    /// Has the page come for the reclaiming of a tree.
    fn comes(shard: &mut Shard, reference: PageRef, frame: FrameId) {
        shard.begin_reclaiming(TreeId(77));
        shard.reclaiming[0].waits_for = Some(reference.id);
        // As the pager does.
        assert!(shard.shared.memory.hold(frame));
        let result = Ok(frame);
        let mut outbox = Outbox::default();
        shard.handle(ShardMessage::Loaded { reference, result }, 0, &mut outbox);
        assert_eq!(shard.shared.memory.holds(frame), 1);
    }

    #[test]
    fn pages_that_came_for_reclaiming_are_held_until_it_has_gone_on() {
        let (db, reference, frame) = with_a_page();
        {
            let mut shard = db.inner.runtime.shards[0].lock();
            comes(&mut shard, reference, frame);
            shard.end_batch(0, &mut Outbox::default());
            assert!(shard.reclaiming.is_empty(), "nothing is left of such a tree");
            assert_eq!(shard.shared.memory.holds(frame), 0);
        }
        crate::sim::crash(db);
    }

    #[test]
    fn pages_that_came_for_reclaiming_are_given_up_when_frames_are_short() {
        let (db, reference, frame) = with_a_page();
        {
            let mut shard = db.inner.runtime.shards[0].lock();
            let mut outbox = Outbox::default();
            comes(&mut shard, reference, frame);
            // It waits for another one.
            shard.reclaiming[0].waits_for = Some(PageId(99));
            shard.end_batch(0, &mut outbox);
            assert_eq!(shard.shared.memory.holds(frame), 1);
            let frames = shard.shared.memory.frames();
            assert!(!shard.supply_for(frames + 1, &mut outbox), "more than there are");
            shard.end_batch(0, &mut outbox);
            assert_eq!(shard.shared.memory.holds(frame), 0);
        }
        crate::sim::crash(db);
    }
}
