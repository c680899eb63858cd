//! From a wish of the commit actor to the batch that does it.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_epoch::Guard;
use treering_engine::catalog::Partition;
use treering_engine::memory::FrameId;
use treering_engine::tree::{self, Miss};
use treering_engine::{PageId, ShardId, TreeId};

use super::choose::Choice;
use super::{
    Departure, Done, HELD_PAGES_MAX, JOB_NANOS_MAX, Job, Moves, PartitionChange, QUIET_WAIT_NANOS, Stage,
    Task, Wanted,
};
use crate::actor::Outbox;
use crate::pager::{PagerMessage, Waiter};
use crate::runtime::Shut;
use crate::shard::single::Place;
use crate::shard::state::{Shard, Starved};
use crate::shard::store::TipStore;
use crate::shard::tips::{Tip, TipPlace};
use crate::shared::{Counter, HeldFrame};

impl Shard {
    /// The commit actor wants something. A wish to give something away that comes while something is under way is
    /// forgotten: the load will be another one afterwards. Wishes about trees in too many pieces wait. (Bad run: each
    /// comes together with one to give something away, here or at another shard, which shuts the gate first; so trees
    /// are cut and never joined.)
    pub(in crate::shard) fn want(&mut self, wanted: Wanted) {
        let Moves {
            job,
            departure,
            arrival,
            ..
        } = &self.moves;
        match wanted {
            Wanted::GiveAway { to } => {
                if job.is_none() && departure.is_none() && arrival.is_none() {
                    self.moves.give_away = Some(to);
                }
            }
            Wanted::Give { tree, lower, to } => self.moves.mend = Some(Task::Give(tree, lower, to)),
            Wanted::Join { tree, lower } => self.moves.mend = Some(Task::Join(tree, lower)),
        }
    }

    /// Decides what to do about a wish, and shuts the gate for it, if nobody else has.
    fn take_up_wish(&mut self, guard: &Guard) {
        if self.moves.job.is_some() {
            return;
        }
        if self.moves.mend.is_some() {
            if let Some(shut) = self.shared.moves_gate.shut()
                && let Some(task) = self.moves.mend.take()
            {
                self.begin_move(task, shut);
            }
            return;
        }
        let Some(to) = self.moves.give_away.take() else {
            return;
        };
        if let Some(choice) = self.choose(guard)
            && let Some(shut) = self.shared.moves_gate.shut()
        {
            let task = match choice {
                Choice::Whole(tree, lower) => Task::Give(tree, lower, to),
                Choice::CutAt(tree, key) => Task::CutAndGive(tree, key, to),
            };
            self.begin_move(task, shut);
        }
    }

    pub(super) fn begin_move(&mut self, task: Task, shut: Shut) {
        self.moves.job = Some(Job {
            task,
            shut,
            since: self.moves.now,
            waits_for: None,
            held: Vec::new(),
        });
    }

    /// Does what is wanted, if the time has come. False: requests must wait until then.
    pub(in crate::shard) fn run_wanted(&mut self, guard: &Guard, outbox: &mut Outbox) -> bool {
        self.take_up_wish(guard);
        self.give_up_late_job();
        let Some(job) = &self.moves.job else { return true };
        if !job.shut.is_quiet() || !self.visits.locks.is_idle() {
            // Locks are given back a moment after answers.
            if self.moves.now.saturating_sub(job.since) > QUIET_WAIT_NANOS {
                self.moves.job = None;
            }
            return true;
        }
        if job.waits_for.is_some() || self.parked.count > 0 {
            return false;
        }
        self.freeze(outbox);
        // The batch of the cut is one of its own, and closed at once: it can't be taken back with other requests.
        if !self.open.is_empty() || self.is_ahead() {
            return false;
        }
        let Some(job) = self.moves.job.take() else {
            return true;
        };
        self.forget_adopted(guard);
        let done = match &job.task {
            Task::Give(tree, lower, to) => Ok(self.give(*tree, lower, *to, guard)),
            Task::CutAndGive(tree, key, to) => self.cut_and_give(*tree, key, *to, guard, outbox),
            Task::Join(tree, lower) => self.join(*tree, lower, guard, outbox),
        };
        match done {
            Ok(Done::Nothing) => true,
            Ok(Done::Departs) => {
                if let Some(departure) = &mut self.moves.departure {
                    departure.shut = Some(job.shut);
                }
                self.freeze(outbox);
                true
            }
            Ok(Done::Joined) => {
                self.freeze(outbox);
                true
            }
            Ok(Done::Later) => {
                self.moves.job = Some(job);
                self.starved == Starved::No
            }
            Err(Miss(reference)) => {
                let waits_for = Some(reference.id);
                self.moves.job = Some(Job { waits_for, ..job });
                outbox.pager.push(PagerMessage::Fetch {
                    reference,
                    waiter: Waiter::Shard(self.id),
                });
                false
            }
        }
    }

