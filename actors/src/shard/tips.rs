//! The newest, private state of the partitions that a shard works on.
//!
//! A tip is made from the published version when the first request for its key range comes, and given up when the
//! range is given away, joined with another, or the tips are dropped (rule R13).

use std::collections::BTreeMap;
use std::sync::Arc;

use treering_engine::catalog::{Partition, TreeState};
use treering_engine::tree::Root;
use treering_engine::{ShardId, TreeId};

/// One partition's tip.
#[derive(Clone, Debug)]
pub(super) struct Tip {
    /// Lowest key of the partition.
    pub lower: Arc<[u8]>,
    /// Lowest key of the next partition, if there is one.
    pub upper: Option<Arc<[u8]>>,
    pub root: Root,
    /// Root before the open batch, for undoing it.
    pub frozen: Root,
    /// Which move has brought the partition here; see [`Partition::moved`].
    pub moved: u64,
    /// Whether it stands in `Tips::touched`.
    touched: bool,
}

impl Tip {
    /// The partition as its owner's batch says it.
    pub fn partition(&self, owner: ShardId) -> Partition {
        Partition {
            lower: Arc::clone(&self.lower),
            root: self.root,
            owner,
            moved: self.moved,
        }
    }

    /// Whether it and partition `index` of a tree hold a key in common.
    fn overlaps(&self, state: &TreeState, index: usize) -> bool {
        let lower = &state.partitions[index].lower;
        let upper = state.partitions.get(index + 1).map(|next| &next.lower);
        self.upper.as_ref().is_none_or(|end| lower < end) && upper.is_none_or(|end| self.lower < *end)
    }

    /// The tip of partition `index` of a tree, as a version shows it.
    pub fn of(state: &TreeState, index: usize) -> Option<Tip> {
        let partition = state.partitions.get(index)?;
        Some(Tip {
            lower: Arc::clone(&partition.lower),
            upper: state
                .partitions
                .get(index + 1)
                .map(|next| Arc::clone(&next.lower)),
            root: partition.root,
            frozen: partition.root,
            moved: partition.moved,
            touched: false,
        })
    }

    /// Whether a key lies in its range.
    pub fn holds(&self, key: &[u8]) -> bool {
        *self.lower <= *key && self.upper.as_ref().is_none_or(|upper| *key < **upper)
    }
}

/// Where a tip stands; until tips are added or given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TipPlace {
    tree: TreeId,
    index: usize,
}

/// The tips of a shard.
#[derive(Debug, Default)]
pub(super) struct Tips {
    /// Ascending by `lower`; most trees have one.
    trees: BTreeMap<TreeId, Vec<Tip>>,
    /// Partitions whose root differs from the frozen one, or may.
    touched: Vec<(TreeId, Arc<[u8]>)>,
}

impl Tips {
    /// Where the tip of the partition that holds `key` stands. O(log trees + log partitions).
    pub fn find(&self, tree: TreeId, key: &[u8]) -> Option<TipPlace> {
        let tips = self.trees.get(&tree)?;
        let index = tips.partition_point(|tip| *tip.lower <= *key).checked_sub(1)?;
        tips[index].holds(key).then_some(TipPlace { tree, index })
    }

    /// The tip of the partition that holds `key`.
    pub fn get(&self, tree: TreeId, key: &[u8]) -> Option<&Tip> {
        let TipPlace { tree, index } = self.find(tree, key)?;
        self.trees.get(&tree)?.get(index)
    }

    /// The tip at a place. O(log trees).
    pub fn at(&self, place: TipPlace) -> Option<&Tip> {
        self.trees.get(&place.tree)?.get(place.index)
    }

    fn get_mut(&mut self, tree: TreeId, key: &[u8]) -> Option<&mut Tip> {
        let TipPlace { tree, index } = self.find(tree, key)?;
        self.trees.get_mut(&tree)?.get_mut(index)
    }

    /// The tips of a tree, in key order.
    pub fn of_tree(&self, tree: TreeId) -> &[Tip] {
        self.trees.get(&tree).map_or(&[], Vec::as_slice)
    }

    /// Adds a tip. No other holds a part of its range.
    pub fn insert(&mut self, tree: TreeId, tip: Tip) -> TipPlace {
        let tips = self.trees.entry(tree).or_default();
        let index = tips.partition_point(|other| other.lower < tip.lower);
        tips.insert(index, tip);
        TipPlace { tree, index }
    }

    /// Adds tips for all partitions of a version's tree that are wanted and of which no part has a tip: those that do
    /// were changed since.
    pub fn insert_all(&mut self, state: &TreeState, wanted: impl Fn(&Partition) -> bool) {
        for (index, partition) in state.partitions.iter().enumerate() {
            let known = self.of_tree(state.id);
            if wanted(partition)
                && !known.iter().any(|tip| tip.overlaps(state, index))
                && let Some(tip) = Tip::of(state, index)
            {
                self.insert(state.id, tip);
            }
        }
    }

