//! Queues that are full.

use treering::sim::{self, Planted, SimOptions, Turn};
use treering::{Isolation, Ticket};

use super::sees;
use super::stage::{Stage, arranged, said};

/// More requests than wait for locks at a shard.
const WAITERS_MAX: usize = 2_000;
/// More requests than a database takes whose log stands still.
const REQUESTS_MAX: usize = 200_000;

/// Steps in which shards take what was sent to them.
const STEPS: usize = 4_000;

/// A transaction goes from shard 0 over 1 and 2 back to 0. Meanwhile all mailboxes, of one place each, are full: that of
/// shard 0 with requests that wait for the transaction's own lock, so many that it takes no more. (Bad run of R14: the visit
/// waits for room in the mailbox that waits for it.)
fn full_mailboxes_in_a_circle(planted: Planted) -> Result<(), String> {
    let simulation = SimOptions {
        planted,
        mailbox_requests: Some(1),
        ..SimOptions::default()
    };
    let stage = Stage::new(3, &[0, 1, 2, 0], simulation)?;
    let turns = [0, 1, 2].map(Turn::Shard);
    let in_mailbox = |shard: usize| sim::mail(&stage.db, turns[shard]).of_clients;
    let mut transaction = said("beginning", stage.client.begin(Isolation::Serializable))?;
    said("reading", transaction.get(&stage.trees[0], b"locked"))?;
    for tree in &stage.trees {
        said("writing", transaction.put(tree, b"written", b""))?;
    }
    turns.iter().for_each(|turn| stage.hold(*turn));
    let ticket = said("sending", transaction.send())?;
    sim::take(&stage.db, turns[0], 0, 1);
    let mut puts: Vec<Ticket<()>> = Vec::new();
    while in_mailbox(0) == 0 {
        arranged(puts.len() < WAITERS_MAX, "shard 0 takes no more")?;
        puts.push(said("sending", stage.trees[0].send_put(b"locked", b""))?);
        sim::take(&stage.db, turns[0], 0, 1);
    }
    arranged(puts.len() > 200, "many wait for the lock")?;
    for shard in [1, 2] {
        if in_mailbox(shard) == 0 {
            puts.push(said("sending", stage.trees[shard].send_put(b"other", b""))?);
        }
    }
    turns.iter().for_each(|turn| stage.let_go(*turn));
    said("the transaction", ticket.wait())?;
    puts.into_iter().try_for_each(|put| said("a put", put.wait()))?;
    stage.end()
}

#[test]
fn full_mailboxes_in_a_circle_let_visits_pass() {
    sees(
        full_mailboxes_in_a_circle,
        Planted::VisitByMailbox,
        "nothing can run",
    );
}

/// The log stands still, and clients send as long as they don't have to wait. (R9, R11: every queue is bounded; when the
/// disk goes on, every request completes. Bad run: a shard takes whatever is sent, and keeps what it can't do yet.)
fn a_log_that_stands_still(planted: Planted) -> Result<(), String> {
    let stage = Stage::with(planted, 2, &[0, 1])?;
    stage.hold(Turn::Log);
    let mut tickets: Vec<Ticket<()>> = Vec::new();
    let places = |shard| {
        let mail = sim::mail(&stage.db, Turn::Shard(shard));
        assert!(mail.of_actors < 1_000, "{mail:?}");
        4096 - mail.of_clients
    };
    while places(0) + places(1) > 0 {
        for shard in 0..2 {
            for _ in 0..places(shard) {
                let key = (tickets.len() as u64 % 5_000).to_be_bytes();
                tickets.push(said("sending", stage.trees[shard].send_put(key, [7; 40]))?);
            }
        }
        // It never comes to rest: it looks for pages that become free.
        for _ in 0..STEPS {
            sim::step(&stage.db);
        }
        if tickets.len() >= REQUESTS_MAX {
            return Err(format!("it takes {} requests", tickets.len()));
        }
        let stats = stage.db.stats();
        assert!(stats.frames == 1024 && stats.frames_free > 0, "{stats:?}");
    }
    println!("{} requests wait for the log", tickets.len());
    for ticket in &mut tickets {
        let answer = said("a look at a ticket", ticket.try_wait())?;
        assert!(answer.is_none(), "nothing is durable");
    }
    stage.let_go(Turn::Log);
    for ticket in tickets {
        said("a put", ticket.wait())?;
    }
    stage.end()
}

#[test]
fn a_log_that_stands_still_fills_bounded_queues() {
    sees(a_log_that_stands_still, Planted::TakeWithoutBound, "it takes");
}
