use std::sync::Arc;

use treering_engine::{Seq, TreeId};
use treering_io::SimDirectory;

use super::{CommitMessage, LogRange};
use crate::actor::{Actor, Outbox};
use crate::client::Db;
use crate::error::Result;
use crate::options::Options;
use crate::recovery;
use crate::runtime::{Sim, SimOptions};
use crate::shared::{Feed, with_guard};
use crate::ticket::Reply;

fn subscription() -> (CommitMessage, oneshot::Receiver<Result<LogRange>>) {
    let (reply, receiver) = oneshot::channel();
    let feed = Arc::new(Feed::new(TreeId(1), Vec::new(), 1 << 20));
    (CommitMessage::Subscribe { feed, reply }, receiver)
}

#[test]
fn a_subscription_begins_when_all_that_it_does_not_see_is_published() {
    let disk = SimDirectory::new(1);
    let sim = Sim::new(&disk, SimOptions::default());
    let opened = recovery::open_simulated(&disk, &Options::new(), sim).expect("it opens");
    let db = Db::start(opened, None);
    crate::sim::settle(&db);
    {
        let shared = &db.inner.runtime.shared;
        let published = || with_guard(&shared.memory, |guard| shared.current.load(guard).seq);
        let before = published();
        let mut commit = db.inner.runtime.commit.lock();
        let mut outbox = Outbox::default();
        let (message, idle) = subscription();
        commit.handle(message, 0, &mut outbox);
        commit.end_batch(0, &mut outbox);
        let range = idle.try_recv().expect("nothing is under way").expect("a range");
        assert_eq!(range.next, before.next());

        // A synced group has its place in the log, which is written now.
        let (name, reply) = ("tree".into(), Reply::none());
        let must_be_new = true;
        commit.handle(
            CommitMessage::CreateTree {
                name,
                must_be_new,
                reply,
            },
            0,
            &mut outbox,
        );
        commit.end_batch(0, &mut outbox);
        assert_eq!((outbox.log_tasks.len(), published()), (1, before));
        let (message, busy) = subscription();
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
    let sim = Sim::new(&disk, SimOptions::default());
    let options = Options::new()
        .log_segment_bytes(64 << 10)
        .checkpoint_log_bytes(64 << 10);
    let opened = recovery::open_simulated(&disk, &options, sim).expect("it opens");
    let db = Db::start(opened, None);
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
