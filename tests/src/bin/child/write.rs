//! Writes until killed.

use std::io::Write as _;
use std::path::Path;

use treering::{Client, Db, Durability, Options, Tree};

use crate::operations::{Operation, Report, TREES};

/// Operations between two flushes of a thread that writes without waiting for the disk.
const OPERATIONS_PER_FLUSH: u64 = 40;

/// Opens as the parent does when it judges.
fn options() -> Options {
    Options::new()
        .cache_bytes(2 << 20)
        .log_segment_bytes(512 << 10)
        .checkpoint_log_bytes(1 << 20)
}

/// Opens, which may mean recovering, and does nothing more.
pub fn open(path: &Path) {
    let db = options()
        .open(path)
        .expect("what was left by a killed process opens");
    db.close().expect("a clean close");
}

/// Runs one thread for each entry of `finished`: the number of operations that this thread has done before.
pub fn run(path: &Path, durability: Durability, seed: u64, finished: &[String]) {
    let db = options()
        .durability(durability)
        .open(path)
        .expect("what was left by a killed process opens");
    std::thread::scope(|scope| {
        for (thread, finished) in finished.iter().enumerate() {
            let db = db.clone();
            let finished: u64 = finished.parse().expect("a number");
            scope.spawn(move || write(&db, durability, seed, thread as u64, finished));
        }
    });
}

fn write(db: &Db, durability: Durability, seed: u64, thread: u64, mut finished: u64) {
    let client = db.client();
    let trees = TREES.map(|name| client.tree(name).expect("the tree opens"));
    loop {
        carry_out(&client, &trees, &Operation::at(seed, thread, finished));
        finished += 1;
        report(Report {
            durable: durability == Durability::Sync,
            thread,
            finished,
        });
        if durability == Durability::Buffered && finished.is_multiple_of(OPERATIONS_PER_FLUSH) {
            db.flush().expect("a flush");
            report(Report {
                durable: true,
                thread,
                finished,
            });
        }
    }
}

/// One change as a single operation, several as a batch.
fn carry_out(client: &Client, trees: &[Tree; TREES.len()], operation: &Operation) {
    if let [(tree, key, value)] = &operation.changes[..] {
        match value {
            Some(value) => trees[*tree].put(key, value).expect("a put"),
            None => drop(trees[*tree].delete(key).expect("a delete")),
        }
        return;
    }
    let mut batch = client.batch();
    for (tree, key, value) in &operation.changes {
        match value {
            Some(value) => batch.put(&trees[*tree], key, value),
            None => batch.delete(&trees[*tree], key),
        };
    }
    batch.commit().expect("a batch");
}

fn report(report: Report) {
    let mut pipe = std::io::stdout().lock();
    pipe.write_all(&report.encode()).expect("the parent listens");
    pipe.flush().expect("the parent listens");
}
