//! Retired pages that some live version can still reach (rule R8).
//!
//! A page that was born with group `b` and retired by group `r` is visible to exactly the versions in
//! `[b, r)`. It is free as soon as no live version lies there. To find that out without ever rescanning,
//! each entry is filed under the *newest* live version below its `r`:
//!
//! - if that version is older than `b`, no live version sees the page and it is free at once;
//! - when that version dies, the next candidate is its live predecessor: entries born no later than it
//!   move there, all others are free.
//!
//! So a snapshot that is held for a day keeps at most one old copy of what changed. The common case, an
//! entry that is filed under the version published just before and freed when that dies, costs one push
//! and one pop; the vectors are recycled.
//!
//! Live versions must be announced in ascending order, and before anything is retired at a later group:
//! groups that are formed but not yet published count as live (rule R3).

use std::collections::VecDeque;

use crate::{Extent, Retired, Seq};

/// Emptied vectors that are kept for later versions.
const SPARE_VECTORS_MAX: usize = 16;
/// A vector that grew beyond this is not kept: one burst must not hold memory for ever.
const SPARE_ENTRIES_MAX: usize = 64 * 1024;

/// One live version and what waits for its death.
#[derive(Debug)]
struct Live {
    seq: Seq,
    entries: Vec<Retired>,
    pages: u64,
}

/// The live versions and the pages that wait for them: each entry is filed under the newest live version
/// below the group that retired it (rule R8).
#[derive(Debug, Default)]
pub struct WaitingLists {
    /// Ascending by `seq`. Almost all traffic is at the back.
    live: VecDeque<Live>,
    spare: Vec<Vec<Retired>>,
    entries: usize,
    pages: u64,
}

impl WaitingLists {
    /// No live version, nothing waiting.
    #[must_use]
    pub fn new() -> WaitingLists {
        WaitingLists::default()
    }

    /// Announces that `seq` lives from now on. O(1).
    ///
    /// Returns false, and changes nothing, unless `seq` is newer than every live version.
    #[must_use = "a version that was refused must not be relied on to protect its pages"]
    pub fn publish(&mut self, seq: Seq) -> bool {
        if self.newest().is_some_and(|newest| newest >= seq) {
            return false;
        }
        let entries = self.spare.pop().unwrap_or_default();
        self.live.push_back(Live {
            seq,
            entries,
            pages: 0,
        });
        true
    }

    /// Files one extent that group `retired_at` replaced, or pushes it to `freed` when no live version
    /// can see it. O(1) for the newest versions, O(log versions) otherwise.
    pub fn retire(&mut self, entry: Retired, retired_at: Seq, freed: &mut Vec<Extent>) {
        self.retire_all(&[entry], retired_at, freed);
    }

    /// [`retire`](WaitingLists::retire) for everything that one group replaced: the version is looked up once.
    pub fn retire_all(&mut self, entries: &[Retired], retired_at: Seq, freed: &mut Vec<Extent>) {
        let Some(index) = self.count_below(retired_at).checked_sub(1) else {
            freed.extend(entries.iter().map(|entry| entry.extent));
            return;
        };
        let holder = &mut self.live[index];
        for entry in entries {
            if entry.born <= holder.seq {
                holder.entries.push(*entry);
                holder.pages += u64::from(entry.extent.pages);
                self.entries += 1;
                self.pages += u64::from(entry.extent.pages);
            } else {
                freed.push(entry.extent);
            }
        }
    }

    /// The version `seq` can no longer be read by anyone: pushes to `freed` what only it still showed.
    /// O(entries filed under it). Returns false if `seq` was not live.
    pub fn version_died(&mut self, seq: Seq, freed: &mut Vec<Extent>) -> bool {
        let index = self.count_below(seq);
        if self.live.get(index).is_none_or(|live| live.seq != seq) {
            return false;
        }
        let Some(mut dead) = self.live.remove(index) else {
            return false;
        };
        match index.checked_sub(1).and_then(|before| self.live.get_mut(before)) {
            None => {
                self.entries -= dead.entries.len();
                self.pages -= dead.pages;
                freed.extend(dead.entries.iter().map(|entry| entry.extent));
            }
            Some(predecessor) => {
                for entry in &dead.entries {
                    let pages = u64::from(entry.extent.pages);
                    if entry.born <= predecessor.seq {
                        predecessor.entries.push(*entry);
                        predecessor.pages += pages;
                    } else {
                        self.entries -= 1;
                        self.pages -= pages;
                        freed.push(entry.extent);
                    }
                }
            }
        }
        if self.spare.len() < SPARE_VECTORS_MAX && dead.entries.capacity() <= SPARE_ENTRIES_MAX {
            dead.entries.clear();
            self.spare.push(dead.entries);
        }
        true
    }