    /// Gives up a job that has waited too long, for pages, room, or requests that are parked here: others wait for it.
    /// (Bad run: a value of 1 GiB is read at the owner, a job waits for that, and nothing in the database that needs the
    /// gate goes on.)
    pub(in crate::shard) fn give_up_late_job(&mut self) {
        let now = self.moves.now;
        let is_late = |job: &Job| now.saturating_sub(job.since) > JOB_NANOS_MAX;
        if self.moves.job.as_ref().is_some_and(is_late) {
            self.moves.job = None;
        }
    }

    /// The page that a job may have waited for came, or can't. Gives the hold that came with it back if it isn't wanted.
    pub(in crate::shard) fn move_loaded(
        &mut self,
        id: PageId,
        failed: bool,
        hold: Option<FrameId>,
    ) -> Option<FrameId> {
        let Some(job) = &mut self.moves.job else {
            return hold;
        };
        if job.waits_for != Some(id) {
            return hold;
        }
        job.waits_for = None;
        if failed || job.held.len() >= HELD_PAGES_MAX {
            self.moves.job = None;
            return hold;
        }
        let held = hold.map(|frame| HeldFrame::new(&self.shared, frame));
        job.held.extend(held);
        None
    }

    /// Forgets the numbers of ranges that were joined with others, or dropped, since. Every range that was handed over is
    /// in the published version.
    pub(super) fn forget_adopted(&mut self, guard: &Guard) {
        let version = self.shared.current.load(guard);
        let adopted = std::mem::take(&mut self.moves.adopted);
        if adopted.is_empty() {
            return;
        }
        let partitions = version.directory.iter().flat_map(|state| state.partitions.iter());
        let kept = partitions.filter(|partition| partition.owner == self.id);
        let kept = kept.map(|partition| partition.moved);
        self.moves.adopted = kept.filter(|moved| adopted.contains(moved)).collect();
    }

    /// The tip of this shard's partition that begins at `lower`.
    fn own_partition(&mut self, tree: TreeId, lower: &[u8], guard: &Guard) -> Option<(TipPlace, Tip)> {
        let Place::Here(place) = self.locate(tree, lower, guard) else {
            return None;
        };
        let tip = self.tips.at(place)?;
        (*tip.lower == *lower).then(|| (place, tip.clone()))
    }

    /// Gives a whole partition away, if it is this shard's.
    fn give(&mut self, tree: TreeId, lower: &[u8], to: ShardId, guard: &Guard) -> Done {
        let Some((_, tip)) = self.own_partition(tree, lower, guard) else {
            return Done::Nothing;
        };
        self.tips.remove(tree, lower);
        let moved = self.open.pages.stamp.0;
        self.open.partitions.push(PartitionChange {
            tree,
            replaced: vec![Arc::clone(&tip.lower)],
            partitions: vec![Partition {
                lower: Arc::clone(&tip.lower),
                root: tip.root,
                owner: to,
                moved,
            }],
        });
        self.depart(tree, &tip, moved, Some(tip.moved), to);
        Done::Departs
    }

