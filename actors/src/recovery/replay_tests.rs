use std::collections::BTreeSet;
use std::sync::Arc;

use treering_engine::ShardId;
use treering_engine::catalog::TreeState;
use treering_io::SimDirectory;

use crate::client::Db;
use crate::options::{Durability, Options};
use crate::recovery;
use crate::runtime::{Sim, SimOptions};
use crate::shard::{ShardMessage, Wanted};
use crate::shared::with_guard;

fn open(disk: &SimDirectory) -> Db {
    let sim = Sim::new(disk, SimOptions::default());
    let options = Options::new()
        .shards(2)
        .balance_operations(30)
        .cache_bytes(1024 * 4096)
        .durability(Durability::Buffered);
    let opened = recovery::open_simulated(disk, &options, sim).expect("it opens");
    Db::start(opened, None)
}

fn state(db: &Db) -> Arc<TreeState> {
    crate::sim::settle(db);
    let shared = &db.inner.runtime.shared;
    with_guard(&shared.memory, |guard| {
        let state = shared.current.load(guard).directory.by_name("tree");
        Arc::clone(state.expect("there"))
    })
}

fn owners(state: &TreeState) -> usize {
    let owners: BTreeSet<_> = state.partitions.iter().map(|partition| partition.owner).collect();
    owners.len()
}

fn key(number: u32) -> [u8; 4] {
    number.wrapping_mul(0x9E37_79B9).to_be_bytes()
}

/// Joins aren't logged: what is one partition when it is loaded is several again when the log is replayed.
#[test]
fn a_tree_that_was_joined_and_loaded_since_the_checkpoint_is_recovered() {
    let disk = SimDirectory::new(1);
    let db = open(&disk);
    let tree = db.client().tree("tree").expect("a tree");
    for number in 0..400 {
        let sent = tree.send_put(key(number), [0; 200]).expect("sent");
        drop(sent);
    }
    assert_eq!(owners(&state(&db)), 2, "it was cut");
    db.checkpoint().expect("a checkpoint");
    for number in 0..400 {
        tree.delete(key(number)).expect("deleted");
    }
    for _ in 0..100 {
        let state = state(&db);
        let [left, right, ..] = &state.partitions[..] else {
            break;
        };
        let (tree, lower, to) = (state.id, Arc::clone(&right.lower), left.owner);
        let wanted = if to == right.owner {
            Wanted::Join { tree, lower }
        } else {
            Wanted::Give { tree, lower, to }
        };
        let shard = &db.inner.runtime.shards[usize::from(right.owner.0)];
        shard.tell(ShardMessage::Wanted(wanted));
    }
    assert_eq!(state(&db).partitions.len(), 1, "all is joined");
    tree.bulk_load((0..300u32).map(|number| (number.to_be_bytes(), [7; 100])))
        .expect("loaded");
    db.flush().expect("durable");
    drop(tree);
    crate::sim::crash(db);

    let db = open(&disk);
    let loaded = state(&db);
    assert_eq!(loaded.partitions.len(), 1);
    let tree = db.client().open_tree("tree").expect("there");
    assert_eq!(tree.len().expect("read"), 300);
    // Whoever gets it next knows nothing of older times.
    let owner = loaded.partitions[0].owner;
    let (lower, to) = (Arc::from([]), ShardId(1 - owner.0));
    let wanted = Wanted::Give {
        tree: loaded.id,
        lower,
        to,
    };
    let shard = &db.inner.runtime.shards[usize::from(owner.0)];
    shard.tell(ShardMessage::Wanted(wanted));
    assert_eq!(state(&db).partitions[0].owner, to);
    for number in 0..1_000 {
        tree.put(key(number), [8; 200]).expect("written");
    }
    for number in 0..300u32 {
        let found = tree.get(number.to_be_bytes()).expect("read");
        assert!(found.is_some(), "key {number} was loaded");
    }
    for number in 0..1_000 {
        let found = tree.get(key(number)).expect("read").expect("there");
        assert_eq!(found[..], [8; 200]);
    }
    drop(tree);
    crate::sim::check(&db).expect("sound");
    crate::sim::crash(db);
}
