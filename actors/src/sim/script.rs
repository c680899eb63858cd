//! Schedules by hand: who has to wait, whose turn it is, where key ranges go. For runs that must go exactly so.

use treering_engine::ShardId;
use treering_engine::catalog::Partition;

use super::sim;
use crate::actor::Actor;
use crate::client::{Db, Tree};
use crate::runtime::{Seat, Turn};
use crate::shard::{ShardMessage, Wanted};
use crate::shared::with_guard;

/// Lets none of these happen by themselves until [`let_go`]. Whoever waits for something that needs them waits for ever,
/// which ends the run.
pub fn hold(db: &Db, turn: Turn) {
    sim(db).hold(turn);
}

/// What was held may happen again.
pub fn let_go(db: &Db, turn: Turn) {
    sim(db).let_go(turn);
}

/// Lets exactly this happen, held or not. An actor takes at most so many messages of actors and of clients, and ends its
/// step.
pub fn take(db: &Db, turn: Turn, of_actors: usize, of_clients: usize) {
    sim(db).take(&db.inner.runtime, turn, of_actors, of_clients);
}

/// What waits for an actor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mail {
    /// Messages of other actors.
    pub of_actors: usize,
    /// Messages of clients.
    pub of_clients: usize,
}

/// What waits for an actor; nothing for what is none.
#[must_use]
pub fn mail(db: &Db, turn: Turn) -> Mail {
    fn of<A: Actor>(seat: &Seat<A>) -> Mail {
        Mail {
            of_actors: seat.lane_length(),
            of_clients: seat.requests_length(),
        }
    }
    let runtime = &db.inner.runtime;
    match turn {
        Turn::Shard(index) => of(&runtime.shards[index]),
        Turn::Commit => of(&runtime.commit),
        Turn::Pager => of(&runtime.pager),
        Turn::Flusher => of(&runtime.flusher),
        _ => Mail::default(),
    }
}

/// The shard to which the published version gives a key. `None`: there is no such tree.
#[must_use]
pub fn owner(db: &Db, tree: &Tree, key: &[u8]) -> Option<usize> {
    Some(usize::from(partition(db, tree, key)?.owner.0))
}

/// Asks the owner of a key to give its partition to another shard, which it does some steps later, or not at all if
/// something is in the way.
pub fn give(db: &Db, tree: &Tree, key: &[u8], to: usize) {
    let Some(partition) = partition(db, tree, key) else {
        return;
    };
    let wanted = Wanted::Give {
        tree: tree.id,
        lower: partition.lower,
        to: ShardId(to as u16),
    };
    db.inner.runtime.shards[usize::from(partition.owner.0)].tell(ShardMessage::Wanted(wanted));
}

fn partition(db: &Db, tree: &Tree, key: &[u8]) -> Option<Partition> {
    let shared = &db.inner.runtime.shared;
    with_guard(&shared.memory, |guard| {
        let state = shared.current.load(guard).directory.get(tree.id)?;
        Some(state.partitions[state.partition_for(key)].clone())
    })
}
