use treering_engine::log::RecordWriter;
use treering_engine::{PageId, ShardId};
use treering_io::SimDirectory;

use super::super::state::ReadyRequest;
use super::*;
use crate::actor::Actor;
use crate::commit::{Batch, CommitMessage};
use crate::options::Options;
use crate::runtime::SimOptions;
use crate::shard::{EmptyLists, Part, ShardMessage, Transaction};
use crate::shared::with_guard;
use crate::ticket::Reply;

fn batch_of(outbox: &mut Outbox) -> Batch {
    let batch = outbox.commit.drain(..).find_map(|message| match message {
        CommitMessage::Batch(batch) => Some(batch),
        _ => None,
    });
    batch.expect("a batch")
}

/// A transaction that is synced waits for its first page; meanwhile another request, which was parked before it began,
/// is refused, and told so with a batch of its own.
#[test]
fn a_synced_transaction_is_synced_though_others_are_answered_while_it_waits() {
    let disk = SimDirectory::new(1);
    let options = Options::new().shards(1).durability(Durability::Buffered);
    let db = crate::sim::open(&disk, &options, SimOptions::default()).expect("it opens");
    let tree = db.client().tree("tree").expect("a tree");
    // So that there are pages in hand.
    tree.put(b"l", b"v").expect("written");
    drop(tree);
    crate::sim::settle(&db);
    {
        let shared = &db.inner.runtime.shared;
        let tree = with_guard(&shared.memory, |guard| {
            let directory = &shared.current.load(guard).directory;
            directory.by_name("tree").expect("there").id
        });
        let mut shard = db.inner.runtime.shards[0].lock();
        let mut outbox = Outbox::default();
        let mut records = Vec::new();
        RecordWriter(&mut records).put(tree, b"k", b"v");
        let part = Part {
            tree,
            owner: ShardId(0),
            lower: Arc::from([]),
            records,
            expected: Vec::new(),
            ranges: Vec::new(),
        };
        let transaction = Transaction {
            number: 1,
            parts: vec![part],
            durability: Durability::Sync,
            snapshot: None,
        };
        shard.begin_complete(Visit {
            transaction: Arc::new(transaction),
            reply: Reply::none(),
            credit: None,
            next: 1,
            epochs: Vec::new(),
        });
        let exclusive = shard.exclusive.as_mut().expect("it has begun");
        exclusive.waits_for = Some(PageId(u32::MAX));
        let request = Request {
            tree,
            action: Action::Delete {
                key: Box::from(*b"l"),
            },
            durability: Durability::Buffered,
            reply: Reply::none(),
            credit: None,
        };
        shard.refuse(ReadyRequest::new(request), Error::Closed);
        shard.end_batch(0, &mut outbox);
        let others = batch_of(&mut outbox);
        assert!(others.records.is_empty() && others.resolutions.len() == 1);

        shard.exclusive.as_mut().expect("it waits").waits_for = None;
        let published = ShardMessage::Published {
            batches: 1,
            record_bytes: 0,
            lists: EmptyLists::default(),
        };
        shard.handle(published, 0, &mut outbox);
        shard.end_batch(0, &mut outbox);
        let batch = batch_of(&mut outbox);
        assert!(
            !batch.records.is_empty() && batch.sync,
            "told before it is durable"
        );
    }
    crate::sim::crash(db);
}
