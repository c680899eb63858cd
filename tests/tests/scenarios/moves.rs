//! Requests and transactions in the worst moments of a move.

use treering::Isolation;
use treering::sim::{self, Mail, Planted, Turn};

use super::sees;
use super::stage::{Stage, arranged, said};

/// Steps after which a departing range has heard everything that it waits for.
const STEPS: usize = 200;

/// The former owner still has a put in its mailbox when the new owner gets the next one for the same key. (Bad run of R22:
/// the later one runs first, and is overwritten.)
fn a_put_that_could_overtake_its_predecessor(planted: Planted) -> Result<(), String> {
    let stage = Stage::with(planted, 2, &[0])?;
    stage.hold(Turn::Shard(0));
    let send = |value: &[u8]| said("sending", stage.trees[0].send_put(b"k", value));
    let mut first = send(b"first")?;
    stage.give(0, 1);
    // It takes what actors say, and leaves the put where it is.
    let mut steps = 0;
    while stage.owner(0) == Some(0) {
        arranged(steps < STEPS, "the new owner is published")?;
        sim::take(&stage.db, Turn::Shard(0), 1, 0);
        stage.settle();
        steps += 1;
    }
    let mut second = send(b"second")?;
    stage.settle();
    arranged(
        sim::mail(&stage.db, Turn::Shard(0)).of_clients == 1,
        "the first put is with the former owner",
    )?;
    arranged(
        sim::mail(&stage.db, Turn::Shard(1)) == Mail::default(),
        "the new owner has taken the second one",
    )?;
    for ticket in [&mut first, &mut second] {
        let answer = said("a put", ticket.try_wait())?;
        arranged(answer.is_none(), "neither has run")?;
    }
    stage.let_go(Turn::Shard(0));
    said("the first put", first.wait())?;
    said("the second put", second.wait())?;
    let found = stage.get(0, b"k")?;
    if found.as_deref() != Some(b"second") {
        return Err(format!("a put was overtaken by its successor: {found:?}"));
    }
    stage.end()
}

#[test]
fn no_put_overtakes_its_predecessor_through_a_move() {
    sees(
        a_put_that_could_overtake_its_predecessor,
        Planted::OvertakeInMove,
        "overtaken",
    );
}

/// A transaction holds locks while a range is about to move, another one begins then, and after the move two want the same
/// keys in their owners' new order. (Bad run of R21: locks are taken owner by owner, and two transactions that know
/// different owners wait for each other.)
fn transactions_before_during_and_after_a_move(planted: Planted) -> Result<(), String> {
    // Trees in the order of their keys: where each transaction begins, and the two that are locked.
    let (first, left, right) = (0, 1, 2);
    let stage = Stage::with(planted, 3, &[2, 0, 1])?;
    stage.hold(Turn::Shard(1));
    stage.give(right, 0);
    let mut before = stage.send_batch(&[left, right], b"before", b"")?;
    stage.settle();
    let visit_and_wish = sim::mail(&stage.db, Turn::Shard(1));
    arranged(visit_and_wish.of_actors == 2, "it has locked one key of two")?;
    // The wish comes first: the gate is shut while the transaction is in the middle.
    sim::take(&stage.db, Turn::Shard(1), 1, 0);
    let answer = said("the transaction before", before.try_wait())?;
    arranged(
        answer.is_none() && stage.owner(right) == Some(1),
        "the move waits for it",
    )?;
    stage.let_go(Turn::Shard(1));
    let during = stage.send_batch(&[left, right], b"during", b"")?;
    arranged(
        stage.owner(right) == Some(0),
        "the next one has waited for the move",
    )?;
    said("the transaction before", before.wait())?;
    said("the transaction during", during.wait())?;
    stage.move_to(left, 1)?;
    stage.pass_through()?;
    // Both have been with the first owner, and neither with another one.
    stage.hold(Turn::Shard(0));
    stage.hold(Turn::Shard(1));
    let mut tickets = Vec::new();
    for (written, read) in [(left, right), (right, left)] {
        let mut transaction = said("beginning", stage.client.begin(Isolation::Serializable))?;
        let key = [written as u8];
        said("reading", transaction.get(&stage.trees[read], b"after"))?;
        said("writing", transaction.put(&stage.trees[written], b"after", b""))?;
        said("writing", transaction.put(&stage.trees[first], key, b""))?;
        tickets.push(said("sending", transaction.send())?);
    }
    stage.settle();
    let visits: usize = (0..2)
        .map(|shard| sim::mail(&stage.db, Turn::Shard(shard)).of_actors)
        .sum();
    arranged(visits == 2, "both are about to lock the keys of both trees")?;
    stage.let_go(Turn::Shard(0));
    stage.let_go(Turn::Shard(1));
    let answers: Vec<treering::Result<()>> = tickets.into_iter().map(treering::Ticket::wait).collect();
    let happened = answers.iter().filter(|answer| answer.is_ok()).count();
    arranged(happened == 1, "one reads what the other one writes")?;
    stage.end()
}

#[test]
fn there_is_no_deadlock_after_a_move() {
    sees(
        transactions_before_during_and_after_a_move,
        Planted::VisitByOwner,
        "nothing can run",
    );
}
