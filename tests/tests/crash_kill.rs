//! Killing a writing process again and again: what it has been told is durable must be there, batches whole, and the
//! rest must be a beginning of what each thread was doing.
//!
//! `TREERING_CRASH_ROUNDS` sets the number of rounds of each test.

mod support;

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use support::operations::{Operation, Random, Report, State, TREES, prefix};
use support::{child, from_environment, watched};
use treering::{Db, Options};

const THREADS: u64 = 4;

/// What the judge knows about a thread's keys.
#[derive(Clone, Default)]
struct Known {
    state: State,
    /// Operations that `state` holds.
    finished: u64,
    /// Operations that must be there.
    durable: u64,
    /// Operations that were seen to be finished.
    visible: u64,
}

fn options() -> Options {
    Options::new()
        .cache_bytes(2 << 20)
        .log_segment_bytes(512 << 10)
        .checkpoint_log_bytes(1 << 20)
}

#[test]
fn acknowledged_synced_writes_survive_kill_9() {
    watched(|| kill_loop("write-sync", from_environment("TREERING_CRASH_ROUNDS", 14)));
}

#[test]
fn flushed_buffered_writes_survive_kill_9() {
    watched(|| kill_loop("write-buffered", from_environment("TREERING_CRASH_ROUNDS", 14)));
}

fn kill_loop(role: &str, rounds: u64) {
    let seed = from_environment("TREERING_CRASH_SEED", 0xC0FFEE);
    let mut random = Random(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("db");
    let mut known: Vec<Known> = vec![Known::default(); THREADS as usize];
    let mut reports = 0;
    for round in 0..rounds {
        reports += write_and_kill(role, &path, seed, &mut known, &mut random);
        if random.below(3) == 0 {
            // Recovery is killed too, wherever it is.
            kill_after(
                child("open", &path).spawn().expect("the child starts"),
                random.below(40),
            );
        }
        let db = options()
            .open(&path)
            .unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        judge(&db, seed, &mut known, round);
        if random.below(2) == 0 {
            db.close().expect("a clean close");
        }
    }
    assert!(
        reports > rounds,
        "the children hardly got to write: {reports} reports"
    );
    println!("{rounds} rounds, {reports} acknowledgements");
}

/// Starts the child, kills it at a random moment, and takes down what it has reported. Returns how much that was.
fn write_and_kill(role: &str, path: &Path, seed: u64, known: &mut [Known], random: &mut Random) -> u64 {
    let mut command = child(role, path);
    command
        .arg(seed.to_string())
        .args(known.iter().map(|known| known.finished.to_string()));
    let mut process = command.stdout(Stdio::piped()).spawn().expect("the child starts");
    let mut pipe = process.stdout.take().expect("a pipe");
    for known in known.iter_mut() {
        known.durable = known.finished;
        known.visible = known.finished;
    }
    let reader = std::thread::spawn(move || {
        let mut reports = Vec::new();
        let mut bytes = [0; Report::BYTES];
        while pipe.read_exact(&mut bytes).is_ok() {
            reports.push(Report::decode(&bytes));
        }
        reports
    });
    kill_after(process, 20 + random.below(700));
    let reports = reader.join().expect("the reader");
    for report in &reports {
        let known = &mut known[report.thread as usize];
        known.visible = known.visible.max(report.finished);
        if report.durable {
            known.durable = known.durable.max(report.finished);
        }
    }
    reports.len() as u64
}

fn kill_after(mut process: std::process::Child, millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
    if let Some(status) = process.try_wait().expect("the child's state") {
        assert!(status.success(), "the child failed by itself: {status}");
        return;
    }
    process.kill().expect("SIGKILL");
    process.wait().expect("the child's end");
}

/// Finds for each thread how many of its operations the database holds: at least the durable ones, at most those that
/// were visible and the one that was under way.
fn judge(db: &Db, seed: u64, known: &mut [Known], round: u64) {
    let client = db.client();
    let mut found = vec![State::new(); known.len()];
    let names = client.tree_names().expect("names");
    for (index, name) in TREES
        .iter()
        .enumerate()
        .filter(|(_, name)| names.iter().any(|known| known == *name))
    {
        let tree = client.open_tree(name).expect("a tree");
        let mut count = 0;
        for item in tree.range::<&[u8]>(..).expect("a range") {
            let (key, value) = item.expect("an entry");
            let thread = (0..known.len()).find(|&thread| key.starts_with(&prefix(thread as u64)));
            let thread = thread.unwrap_or_else(|| panic!("nobody wrote {key:?}"));
            found[thread].insert((index, key.to_vec()), value.to_vec());
            count += 1;
        }
        assert_eq!(
            tree.len().expect("a length"),
            count,
            "round {round}: the count of {name} is wrong"
        );
        let back = tree.range::<&[u8]>(..).expect("a range").rev().count() as u64;
        assert_eq!(
            back, count,
            "round {round}: {name} has fewer entries from the back"
        );
    }
    for (thread, (known, found)) in known.iter_mut().zip(&found).enumerate() {
        let started = known.finished;
        while known.finished < known.durable {
            advance(known, seed, thread);
        }
        while known.state != *found {
            assert!(
                known.finished <= known.visible,
                "round {round}, thread {thread}: started at {started}, durable {}, visible {}, but found {}",
                known.durable,
                known.visible,
                differences(known, found, seed, thread as u64),
            );
            advance(known, seed, thread);
        }
    }
}

fn advance(known: &mut Known, seed: u64, thread: usize) {
    Operation::at(seed, thread as u64, known.finished).apply(&mut known.state);
    known.finished += 1;
}

/// What to say about a thread whose keys fit no beginning of its operations.
fn differences(known: &Known, found: &State, seed: u64, thread: u64) -> String {
    let mut expected = State::new();
    (0..known.durable).for_each(|index| Operation::at(seed, thread, index).apply(&mut expected));
    let describe = |(tree, key): &(usize, Vec<u8>)| {
        let writes = (0..=known.visible).filter(|&index| {
            let operation = Operation::at(seed, thread, index);
            operation
                .changes
                .iter()
                .any(|(of, name, _)| of == tree && name == key)
        });
        let last: Vec<u64> = writes.collect::<Vec<_>>().into_iter().rev().take(3).collect();
        format!("{tree}:{:?} (last written by operations {last:?})", &key[4..])
    };
    let different = expected
        .keys()
        .chain(found.keys())
        .filter(|key| expected.get(*key) != found.get(*key))
        .collect::<std::collections::BTreeSet<_>>();
    let listed: Vec<String> = different.iter().take(8).map(|key| describe(key)).collect();
    format!(
        "{} keys that differ from the durable state: {}",
        different.len(),
        listed.join(", ")
    )
}
