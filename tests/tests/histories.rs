//! What real threads have seen, checked for cycles: histories of eight clients on four shards, recorded as they happen and
//! handed to a checker of isolation levels (Adya's anomalies, by the crate `adya`).
//!
//! Lists that grow by one element at a time tell the order of their writers; registers tell who read from whom. Single
//! updates at the owner, plain reads and snapshots stand in the histories as transactions of their own: all of them
//! together are strictly serializable. `TREERING_HISTORY_TRANSACTIONS` says how many transactions are recorded.

mod support;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use adya::{History, Opts, Valid, Workload, check};
use support::{from_environment, watched};
use treering::{Client, Durability, Error, Isolation, Options, Ticket, Tree};

const THREADS: u64 = 8;
const SHARDS: usize = 4;
/// Keys that are in use at a time: few, so that transactions meet.
const KEYS: u64 = 6;
/// Transactions after which the keys move on by one, so that lists stay short.
const TRANSACTIONS_PER_KEY: u64 = 20;
/// Writes into one tree before the next one's turn.
const DISTURBED_PUTS: usize = 1_000;

/// One read or write.
#[derive(Clone, Debug)]
enum Step {
    Read(u64, Option<Vec<u8>>),
    Write(u64, u64),
}

/// Everything that was begun and ended, in that order.
struct Recorder {
    lines: Mutex<String>,
    registers: bool,
}

impl Recorder {
    fn note(&self, kind: &str, thread: u64, steps: &[Step]) {
        let mut line = format!("{{\"type\":\"{kind}\",\"process\":{thread},\"value\":[");
        for (index, step) in steps.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = match step {
                Step::Write(key, value) if self.registers => write!(line, "{comma}[\"w\",{key},{value}]"),
                Step::Write(key, value) => write!(line, "{comma}[\"append\",{key},{value}]"),
                Step::Read(key, None) => write!(line, "{comma}[\"r\",{key},null]"),
                Step::Read(key, Some(found)) => {
                    let numbers: Vec<String> = found.chunks(8).map(|part| number(part).to_string()).collect();
                    if self.registers {
                        write!(line, "{comma}[\"r\",{key},{}]", numbers.concat())
                    } else {
                        write!(line, "{comma}[\"r\",{key},[{}]]", numbers.join(","))
                    }
                }
            };
        }
        line.push_str("]}\n");
        self.lines.lock().expect("no recorder panics").push_str(&line);
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(u64::MAX, u64::from_le_bytes)
}

fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Records a history.
fn record(isolation: Isolation, registers: bool, transactions: u64) -> String {
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
    let recorder = Recorder {
        lines: Mutex::default(),
        registers,
    };
    let begun = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| disturb(&trees, || begun.load(Ordering::Relaxed) < transactions));
        for thread in 0..THREADS {
            let (recorder, client, trees, begun) = (&recorder, &client, &trees, &begun);
            scope.spawn(move || {
                let mut state = thread;
                loop {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    if number >= transactions {
                        return;
                    }
                    one(recorder, client, trees, isolation, (thread, number), &mut state);
                }
            });
        }
    });
    let moves = db.stats().partition_moves;
    assert!(moves > 2, "what never happens is not tested: {moves} moves");
    db.close().expect("closed");
    recorder.lines.into_inner().expect("no recorder panics")
}

/// Writes beside the keys of the history, into one tree after the other: so shards have more to do in turn, and give
/// each other halves of trees.
fn disturb(trees: &[Tree], goes_on: impl Fn() -> bool) {
    let mut state = 0;
    let mut put = 0;
    let mut tickets = VecDeque::new();
    while goes_on() || put < 2 * SHARDS * DISTURBED_PUTS {
        let beside = next(&mut state) % (transactions() / TRANSACTIONS_PER_KEY);
        let key = [&beside.to_be_bytes()[..], &[put as u8]].concat();
        let tree = &trees[put / DISTURBED_PUTS % SHARDS];
        tickets.push_back(tree.send_put(key, [0; 200]).expect("sent"));
        if tickets.len() > 32 {
            tickets.pop_front().map(Ticket::wait);
        }
        put += 1;
    }
}

