//! Tickets: the reply to a request that was sent and will be answered later.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use treering_engine::tree::Relocated;
use treering_engine::{ShardId, Stamp};

use crate::error::{Error, Result};
use crate::foreign::WakingSender;
use crate::runtime::{KeysUnderWay, Passage, Runtime};
use crate::value::Value;

/// What a request produced, before it is narrowed to the type that its caller asked for.
pub(crate) enum Outcome {
    Done,
    Present(bool),
    Value(Option<Value>),
    /// For the pages of a bulk load.
    Stamp(Stamp),
    Swapped(std::result::Result<(), Option<Value>>),
    /// What a step of a compaction did; `None`: there are no low ids left.
    Relocated(Option<Relocated>),
}

/// The sending half of a ticket. Dropping it tells the waiter that the database was closed.
pub(crate) struct Reply {
    sender: Option<WakingSender<Result<Outcome>>>,
    /// Kept until the reply is sent or dropped.
    held: Option<Box<Held>>,
}

/// What a request for several keys holds until it is answered.
pub(crate) struct Held {
    pub passage: Option<Passage>,
    pub keys: Option<KeysUnderWay>,
}

impl Reply {
    /// A reply that nobody waits for.
    pub fn none() -> Reply {
        Reply {
            sender: None,
            held: None,
        }
    }

    /// The reply, which holds that from now on.
    pub fn holding(self, held: Held) -> Reply {
        let held = (held.passage.is_some() || held.keys.is_some()).then(|| Box::new(held));
        Reply { held, ..self }
    }

    /// Hands the result to whoever waits. A waiter that went away is no error.
    pub fn send(self, result: Result<Outcome>) {
        // First: what the waiter sends next shall not wait for it.
        drop(self.held);
        if let Some(sender) = self.sender {
            sender.send(result);
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
        polled: false,
        narrow,
    };
    let reply = Reply {
        sender: Some(sender.into()),
        held: None,
    };
    (reply, ticket)
}

/// The promise of an answer: block for it with [`wait`](Ticket::wait), look with [`try_wait`](Ticket::try_wait), or
/// `.await` it, in any runtime or none; or one after the other: what was polled in vain may still be waited for.
///
/// A thread that waits may run the actors that its answer depends on; one that awaits or only looks leaves them to
/// their own threads. Every ticket is answered: with the result of its request, or with [`Error::Closed`] when the
/// database was closed before that.
///
/// Dropping a ticket doesn't take the request back: it is carried out all the same, and its result is lost.
#[must_use = "a ticket dropped unread hides whether the write succeeded"]
pub struct Ticket<T> {
    receiver: oneshot::Receiver<Result<Outcome>>,
    runtime: Arc<Runtime>,
    shard: Option<ShardId>,
    /// Whether it was polled: from then on its channel wakes a task, and lets no thread block.
    polled: bool,
    narrow: fn(Outcome) -> T,
}

impl<T> Ticket<T> {
    /// The ticket, whose waiter runs that shard if nobody does.
    pub(crate) fn answered_by(self, shard: Option<ShardId>) -> Ticket<T> {
        Ticket { shard, ..self }
    }
}

impl Ticket<()> {
    /// A ticket that is answered already.
    pub(crate) fn done(runtime: &Arc<Runtime>) -> Ticket<()> {
        let (reply, ticket) = ticket(runtime, None, |_| ());
        reply.send(Ok(Outcome::Done));
        ticket
    }
}

impl<T> Ticket<T> {
    /// Blocks until the request was carried out and, under `Durability::Sync`, is durable.
    ///
    /// # Errors
    /// Whatever the request met; [`Error::Closed`] when the database was closed before it was answered;
    /// [`Error::WouldDeadlock`] inside of an update closure, though the request itself is carried out.
    pub fn wait(self) -> Result<T> {
        self.runtime.check_wait()?;
        let Ticket {
            mut receiver,
            runtime,
            shard,
            polled,
            narrow,
        } = self;
        let answer = if polled {
            runtime.wait_polled(&mut receiver, Duration::MAX).ok()
        } else {
            runtime.wait(receiver, shard)
        };
        answer.unwrap_or(Err(Error::Closed)).map(narrow)
    }

    /// The answer, if it is there; never blocks. It is handed out once: afterwards the ticket is of no use, and says
    /// [`Error::Closed`].
    ///
    /// # Errors
    /// As [`wait`](Ticket::wait).
    pub fn try_wait(&mut self) -> Result<Option<T>> {
        match self.receiver.try_recv() {
            Ok(answer) => answer.map(self.narrow).map(Some),
            Err(oneshot::TryRecvError::Empty) => Ok(None),
            Err(oneshot::TryRecvError::Disconnected) => Err(Error::Closed),
        }
    }

    /// Blocks for the answer for at most `timeout`; `None` if it isn't there by then. As with
    /// [`try_wait`](Ticket::try_wait), it is handed out once.
    ///
    /// # Errors
    /// As [`wait`](Ticket::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<T>> {
        self.runtime.check_wait()?;
        let answer = if self.polled {
            self.runtime.wait_polled(&mut self.receiver, timeout)
        } else {
            self.runtime.wait_timeout(&self.receiver, timeout)
        };
        match answer {
            Ok(answer) => answer.map(self.narrow).map(Some),
            Err(oneshot::RecvTimeoutError::Timeout) => Ok(None),
            Err(oneshot::RecvTimeoutError::Disconnected) => Err(Error::Closed),
        }
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let narrow = self.narrow;
        self.polled = true;
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

#[cfg(test)]
mod tests {
    use std::task::{Wake, Waker};

    use treering_io::SimDirectory;

    use super::*;
    use crate::options::Options;
    use crate::runtime::SimOptions;

    /// Panics whenever it is called.
    struct Thrower;

    impl Wake for Thrower {
        fn wake(self: Arc<Self>) {
            panic!("thrown by a waker");
        }
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_else_from_being_told() {
        let disk = SimDirectory::new(1);
        let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
        let tree = db.client().tree("tree").expect("a tree");
        let waker = Waker::from(Arc::new(Thrower));
        let mut context = Context::from_waker(&waker);
        let mut awaited = tree.send_put(b"k", b"v").expect("sent");
        assert!(Pin::new(&mut awaited).poll(&mut context).is_pending());
        // One group, and told after the other one.
        tree.put(b"l", b"w").expect("written");
        assert!(matches!(awaited.try_wait(), Ok(Some(()))));

        let mut never = tree.send_put(b"m", b"v").expect("sent");
        assert!(Pin::new(&mut never).poll(&mut context).is_pending());
        drop(tree);
        crate::sim::crash(db);
        assert!(matches!(never.try_wait(), Err(Error::Closed)));
    }

    #[test]
    fn a_waker_that_panics_when_a_piece_of_a_value_comes_poisons_nothing() {
        let disk = SimDirectory::new(1);
        let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
        let tree = db.client().tree("tree").expect("a tree");
        let value = vec![7; 100_000];
        tree.put(b"k", &value).expect("written");
        let waker = Waker::from(Arc::new(Thrower));
        let mut context = Context::from_waker(&waker);
        let mut reading = tree.get_async(b"k");
        assert!(Pin::new(&mut reading).poll(&mut context).is_pending());
        crate::sim::settle(&db);
        tree.put(b"l", b"w").expect("it is not poisoned");
        let Poll::Ready(Ok(Some(found))) = Pin::new(&mut reading).poll(&mut context) else {
            panic!("the value is not there");
        };
        assert_eq!(found[..], value[..]);
        drop((tree, reading));
        crate::sim::crash(db);
    }
}
