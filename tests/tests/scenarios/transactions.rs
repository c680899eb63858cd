//! Transactions over several shards that meet in the worst way.

use treering::sim::{self, Planted, Turn};
use treering::{Error, Isolation};

use super::sees;
use super::stage::{Stage, arranged, said};

/// Links of the chain.
const LINKS: usize = 30;

/// Each transaction shares an owner with the one before it and with the one after it, and there is always one more: A
/// over shards 0 and 1, B over 1 and 2, C over 2 and 0, and so on. (Bad run of R20: the batch with A's part holds B's part,
/// too, whose other batch holds C's, ...: no cut ever closes.)
///
/// Whenever the second owner of one has still to do its part, the next one is on its way, and stands at the first owner.
fn a_chain_of_overlapping_transactions(planted: Planted) -> Result<(), String> {
    let stage = Stage::with(planted, 3, &[0, 1, 2])?;
    let send = |link: usize| stage.send_batch(&[link % 3, (link + 1) % 3], &link.to_be_bytes(), b"linked");
    let shard = |link: usize| Turn::Shard(link % 3);
    stage.hold(Turn::Commit);
    let mut this = send(0)?;
    stage.settle();
    stage.hold(shard(0));
    stage.let_go(Turn::Commit);
    stage.settle();
    for link in 0..LINKS {
        // The set with this one is open: its first owner hasn't done its part.
        let mut next = send(link + 1)?;
        stage.settle();
        for ticket in [&mut this, &mut next] {
            let answer = said("a link", ticket.try_wait())?;
            arranged(answer.is_none(), "a link was answered without its owners")?;
        }
        stage.hold(shard(link + 1));
        stage.let_go(shard(link));
        stage.settle();
        if said("a link", this.try_wait())?.is_none() {
            return Err(format!(
                "link {link} has all its parts, and doesn't end because another overlaps it"
            ));
        }
        // The next one is decided, and its second owner does its part, but its first doesn't.
        stage.hold(Turn::Commit);
        sim::take(&stage.db, shard(link + 1), 64, 64);
        stage.settle();
        stage.let_go(Turn::Commit);
        stage.settle();
        this = next;
    }
    (0..3).for_each(|index| stage.let_go(Turn::Shard(index)));
    said("the last link", this.wait())?;
    stage.end()
}

#[test]
fn a_chain_of_overlapping_transactions_closes_its_cuts() {
    sees(
        a_chain_of_overlapping_transactions,
        Planted::ChainSets,
        "doesn't end because another overlaps it",
    );
}

/// Two transactions read the same two flags on two shards, and each turns another one off. Both have visited the owners,
/// as far as they get, before anything is applied. (Bad run of R21: validated is not locked.)
fn write_skew_between_validation_and_lock(planted: Planted) -> Result<(), String> {
    let stage = Stage::with(planted, 2, &[0, 1])?;
    for tree in 0..2 {
        stage.put(tree, b"flag", b"on")?;
    }
    stage.hold(Turn::Commit);
    let mut tickets = Vec::new();
    let mut transactions = Vec::new();
    for _ in 0..2 {
        let transaction = said("beginning", stage.client.begin(Isolation::Serializable))?;
        for tree in &stage.trees {
            let flag = said("reading", transaction.get(tree, b"flag"))?;
            arranged(flag.as_deref() == Some(b"on"), "both flags are on")?;
        }
        transactions.push(transaction);
    }
    for (tree, mut transaction) in transactions.into_iter().enumerate() {
        said("writing", transaction.put(&stage.trees[tree], b"flag", b"off"))?;
        tickets.push(said("sending", transaction.send())?);
    }
    stage.settle();
    arranged(
        sim::mail(&stage.db, Turn::Commit).of_actors > 0,
        "one of them is decided before anything is applied",
    )?;
    stage.let_go(Turn::Commit);
    let answers: Vec<treering::Result<()>> = tickets.into_iter().map(treering::Ticket::wait).collect();
    let flags = [stage.get(0, b"flag")?, stage.get(1, b"flag")?];
    if flags.iter().flatten().all(|flag| flag == b"off") {
        return Err(format!("write skew: both flags are off, {answers:?}"));
    }
    let right = answers.iter().filter(|answer| answer.is_ok()).count() == 1
        && answers
            .iter()
            .any(|answer| matches!(answer, Err(Error::Conflict)));
    if !right {
        return Err(format!("one of the two happens: {answers:?}"));
    }
    stage.end()
}

