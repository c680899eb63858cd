use treering_io::SimDirectory;

use super::*;
use crate::actor::{Actor, Outbox};
use crate::client::Db;
use crate::options::Options;
use crate::recovery;
use crate::runtime::{Sim, SimOptions};
use crate::shard::{Condition, Pair, ShardMessage, ValueKind};

/// Left with one shard, a put has gone to another with its range: there, nothing was pipelined.
#[test]
fn a_tree_is_dropped_behind_what_moved_on_with_its_range() {
    let disk = SimDirectory::new(1);
    let sim = Sim::new(&disk, SimOptions::default());
    let options = Options::new()
        .shards(2)
        .balance_operations(30)
        .cache_bytes(1024 * 4096)
        .durability(Durability::Buffered);
    let opened = recovery::open_simulated(&disk, &options, sim).expect("it opens");
    let db = Db::start(opened, None);
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
