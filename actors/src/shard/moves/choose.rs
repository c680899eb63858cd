//! Which keys a shard gives away, if it has too much to do: about half of what it was asked for lately.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_epoch::Guard;
use treering_engine::TreeId;

use crate::shard::single::Place;
use crate::shard::state::Shard;

/// Requests that are remembered.
const SAMPLED_MAX: usize = 64;
/// At most one of so many is; more where moves are looked for often.
const SAMPLED_ONE_IN: u64 = 16;
/// With fewer nothing can be said; not even that many where moves are looked for often.
const SAMPLED_MIN: u64 = 16;

/// Keys of requests of late, in the order in which they came.
#[derive(Default)]
pub(in crate::shard) struct Sample {
    keys: VecDeque<(TreeId, Box<[u8]>)>,
    /// Requests since the last one that was kept.
    since: u64,
}

/// One request of how many is remembered.
fn one_in(balance_operations: u64) -> u64 {
    (balance_operations / 1024).clamp(1, SAMPLED_ONE_IN)
}

impl Sample {
    /// Takes note of a request, now and then.
    #[inline]
    pub fn note(&mut self, tree: TreeId, key: &[u8], balance_operations: u64) {
        self.since += 1;
        if self.since >= one_in(balance_operations) {
            self.since = 0;
            self.keep(tree, key);
        }
    }

    #[cold]
    fn keep(&mut self, tree: TreeId, key: &[u8]) {
        if self.keys.len() == SAMPLED_MAX {
            self.keys.pop_front();
        }
        self.keys.push_back((tree, key.into()));
    }

    /// What was seen says nothing about what is left.
    pub fn forget(&mut self) {
        self.keys.clear();
    }
}

/// A partition, by tree and lowest key, and the keys of it that were asked for.
type Asked = ((TreeId, Arc<[u8]>), Vec<Box<[u8]>>);

/// What to give away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Choice {
    /// The partition of the tree that begins there.
    Whole(TreeId, Arc<[u8]>),
    /// What lies above that key, or near it, of its partition.
    CutAt(TreeId, Box<[u8]>),
}

impl Shard {
    /// Chooses by the sample; `None` if nothing that could be given away would help.
    pub(super) fn choose(&mut self, guard: &Guard) -> Option<Choice> {
        let sample: Vec<_> = self.moves.load.keys.iter().cloned().collect();
        let mut parts: Vec<Asked> = Vec::new();
        for (tree, key) in sample {
            let Place::Here(place) = self.locate(tree, &key, guard) else {
                continue;
            };
            let Some(tip) = self.tips.at(place) else { continue };
            let name = (tree, Arc::clone(&tip.lower));
            match parts.iter_mut().find(|(other, _)| *other == name) {
                Some((_, keys)) => keys.push(key),
                None => parts.push((name, vec![key])),
            }
        }
        let sampled_min = (self.shared.settings.balance_operations / 2).min(SAMPLED_MIN) as usize;
        choose(parts, sampled_min).filter(|choice| match choice {
            Choice::Whole(..) => true,
            Choice::CutAt(tree, _) => self.may_be_cut(*tree, guard),
        })
    }
}

/// Chooses among partitions with the keys that were asked for in each.
fn choose(mut parts: Vec<Asked>, sampled_min: usize) -> Option<Choice> {
    let all: usize = parts.iter().map(|(_, keys)| keys.len()).sum();
    if all < sampled_min.max(2) {
        return None;
    }
    parts.sort_by_key(|(name, keys)| (std::cmp::Reverse(keys.len()), name.clone()));
    // The largest that takes no more than about half of the work along; the rest stays.
    let whole = parts.iter().find(|(_, keys)| keys.len() * 16 <= all * 9);
    if let Some(((tree, lower), keys)) = whole
        && keys.len() * 4 >= all
    {
        return Some(Choice::Whole(*tree, Arc::clone(lower)));
    }
    let ((tree, _), keys) = parts.into_iter().next()?;
    // Keys that only ascend have their work at the end, wherever that is: a cut would move it once and again, and a
    // single owner is what is fast for them.
    let ascending = keys.windows(2).filter(|pair| pair[0] < pair[1]).count();
    if keys.len() > 2 && ascending * 10 >= (keys.len() - 1) * 9 {
        return None;
    }
    let mut sorted = keys;
    sorted.sort_unstable();
    let middle = sorted[sorted.len() / 2].clone();
    // One key that is asked for all the time can't be shared out.
    let below = sorted.iter().filter(|key| **key < middle).count();
    (below * 8 >= sorted.len()).then_some(Choice::CutAt(tree, middle))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(tree: u32, keys: &[u32]) -> Asked {
        let keys = keys.iter().map(|key| Box::from(key.to_be_bytes())).collect();
        ((TreeId(tree), Arc::from([])), keys)
    }

    fn scattered(count: u32) -> Vec<u32> {
        (0..count)
            .map(|number| number.wrapping_mul(0x9E37_79B9))
            .collect()
    }

    #[test]
    fn a_partition_with_half_of_the_work_goes_whole() {
        let choice = choose(vec![part(1, &scattered(30)), part(2, &scattered(34))], 16);
        assert_eq!(choice, Some(Choice::Whole(TreeId(2), Arc::from([]))));
    }

    #[test]
    fn a_partition_with_nearly_all_of_the_work_is_cut_in_the_middle_of_it() {
        let Some(Choice::CutAt(tree, key)) = choose(vec![part(2, &[5, 1]), part(1, &scattered(62))], 16)
        else {
            panic!("nothing was chosen");
        };
        assert_eq!(tree, TreeId(1));
        let key = u32::from_be_bytes((*key).try_into().expect("four bytes"));
        assert!((0x4000_0000..0xC000_0000).contains(&key), "{key:x}");
    }

    #[test]
    fn ascending_keys_a_single_hot_key_and_a_short_sample_stay() {
        assert_eq!(choose(vec![part(1, &(0..64).collect::<Vec<_>>())], 16), None);
        assert_eq!(choose(vec![part(1, &[7; 64])], 16), None);
        assert_eq!(choose(vec![part(1, &scattered(8))], 16), None);
    }
}
