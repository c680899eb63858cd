//! Which actors got messages and have to be seen to.

use treering_engine::ShardId;

/// Words of a set of all shards that there may be.
const WORDS: usize = 4;

/// A set of actors. No list: every write that is waited for makes some of these.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Kicks {
    shards: [u64; WORDS],
    pub commit: bool,
    pub pager: bool,
    pub flusher: bool,
}

impl Kicks {
    /// One shard.
    pub fn shard(shard: ShardId) -> Kicks {
        let mut kicks = Kicks::default();
        kicks.add_shard(shard);
        kicks
    }

    /// The commit actor.
    pub fn commit() -> Kicks {
        Kicks {
            commit: true,
            ..Kicks::default()
        }
    }

    pub fn add_shard(&mut self, shard: ShardId) {
        // There are at most 256 shards.
        self.shards[usize::from(shard.0) / 64 % WORDS] |= 1 << (shard.0 % 64);
    }

    pub fn add(&mut self, other: Kicks) {
        for (own, others) in self.shards.iter_mut().zip(other.shards) {
            *own |= others;
        }
        self.commit |= other.commit;
        self.pager |= other.pager;
        self.flusher |= other.flusher;
    }

    /// The shards, ascending.
    pub fn shards(self) -> impl Iterator<Item = ShardId> {
        self.shards.into_iter().enumerate().flat_map(|(word, bits)| {
            std::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)))
                .take_while(|bits| *bits != 0)
                .map(move |bits| ShardId((word * 64) as u16 + bits.trailing_zeros() as u16))
        })
    }

    pub fn is_empty(self) -> bool {
        self.shards == [0; WORDS] && !self.commit && !self.pager && !self.flusher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_listed_once_and_in_order() {
        let mut kicks = Kicks::shard(ShardId(255));
        assert!(!kicks.is_empty());
        for id in [0, 64, 63, 255, 3] {
            kicks.add(Kicks::shard(ShardId(id)));
        }
        let ids: Vec<u16> = kicks.shards().map(|shard| shard.0).collect();
        assert_eq!(ids, [0, 3, 63, 64, 255]);
        assert!(Kicks::default().is_empty());
        assert_eq!(Kicks::commit().shards().count(), 0);
    }
}
