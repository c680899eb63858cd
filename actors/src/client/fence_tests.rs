use treering_io::SimDirectory;

use super::*;
use crate::actor::{Actor, Outbox};
use crate::client::Db;
use crate::options::Options;
use crate::runtime::SimOptions;
use crate::shard::{Condition, Pair, ShardMessage, ValueKind};

/// Left with one shard, a put has gone to another with its range: there, nothing was pipelined.
#[test]
fn a_tree_is_dropped_behind_what_moved_on_with_its_range() {
    let disk = SimDirectory::new(1);
    let options = Options::new()
        .shards(2)
        .balance_operations(30)
        .cache_bytes(1024 * 4096)
        .durability(Durability::Buffered);
    let db = crate::sim::open(&disk, &options, SimOptions::default()).expect("it opens");
    let tree = db.client().tree("tree").expect("a tree");
    for number in 0..400u32 {
        let key = number.wrapping_mul(0x9E37_79B9).to_be_bytes();
        tree.put(key, [0; 200]).expect("written");
    }
    crate::sim::settle(&db);
    let inner = &db.inner;
    let shared = &inner.runtime.shared;
    let state = with_guard(&shared.memory, |guard| {
        let state = shared.current.load(guard).directory.by_name("tree");
        std::sync::Arc::clone(state.expect("there"))
    });
    let owner = state.partitions[0].owner;
    let mut others = state.partitions.iter().filter(|part| part.owner != owner);
    let other = others.next().expect("it was cut");

    // To the first of its owners, and to no other.
    drop(tree.send_put([0], b"v").expect("sent"));
    let (reply, put) = ticket(&inner.runtime, None, |_| ());
    let action = Action::Put {
        pair: Pair::new(&other.lower, b"v"),
        kind: ValueKind::Inline,
        condition: Condition::None,
    };
    let request = Request {
        tree: state.id,
        action,
        durability: Durability::Buffered,
        reply,
        credit: None,
    };
    inner.runtime.shards[usize::from(other.owner.0)].lock().handle(
        ShardMessage::Forwarded(request),
        0,
        &mut Outbox::default(),
    );
    let dropped = db.client().send_drop_tree("tree").expect("sent");
    dropped.wait().expect("dropped");
    put.wait().expect("it came first");
    drop(tree);
    crate::sim::crash(db);
}

/// Two shards, and a tree on each: the first one's id is lower, so transactions over both begin there.
fn two_trees(seed: u64) -> (Db, crate::Tree, crate::Tree) {
    let disk = SimDirectory::new(1);
    let simulation = SimOptions {
        seed,
        ..SimOptions::default()
    };
    let options = Options::new()
        .shards(2)
        .cache_bytes(1024 * 4096)
        .durability(Durability::Buffered);
    let db = crate::sim::open(&disk, &options, simulation).expect("it opens");
    let trees = ["first", "second"].map(|name| db.client().tree(name).expect("a tree"));
    crate::sim::settle(&db);
    let [first, second] = trees;
    (db, first, second)
}

/// A transaction of one shard has left nothing that its client's next one would wait for, but for its place in a mailbox.
#[test]
fn transactions_of_one_thread_keep_their_order_where_they_begin_at_different_shards() {
    for seed in 0..40 {
        let (db, first, second) = two_trees(seed);
        let client = db.client();
        let mut one = client.begin(crate::Isolation::Serializable).expect("begun");
        one.put(&second, b"k", b"1").expect("noted");
        let one = one.send().expect("sent");
        let mut two = client.begin(crate::Isolation::Serializable).expect("begun");
        two.put(&first, b"j", b"2").expect("noted");
        two.put(&second, b"k", b"2").expect("noted");
        let two = two.send().expect("sent");
        two.wait().expect("nothing was read");
        one.wait().expect("nothing was read");
        let found = second.get(b"k").expect("read");
        assert_eq!(found.as_deref(), Some(&b"2"[..]), "seed {seed}");
        drop((first, second, client));
        crate::sim::crash(db);
    }
}

/// What empties the tree has begun at its owner, and waits for the other one.
#[test]
fn a_tree_is_loaded_behind_the_transaction_that_empties_it() {
    for seed in 0..40 {
        let (db, first, second) = two_trees(seed);
        first.put(b"k", b"v").expect("written");
        let mut emptying = db.client().begin(crate::Isolation::Serializable).expect("begun");
        emptying.delete(&first, b"k").expect("noted");
        emptying.put(&second, b"k", b"v").expect("noted");
        let emptied = emptying.send().expect("sent");
        let loaded = first.bulk_load([(b"l", b"v")]);
        assert!(loaded.is_ok(), "seed {seed}: {loaded:?}");
        emptied.wait().expect("it came first");
        drop((first, second));
        crate::sim::crash(db);
    }
}
