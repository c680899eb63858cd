//! Key ranges that change their owner, and neighbours that become one (rule R22).
//!
//! # Life of a move
//! The commit actor, which sees who has how much to do, asks a shard to [give something away](super::ShardMessage::Wanted)
//! (`commit/balance.rs`); the shard chooses what ([`choose`]): a whole partition, or one half of one, cut at a boundary
//! between two leaves. If there is something, it shuts the gate for requests that are for more than one key
//! (`runtime/gate.rs`), so that from now until the end of the move there are only such as name one.
//!
//! | state | what holds | leads on |
//! |---|---|---|
//! | a [`Job`] | the gate is shut; everything goes on | no request that came through the gate is unanswered, none is parked here. After [`QUIET_WAIT_NANOS`] in vain the job is given up, and the gate opens |
//! | a [`Departure`], *frozen* | the batch with the cut is on its way to be published. Requests for the range queue here | the published version gives the range to the new owner |
//! | *routed* | new requests go to the new owner, who queues them. Some may still be sent here by clients that looked a moment ago | the epoch: no such client is left |
//! | *draining* | what stands in the mailbox is all that will still come | all of that has been taken |
//!
//! Then everything that queued here is handed over ([`HandOver`](super::ShardMessage::HandOver)), and the new owner runs
//! that first, then what queued at its end. So nothing is lost, done twice, or overtaken by a later request for its key.
//! (Clients leave a request in a mailbox under the epoch pin under which they looked up its owner: see
//! `Runtime::send_routed`.) The new owner opens the gate. Transactions that come then are not fenced against what was
//! handed over (`client/fence.rs`): visits wait until that has run.
//!
//! # Why a new owner doesn't begin too early
//! Each move has a number of its own, which the version shows beside the owner ([`Partition::moved`]). Whoever finds
//! itself the owner of a partition whose move was not handed over yet queues requests for it, an [`Arrival`].
//!
//! # What is not done
//! Moves are not logged: after a crash, every range belongs to whom the checkpoint gives it, and the log is replayed
//! along that. One move at a time is under way in a database.
//!
//! # When something fails
//! - *Dropped tips* (rule R13): a departure that was not published is forgotten, what queued for it runs here.
//! - *A poisoned database*: what queues is refused, the gate opens, nothing moves any more.

pub(super) mod choose;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_epoch::Guard;
use treering_engine::catalog::Partition;
use treering_engine::tree::{self, Miss};
use treering_engine::{PageId, ShardId, TreeId};

use super::MOVED_REQUESTS_MAX;
use super::messages::{Request, ShardMessage};
use super::state::{ReadyRequest, Shard, Starved};
use super::step::Place;
use super::store::TipStore;
use super::tips::{Tip, TipPlace};
use crate::actor::{Nanos, Outbox};
use crate::error::Error;
use crate::pager::{PagerMessage, Waiter};
use crate::runtime::Shut;
use crate::shared::{Counter, Settings, Version};

/// How long requests for several keys may keep a job waiting, and it keep others of them waiting.
const QUIET_WAIT_NANOS: Nanos = 50_000_000;

/// Partitions of a tree that others take the place of, in the version that a batch makes.
#[derive(Clone, Debug)]
pub(crate) struct PartitionChange {
    pub tree: TreeId,
    /// Lowest keys of those that go.
    pub replaced: Vec<Arc<[u8]>>,
    pub partitions: Vec<Partition>,
}

/// What the commit actor wants to be done, some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// Give some of the load to another shard: what is left to this one to choose.
    GiveAway { to: ShardId },
    /// Give this partition to another shard.
    Give {
        tree: TreeId,
        lower: Arc<[u8]>,
        to: ShardId,
    },
    /// Join this partition with the one before it; both are this shard's.
    Join { tree: TreeId, lower: Arc<[u8]> },
}

/// What this shard is about to do for a wish.
enum Task {
    /// Give the partition that begins there to another shard.
    Give(TreeId, Arc<[u8]>, ShardId),
    /// Cut the partition that holds the key near it, and give the upper half to another shard.
    CutAndGive(TreeId, Box<[u8]>, ShardId),
    /// Join the partition that begins there with the one before it.
    Join(TreeId, Arc<[u8]>),
}

