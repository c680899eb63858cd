//! Subscriptions: the committed changes of a tree, in commit order.

use std::io;
use std::sync::Arc;

use treering_engine::Seq;
use treering_engine::log::SegmentLayout;

use super::db::Inner;
use super::tree::Tree;
use crate::commit::{CommitMessage, LogRange, tell};
use crate::error::{Error, Result};
use crate::recovery::read_changes;
use crate::shared::{Changed, Changes, Entry, Feed};
use crate::ticket::{Outcome, Ticket};
use crate::value::Value;

/// Bytes of changes that wait for a subscriber, unless it asks for another bound.
const BUFFER_BYTES_DEFAULT: usize = 8 << 20;

/// What a subscriber is told.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A key was written, or deleted; or [`Db::compact`](crate::Db::compact) has moved its large value.
    Changed {
        /// The commit group; all changes of one become visible together.
        seq: u64,
        /// The key.
        key: Value,
        /// What it holds since; `None`: it was deleted.
        value: Option<Value>,
    },
    /// The subscriber was too slow, or the tree was bulk loaded: what these commit groups changed, or some of it, is not
    /// told. A [`diff`](crate::Client::diff) of snapshots may.
    Missed {
        /// The first group left out.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The tree was dropped. The subscription ends with this.
    TreeDropped {
        /// The commit group.
        seq: u64,
    },
}

/// The committed changes of a tree's keys with a prefix, in commit order. An iterator that waits for the next one and
/// ends when the tree is dropped or the database closed.
///
/// Changes are told of when they can be read: those written with `Durability::Sync` when they are durable, those
/// with `Durability::Buffered` at once, so that a crash may take back what was told.
/// A large value that is replaced within its own commit group, which no snapshot ever shows, is left out.
///
/// What waits to be taken is bounded; writers don't wait for a slow subscriber, who is told what it
/// [missed](Event::Missed) instead.
pub struct Subscription {
    inner: Arc<Inner>,
    feed: Arc<Feed>,
    /// What was read from the log, to be taken first.
    history: Option<Feed>,
    first: u64,
    current: Option<Changes>,
    ended: bool,
}

impl Tree {
    /// The changes of all keys with this prefix that are committed from now on; an empty prefix means all keys. Whatever
    /// a [`snapshot`](crate::Client::snapshot) that is taken after this returns doesn't show yet is told: reading that and
    /// following the changes after its [`seq`](crate::Snapshot::seq) leaves nothing out. At most 8 MiB wait to be taken.
    ///
    /// Waits until the groups that are being written are durable.
    ///
    /// # Errors
    /// [`Error::TreeNotFound`] if the tree was dropped; [`Error::OutOfSpace`] if there are 1024 subscriptions;
    /// [`Error::Closed`], [`Error::WouldDeadlock`].
    pub fn subscribe(&self, prefix: impl AsRef<[u8]>) -> Result<Subscription> {
        self.subscribe_buffered(prefix, BUFFER_BYTES_DEFAULT)
    }

    /// As [`subscribe`](Tree::subscribe), with at most `bytes` of keys and values waiting to be taken (and 64 more for
    /// each change). What a single commit group changed beyond that is [missed](Event::Missed). A large value, which
    /// stays on disk until it is taken, counts with its length, but with at most a quarter of `bytes`.
    ///
    /// # Errors
    /// As [`subscribe`](Tree::subscribe).
    pub fn subscribe_buffered(&self, prefix: impl AsRef<[u8]>, bytes: usize) -> Result<Subscription> {
        let (subscription, _) = self.begin(prefix.as_ref(), bytes)?;
        self.check_ends(subscription)
    }

