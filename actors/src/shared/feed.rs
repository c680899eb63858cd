//! The bounded queue between the commit actor and one subscription.
//!
//! The commit actor pushes what each published group changed, in commit order; the subscriber takes it. Nobody waits for
//! a slow subscriber: a group that doesn't fit is left out, and an entry in its place says so. Such entries join, so
//! they are at most one for each group that did fit.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use treering_engine::{Seq, TreeId};

use super::Version;
use crate::ticket::{Outcome, Reply, Resolution};

/// What a change costs in the queue beside key and value, bytes.
const CHANGE_BYTES: usize = 64;

/// What a subscriber wants, and what it has not taken yet.
#[derive(Debug)]
pub(crate) struct Feed {
    pub tree: TreeId,
    pub prefix: Vec<u8>,
    bytes_max: usize,
    queue: Mutex<Queue>,
    abandoned: AtomicBool,
}

#[derive(Default)]
struct Queue {
    /// Whether nothing more will be pushed.
    closed: bool,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Whoever waits for the queue to have something: the last one that asked.
    waiting: Option<Reply>,
}

impl Queue {
    /// Notes that these groups were missed, with those before them if these were.
    fn miss(&mut self, from: Seq, until: Seq) {
        if let Some(Entry::Missed { to, .. }) = self.entries.back_mut() {
            *to = until;
        } else {
            self.entries.push_back(Entry::Missed { from, to: until });
        }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("entries", &self.entries.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// One entry of the queue.
#[derive(Debug)]
pub(crate) enum Entry {
    Changes(Changes),
    /// Nothing is known of what these groups changed.
    Missed {
        from: Seq,
        to: Seq,
    },
    /// The tree was dropped: nothing more comes.
    Dropped {
        seq: Seq,
    },
}

/// What one group changed for one subscriber.
#[derive(Debug)]
pub(crate) struct Changes {
    pub seq: Seq,
    pub list: VecDeque<Change>,
    /// Keys and values.
    pub bytes: Arc<[u8]>,
    /// The version that shows them, if blobs are among them: it keeps these in place.
    pub version: Option<Arc<Version>>,
    /// What it costs.
    cost: usize,
}

/// A changed key, by its place in the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub key: (usize, usize),
    pub value: Changed,
}

/// What a key holds after the group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Changed {
    Value(usize, usize),
    /// The descriptor of a blob.
    Blob(usize, usize),
    Deleted,
}

impl Changes {
    /// With blobs among the changes, `held` is the version that keeps these in place, and what that costs.
    pub fn new(
        seq: Seq,
        list: VecDeque<Change>,
        bytes: Vec<u8>,
        held: Option<(&Arc<Version>, usize)>,
    ) -> Changes {
        Changes {
            seq,
            cost: bytes.len() + list.len() * CHANGE_BYTES + held.map_or(0, |(_, cost)| cost),
            list,
            bytes: Arc::from(bytes),
            version: held.map(|(version, _)| Arc::clone(version)),
        }
    }
}

impl Feed {
    pub fn new(tree: TreeId, prefix: Vec<u8>, bytes_max: usize) -> Feed {
        Feed {
            tree,
            prefix,
            bytes_max,
            queue: Mutex::default(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// What a blob of that length costs while it waits to be taken: space on disk, which a slow subscriber mustn't hold
    /// without a bound. One that is longer than the whole buffer has room all the same.
    pub fn cost_of_blob(&self, length: u64) -> usize {
        let most = self.bytes_max / 4;
        usize::try_from(length).map_or(most, |length| length.min(most))
    }

    /// The subscriber went away. What it has not taken is given up at once, versions that keep large values among it.
    pub fn abandon(&self) {
        let mut queue = self.queue();
        self.abandoned.store(true, Ordering::Relaxed);
        queue.entries = VecDeque::new();
        queue.bytes = 0;
    }

    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Queues what a group changed, or notes that it was missed. Who waits for it is told by `told`.
    pub fn push(&self, changes: Changes, told: &mut Vec<Resolution>) {
        let mut queue = self.queue();
        if self.is_abandoned() {
            // The commit actor takes notice with the next group only.
        } else if queue.bytes + changes.cost <= self.bytes_max {
            queue.bytes += changes.cost;
            queue.entries.push_back(Entry::Changes(changes));
        } else {
            queue.miss(changes.seq, changes.seq);
        }
        tell(&mut queue, told);
    }

    /// Notes that nothing is known of these groups, or not all.
    pub fn miss(&self, from: Seq, to: Seq, told: &mut Vec<Resolution>) {
        let mut queue = self.queue();
        if !self.is_abandoned() {
            queue.miss(from, to);
        }
        tell(&mut queue, told);
    }

    /// Queues the end.
    pub fn end(&self, seq: Seq, told: &mut Vec<Resolution>) {
        let mut queue = self.queue();
        if !self.is_abandoned() {
            queue.entries.push_back(Entry::Dropped { seq });
        }
        tell(&mut queue, told);
    }

    /// Whether the end is queued.
    pub fn has_ended(&self) -> bool {
        matches!(self.queue().entries.back(), Some(Entry::Dropped { .. }))
    }

    /// Nothing more will come: who waits is told that the database was closed.
    pub fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.waiting = None;
    }

    /// Takes the next entry.
    pub fn take(&self) -> Option<Entry> {
        let mut queue = self.queue();
        let entry = queue.entries.pop_front()?;
        if let Entry::Changes(changes) = &entry {
            queue.bytes -= changes.cost;
        }
        Some(entry)
    }

    /// Leaves a reply that is told when there is an entry. What this returns is to be told at once: the same reply if
    /// there is an entry, or the one that was left before, so that at most one waits. Closed, the reply is dropped.
    pub fn wait(&self, reply: Reply) -> Option<Reply> {
        let mut queue = self.queue();
        if !queue.entries.is_empty() {
            return Some(reply);
        }
        if queue.closed {
            return None;
        }
        queue.waiting.replace(reply)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that runs under the lock can panic half way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(queue: &mut Queue, told: &mut Vec<Resolution>) {
    told.extend(queue.waiting.take().map(|reply| Resolution {
        reply,
        result: Ok(Outcome::Done),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(seq: u64, bytes: usize) -> Changes {
        Changes::new(Seq(seq), VecDeque::new(), vec![0; bytes], None)
    }

    #[test]
    fn what_does_not_fit_is_missed_and_the_rest_comes_in_order() {
        let feed = Feed::new(TreeId(1), Vec::new(), 100);
        let mut told = Vec::new();
        for (seq, bytes) in [(1, 60), (2, 60), (3, 60), (4, 40), (5, 1)] {
            feed.push(changes(seq, bytes), &mut told);
        }
        let taken: Vec<(u64, u64)> = std::iter::from_fn(|| feed.take())
            .map(|entry| match entry {
                Entry::Changes(changes) => (changes.seq.0, changes.seq.0),
                Entry::Missed { from, to } => (from.0, to.0),
                Entry::Dropped { .. } => (0, 0),
            })
            .collect();
        assert_eq!(taken, [(1, 1), (2, 3), (4, 4), (5, 5)]);
        feed.push(changes(6, 100), &mut told);
        assert!(
            matches!(feed.take(), Some(Entry::Changes(_))),
            "there is room again"
        );
        feed.push(changes(7, 101), &mut told);
        assert!(
            matches!(feed.take(), Some(Entry::Missed { .. })),
            "and never more"
        );
        feed.miss(Seq(8), Seq(8), &mut told);
        feed.miss(Seq(10), Seq(12), &mut told);
        assert!(matches!(
            (feed.take(), feed.take()),
            (
                Some(Entry::Missed {
                    from: Seq(8),
                    to: Seq(12)
                }),
                None
            )
        ));
        feed.push(changes(8, 10), &mut told);
        feed.abandon();
        feed.end(Seq(13), &mut told);
        feed.push(changes(9, 10), &mut told);
        assert!(feed.take().is_none(), "nobody will take it");
        assert_eq!(feed.cost_of_blob(24), 24);
        assert_eq!(feed.cost_of_blob(1 << 40), 25, "four of any length have room");
    }
}