/// What came of a job.
enum Done {
    /// There is nothing to be done.
    Nothing,
    /// There are no pages for it just now.
    Later,
    Departs,
    Joined,
}

/// What is about to be done, with the gate shut for it.
struct Job {
    task: Task,
    shut: Shut,
    since: Nanos,
    /// The page that it waits for.
    waits_for: Option<PageId>,
}

/// A range that is on its way to another shard.
struct Departure {
    tree: TreeId,
    lower: Arc<[u8]>,
    upper: Option<Arc<[u8]>>,
    to: ShardId,
    /// Number of the move.
    moved: u64,
    /// Number of the move that had brought it here, if it goes whole.
    had: Option<u64>,
    stage: Stage,
    /// Requests for the range, in the order in which they came.
    queue: VecDeque<Request>,
    /// For the new owner; `None` once the database is poisoned.
    shut: Option<Shut>,
}

enum Stage {
    Frozen,
    /// Set by the epoch.
    Routed(Arc<AtomicBool>),
    /// Requests that the mailbox held at the end, and that have not been taken from it yet; unknown at first.
    Draining(Option<usize>),
}

impl Departure {
    fn holds(&self, tree: TreeId, key: &[u8]) -> bool {
        tree == self.tree && *self.lower <= *key && self.upper.as_ref().is_none_or(|upper| *key < **upper)
    }
}

/// Requests for a range that has not been handed over yet.
struct Arrival {
    moved: u64,
    queue: VecDeque<Request>,
}

/// The moves of one shard.
#[derive(Default)]
pub(super) struct Moves {
    /// When the step began.
    pub now: Nanos,
    wanted: Option<Wanted>,
    job: Option<Job>,
    departure: Option<Departure>,
    arrival: Option<Arrival>,
    /// Moves that this shard was handed over, for as long as it has the range.
    adopted: BTreeSet<u64>,
    /// Requests at the front of `Shard::incoming` that were handed over.
    pub adopting: usize,
    load: choose::Sample,
}

impl Moves {
    /// Takes note of what the load is on.
    #[inline]
    pub fn note(&mut self, settings: &Settings, tree: TreeId, key: &[u8]) {
        if settings.shards > 1 {
            self.load.note(tree, key, settings.balance_operations);
        }
    }

    /// Whether requests must be taken, whatever else they wait for: the hand-over waits for them.
    pub fn drains(&self) -> bool {
        matches!(
            &self.departure,
            Some(Departure {
                stage: Stage::Draining(_),
                ..
            })
        )
    }

    /// Whether no more requests should queue here.
    pub fn is_full(&self) -> bool {
        let departing = self
            .departure
            .as_ref()
            .map_or(0, |departure| departure.queue.len());
        let arriving = self.arrival.as_ref().map_or(0, |arrival| arrival.queue.len());
        departing + arriving >= MOVED_REQUESTS_MAX
    }

    /// Whether the length of the mailbox has to be known.
    pub fn counts_requests(&self) -> bool {
        matches!(
            &self.departure,
            Some(Departure {
                stage: Stage::Draining(None),
                ..
            })
        )
    }

    /// The mailbox holds so many requests.
    pub fn requests_waiting(&mut self, count: usize) {
        if let Some(Departure {
            stage: Stage::Draining(left),
            ..
        }) = &mut self.departure
        {
            left.get_or_insert(count);
        }
    }

    /// A request was taken from the mailbox.
    pub fn request_taken(&mut self) {
        if let Some(Departure {
            stage: Stage::Draining(Some(left)),
            ..
        }) = &mut self.departure
        {
            *left = left.saturating_sub(1);
        }
    }

    /// Whether the epoch is waited for.
    pub fn waits_for_epoch(&self) -> bool {
        matches!(
            &self.departure,
            Some(Departure {
                stage: Stage::Routed(_),
                ..
            })
        )
    }

    /// Whether the key's range is leaving.
    pub fn departs(&self, tree: TreeId, key: &[u8]) -> bool {
        self.departure
            .as_ref()
            .is_some_and(|departure| departure.holds(tree, key))
    }

