use std::sync::Arc;

use treering_engine::log::{RecordWriter, SegmentSet};
use treering_engine::{Seq, TreeId};
use treering_io::SimDirectory;

use super::{Commit, CommitMessage, LogRange, TreeChange};
use crate::actor::{Actor, Outbox};
use crate::client::Db;
use crate::error::Result;
use crate::options::Options;
use crate::runtime::SimOptions;
use crate::shared::{Entry, Feed, with_guard};
use crate::ticket::Reply;

fn subscription_of(feed: Arc<Feed>) -> (CommitMessage, oneshot::Receiver<Result<LogRange>>) {
    let (reply, receiver) = oneshot::channel();
    (CommitMessage::Subscribe { feed, reply }, receiver)
}

fn feed() -> Arc<Feed> {
    Arc::new(Feed::new(TreeId(1), Vec::new(), 1 << 20))
}

#[test]
fn a_subscription_begins_when_all_that_it_does_not_see_is_published() {
    let disk = SimDirectory::new(1);
    let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
    crate::sim::settle(&db);
    {
        let shared = &db.inner.runtime.shared;
        let published = || with_guard(&shared.memory, |guard| shared.current.load(guard).seq);
        let before = published();
        let mut commit = db.inner.runtime.commit.lock();
        let mut outbox = Outbox::default();
        let (message, idle) = subscription_of(feed());
        commit.handle(message, 0, &mut outbox);
        commit.end_batch(0, &mut outbox);
        let range = idle.try_recv().expect("nothing is under way").expect("a range");
        assert_eq!(range.next, before.next());

        // A synced group has its place in the log, which is written now.
        let (name, reply) = ("tree".into(), Reply::none());
        let must_be_new = true;
        commit.handle(
            CommitMessage::ChangeTrees {
                change: TreeChange::Create { name, must_be_new },
                reply,
            },
            0,
            &mut outbox,
        );
        commit.end_batch(0, &mut outbox);
        assert_eq!((outbox.log_tasks.len(), published()), (1, before));
        let (message, busy) = subscription_of(feed());
        commit.handle(message, 0, &mut outbox);
        commit.end_batch(0, &mut outbox);
        assert!(
            busy.try_recv().is_err(),
            "the current version is older than the group before its first"
        );
        let result = Ok(());
        commit.handle(CommitMessage::LogDone { result, buffer: None }, 0, &mut outbox);
        commit.end_batch(0, &mut outbox);
        let range = busy.try_recv().expect("it is published").expect("a range");
        assert_eq!(published(), before.next());
        assert_eq!(range.next, Seq(before.0 + 2));
    }
    crate::sim::crash(db);
}

#[test]
fn a_log_that_no_checkpoint_shortens_asks_for_none() {
    let disk = SimDirectory::new(1);
    let options = Options::new()
        .log_segment_bytes(64 << 10)
        .checkpoint_log_bytes(64 << 10);
    let db = crate::sim::open(&disk, &options, SimOptions::default()).expect("it opens");
    let tree = db.client().tree("tree").expect("a tree");
    // The second group doesn't fit behind the first: what is left of that segment counts, too.
    for records in [80u8, 110] {
        let pairs = (0..records).map(|number| ([number], [7; 500]));
        tree.send_batch(pairs).expect("sent").wait().expect("a batch");
    }
    crate::sim::settle(&db);
    // One may have begun when the second group wasn't published yet.
    let checkpoints = db.stats().checkpoints;
    assert!((1..=2).contains(&checkpoints), "{checkpoints} checkpoints");
    drop(tree);
    crate::sim::crash(db);
}

#[test]
fn what_cannot_be_read_of_a_group_is_missed() {
    let disk = SimDirectory::new(1);
    let db = crate::sim::open(&disk, &Options::new(), SimOptions::default()).expect("it opens");
    crate::sim::settle(&db);
    {
        let shared = &db.inner.runtime.shared;
        let version = with_guard(&shared.memory, |guard| shared.current.hold(guard));
        let mut commit = db.inner.runtime.commit.lock();
        let mut outbox = Outbox::default();
        let feed = feed();
        let (message, _receiver) = subscription_of(Arc::clone(&feed));
        commit.handle(message, 0, &mut outbox);
        let mut defective = Vec::new();
        RecordWriter(&mut defective).put(TreeId(1), b"before", b"v");
        defective.push(0xFF);
        let mut whole = Vec::new();
        RecordWriter(&mut whole).put(TreeId(1), b"another batch", b"v");
        let seq = version.seq.next();
        commit.feed(seq, &[defective, whole.clone()], &version, &mut outbox);
        commit.feed(seq.next(), &[whole], &version, &mut outbox);
        let taken: Vec<_> = std::iter::from_fn(|| feed.take()).collect();
        assert!(
            matches!(
                &taken[..],
                [
                    Entry::Missed { from, to },
                    Entry::Changes(partly),
                    Entry::Changes(whole),
                ] if (*from, *to, partly.seq, whole.seq) == (seq, seq, seq, seq.next())
                    && (partly.list.len(), whole.list.len()) == (2, 1)
            ),
            "{taken:?}"
        );
    }
    crate::sim::crash(db);
}

/// A database whose log is as short as possible.
fn short_log() -> Db {
    let disk = SimDirectory::new(1);
    let options = Options::new()
        .log_segment_bytes(64 << 10)
        .checkpoint_log_bytes(64 << 10);
    let db = crate::sim::open(&disk, &options, SimOptions::default()).expect("it opens");
    db.client().tree("tree").expect("a tree");
    crate::sim::settle(&db);
    db
}

/// Writes as much as some segments hold.
fn write_segments(db: &Db) {
    let tree = db.client().open_tree("tree").expect("there");
    for number in 0..500_u32 {
        tree.put((number % 10).to_be_bytes(), [7; 900]).expect("a put");
    }
}

fn failure() -> crate::error::Error {
    crate::error::Error::io("planted", std::io::ErrorKind::StorageFull.into())
}

#[test]
fn a_checkpoint_that_failed_is_tried_again_before_the_log_is_full() {
    let db = short_log();
    let before = db.stats().checkpoints;
    {
        let mut commit = db.inner.runtime.commit.lock();
        let cause = failure();
        commit.handle(
            CommitMessage::CheckpointFailed { cause },
            0,
            &mut Outbox::default(),
        );
    }
    write_segments(&db);
    assert!(db.stats().checkpoints > before);
    crate::sim::crash(db);
}

#[test]
fn a_segment_that_could_not_be_made_ahead_of_need_is_tried_again_when_it_is_needed() {
    let db = short_log();
    {
        let mut commit = db.inner.runtime.commit.lock();
        let (start, end) = (commit.log_start.lsn, commit.position.lsn);
        let found = [(commit.layout.number_before(end), true)].into();
        commit.segments = SegmentSet::new(commit.layout, Commit::segments_ahead(), start, end, &found);
        commit.segment_shortage = Some(failure());
    }
    write_segments(&db);
    crate::sim::crash(db);
}
