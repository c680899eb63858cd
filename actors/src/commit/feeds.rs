//! Subscriptions: what published groups changed, handed to those who want to know (see [`Feed`]).
//!
//! The records of a group are kept until it is published only while there are subscriptions. A subscription sees the
//! groups that are formed after it began: those that had their place by then needn't remember what they changed. It is
//! answered when these are published, so that every version that the subscriber takes from then on shows them. (Bad run:
//! it is answered at once, its subscriber takes the current version, and a group that was formed before and published
//! after that is in neither.)
//!
//! A group is told of in the step that publishes it: synced groups when they are durable, buffered ones when they can
//! be read, which may be before that.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use treering_engine::Seq;
use treering_engine::log::{LogDefect, LogPosition, Record, RecordReader};

use super::SUBSCRIPTIONS_MAX;
use super::state::{Commit, Pending};
use crate::actor::Outbox;
use crate::blob::BlobDescriptor;
use crate::error::{Error, Result};
use crate::shared::{Change, Changed, Changes, Feed, Version};
use crate::ticket::Resolution;

/// What is in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRange {
    /// All groups after this one are in the log, from `start` on.
    pub after: Seq,
    pub start: LogPosition,
    /// Up to here it is durable.
    pub end: LogPosition,
    /// The next group that is formed; of a new subscription, the first one that it sees.
    pub next: Seq,
}

/// This actor's end of a feed; whoever waits at the other one is told when it is dropped.
#[derive(Debug)]
pub(super) struct FeedSource {
    feed: Arc<Feed>,
    /// The first group that it sees.
    first: Seq,
    /// Whoever began it, until the groups before are published.
    reply: Option<oneshot::Sender<Result<LogRange>>>,
}

impl Drop for FeedSource {
    fn drop(&mut self) {
        self.feed.close();
    }
}

impl Commit {
    /// Begins a subscription.
    pub(super) fn subscribe(&mut self, feed: Arc<Feed>, reply: oneshot::Sender<Result<LogRange>>) {
        self.feeds.retain(|source| !source.feed.is_abandoned());
        if self.feeds.len() >= SUBSCRIPTIONS_MAX {
            // Whoever went away needs no answer.
            let _ = reply.send(Err(Error::OutOfSpace {
                what: format!("there are {SUBSCRIPTIONS_MAX} subscriptions"),
            }));
            return;
        }
        self.feeds.push(FeedSource {
            feed,
            first: self.next_seq,
            reply: Some(reply),
        });
    }

    /// Answers those whose subscriptions see all that is not published, with the first group that they see.
    pub(super) fn answer_subscribers(&mut self) {
        let unpublished = self.pending.front().map(|group| group.seq);
        let range = self.log_range();
        let waiting = self.feeds.iter_mut().rev();
        for source in waiting.take_while(|source| source.reply.is_some()) {
            if unpublished.is_none_or(|unpublished| unpublished >= source.first)
                && let Some(reply) = source.reply.take()
            {
                let next = source.first;
                // Whoever went away abandons the feed.
                let _ = reply.send(Ok(LogRange { next, ..range }));
            }
        }
    }

    /// What a crash would replay now.
    pub(super) fn log_range(&self) -> LogRange {
        LogRange {
            after: self.log_seq,
            start: self.log_start,
            end: self.durable,
            next: self.next_seq,
        }
    }

    /// All subscriptions, for simulations.
    pub fn feeds(&self) -> Vec<Arc<Feed>> {
        self.feeds.iter().map(|source| Arc::clone(&source.feed)).collect()
    }

    /// Whether somebody will ask what the groups that are formed now have changed.
    pub(super) fn has_feeds(&self) -> bool {
        !self.feeds.is_empty()
    }

    /// Keeps the records of a group that is being formed, if somebody will ask for them.
    pub(super) fn keep_for_feeds(&self, records: &[u8], group: &mut Pending) {
        if self.has_feeds() && !records.is_empty() {
            group.told.push(records.to_vec());
        }
    }

    /// Tells of a group that was just published.
    pub(super) fn feed(
        &mut self,
        seq: Seq,
        records: &[Vec<u8>],
        version: &Arc<Version>,
        outbox: &mut Outbox,
    ) {
        if records.is_empty() || !self.has_feeds() {
            return;
        }
        self.feeds.retain(|source| !source.feed.is_abandoned());
        for source in self.feeds.iter().filter(|source| source.first <= seq) {
            let records = records.iter().flat_map(|records| RecordReader::changes(records));
            tell(&source.feed, seq, records, Some(version), &mut outbox.resolutions);
        }
    }
}

/// Pushes what these records of a group change for a feed. `version` keeps blobs in place until they are read. A record
/// that can't be read may be anything: then the feed has missed something of this group.
pub(crate) fn tell<'r>(
    feed: &Feed,
    seq: Seq,
    records: impl Iterator<Item = std::result::Result<Record<'r>, LogDefect>>,
    version: Option<&Arc<Version>>,
    told: &mut Vec<Resolution>,
) {
    let mut list = VecDeque::new();
    let mut bytes = Vec::new();
    let mut blob_bytes = None;
    let mut dropped = false;
    let mut place = |part: &[u8]| {
        bytes.extend_from_slice(part);
        (bytes.len() - part.len(), part.len())
    };
    for record in records {
        let record = match record {
            Ok(record) if record.tree() == Some(feed.tree) => record,
            Ok(_) => continue,
            Err(defect) => {
                tracing::error!(%defect, seq = seq.0, "a record of a commit group can't be read");
                feed.miss(seq, seq, told);
                continue;
            }
        };
        let Some((_, key)) = record.change() else {
            dropped |= matches!(record, Record::TreeDrop { .. });
            if let Record::TreeLoad { .. } = record {
                // What was loaded is in no record; before that the tree was empty.
                feed.miss(seq, seq, told);
            }
            continue;
        };
        if !key.starts_with(&feed.prefix) {
            continue;
        }
        let key = place(key);
        let value = match record {
            Record::Put { value, .. } => {
                let (start, length) = place(value);
                Changed::Value(start, length)
            }
            Record::PutBlob { descriptor, .. } => {
                let length = BlobDescriptor::decode(descriptor).map_or(0, |blob| blob.bytes);
                *blob_bytes.get_or_insert(0) += feed.cost_of_blob(length);
                let (start, length) = place(descriptor);
                Changed::Blob(start, length)
            }
            _ => Changed::Deleted,
        };
        list.push_back(Change { key, value });
    }
    if blob_bytes.is_some() {
        leave_out_replaced(&mut list, &bytes);
    }
    if !list.is_empty() {
        let held = version.zip(blob_bytes);
        feed.push(Changes::new(seq, list, bytes, held), told);
    }
    if dropped {
        feed.end(seq, told);
    }
}

/// Leaves out the large values that something later in their group replaces. No version shows them, so nothing keeps
/// them in place until they are read.
fn leave_out_replaced(list: &mut VecDeque<Change>, bytes: &[u8]) {
    let mut later = BTreeSet::new();
    let mut kept = VecDeque::with_capacity(list.len());
    for change in list.drain(..).rev() {
        let (start, length) = change.key;
        let is_replaced = !later.insert(&bytes[start..start + length]);
        if !is_replaced || !matches!(change.value, Changed::Blob(..)) {
            kept.push_front(change);
        }
    }
    *list = kept;
}