    /// Whether a partition that the version gives to this shard is still with its former owner.
    pub fn is_awaited(&self, partition: &Partition) -> bool {
        partition.moved != 0 && !self.adopted.contains(&partition.moved)
    }

    /// Whether a partition of the published version is this shard's to change.
    pub fn has(&self, tree: TreeId, partition: &Partition) -> bool {
        !self.is_awaited(partition) && !self.departs(tree, &partition.lower)
    }

    /// Queues a request for a range that is leaving.
    pub fn queue_departing(&mut self, request: Request) {
        if let Some(departure) = &mut self.departure {
            departure.queue.push_back(request);
        }
    }

    /// Queues a request for a range that is coming.
    pub fn queue_arriving(&mut self, moved: u64, request: Request) {
        let arrival = self.arrival.get_or_insert_with(|| Arrival {
            moved,
            queue: VecDeque::new(),
        });
        assert_eq!(arrival.moved, moved, "one range moves at a time");
        arrival.queue.push_back(request);
    }

    /// Whether passages or the epoch are waited for.
    pub fn waits_for_others(&self) -> bool {
        self.waits_for_epoch() || self.job.is_some()
    }

    /// Everything that queues, for refusing it.
    pub fn take_queued(&mut self) -> Vec<Request> {
        let departing = self
            .departure
            .iter_mut()
            .flat_map(|departure| departure.queue.drain(..));
        let arriving = self
            .arrival
            .iter_mut()
            .flat_map(|arrival| arrival.queue.drain(..));
        departing.chain(arriving).collect()
    }
}