    /// Gives up the tip that begins at `lower`.
    pub fn remove(&mut self, tree: TreeId, lower: &[u8]) {
        if let Some(tips) = self.trees.get_mut(&tree) {
            tips.retain(|tip| *tip.lower != *lower);
            if tips.is_empty() {
                self.trees.remove(&tree);
            }
        }
        self.touched
            .retain(|(touched, other)| *touched != tree || **other != *lower);
    }

    /// Gives up all tips of a tree.
    pub fn remove_tree(&mut self, tree: TreeId) {
        self.trees.remove(&tree);
        self.touched.retain(|(touched, _)| *touched != tree);
    }

    /// Gives up all tips.
    pub fn clear(&mut self) {
        self.trees.clear();
        self.touched.clear();
    }

    /// Runs `change` on the root of a tip and notes whether the root is another one now. `None` if there is no tip.
    pub fn change<R>(&mut self, place: TipPlace, change: impl FnOnce(&mut Root) -> R) -> Option<R> {
        let tip = self.trees.get_mut(&place.tree)?.get_mut(place.index)?;
        let before = tip.root;
        let result = change(&mut tip.root);
        // A root keeps its page while it is changed in place: then the tip is marked already.
        if tip.root != before && !tip.touched {
            tip.touched = true;
            self.touched.push((place.tree, Arc::clone(&tip.lower)));
        }
        Some(result)
    }

    /// The new roots of the partitions that the open batch has changed; from now on they are the frozen ones.
    pub fn freeze(&mut self) -> Vec<(TreeId, Arc<[u8]>, Root)> {
        let mut roots = Vec::with_capacity(self.touched.len());
        for (tree, lower) in std::mem::take(&mut self.touched) {
            if let Some(tip) = self.get_mut(tree, &lower) {
                tip.touched = false;
                tip.frozen = tip.root;
                roots.push((tree, lower, tip.root));
            }
        }
        roots
    }

    /// The roots that the changed partitions had before the open batch.
    pub fn roots_before(&self) -> Vec<(TreeId, Arc<[u8]>, Root)> {
        let touched = self.touched.iter();
        let before = touched.filter_map(|(tree, lower)| {
            let tip = self.get(*tree, lower)?;
            Some((*tree, Arc::clone(lower), tip.frozen))
        });
        before.collect()
    }

    /// Gives a partition the root back that it had before a batch that nothing was built on.
    pub fn restore(&mut self, tree: TreeId, lower: &[u8], root: Root) {
        if let Some(tip) = self.get_mut(tree, lower) {
            tip.root = root;
            tip.frozen = root;
        }
    }

    /// Takes back what the open batch did to the roots.
    pub fn undo(&mut self) {
        for (tree, lower) in std::mem::take(&mut self.touched) {
            if let Some(tip) = self.get_mut(tree, &lower) {
                tip.touched = false;
                tip.root = tip.frozen;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use treering_engine::{PageId, PageRef};

    use super::*;

    const TREE: TreeId = TreeId(3);

    fn root(number: u32) -> Root {
        let reference = PageRef {
            id: PageId(number),
            birth: number,
        };
        Root {
            reference,
            height: 1,
            entries: 1,
        }
    }

    fn tip(lower: &str, upper: Option<&str>, number: u32) -> Tip {
        let bytes = |key: &str| Arc::from(key.as_bytes());
        Tip {
            lower: bytes(lower),
            upper: upper.map(bytes),
            root: root(number),
            frozen: root(number),
            moved: 0,
            touched: false,
        }
    }

    #[test]
    fn keys_find_the_tip_whose_range_holds_them_and_no_other() {
        let mut tips = Tips::default();
        tips.insert(TREE, tip("t", None, 3));
        tips.insert(TREE, tip("", Some("g"), 1));
        let found = |key: &str| tips.get(TREE, key.as_bytes()).map(|tip| tip.root);
        assert_eq!(found("a"), Some(root(1)));
        assert_eq!(found("g"), None, "the range between belongs to another shard");
        assert_eq!(found("s"), None);
        assert_eq!(found("t"), Some(root(3)));
        assert_eq!(tips.get(TreeId(4), b"a").map(|tip| tip.root), None);
    }

    fn change(tips: &mut Tips, key: &[u8], change: impl FnOnce(&mut Root)) {
        let place = tips.find(TREE, key).expect("a tip holds the key");
        tips.change(place, change).expect("found");
    }

    #[test]
    fn what_changed_is_frozen_or_taken_back() {
        let mut tips = Tips::default();
        tips.insert(TREE, tip("", Some("g"), 1));
        tips.insert(TREE, tip("g", None, 2));
        change(&mut tips, b"x", |root| root.entries += 1);
        change(&mut tips, b"y", |root| root.entries += 1);
        change(&mut tips, b"a", |_| ());
        let changed = Root {
            entries: 3,
            ..root(2)
        };
        assert_eq!(tips.freeze(), [(TREE, Arc::from(b"g".as_slice()), changed)]);
        assert_eq!(tips.freeze(), []);
        change(&mut tips, b"x", |root| root.entries = 9);
        tips.undo();
        assert_eq!(tips.get(TREE, b"x").map(|tip| tip.root), Some(changed));
    }
}
