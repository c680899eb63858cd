//! How many partitions a tree may have (rule R9): the directory of every version lists them all.
//!
//! A tree is cut when a shard has too much to do, and its pieces are joined again when there are more than
//! [`partitions_wanted`] of them (`commit/balance.rs`). Joining takes its time: others may have the gate, neighbours may
//! have to move first. So cutting has a bound of its own, [`partitions_max`]. Cuts are made one at a time, each when all
//! before it are published (`runtime/gate.rs`), so counting the partitions of the published version is enough for it to
//! hold exactly.

use crossbeam_epoch::Guard;
use treering_engine::TreeId;

use crate::shard::state::Shard;
use crate::shared::Settings;

/// Partitions of a tree for each shard, beyond which neighbours are joined.
const PARTITIONS_PER_SHARD: u64 = 4;
/// Fewer where shares are looked at that often: pieces come fast there.
const OPERATIONS_PER_PARTITION: u64 = 256;

/// With more partitions than that, neighbours of a tree are joined.
pub(crate) fn partitions_wanted(settings: &Settings) -> usize {
    let per_shard = settings.balance_operations / OPERATIONS_PER_PARTITION;
    per_shard.clamp(1, PARTITIONS_PER_SHARD) as usize * settings.shards
}

/// A tree with that many is not cut.
pub(crate) fn partitions_max(settings: &Settings) -> usize {
    2 * partitions_wanted(settings)
}

impl Shard {
    /// Whether a tree may have one more partition.
    pub(super) fn may_be_cut(&self, tree: TreeId, guard: &Guard) -> bool {
        let version = self.shared.current.load(guard);
        let partitions = version.directory.get(tree).map(|state| state.partitions.len());
        partitions.is_some_and(|count| count < partitions_max(&self.shared.settings))
    }
}
