//! Histories of eight real threads on four shards. At the end one transaction reads every key: what was acknowledged and is
//! gone is missed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use adya::{History, Valid};
use treering::{Client, Durability, Error, Isolation, Options, Ticket, Tree};

use super::plan::{Plan, name, next};
use super::record::{End, Kind, Recorder, Step, read_all, verdict};
use super::support::{from_environment, watched};

const THREADS: u64 = 8;
const SHARDS: usize = 4;
/// Writes into one tree before the next one's turn.
const DISTURBED_PUTS: usize = 1_000;

fn transactions() -> u64 {
    from_environment("TREERING_HISTORY_TRANSACTIONS", 100_000)
}

/// Records a history.
fn record(isolation: Isolation, kind: Kind, transactions: u64) -> History {
    let directory = tempfile::tempdir().expect("a directory");
    // Ranges move all the time, beside the transactions and in their way.
    let options = Options::new()
        .shards(SHARDS)
        .balance_operations(200)
        .durability(Durability::Buffered);
    let db = options
        .cache_bytes(16 << 20)
        .open(directory.path())
        .expect("opened");
    let client = db.client();
    let trees: Vec<Tree> = (0..SHARDS)
        .map(|shard| client.tree(&format!("tree {shard}")).expect("created"))
        .collect();
    let recorder = Recorder::new(kind);
    let begun = AtomicU64::new(0);
    let plan = Plan::new(kind, transactions);
    std::thread::scope(|scope| {
        scope.spawn(|| disturb(&trees, plan, || begun.load(Ordering::Relaxed) < transactions));
        for thread in 0..THREADS {
            let (recorder, client, trees, begun) = (&recorder, &client, &trees, &begun);
            scope.spawn(move || {
                let mut state = thread;
                loop {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    if number >= transactions {
                        return;
                    }
                    let steps = plan.transaction(number, &mut state);
                    let alone = number.is_multiple_of(2);
                    run(recorder, client, trees, isolation, thread, steps, alone);
                }
            });
        }
    });
    run(&recorder, &client, &trees, isolation, 0, plan.reading(), false);
    let moves = db.stats().partition_moves;
    assert!(moves > 2, "what never happens is not tested: {moves} moves");
    db.close().expect("closed");
    recorder.history()
}

/// Writes beside the keys of the history, into one tree after the other: so shards have more to do in turn, and give
/// each other halves of trees.
fn disturb(trees: &[Tree], plan: Plan, goes_on: impl Fn() -> bool) {
    let mut state = 0;
    let mut put = 0;
    let mut tickets = VecDeque::new();
    while goes_on() || put < 2 * SHARDS * DISTURBED_PUTS {
        let beside = next(&mut state) % plan.span;
        let key = [&name(beside)[..], &[put as u8]].concat();
        let tree = &trees[put / DISTURBED_PUTS % SHARDS];
        tickets.push_back(tree.send_put(key, [0; 200]).expect("sent"));
        if tickets.len() > 32 {
            tickets.pop_front().map(Ticket::wait);
        }
        put += 1;
    }
}

/// Runs one transaction and notes how it began and ended. `alone`: one of a single step is a single operation.
fn run(
    recorder: &Recorder,
    client: &Client,
    trees: &[Tree],
    isolation: Isolation,
    thread: u64,
    mut steps: Vec<Step>,
    alone: bool,
) {
    recorder.begins(thread, &steps);
    let kind = recorder.kind;
    let tree = |key: u64| &trees[key as usize % SHARDS];
    let result = match &mut steps[..] {
        // Single operations are transactions of one key, ...
        [Step::Write(key, value)] if alone => {
            let value = *value;
            tree(*key).update(name(*key), move |old| Some(kind.written(old, value)))
        }
        [Step::Read(key, found)] if alone => tree(*key)
            .get(name(*key))
            .map(|value| *found = value.map(|value| value.to_vec())),
        // ... and a snapshot is one that only reads.
        steps if steps.iter().all(|step| matches!(step, Step::Read(..))) => {
            let snapshot = client.snapshot();
            read_all(steps, |key| snapshot.get(tree(key), name(key)))
        }
        steps => client.begin(isolation).and_then(|mut transaction| {
            for step in steps {
                match step {
                    Step::Read(key, found) => {
                        *found = transaction
                            .get(tree(*key), name(*key))?
                            .map(|value| value.to_vec());
                    }
                    Step::Write(key, value) if kind == Kind::Registers => {
                        transaction.put(tree(*key), name(*key), kind.written(None, *value))?;
                    }
                    Step::Write(key, value) => {
                        let old = transaction.get(tree(*key), name(*key))?;
                        transaction.put(tree(*key), name(*key), kind.written(old.as_deref(), *value))?;
                    }
                }
            }
            transaction.commit()
        }),
    };
    match result {
        Ok(()) => recorder.ended(thread, &steps, End::Done),
        Err(Error::Conflict) => recorder.ended(thread, &steps, End::Refused),
        Err(error) => panic!("{error}"),
    }
}

fn must_be_strictly_serializable(kind: Kind) {
    watched(move || {
        let history = record(Isolation::Serializable, kind, transactions());
        for model in ["strict-serializable", "snapshot-isolation"] {
            let verdict = verdict(&history, kind, model);
            assert!(verdict.valid == Valid::True, "{}", verdict.findings);
        }
    });
}

/// The weaker level is what it says it is; and a checker that doesn't see its write skew would see nothing.
fn must_be_snapshot_isolation_and_no_more(kind: Kind) {
    watched(move || {
        let history = record(Isolation::Snapshot, kind, transactions());
        let isolated = verdict(&history, kind, "snapshot-isolation");
        assert!(isolated.valid == Valid::True, "{}", isolated.findings);
        let serializable = verdict(&history, kind, "serializable");
        assert!(
            serializable.valid == Valid::False,
            "no write skew was noticed: {}",
            serializable.findings
        );
    });
}

#[test]
fn serializable_lists_are_strictly_serializable() {
    must_be_strictly_serializable(Kind::Lists);
}

#[test]
fn serializable_registers_are_strictly_serializable() {
    must_be_strictly_serializable(Kind::Registers);
}

#[test]
fn lists_under_snapshot_isolation_are_that_and_no_more() {
    must_be_snapshot_isolation_and_no_more(Kind::Lists);
}

#[test]
fn registers_under_snapshot_isolation_are_that_and_no_more() {
    must_be_snapshot_isolation_and_no_more(Kind::Registers);
}
