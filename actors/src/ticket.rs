//! Tickets: the reply to a request that was sent and will be answered later.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use treering_engine::ShardId;

use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::shard::UpdateFunction;
use crate::value::Value;

/// What a request produced, before it is narrowed to the type that its caller asked for.
pub(crate) enum Outcome {
    Done,
    Present(bool),
    Value(Option<Value>),
    Swapped(std::result::Result<(), Option<Value>>),
    /// A blob is involved, which the owner neither reads nor writes: the client has to decide (see
    /// `client::blob`). A shipped closure comes back.
    IsBlob(Option<UpdateFunction>),
}

/// The sending half of a ticket. Dropping it tells the waiter that the database was closed.
pub(crate) struct Reply(Option<oneshot::Sender<Result<Outcome>>>);

impl Reply {
    /// A reply that nobody waits for.
    pub fn none() -> Reply {
        Reply(None)
    }

    /// Hands the result to whoever waits. A waiter that went away is no error.
    pub fn send(self, result: Result<Outcome>) {
        if let Some(sender) = self.0 {
            let _ = sender.send(result);
        }
    }
}

/// A reply together with its result, waiting for the moment at which it may be told.
pub(crate) struct Resolution {
    pub reply: Reply,
    pub result: Result<Outcome>,
}

impl Resolution {
    pub fn resolve(self) {
        self.reply.send(self.result);
    }
}

/// Makes both halves of a ticket.
pub(crate) fn ticket<T>(
    runtime: &Arc<Runtime>,
    shard: Option<ShardId>,
    narrow: fn(Outcome) -> T,
) -> (Reply, Ticket<T>) {
    let (sender, receiver) = oneshot::channel();
    let ticket = Ticket {
        receiver,
        runtime: Arc::clone(runtime),
        shard,
        narrow,
    };
    (Reply(Some(sender)), ticket)
}

/// The promise of an answer: block for it with [`wait`](Ticket::wait), or `.await` it, in any runtime.
///
/// A thread that waits may run the actors that its answer depends on; one that awaits leaves them to their own threads.
///
/// Dropping a ticket doesn't take the request back: it is carried out all the same.
#[must_use = "a ticket dropped unread hides whether the write succeeded"]
pub struct Ticket<T> {
    receiver: oneshot::Receiver<Result<Outcome>>,
    runtime: Arc<Runtime>,
    shard: Option<ShardId>,
    narrow: fn(Outcome) -> T,
}

impl<T> Ticket<T> {
    /// Blocks until the request was carried out and, under `Durability::Sync`, is durable.
    ///
    /// # Errors
    /// Whatever the request met; [`Error::Closed`] when the database was closed before it was answered.
    pub fn wait(self) -> Result<T> {
        let Ticket {
            receiver,
            runtime,
            shard,
            narrow,
        } = self;
        runtime
            .wait(receiver, shard)
            .unwrap_or(Err(Error::Closed))
            .map(narrow)
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let narrow = self.narrow;
        match Pin::new(&mut self.receiver).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(answer) => Poll::Ready(answer.unwrap_or(Err(Error::Closed)).map(narrow)),
        }
    }
}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}