/// Runs one transaction and notes how it began and ended.
fn one(
    recorder: &Recorder,
    client: &Client,
    trees: &[Tree],
    isolation: Isolation,
    (thread, number): (u64, u64),
    state: &mut u64,
) {
    let mut steps: Vec<Step> = Vec::new();
    for at in 0..1 + next(state) % 4 {
        let key = number / TRANSACTIONS_PER_KEY + next(state) % KEYS;
        // No two writes of the history write the same.
        let write = next(state).is_multiple_of(2);
        steps.push(if write {
            Step::Write(key, number * 4 + at)
        } else {
            Step::Read(key, None)
        });
    }
    recorder.note("invoke", thread, &steps);
    let tree = |key: u64| &trees[key as usize % SHARDS];
    let name = |key: u64| key.to_be_bytes();
    let written = |old: Option<&[u8]>, value: u64| {
        let old = old.filter(|_| !recorder.registers).unwrap_or_default();
        [old, &value.to_le_bytes()].concat()
    };
    let result = match &mut steps[..] {
        // Single operations are transactions of one key, ...
        [Step::Write(key, value)] if number.is_multiple_of(2) => {
            let (value, registers) = (*value, recorder.registers);
            tree(*key).update(name(*key), move |old| {
                let old = old.filter(|_| !registers).unwrap_or_default();
                Some([old, &value.to_le_bytes()].concat())
            })
        }
        [Step::Read(key, found)] if number.is_multiple_of(2) => tree(*key)
            .get(name(*key))
            .map(|value| *found = value.map(|value| value.to_vec())),
        // ... and a snapshot is one that only reads.
        steps if steps.iter().all(|step| matches!(step, Step::Read(..))) => {
            let snapshot = client.snapshot();
            steps.iter_mut().try_for_each(|step| {
                if let Step::Read(key, found) = step {
                    *found = snapshot.get(tree(*key), name(*key))?.map(|value| value.to_vec());
                }
                Ok(())
            })
        }
        steps => client.begin(isolation).and_then(|mut transaction| {
            for step in steps {
                match step {
                    Step::Read(key, found) => {
                        *found = transaction
                            .get(tree(*key), name(*key))?
                            .map(|value| value.to_vec());
                    }
                    Step::Write(key, value) if recorder.registers => {
                        transaction.put(tree(*key), name(*key), written(None, *value))?;
                    }
                    Step::Write(key, value) => {
                        let old = transaction.get(tree(*key), name(*key))?;
                        transaction.put(tree(*key), name(*key), written(old.as_deref(), *value))?;
                    }
                }
            }
            transaction.commit()
        }),
    };
    match result {
        Ok(()) => recorder.note("ok", thread, &steps),
        Err(Error::Conflict) => recorder.note("fail", thread, &steps),
        Err(error) => panic!("{error}"),
    }
}

fn verdict(history: &str, workload: Workload, model: &str) -> (Valid, String) {
    let history = History::from_json(history).expect("a history");
    let options = Opts {
        models: vec![model.into()],
        // Otherwise nothing tells the order in which a register was written.
        linearizable_keys: workload == Workload::RwRegister,
        ..Opts::default()
    };
    let report = check(&history, workload, &options);
    (report.valid, format!("{model}: {:?}", report.anomaly_types))
}

fn transactions() -> u64 {
    from_environment("TREERING_HISTORY_TRANSACTIONS", 12_000)
}

#[test]
fn serializable_lists_are_strictly_serializable() {
    watched(|| {
        let history = record(Isolation::Serializable, false, transactions());
        let (valid, findings) = verdict(&history, Workload::ListAppend, "strict-serializable");
        assert!(valid == Valid::True, "{findings}");
    });
}

#[test]
fn serializable_registers_are_strictly_serializable() {
    watched(|| {
        let history = record(Isolation::Serializable, true, transactions());
        let (valid, findings) = verdict(&history, Workload::RwRegister, "strict-serializable");
        assert!(valid == Valid::True, "{findings}");
    });
}

/// The weaker level is what it says it is; and a checker that doesn't see its write skew would see nothing.
#[test]
fn snapshot_isolation_is_that_and_no_more() {
    watched(|| {
        let history = record(Isolation::Snapshot, false, transactions());
        let (valid, findings) = verdict(&history, Workload::ListAppend, "snapshot-isolation");
        assert!(valid == Valid::True, "{findings}");
        let (valid, findings) = verdict(&history, Workload::ListAppend, "serializable");
        assert!(valid == Valid::False, "no write skew was noticed: {findings}");
    });
}
