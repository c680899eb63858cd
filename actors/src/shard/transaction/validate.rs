//! Validation: whether what a transaction relies on still holds at the owner's tip.
//!
//! Runs under the claims of the part, so what is found to hold goes on holding until they are released. Cheapest first:
//! a partition whose root is the one of the transaction's snapshot has not changed at all; else each expected key is
//! looked up; else the snapshot's and the tip's trees are walked side by side within each range, where nodes that both
//! share are skipped unread. Values are compared, not the times of their writing: a key that was changed and changed
//! back is as good as unchanged, since the transaction takes effect after both changes.
//!
//! A miss leaves the [`Progress`]: keys that were compared aren't compared again. Within a range the walk starts anew,
//! because nodes of an open batch change in place.

use std::ops::ControlFlow;

use crossbeam_epoch::Guard;
use treering_engine::TreeId;
use treering_engine::catalog::TreeState;
use treering_engine::page::ValueRef;
use treering_engine::tree::{self, Diff, Miss, Root};

use super::{KeyRange, Transaction};
use crate::client::NodeView;
use crate::shard::messages::Stored;
use crate::shard::state::Shard;

/// Pages that the comparison of one part may wait for before the ranges count as changed: a walk that starts anew after
/// each miss must not go on for ever in a cache that is too small for it.
const RANGE_MISSES_MAX: u32 = 256;

/// How far the validation of a part has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    keys: usize,
    ranges: usize,
    misses: u32,
}

impl Shard {
    /// Whether everything that the part relies on still holds.
    pub(super) fn validate(
        &self,
        transaction: &Transaction,
        part: usize,
        progress: &mut Progress,
        guard: &Guard,
    ) -> Result<bool, Miss> {
        let part = &transaction.parts[part];
        if part.expected.is_empty() && part.ranges.is_empty() {
            return Ok(true);
        }
        // Of a tree that the snapshot doesn't know, nothing was read.
        let snapshot = transaction.snapshot.as_ref();
        let state = snapshot.and_then(|snapshot| snapshot.directory.get(part.tree));
        let tips = self.tips.of_tree(part.tree);
        if let Some(state) = state
            && let [partition] = &state.partitions[..]
            && let [tip] = tips
            && partition.root.reference == tip.root.reference
        {
            return Ok(true);
        }
        let view = NodeView::new(self.shared.memory.view(guard));
        while let Some((key, expected)) = part.expected.get(progress.keys) {
            let root = self
                .tips
                .get(part.tree, key)
                .map_or(Root::default(), |tip| tip.root);
            if !holds(tree::get(&view, &root, key)?, expected) {
                return Ok(false);
            }
            progress.keys += 1;
        }
        while let Some(range) = part.ranges.get(progress.ranges) {
            match self.has_changed(part.tree, range, state.map(|state| &**state), &view) {
                Ok(false) => progress.ranges += 1,
                Ok(true) => return Ok(false),
                Err(miss) => {
                    progress.misses += 1;
                    return if progress.misses > RANGE_MISSES_MAX {
                        Ok(false)
                    } else {
                        Err(miss)
                    };
                }
            }
        }
        Ok(true)
    }

    /// Whether what this shard has of a range differs from what a version shows there. Partitions may have been cut and
    /// joined since: each of the version's is compared with each of this shard's, where they overlap.
    fn has_changed(
        &self,
        tree: TreeId,
        range: &KeyRange,
        before: Option<&TreeState>,
        view: &NodeView<'_>,
    ) -> Result<bool, Miss> {
        let empty = TreeState::new(tree, "", Root::default(), self.id);
        let before = before.unwrap_or(&empty);
        for tip in self.tips.of_tree(tree) {
            let here = range.clipped(&tip.lower, tip.upper.as_deref());
            for (index, partition) in before.partitions.iter().enumerate() {
                let upper = before.partitions.get(index + 1).map(|next| &*next.lower);
                let common = here.clipped(&partition.lower, upper);
                if common.is_empty() {
                    continue;
                }
                let (lower, upper) = common.bounds();
                let mut diff = Diff::new(partition.root, tip.root).within(lower, upper);
                let mut changed = false;
                while diff.next_run(view, |_| {
                    changed = true;
                    ControlFlow::Break(())
                })? && !changed
                {}
                if changed {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn holds(found: Option<ValueRef<'_>>, expected: &Stored) -> bool {
    match (found, expected) {
        (None, Stored::Absent) => true,
        (Some(ValueRef::Inline(found)), Stored::Inline(expected)) => *found == **expected,
        // A descriptor names one use of its extents and no other.
        (Some(ValueRef::Blob(found)), Stored::Blob(expected)) => *found == **expected,
        _ => false,
    }
}