    /// What waits for the death of `seq`, in the order in which it was filed. Empty if `seq` isn't live.
    /// O(log versions).
    #[must_use]
    pub fn filed_under(&self, seq: Seq) -> &[Retired] {
        match self.live.get(self.count_below(seq)) {
            Some(live) if live.seq == seq => &live.entries,
            _ => &[],
        }
    }

    /// The oldest live version.
    #[must_use]
    pub fn oldest(&self) -> Option<Seq> {
        self.live.front().map(|live| live.seq)
    }

    /// The newest live version.
    #[must_use]
    pub fn newest(&self) -> Option<Seq> {
        self.live.back().map(|live| live.seq)
    }

    /// Whether `seq` was announced and has not died. O(log versions).
    #[must_use]
    pub fn is_live(&self, seq: Seq) -> bool {
        self.live
            .get(self.count_below(seq))
            .is_some_and(|live| live.seq == seq)
    }

    /// The newest live version below `seq`. O(log versions).
    #[must_use]
    pub fn predecessor(&self, seq: Seq) -> Option<Seq> {
        let index = self.count_below(seq).checked_sub(1)?;
        Some(self.live[index].seq)
    }

    /// Number of live versions.
    #[must_use]
    pub fn live_versions(&self) -> usize {
        self.live.len()
    }

    /// Number of extents waiting; what bounds the memory of the lists (24 bytes each).
    #[must_use]
    pub fn entries_waiting(&self) -> usize {
        self.entries
    }

    /// Number of pages waiting, over all versions.
    #[must_use]
    pub fn pages_waiting(&self) -> u64 {
        self.pages
    }

    /// The live versions, oldest first, with the number of pages that wait for each.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = (Seq, u64)> + '_ {
        self.live.iter().map(|live| (live.seq, live.pages))
    }

    /// Everything that waits, with the version it is filed under: for the check of invariant 4.
    pub fn iter(&self) -> impl Iterator<Item = (Seq, Retired)> + '_ {
        self.live
            .iter()
            .flat_map(|live| live.entries.iter().map(move |entry| (live.seq, *entry)))
    }

    /// What would still wait if no version but `kept` (ascending) were alive, filed under each of them: what a
    /// checkpoint stores for named snapshots. `waits` says whether an extent counts at all.
    ///
    /// Extents that lie side by side and are seen by the same of these versions are joined; their `born` becomes
    /// the oldest of `kept` that sees them, which is all that their future depends on. O(n log n) for n entries.
    pub fn kept_by(&self, kept: &[Seq], mut waits: impl FnMut(Extent) -> bool) -> Vec<Vec<Retired>> {
        let mut filed = vec![Vec::new(); kept.len()];
        for live in &self.live {
            let Some(holder) = kept.partition_point(|seq| *seq <= live.seq).checked_sub(1) else {
                continue;
            };
            for entry in &live.entries {
                if entry.born <= kept[holder] && waits(entry.extent) {
                    let oldest = kept.partition_point(|seq| *seq < entry.born);
                    filed[holder].push(Retired {
                        extent: entry.extent,
                        born: kept[oldest],
                    });
                }
            }
        }
        for entries in &mut filed {
            entries.sort_unstable_by_key(|entry| entry.extent);
            entries.dedup_by(|next, entry| {
                let joins = entry.extent.start.0 + entry.extent.pages == next.extent.start.0
                    && entry.born == next.born;
                if joins {
                    entry.extent.pages += next.extent.pages;
                }
                joins
            });
        }
        filed
    }

    /// How many live versions are older than `seq`.
    fn count_below(&self, seq: Seq) -> usize {
        // Groups retire at the newest sequence or the one after it: look at the back before searching.
        let count = self.live.len();
        if count == 0 || self.live[count - 1].seq < seq {
            return count;
        }
        if count == 1 || self.live[count - 2].seq < seq {
            return count - 1;
        }
        self.live.partition_point(|live| live.seq < seq)
    }
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