    /// Cuts a partition near a key and gives the upper half away.
    fn cut_and_give(
        &mut self,
        tree: TreeId,
        key: &[u8],
        to: ShardId,
        guard: &Guard,
        outbox: &mut Outbox,
    ) -> Result<Done, Miss> {
        let Place::Here(place) = self.locate(tree, key, guard) else {
            return Ok(Done::Nothing);
        };
        // Another shard may have cut the tree since this one chose to.
        if !self.may_be_cut(tree, guard) {
            return Ok(Done::Nothing);
        }
        if !self.supply_for(tree::reserve_for(self.height(place)), outbox) {
            let refused = self.shortage.is_some();
            return Ok(if refused { Done::Nothing } else { Done::Later });
        }
        let Some(tip) = self.tips.at(place).cloned() else {
            return Ok(Done::Nothing);
        };
        let moved = self.open.pages.stamp.0;
        let Some(halves) = tree::cut(&mut self.tip_store(guard), &tip.root, key)? else {
            return Ok(Done::Nothing);
        };
        let separator: Arc<[u8]> = halves.separator.into();
        let (mut left, mut right) = (tip.clone(), tip);
        left.root = halves.left;
        left.frozen = halves.left;
        left.upper = Some(Arc::clone(&separator));
        right.root = halves.right;
        right.lower = Arc::clone(&separator);
        self.open.partitions.push(PartitionChange {
            tree,
            replaced: vec![Arc::clone(&left.lower)],
            partitions: vec![
                left.partition(self.id),
                Partition {
                    lower: separator,
                    root: right.root,
                    owner: to,
                    moved,
                },
            ],
        });
        self.tips.remove(tree, &left.lower);
        self.tips.insert(tree, left);
        self.depart(tree, &right, moved, None, to);
        Ok(Done::Departs)
    }

    fn depart(&mut self, tree: TreeId, tip: &Tip, moved: u64, had: Option<u64>, to: ShardId) {
        self.moves.load.forget();
        self.shared.counters.add(Counter::PartitionMoves, 1);
        self.moves.departure = Some(Departure {
            tree,
            lower: Arc::clone(&tip.lower),
            upper: tip.upper.clone(),
            to,
            moved,
            had,
            stage: Stage::Frozen,
            queue: VecDeque::new(),
            shut: None,
        });
    }

    /// Joins a partition with the one before it.
    fn join(
        &mut self,
        tree: TreeId,
        lower: &Arc<[u8]>,
        guard: &Guard,
        outbox: &mut Outbox,
    ) -> Result<Done, Miss> {
        let before = {
            let version = self.shared.current.load(guard);
            let state = version.directory.get(tree);
            state.and_then(|state| {
                let index = state
                    .partitions
                    .partition_point(|partition| partition.lower < *lower);
                Some(Arc::clone(&state.partitions.get(index.checked_sub(1)?)?.lower))
            })
        };
        let Some(before) = before else {
            return Ok(Done::Nothing);
        };
        let Some((_, right)) = self.own_partition(tree, lower, guard) else {
            return Ok(Done::Nothing);
        };
        let Some((_, left)) = self.own_partition(tree, &before, guard) else {
            return Ok(Done::Nothing);
        };
        if left.upper.as_ref() != Some(lower) {
            return Ok(Done::Nothing);
        }
        let height = left.root.height.max(right.root.height);
        if !self.supply_for(tree::reserve_for(height), outbox) {
            let refused = self.shortage.is_some();
            return Ok(if refused { Done::Nothing } else { Done::Later });
        }
        let Some(root) = tree::join(&mut self.tip_store(guard), &left.root, &right.root, lower)? else {
            return Ok(Done::Nothing);
        };
        let mut joined = left;
        joined.root = root;
        joined.frozen = root;
        joined.upper = right.upper;
        self.open.partitions.push(PartitionChange {
            tree,
            replaced: vec![Arc::clone(&joined.lower), Arc::clone(lower)],
            partitions: vec![joined.partition(self.id)],
        });
        self.tips.remove(tree, lower);
        self.tips.remove(tree, &joined.lower);
        self.tips.insert(tree, joined);
        self.shared.counters.add(Counter::PartitionJoins, 1);
        Ok(Done::Joined)
    }

    fn tip_store<'s>(&'s mut self, guard: &'s Guard) -> TipStore<'s> {
        TipStore {
            memory: &self.shared.memory,
            guard,
            supply: &mut self.supply,
            open: &mut self.open.pages,
        }
    }
}
