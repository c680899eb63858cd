//! One shard's part in moves, message by message: what the rest of the database would do is done by hand.

use std::ops::DerefMut;

use treering_engine::PageRef;
use treering_io::SimDirectory;

use super::*;
use crate::actor::{Actor, Outbox};
use crate::client::Db;
use crate::commit::CommitMessage;
use crate::error::Error;
use crate::options::{Durability, Options};
use crate::runtime::{Runtime, SimOptions};
use crate::shard::messages::{Action, Condition, Pair, ShardMessage, ValueKind};
use crate::shard::single::Place;
use crate::shard::state::Shard;
use crate::shared::{Shared, Version, with_guard};
use crate::ticket::Reply;

const OTHER_MOVE: u64 = 7;

/// A database at rest, with one tree of several leaves.
struct World {
    db: Option<Db>,
    tree: TreeId,
    owner: ShardId,
    other: ShardId,
}

impl World {
    fn new() -> World {
        let disk = SimDirectory::new(1);
        let options = Options::new().shards(2).cache_bytes(1024 * 4096);
        let db = crate::sim::open(&disk, &options, SimOptions::default()).expect("it opens");
        let tree = db.client().tree("tree").expect("a tree");
        for number in 0..400u32 {
            tree.put(number.to_be_bytes(), [0; 200]).expect("written");
        }
        drop(tree);
        crate::sim::settle(&db);
        let shared = &db.inner.runtime.shared;
        let (tree, owner) = with_guard(&shared.memory, |guard| {
            let state = shared.current.load(guard).directory.by_name("tree");
            let state = state.expect("there");
            (state.id, state.partitions[0].owner)
        });
        let other = ShardId(1 - owner.0);
        World {
            db: Some(db),
            tree,
            owner,
            other,
        }
    }

    fn runtime(&self) -> &Runtime {
        &self.db.as_ref().expect("until the end").inner.runtime
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.runtime().shared
    }

    fn shard(&self) -> impl DerefMut<Target = Shard> {
        self.runtime().shards[usize::from(self.owner.0)].lock()
    }

    /// Publishes a version with other partitions.
    fn publish(&self, change: &PartitionChange) {
        let shared = self.shared();
        with_guard(&shared.memory, |guard| {
            let old = shared.current.load(guard);
            let PartitionChange {
                tree,
                replaced,
                partitions,
            } = change;
            let directory = old.directory.with_partitions(*tree, replaced, partitions);
            let version = Version {
                seq: old.seq.next(),
                position: old.position,
                directory: directory.expect("they fit"),
                next_tree: old.next_tree,
                dead: Arc::clone(&shared.dead),
            };
            shared.current.publish(Arc::new(version), guard);
        });
    }

    /// Has the shard give its whole partition away, and tells what its batch says.
    fn depart(&self, shard: &mut Shard, outbox: &mut Outbox) -> PartitionChange {
        let wanted = Wanted::Give {
            tree: self.tree,
            lower: Arc::from([]),
            to: self.other,
        };
        shard.handle(ShardMessage::Wanted(wanted), 0, outbox);
        shard.end_batch(0, outbox);
        let change = outbox.commit.drain(..).find_map(|message| match message {
            CommitMessage::Batch(mut batch) => batch.partitions.pop(),
            _ => None,
        });
        change.expect("the batch of the departure")
    }

    /// Publishes that the partition is this shard's by a move, as if it had come from elsewhere.
    fn come(&self, shard: &mut Shard, outbox: &mut Outbox) {
        let mut change = self.depart(shard, outbox);
        drop_tips(shard, outbox);
        change.partitions[0].owner = self.owner;
        change.partitions[0].moved = OTHER_MOVE;
        self.publish(&change);
    }

    fn put(&self, key: u32) -> Request {
        let action = Action::Put {
            pair: Pair::new(&key.to_be_bytes(), b"v"),
            kind: ValueKind::Inline,
            condition: Condition::None,
        };
        Request {
            tree: self.tree,
            action,
            durability: Durability::Buffered,
            reply: Reply::none(),
            credit: None,
        }
    }

