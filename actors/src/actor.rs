//! The one shape of every actor: a state machine that is handed messages and leaves effects in an outbox.
//!
//! An actor contains no threads, clocks, randomness or I/O. The runtime (threads or simulator) delivers
//! messages with [`Actor::handle`], closes a step with [`Actor::end_batch`], and then carries out what
//! stands in the [`Outbox`]. Exactly one caller at a time runs a step of an actor; who that is (its own
//! thread, or a client that waits for it anyway) is the runtime's business.

use treering_engine::memory::FrameId;
use treering_engine::{PageId, ShardId};
use treering_io::Operation;

use crate::commit::{CommitMessage, LogTask};
use crate::error::Result;
use crate::flusher::{FileTask, FlusherMessage};
use crate::foreign::WakingSender;
use crate::pager::PagerMessage;
use crate::shard::ShardMessage;
use crate::shared::HeldFrame;
use crate::ticket::Resolution;

/// Monotonic time in nanoseconds since the database was opened; virtual in the simulator.
pub(crate) type Nanos = u64;

/// A state machine with a mailbox.
pub(crate) trait Actor: Send {
    /// What other actors and clients send it.
    type Message: Send;

    /// Takes one message. Effects that don't depend on the rest of the batch may be left in `outbox`.
    fn handle(&mut self, message: Self::Message, now: Nanos, outbox: &mut Outbox);

    /// Called after the messages of one step; restores the actor's invariants and leaves all effects.
    fn end_batch(&mut self, now: Nanos, outbox: &mut Outbox);

    /// Whether requests of clients may be delivered. Messages of other actors always are (rule R14).
    fn accepts_requests(&self) -> bool {
        true
    }

    /// Whether it has to know how many requests of clients wait just now; then it is told before the next is delivered.
    fn counts_requests(&self) -> bool {
        false
    }

    /// So many requests of clients wait.
    fn requests_waiting(&mut self, _count: usize) {}

    /// In how many nanoseconds from `now` `end_batch` wants to be called again even if no message arrives;
    /// zero: at once.
    fn deadline(&self, _now: Nanos) -> Option<Nanos> {
        None
    }
}

/// Effects of one step, in the order in which they were caused within each list.
#[derive(Default)]
pub(crate) struct Outbox {
    pub shards: Vec<(ShardId, ShardMessage)>,
    pub commit: Vec<CommitMessage>,
    pub pager: Vec<PagerMessage>,
    pub flusher: Vec<FlusherMessage>,
    /// Tickets to resolve.
    pub resolutions: Vec<Resolution>,
    /// Readers to tell about their page. One that went away leaves its hold to be given back.
    pub fetched: Vec<(oneshot::Sender<Result<FrameId>>, Result<FrameId>)>,
    /// The same for readers that are futures.
    pub fetched_for_futures: Vec<(WakingSender<Result<HeldFrame>>, Result<FrameId>)>,
    /// Compactions that begin, and the id below which everything in use has room.
    pub compactions: Vec<(oneshot::Sender<PageId>, PageId)>,
    /// Reads and writes of the data file; only the pager leaves any.
    pub operations: Vec<Operation>,
    /// Writes and syncs of the log; only the commit actor leaves any, at most one at a time.
    pub log_tasks: Vec<LogTask>,
    /// Slow work on files (growing, preparing segments); only the flusher leaves any.
    pub file_tasks: Vec<FileTask>,
}