#[test]
fn there_is_no_write_skew_between_validation_and_lock() {
    sees(
        write_skew_between_validation_and_lock,
        Planted::ReleaseLocksEarly,
        "write skew",
    );
}

/// What the second owner has was overwritten between the transaction's read and its visit.
fn a_read_that_is_stale_at_the_second_owner(planted: Planted) -> Result<(), String> {
    let stage = Stage::with(planted, 2, &[0, 1])?;
    for tree in 0..2 {
        stage.put(tree, b"count", &[1])?;
    }
    let mut transaction = said("beginning", stage.client.begin(Isolation::Serializable))?;
    for tree in &stage.trees {
        let count = said("reading", transaction.get(tree, b"count"))?;
        let counted = count.map_or(0, |count| count[0]) + 1;
        said("writing", transaction.put(tree, b"count", [counted]))?;
    }
    stage.put(1, b"count", &[7])?;
    let answer = transaction.commit();
    if stage.get(1, b"count")? != Some(vec![7]) {
        return Err(format!("a write was lost: {answer:?}"));
    }
    arranged(matches!(answer, Err(Error::Conflict)), "it is refused")?;
    arranged(stage.get(0, b"count")? == Some(vec![1]), "nothing of it happened")?;
    stage.end()
}

#[test]
fn a_stale_read_is_noticed_at_the_second_owner() {
    sees(
        a_read_that_is_stale_at_the_second_owner,
        Planted::SkipValidation,
        "a write was lost",
    );
}

/// One owner has done its part, the other one has not, and everything else has come to rest. (R20: a group holds all
/// parts or none.)
fn one_part_is_ready_before_the_other(planted: Planted) -> Result<(), String> {
    let stage = Stage::with(planted, 2, &[0, 1])?;
    let before = stage.client.snapshot();
    stage.hold(Turn::Commit);
    let ticket = stage.send_batch(&[0, 1], b"k", b"v")?;
    stage.settle();
    stage.hold(Turn::Shard(1));
    stage.let_go(Turn::Commit);
    stage.settle();
    let waits = |turn| sim::mail(&stage.db, turn).of_actors > 0;
    arranged(
        waits(Turn::Shard(1)) && !waits(Turn::Shard(0)) && !waits(Turn::Commit),
        "one part is with the commit actor",
    )?;
    let between = stage.client.snapshot();
    let early = stage.holding(&between, &[0, 1], b"k")?;
    if !early.is_empty() {
        return Err(format!("a part is published alone, of tree {early:?}"));
    }
    stage.let_go(Turn::Shard(1));
    said("the transaction", ticket.wait())?;
    let after = stage.client.snapshot();
    for (snapshot, trees) in [(&before, 0), (&between, 0), (&after, 2)] {
        let holding = stage.holding(snapshot, &[0, 1], b"k")?;
        arranged(
            holding.len() == trees,
            "a snapshot shows what it has always shown",
        )?;
    }
    drop((before, between, after));
    stage.end()
}

#[test]
fn no_part_is_published_alone() {
    sees(
        one_part_is_ready_before_the_other,
        Planted::PublishPartsEarly,
        "published alone",
    );
}

/// What a transaction wrote is overwritten, and the next set comes.
fn a_set_after_an_overwritten_one(planted: Planted) -> Result<(), String> {
    let stage = Stage::with(planted, 2, &[0, 1])?;
    said("a transaction", stage.send_batch(&[0, 1], b"k", b"old")?.wait())?;
    stage.put(0, b"k", b"new")?;
    said("a transaction", stage.send_batch(&[0, 1], b"other", b"")?.wait())?;
    for (tree, expected) in [(0, b"new"), (1, b"old")] {
        let found = stage.get(tree, b"k")?;
        if found.as_deref() != Some(expected) {
            return Err(format!("a transaction was applied again: {found:?}"));
        }
    }
    stage.end()
}

#[test]
fn no_transaction_is_applied_twice() {
    sees(
        a_set_after_an_overwritten_one,
        Planted::ApplySetsTwice,
        "applied again",
    );
}