    fn place(&self, shard: &mut Shard, key: u32) -> Place {
        with_guard(&self.shared().memory, |guard| {
            shard.locate(self.tree, &key.to_be_bytes(), guard)
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Nothing that was done by hand may be looked at by others.
        self.db.take().into_iter().for_each(crate::sim::crash);
    }
}

fn drop_tips(shard: &mut Shard, outbox: &mut Outbox) {
    let cause = Error::OutOfSpace {
        what: "a test".into(),
    };
    let message = ShardMessage::TipsDropped { tip_epoch: 1, cause };
    shard.handle(message, 0, outbox);
}

/// The batch after that of the departure is refused, and the shard hears of that before it has looked whether the
/// departure is published.
#[test]
fn a_departure_that_is_published_goes_on_when_tips_are_dropped() {
    let world = World::new();
    let mut shard = world.shard();
    let mut outbox = Outbox::default();
    let change = world.depart(&mut shard, &mut outbox);
    world.publish(&change);
    shard.handle(ShardMessage::Request(world.put(3)), 0, &mut outbox);
    drop_tips(&mut shard, &mut outbox);
    shard.handle(ShardMessage::Request(world.put(4)), 0, &mut outbox);
    let handed_over = (0..1000).find_map(|_| {
        shard.end_batch(0, &mut outbox);
        if shard.counts_requests() {
            shard.requests_waiting(0);
        }
        outbox.shards.drain(..).find_map(|(to, message)| match message {
            ShardMessage::HandOver {
                moved,
                requests,
                shut,
            } => Some((to, moved, requests.len(), shut.is_some())),
            _ => None,
        })
    });
    let moved = change.partitions[0].moved;
    assert_eq!(handed_over, Some((world.other, moved, 2, true)));
}

#[test]
fn a_departure_that_is_not_published_does_not_happen_when_tips_are_dropped() {
    let world = World::new();
    let mut shard = world.shard();
    let mut outbox = Outbox::default();
    world.depart(&mut shard, &mut outbox);
    shard.handle(ShardMessage::Request(world.put(3)), 0, &mut outbox);
    shard.end_batch(0, &mut outbox);
    assert_eq!(world.place(&mut shard, 3), Place::Leaving);
    drop_tips(&mut shard, &mut outbox);
    assert!(
        world.shared().moves_gate.enter().is_some(),
        "the gate is open again"
    );
    assert_eq!(shard.incoming.len(), 1, "what queued for it runs here");
    shard.end_batch(0, &mut outbox);
    assert!(matches!(world.place(&mut shard, 3), Place::Here(_)));
    assert!(shard.incoming.is_empty());
}

/// A partition that has come by a move is given on, and stays after all.
#[test]
fn a_partition_whose_departure_does_not_happen_is_not_awaited() {
    let world = World::new();
    let mut shard = world.shard();
    let mut outbox = Outbox::default();
    world.come(&mut shard, &mut outbox);
    assert_eq!(world.place(&mut shard, 3), Place::Coming(OTHER_MOVE));
    let message = ShardMessage::HandOver {
        moved: OTHER_MOVE,
        requests: VecDeque::new(),
        shut: None,
    };
    shard.handle(message, 0, &mut outbox);
    assert!(matches!(world.place(&mut shard, 3), Place::Here(_)));
    world.depart(&mut shard, &mut outbox);
    assert_eq!(world.place(&mut shard, 3), Place::Leaving);
    drop_tips(&mut shard, &mut outbox);
    assert!(matches!(world.place(&mut shard, 3), Place::Here(_)));
}

fn departure(world: &World, (lower, upper): (u32, u32), stage: Stage) -> Departure {
    Departure {
        tree: world.tree,
        lower: Arc::from(lower.to_be_bytes()),
        upper: Some(Arc::from(upper.to_be_bytes())),
        to: world.other,
        moved: OTHER_MOVE,
        had: None,
        stage,
        queue: VecDeque::new(),
        shut: None,
    }
}

fn keys(requests: &VecDeque<Request>) -> Vec<u32> {
    let keys = requests.iter().filter_map(Request::key);
    keys.map(|key| u32::from_be_bytes(key.try_into().expect("four bytes")))
        .collect()
}

/// Visits wait until what was handed over has run. Some of that is handed on before it has.
#[test]
fn what_is_handed_on_counts_no_more_as_handed_over() {
    let world = World::new();
    let mut shard = world.shard();
    let mut outbox = Outbox::default();
    let requests = [10, 20, 30, 11].map(|key| world.put(key)).into();
    shard.incoming.extend([12, 40].map(|key| world.put(key)));
    shard.adopt(OTHER_MOVE - 1, requests, None);
    assert_eq!(shard.moves.adopting, 4);
    shard.moves.departure = Some(departure(&world, (10, 20), Stage::Draining(Some(0))));
    shard.end_departure(&mut outbox);
    assert_eq!(keys(&shard.incoming), [20, 30, 40]);
    assert_eq!(shard.moves.adopting, 2);
    let Some((_, ShardMessage::HandOver { requests, .. })) = outbox.shards.pop() else {
        panic!("nothing was handed over");
    };
    assert_eq!(keys(&requests), [10, 11, 12]);
}

/// What queued for a departure that doesn't happen comes before what was handed over, so visits wait for both.
#[test]
fn what_comes_before_requests_that_were_handed_over_counts_with_them() {
    let world = World::new();
    let mut shard = world.shard();
    for (handed_over, counted) in [(vec![10, 20], 4), (vec![], 0)] {
        shard.incoming.clear();
        shard.moves.adopting = 0;
        let requests = handed_over.iter().map(|key| world.put(*key)).collect();
        shard.adopt(OTHER_MOVE - 1, requests, None);
        let mut departure = departure(&world, (30, 40), Stage::Frozen);
        departure.queue.extend([30, 31].map(|key| world.put(key)));
        shard.moves.departure = Some(departure);
        with_guard(&world.shared().memory, |guard| shard.cancel_departure(guard));
        assert_eq!(keys(&shard.incoming), [vec![30, 31], handed_over].concat());
        assert_eq!(shard.moves.adopting, counted);
    }
}

#[test]
fn a_wish_to_join_waits_for_the_gate_and_for_no_other_wish() {
    let world = World::new();
    let mut shard = world.shard();
    let mut outbox = Outbox::default();
    let shut = world.shared().moves_gate.shut().expect("it is open");
    let give_away = Wanted::GiveAway { to: world.other };
    let join = Wanted::Join {
        tree: world.tree,
        lower: Arc::from([9]),
    };
    for wanted in [give_away, join] {
        shard.handle(ShardMessage::Wanted(wanted), 0, &mut outbox);
    }
    shard.end_batch(0, &mut outbox);
    let joining = Task::Join(world.tree, Arc::from([9]));
    assert_eq!(shard.moves.mend, Some(joining), "others have the gate");
    drop(shut);
    shard.end_batch(0, &mut outbox);
    let other = Some(world.other);
    assert_eq!((&shard.moves.mend, shard.moves.give_away), (&None, other));
    shard.end_batch(0, &mut outbox);
    assert_eq!(shard.moves.give_away, None);
}

/// The pages on the way of a cut come one after the other, and all must be there at once.
#[test]
fn a_job_holds_the_pages_that_came_for_it() {
    let world = World::new();
    let mut shard = world.shard();
    let mut outbox = Outbox::default();
    let memory = &world.shared().memory;
    let (reference, frame) = with_guard(memory, |guard| {
        let version = world.shared().current.load(guard);
        let root = version.directory.get(world.tree).expect("there").partitions[0].root;
        let frame = memory.lookup(root.reference.id, guard).expect("in memory");
        (root.reference, frame.id)
    });
    let begin = |shard: &mut Shard| {
        let shut = world.shared().moves_gate.shut().expect("it is open");
        let task = Task::Join(world.tree, Arc::from([9]));
        shard.begin_move(task, shut);
        let job = shard.moves.job.as_mut().expect("just begun");
        job.waits_for = Some(reference.id);
    };
    let loaded = |shard: &mut Shard, outbox: &mut Outbox, reference: PageRef| {
        // As the pager does.
        assert!(memory.hold(frame));
        let result = Ok(frame);
        shard.handle(ShardMessage::Loaded { reference, result }, 0, outbox);
    };
    begin(&mut shard);
    loaded(&mut shard, &mut outbox, reference);
    assert_eq!(memory.holds(frame), 1, "held until the job has run");
    let somebody_elses = PageRef {
        id: PageId(reference.id.0 + 1),
        ..reference
    };
    loaded(&mut shard, &mut outbox, somebody_elses);
    assert_eq!(memory.holds(frame), 1, "what nobody waits for is given back");
    shard.end_batch(0, &mut outbox);
    assert!(shard.moves.job.is_none(), "there was nothing to be joined");
    assert_eq!(memory.holds(frame), 0);

    begin(&mut shard);
    loaded(&mut shard, &mut outbox, reference);
    shard.moves.job.as_mut().expect("just begun").waits_for = Some(reference.id);
    shard.end_batch(JOB_NANOS_MAX + 1, &mut outbox);
    assert!(shard.moves.job.is_none(), "given up");
    assert_eq!(memory.holds(frame), 0);
}

#[test]
fn numbers_of_ranges_that_are_gone_are_forgotten() {
    let world = World::new();
    let mut shard = world.shard();
    let mut outbox = Outbox::default();
    world.come(&mut shard, &mut outbox);
    for moved in (0..10 * ADOPTED_MIN as u64).map(|number| OTHER_MOVE + number) {
        shard.adopt(moved, VecDeque::new(), None);
        assert!(shard.moves.adopted.len() <= ADOPTED_MIN);
    }
    assert!(
        matches!(world.place(&mut shard, 3), Place::Here(_)),
        "this one is not"
    );
}