    /// The changes that were committed after group `seq` (see [`Snapshot::seq`](crate::Snapshot::seq)), as far as they
    /// are still in the log, and all that are committed from now on. What is read from the log and what comes later may
    /// each take `bytes` until it is taken. Large values from the log that were overwritten since are
    /// [missed](Event::Missed).
    ///
    /// Makes everything durable that was acknowledged before, as [`Db::flush`](crate::Db::flush), and reads the log from
    /// the last checkpoint on.
    ///
    /// # Errors
    /// [`Error::VersionGone`] if a checkpoint newer than `seq` was written, so that the log needn't hold what follows it,
    /// or `seq` has not been reached; and as [`subscribe`](Tree::subscribe) and [`Db::flush`](crate::Db::flush).
    pub fn subscribe_from(&self, prefix: impl AsRef<[u8]>, seq: u64, bytes: usize) -> Result<Subscription> {
        let (mut subscription, range) = self.begin(prefix.as_ref(), bytes)?;
        let newest = Seq(range.next.0 - 1);
        if seq == newest.0 {
            return self.check_ends(subscription);
        }
        let gone = |oldest: Seq| Error::VersionGone {
            seq,
            oldest: oldest.0,
            newest: newest.0,
        };
        let Some(files) = &self.inner.runtime.log_files else {
            return Err(gone(newest));
        };
        if seq > newest.0 || !self.inner.runtime.shared.settings.log {
            return Err(gone(newest));
        }
        super::close::flush(&self.inner.runtime)?.wait()?;
        let (directory, log_id, segment_bytes) = files.place();
        let Some(layout) = SegmentLayout::new(segment_bytes) else {
            return Err(gone(newest));
        };
        let read = |range: &LogRange| {
            let history = Feed::new(self.id, prefix.as_ref().to_vec(), bytes);
            read_changes(directory, log_id, layout, range, |group, records| {
                if group.0 > seq && group <= newest {
                    // Nobody waits for this feed.
                    let records = records.into_iter().map(Ok);
                    tell(&history, group, records, None, &mut Vec::new());
                }
            })?;
            Ok(history)
        };
        subscription.history = match read_whole(Seq(seq), || self.ask_log(), read)? {
            Ok(history) => Some(history),
            Err(oldest) => return Err(gone(oldest)),
        };
        subscription.first = seq + 1;
        self.check_ends(subscription)
    }

    /// Of a tree that was dropped before a subscription begins nothing would ever come, not even the end.
    fn check_ends(&self, subscription: Subscription) -> Result<Subscription> {
        let feeds = [subscription.history.as_ref(), Some(&*subscription.feed)];
        if !feeds.into_iter().flatten().any(Feed::has_ended) {
            self.inner.check_tree(self.id)?;
        }
        Ok(subscription)
    }

    fn begin(&self, prefix: &[u8], bytes: usize) -> Result<(Subscription, LogRange)> {
        self.inner.runtime.check_wait()?;
        self.inner.runtime.shared.status.check_read()?;
        let feed = Arc::new(Feed::new(self.id, prefix.to_vec(), bytes));
        let (reply, receiver) = oneshot::channel();
        self.inner.runtime.send_commit(CommitMessage::Subscribe {
            feed: Arc::clone(&feed),
            reply,
        });
        let range = self
            .inner
            .runtime
            .wait(receiver, None)
            .unwrap_or(Err(Error::Closed))?;
        let subscription = Subscription {
            inner: Arc::clone(&self.inner),
            feed,
            history: None,
            first: range.next.0,
            current: None,
            ended: false,
        };
        Ok((subscription, range))
    }

    fn ask_log(&self) -> Result<LogRange> {
        let (reply, receiver) = oneshot::channel();
        self.inner.runtime.send_commit(CommitMessage::AskLog { reply });
        self.inner.runtime.wait(receiver, None).ok_or(Error::Closed)
    }
}

/// Has the log read from behind the group `seq` on. It may be shortened meanwhile, and then what was read is anything: it
/// is read again, as long as it goes back far enough; else this gives the oldest group behind which it can be read. Ends
/// because each round begins behind a later group than the one before.
fn read_whole<T>(
    seq: Seq,
    ask: impl Fn() -> Result<LogRange>,
    read: impl Fn(&LogRange) -> Result<T>,
) -> Result<std::result::Result<T, Seq>> {
    let mut range = ask()?;
    loop {
        if seq < range.after {
            return Ok(Err(range.after));
        }
        let result = read(&range);
        let now = ask()?;
        if now.start == range.start {
            return result.map(Ok);
        }
        range = now;
    }
}

