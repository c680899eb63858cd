//! Who has too much to do, and trees that are in too many pieces: what shards are asked to do about it.
//!
//! The commit actor sees all batches, so it knows how the work is shared out. It counts operations, not time: equal
//! runs are balanced equally. Shards choose what they give away, and may decline (`shard/moves`).

use treering_engine::ShardId;
use treering_engine::TreeId;

use super::DROPPED_PREFIX;
use super::state::Commit;
use crate::actor::Outbox;
use crate::shard::{ShardMessage, Wanted};

/// Most partitions of a tree for each shard, beyond which neighbours are joined.
const PARTITIONS_PER_SHARD_MAX: u64 = 4;
/// Fewer where shares are looked at that often: pieces come fast there.
const OPERATIONS_PER_PARTITION: u64 = 256;

/// The operations since the shares were looked at last.
#[derive(Debug, Default)]
pub(super) struct Balance {
    operations: Vec<u64>,
    /// The tree whose pieces were counted last.
    tree: Option<TreeId>,
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
        self.mend_one_tree(shards, outbox);
    }

    /// Has two neighbours joined, in one tree at a time, if the tree is in too many pieces.
    fn mend_one_tree(&mut self, shards: usize, outbox: &mut Outbox) {
        let next = self.planned.next_after(self.balance.tree);
        let Some(state) = next else {
            self.balance.tree = None;
            return;
        };
        self.balance.tree = Some(state.id);
        let partitions = &state.partitions;
        let every = self.shared.settings.balance_operations;
        let per_shard = (every / OPERATIONS_PER_PARTITION).clamp(1, PARTITIONS_PER_SHARD_MAX) as usize;
        if partitions.len() <= per_shard * shards || state.name.starts_with(DROPPED_PREFIX) {
            return;
        }
        let pairs = || partitions.windows(2).map(|pair| (&pair[0], &pair[1]));
        let tree = state.id;
        if let Some((_, right)) = pairs().find(|(left, right)| left.owner == right.owner) {
            let lower = std::sync::Arc::clone(&right.lower);
            outbox
                .shards
                .push((right.owner, ShardMessage::Wanted(Wanted::Join { tree, lower })));
        } else if let Some((left, right)) = pairs().next() {
            let lower = std::sync::Arc::clone(&right.lower);
            let to = left.owner;
            outbox.shards.push((
                right.owner,
                ShardMessage::Wanted(Wanted::Give { tree, lower, to }),
            ));
        }
    }
}
