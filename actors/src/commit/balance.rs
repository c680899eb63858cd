//! Who has too much to do, and trees that are in too many pieces: what shards are asked to do about it.
//!
//! The commit actor sees all batches, so it knows how the work is shared out. It counts operations, not time: equal
//! runs are balanced equally. Shards choose what they give away, and may decline (`shard/moves`).

use std::sync::Arc;

use treering_engine::catalog::TreeState;
use treering_engine::{ShardId, TreeId};

use super::DROPPED_PREFIX;
use super::state::Commit;
use crate::actor::Outbox;
use crate::shard::{ShardMessage, Wanted, partitions_wanted};

/// Trees that are looked at, at most, for one that is in too many pieces, each time the shares are.
const TREES_LOOKED_AT_MAX: usize = 4096;

/// The operations since the shares were looked at last.
#[derive(Debug, Default)]
pub(super) struct Balance {
    operations: Vec<u64>,
    /// The tree whose pieces were counted last.
    tree: Option<TreeId>,
    /// How often neighbours were to be joined: with each time, the search for a pair begins further on.
    mendings: usize,
}

impl Balance {
    /// Takes note of a batch.
    pub fn note(&mut self, shard: ShardId, operations: u32) {
        let index = usize::from(shard.0);
        if self.operations.len() <= index {
            self.operations.resize(index + 1, 0);
        }
        self.operations[index] += u64::from(operations);
    }
}

impl Commit {
    /// Looks at the shares, once enough operations have gone by.
    pub(super) fn balance(&mut self, outbox: &mut Outbox) {
        let shards = self.shared.settings.shards;
        let every = self.shared.settings.balance_operations;
        if shards < 2 || !self.is_live {
            return;
        }
        let total: u64 = self.balance.operations.iter().sum();
        if total < every {
            return;
        }
        let mut operations = std::mem::take(&mut self.balance.operations);
        operations.resize(shards, 0);
        if self.shared.status.check_write().is_err() {
            return;
        }
        let by_load = |index: &usize| (operations[*index], std::cmp::Reverse(*index));
        let hottest = (0..shards).max_by_key(by_load).unwrap_or(0);
        let coolest = (0..shards).min_by_key(by_load).unwrap_or(0);
        // Twice as much and a good part of all of it: less isn't worth a move, and could be chance.
        if operations[hottest] >= 2 * operations[coolest] + total / 8 {
            let to = ShardId(coolest as u16);
            outbox.shards.push((
                ShardId(hottest as u16),
                ShardMessage::Wanted(Wanted::GiveAway { to }),
            ));
        }
        self.mend_one_tree(outbox);
    }

    /// Has two neighbours joined, in one of the trees that are in too many pieces, if there are any. So many trees are
    /// looked at, and cuts are that few (one each time the shares are looked at), that all of them have their turn; what
    /// bounds the pieces of a tree that is cut again and again is `shard/moves`.
    fn mend_one_tree(&mut self, outbox: &mut Outbox) {
        let wanted = partitions_wanted(&self.shared.settings);
        for _ in 0..self.planned.len().min(TREES_LOOKED_AT_MAX) {
            let next = self.planned.next_after(self.balance.tree);
            let Some(state) = next.or_else(|| self.planned.next_after(None)) else {
                return;
            };
            self.balance.tree = Some(state.id);
            // Of what is empty nobody needs pieces, and whole it can be bulk loaded.
            let count = state.partitions.len();
            if (count > wanted || (count > 1 && is_empty(state))) && !state.name.starts_with(DROPPED_PREFIX) {
                let message = mend(state, self.balance.mendings);
                self.balance.mendings = self.balance.mendings.wrapping_add(1);
                outbox.shards.extend(message);
                return;
            }
        }
    }
}

fn is_empty(state: &TreeState) -> bool {
    let mut partitions = state.partitions.iter();
    partitions.all(|partition| partition.root.reference.is_none())
}

/// Who is to do what so that the tree gets one piece less: two neighbours of one owner are joined; where there are none,
/// one is given to the owner of the other first.
fn mend(state: &TreeState, begin: usize) -> Option<(ShardId, ShardMessage)> {
    let count = state.partitions.len().checked_sub(1).filter(|pairs| *pairs > 0)?;
    let pair = |index: usize| {
        let index = (begin + index) % count;
        (&state.partitions[index], &state.partitions[index + 1])
    };
    let (left, right) = (0..count)
        .map(pair)
        .find(|(left, right)| left.owner == right.owner)
        .unwrap_or(pair(0));
    let (tree, lower, to) = (state.id, Arc::clone(&right.lower), left.owner);
    let wanted = if right.owner == to {
        Wanted::Join { tree, lower }
    } else {
        Wanted::Give { tree, lower, to }
    };
    Some((right.owner, ShardMessage::Wanted(wanted)))
}

#[cfg(test)]
mod tests {
    use treering_engine::catalog::Partition;
    use treering_engine::tree::Root;

    use super::*;

    /// A tree whose partitions begin at 0, 1, 2 and so on, with these owners.
    fn tree(owners: &[u16]) -> TreeState {
        let partitions = owners.iter().zip(0u8..).map(|(owner, at)| Partition {
            lower: if at == 0 { Arc::from([]) } else { Arc::from([at]) },
            root: Root::default(),
            owner: ShardId(*owner),
            moved: 0,
        });
        TreeState {
            partitions: partitions.collect(),
            ..TreeState::new(TreeId(1), "tree", Root::default(), ShardId(0))
        }
    }

    /// Where the right one of the pair begins, who is asked, and to whom it goes first.
    fn mended(owners: &[u16], begin: usize) -> Option<(u8, u16, Option<u16>)> {
        let (asked, message) = mend(&tree(owners), begin)?;
        match message {
            ShardMessage::Wanted(Wanted::Join { lower, .. }) => Some((lower[0], asked.0, None)),
            ShardMessage::Wanted(Wanted::Give { lower, to, .. }) => Some((lower[0], asked.0, Some(to.0))),
            _ => None,
        }
    }

    #[test]
    fn neighbours_of_one_owner_are_joined_and_others_are_brought_together() {
        assert_eq!(mended(&[0], 0), None);
        assert_eq!(mended(&[0, 1, 1, 0], 0), Some((2, 1, None)));
        assert_eq!(mended(&[2, 2, 1, 1], 0), Some((1, 2, None)));
        assert_eq!(
            mended(&[2, 2, 1, 1], 1),
            Some((3, 1, None)),
            "not always the same"
        );
        assert_eq!(mended(&[2, 2, 1, 1], 3), Some((1, 2, None)), "round and round");
        assert_eq!(mended(&[0, 1, 2], 0), Some((1, 1, Some(0))));
        assert_eq!(mended(&[0, 1, 2], 1), Some((2, 2, Some(1))));
    }
}