impl fmt::Debug for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let departing = self.departure.as_ref();
        f.debug_struct("Moves")
            .field("is_job_waiting", &self.job.is_some())
            .field(
                "departing",
                &departing.map(|departure| (departure.moved, departure.queue.len())),
            )
            .field(
                "arriving",
                &self
                    .arrival
                    .as_ref()
                    .map(|arrival| (arrival.moved, arrival.queue.len())),
            )
            .field("adopted", &self.adopted)
            .field("adopting", &self.adopting)
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// The commit actor wants something; a wish that comes while something is under way is forgotten.
    pub(super) fn want(&mut self, wanted: Wanted) {
        let Moves {
            job,
            departure,
            arrival,
            ..
        } = &self.moves;
        if job.is_none() && departure.is_none() && arrival.is_none() {
            self.moves.wanted = Some(wanted);
        }
    }

    /// Decides what to do about a wish, and shuts the gate for it, if nobody else has.
    fn take_up_wish(&mut self, guard: &Guard) {
        let task = match self.moves.wanted.take() {
            None => None,
            Some(Wanted::GiveAway { to }) => self.choose(guard).map(|choice| match choice {
                choose::Choice::Whole(tree, lower) => Task::Give(tree, lower, to),
                choose::Choice::CutAt(tree, key) => Task::CutAndGive(tree, key, to),
            }),
            Some(Wanted::Give { tree, lower, to }) => Some(Task::Give(tree, lower, to)),
            Some(Wanted::Join { tree, lower }) => Some(Task::Join(tree, lower)),
        };
        if let Some(task) = task
            && let Some(shut) = self.shared.moves_gate.shut()
        {
            self.moves.job = Some(Job {
                task,
                shut,
                since: self.moves.now,
                waits_for: None,
            });
        }
    }

    /// Does what is wanted, if the time has come. False: requests must wait until then.
    pub(super) fn run_wanted(&mut self, guard: &Guard, outbox: &mut Outbox) -> bool {
        self.take_up_wish(guard);
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

    /// The page that a job may have waited for came, or can't.
    pub(super) fn move_loaded(&mut self, id: PageId, failed: bool) {
        if let Some(job) = &mut self.moves.job
            && job.waits_for == Some(id)
        {
            job.waits_for = None;
            if failed {
                self.moves.job = None;
            }
        }
    }

    /// Forgets the numbers of ranges that were joined with others, or dropped, since. Nothing that moved is on its way.
    fn forget_adopted(&mut self, guard: &Guard) {
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

    /// Sees how far the departure is. Called at the beginning of every step.
    pub(super) fn follow_departure(&mut self, guard: &Guard) {
        let version: &Version = self.shared.current.load(guard);
        let Some(departure) = &mut self.moves.departure else {
            return;
        };
        match &departure.stage {
            Stage::Frozen => {
                let shown = version.directory.get(departure.tree).is_none_or(|state| {
                    let partition = &state.partitions[state.partition_for(&departure.lower)];
                    partition.lower == departure.lower && partition.moved == departure.moved
                });
                if shown {
                    let settled = Arc::new(AtomicBool::new(false));
                    let flag = Arc::clone(&settled);
                    // Whoever looked up the owner before the new version was there has left its request by then.
                    guard.defer(move || flag.store(true, Ordering::Release));
                    guard.flush();
                    departure.stage = Stage::Routed(settled);
                }
            }
            Stage::Routed(settled) if settled.load(Ordering::Acquire) => {
                departure.stage = Stage::Draining(None);
            }
            Stage::Routed(_) | Stage::Draining(_) => {}
        }
    }

    /// Hands the range over, once everything that was sent here is at hand.
    pub(super) fn end_departure(&mut self, outbox: &mut Outbox) {
        if !matches!(
            &self.moves.departure,
            Some(Departure {
                stage: Stage::Draining(Some(0)),
                ..
            })
        ) {
            return;
        }
        let Some(mut departure) = self.moves.departure.take() else {
            return;
        };
        let mut kept = VecDeque::with_capacity(self.incoming.len());
        let mut adopting = 0;
        for (index, request) in self.incoming.drain(..).enumerate() {
            match request.key() {
                Some(key) if departure.holds(request.tree, key) => departure.queue.push_back(request),
                _ => {
                    adopting += usize::from(index < self.moves.adopting);
                    kept.push_back(request);
                }
            }
        }
        self.incoming = kept;
        self.moves.adopting = adopting;
        if let Some(had) = departure.had {
            self.moves.adopted.remove(&had);
        }
        let queued = departure.queue.len() as u64;
        self.shared.counters.add(Counter::RequestsHandedOver, queued);
        outbox.shards.push((
            departure.to,
            ShardMessage::HandOver {
                moved: departure.moved,
                requests: departure.queue,
                shut: departure.shut,
            },
        ));
    }

    /// A range is this shard's now, with what was sent to its former owner.
    pub(super) fn adopt(&mut self, moved: u64, requests: VecDeque<Request>, shut: Option<Shut>) {
        self.moves.adopted.insert(moved);
        // It may be a part of a tree of which this shard had nothing left.
        for tree in std::mem::take(&mut self.reclaimed) {
            self.begin_reclaiming(tree);
        }
        let before = self.incoming.len();
        let queued = self
            .moves
            .arrival
            .take()
            .map_or_else(VecDeque::new, |arrival| arrival.queue);
        // Before everything that came later: nothing here names the range's keys yet but what queued for it.
        for request in requests.into_iter().chain(queued).rev() {
            self.incoming.push_front(request);
        }
        self.moves.adopting += self.incoming.len() - before;
        drop(shut);
    }

    /// The tips were dropped: a departure that nobody has seen doesn't happen.
    pub(super) fn cancel_departure(&mut self, guard: &Guard) {
        // Its batch may have been published before the one whose refusal dropped the tips.
        self.follow_departure(guard);
        if let Some(Departure {
            stage: Stage::Frozen, ..
        }) = &self.moves.departure
            && let Some(departure) = self.moves.departure.take()
        {
            let queued = departure.queue.len();
            for request in departure.queue.into_iter().rev() {
                self.incoming.push_front(request);
            }
            if self.moves.adopting > 0 {
                self.moves.adopting += queued;
            }
        }
    }

    /// The database is poisoned: nothing moves any more.
    pub(super) fn refuse_moving(&mut self, error: &Error) {
        self.moves.wanted = None;
        self.moves.job = None;
        if let Some(departure) = &mut self.moves.departure {
            departure.shut = None;
        }
        for request in self.moves.take_queued() {
            self.refuse(ReadyRequest::new(request), error.clone());
        }
    }
}