impl Subscription {
    /// The first commit group whose changes it tells.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.first
    }

    /// The next event if there is one; never waits, except to read a large value.
    ///
    /// # Errors
    /// [`Error::Closed`] when everything from before the closing is taken, or the end was told; [`Error::Corrupt`] or
    /// [`Error::Io`] for a large value that can't be read: that change is passed over.
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.next_of_group()? {
                return Ok(Some(event));
            }
            if self.ended {
                return Err(Error::Closed);
            }
            let entry = match self.history.as_ref().and_then(Feed::take) {
                Some(entry) => Some(entry),
                None => {
                    self.history = None;
                    self.feed.take()
                }
            };
            match entry {
                Some(Entry::Changes(changes)) => self.current = Some(changes),
                Some(Entry::Missed { from, to }) => {
                    return Ok(Some(Event::Missed {
                        from: from.0,
                        to: to.0,
                    }));
                }
                Some(Entry::Dropped { seq }) => {
                    self.ended = true;
                    return Ok(Some(Event::TreeDropped { seq: seq.0 }));
                }
                None => {
                    self.inner.runtime.shared.status.check_read()?;
                    return Ok(None);
                }
            }
        }
    }

    /// A ticket that is answered when there is something to take: to wait for with others, or to `.await`. One waits at
    /// a time: asking again answers the one before.
    pub fn ready(&self) -> Ticket<()> {
        let (reply, ticket) = self.inner.ticket(|_| ());
        if self.current.is_some() || self.history.is_some() || self.ended {
            reply.send(Ok(Outcome::Done));
        } else if let Some(reply) = self.feed.wait(reply) {
            reply.send(Ok(Outcome::Done));
        }
        ticket
    }

    fn next_of_group(&mut self) -> Result<Option<Event>> {
        let Some(changes) = &mut self.current else {
            return Ok(None);
        };
        let Some(change) = changes.list.pop_front() else {
            self.current = None;
            return Ok(None);
        };
        let part = |(start, length)| Value::part(&changes.bytes, start, length);
        let value = match change.value {
            Changed::Value(start, length) => Some(part((start, length))),
            Changed::Blob(start, length) => match self.inner.read_blob(&part((start, length))) {
                // Read from the log, its place may have been used again since, or cut off the file's end.
                Err(error) if changes.version.is_none() && is_of_its_place(&error) => {
                    let seq = changes.seq.0;
                    return Ok(Some(Event::Missed { from: seq, to: seq }));
                }
                value => Some(value?),
            },
            Changed::Deleted => None,
        };
        Ok(Some(Event::Changed {
            seq: changes.seq.0,
            key: part(change.key),
            value,
        }))
    }
}

impl Iterator for Subscription {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.try_next() {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => match self.ready().wait() {
                    Ok(()) => {}
                    // What came before the closing is still told.
                    Err(Error::Closed) => match self.try_next() {
                        Ok(Some(event)) => return Some(Ok(event)),
                        _ => return None,
                    },
                    Err(error) => return Some(Err(error)),
                },
                Err(Error::Closed) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.abandon();
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// Whether something else may be, or nothing, where a value was.
fn is_of_its_place(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } => true,
        Error::Io { source, .. } => source.kind() == io::ErrorKind::UnexpectedEof,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use treering_engine::Lsn;
    use treering_engine::log::LogPosition;

    use super::*;

    fn range(after: u64) -> LogRange {
        let position = |lsn| LogPosition {
            lsn: Lsn(lsn),
            generation: 1,
            previous_crc: 0,
        };
        LogRange {
            after: Seq(after),
            start: position(after * 4_096),
            end: position(1 << 30),
            next: Seq(100),
        }
    }

    /// The log begins behind these groups, one after the other, whenever it is asked for.
    fn read(
        seq: u64,
        begins: &[u64],
        read: impl Fn(u64) -> Result<u64>,
    ) -> Result<std::result::Result<u64, Seq>> {
        let begins = RefCell::new(begins.iter());
        let ask = || {
            let next = begins.borrow_mut().next();
            next.map(|&after| range(after)).ok_or(Error::Closed)
        };
        read_whole(Seq(seq), ask, |range| read(range.after.0))
    }

    #[test]
    fn a_log_that_is_shortened_meanwhile_is_read_again_or_gone() {
        let vanished = || Error::io("opening", io::ErrorKind::NotFound.into());
        let rounds = Cell::new(0);
        // The segment goes away under the reader twice, and the third time the log stays.
        let found = read(50, &[10, 20, 50, 50], |after| {
            rounds.set(rounds.get() + 1);
            if after < 50 { Err(vanished()) } else { Ok(after) }
        });
        assert!(matches!(found, Ok(Ok(50))), "{found:?}");
        assert_eq!(rounds.get(), 3);
        // What was read of a log that was shortened isn't believed.
        let found = read(50, &[10, 20, 20], Ok);
        assert!(matches!(found, Ok(Ok(20))), "{found:?}");
        let gone = read(50, &[10, 51], |_| Err(vanished()));
        assert!(matches!(gone, Ok(Err(Seq(51)))), "{gone:?}");
        let gone = read(50, &[51], |_| unreachable!("it can't be whole"));
        assert!(matches!(gone, Ok(Err(Seq(51)))), "{gone:?}");
        // The log is where it was: that is a fault.
        assert!(matches!(
            read(50, &[10, 10], |_| Err(vanished())),
            Err(Error::Io { .. })
        ));
    }
}
