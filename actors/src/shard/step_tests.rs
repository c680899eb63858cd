use std::sync::atomic::Ordering;
use std::time::Duration;

use treering_engine::tree::Miss;
use treering_engine::{PageId, PageRef, ShardId, TreeId};

use super::*;
use crate::options::{Durability, Options};
use crate::ticket::{Ticket, ticket};

/// Even on a machine that does other things for a while.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);

fn request(db: &crate::Db, action: Action) -> (ReadyRequest, Ticket<()>) {
    let (reply, ticket) = ticket(&db.inner.runtime, Some(ShardId(0)), |_| ());
    let request = Request {
        tree: TreeId(1),
        action,
        durability: Durability::Sync,
        reply,
        credit: None,
    };
    (ReadyRequest::new(request), ticket)
}

/// A client that runs a shard on the way meets a panic there. Requests wait at this shard and at another one, for pages that
/// never come; and nobody sends anything more.
#[test]
fn whoever_waits_is_told_when_an_actor_has_panicked() {
    let db = Options::new().shards(2).open_in_memory().expect("it opens");
    let runtime = &db.inner.runtime;
    let mut waiting = Vec::new();
    for seat in &runtime.shards {
        seat.keeps_panics.store(true, Ordering::Relaxed);
        let mut shard = seat.lock();
        let nowhere = PageRef {
            id: PageId(u32::MAX),
            birth: 0,
        };
        let key = Box::from(*b"k");
        let (ready, ticket) = request(&db, Action::Delete { key });
        shard.park(ready, Miss(nowhere), &mut Outbox::default());
        waiting.push(ticket);
    }
    let panics = {
        let mut shard = runtime.shards[0].lock();
        // What nothing ever parks.
        let (ready, ticket) = request(&db, Action::DropTree);
        shard.parked.count += 1;
        shard.ready.push_back(ready);
        ticket
    };
    assert!(matches!(panics.wait(), Err(Error::Closed)));
    for mut ticket in waiting {
        let answer = ticket.wait_timeout(ANSWERED_WITHIN);
        assert!(matches!(answer, Err(Error::Poisoned { .. })), "{answer:?}");
    }
    assert!(db.close().is_err(), "the database is poisoned");
}
