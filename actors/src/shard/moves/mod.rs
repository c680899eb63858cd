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
//! | a [`Job`] | the gate is shut; everything goes on | no request that came through the gate is unanswered, none is parked here. After [`QUIET_WAIT_NANOS`] in vain, or [`JOB_NANOS_MAX`] in all, the job is given up, and the gate opens |
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
//! `job.rs` has the way to the batch, `hand_over.rs` the way from there; the states themselves are here. How many
//! partitions a tree may have is in `bounds.rs`.
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

mod bounds;
mod choose;
mod hand_over;
mod job;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use treering_engine::catalog::Partition;
use treering_engine::{PageId, ShardId, TreeId};

pub(crate) use self::bounds::partitions_wanted;
use super::MOVED_REQUESTS_MAX;
use super::messages::Request;
use crate::actor::Nanos;
use crate::runtime::Shut;
use crate::shared::{HeldFrame, Settings};

/// How long requests for several keys may keep a job waiting, and it keep others of them waiting.
const QUIET_WAIT_NANOS: Nanos = 50_000_000;
/// How long a job may take in all, from the shutting of the gate until its batch is closed.
const JOB_NANOS_MAX: Nanos = 1_000_000_000;

/// Partitions of a tree that others take the place of, in the version that a batch makes.
#[derive(Clone, Debug)]
pub(crate) struct PartitionChange {
    pub tree: TreeId,
    /// Lowest keys of those that go.
    pub replaced: Vec<Arc<[u8]>>,
    pub partitions: Vec<Partition>,
}

/// Moves that a shard remembers having been handed over, before it looks which of their ranges it still has.
const ADOPTED_MIN: usize = 64;
/// Pages that a job holds at most: more than the levels of any two trees.
const HELD_PAGES_MAX: usize = 64;

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
#[derive(PartialEq, Eq, Debug)]
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
    /// Pages that came for it, held until it is done: all of its way must be in memory at once (rule R10).
    held: Vec<HeldFrame>,
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
    /// Whom to give some of the load, if anybody.
    give_away: Option<ShardId>,
    /// The last wish about a tree that is in too many pieces: kept until the gate can be shut for it.
    mend: Option<Task>,
    job: Option<Job>,
    departure: Option<Departure>,
    arrival: Option<Arrival>,
    /// Moves that this shard was handed over, for as long as it has the range, or a little longer.
    adopted: BTreeSet<u64>,
    /// With more than this, those are looked for whose range it hasn't any more.
    adopted_max: usize,
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

#[cfg(test)]
mod tests;
