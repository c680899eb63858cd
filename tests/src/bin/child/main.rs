//! The process that tests kill, starve and refuse things to. Its first argument says what it does, the second is the
//! database directory. It ends with code 0 if all was as it should be, and panics if it wasn't.

mod limits;
mod memory;
#[allow(
    dead_code,
    reason = "the judging half is used by the test that includes this file"
)]
mod operations;
mod refusals;
mod write;

use std::io::{Read, Write};
use std::path::PathBuf;

use treering::{Durability, Options};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().expect("the role");
    let path = PathBuf::from(arguments.next().expect("the directory"));
    let rest: Vec<String> = arguments.collect();
    let number = |index: usize| -> u64 { rest[index].parse().expect("a number") };
    match role.as_str() {
        "write-sync" => write::run(&path, Durability::Sync, number(0), &rest[1..]),
        "write-buffered" => write::run(&path, Durability::Buffered, number(0), &rest[1..]),
        "open" => write::open(&path),
        "hold" => hold(&path),
        "file-size-limit" => limits::file_size(&path, number(0)),
        "uring-refused" => refusals::uring(&path),
        "sync-refused" => refusals::sync(&path),
        "memory" => memory::run(&path, number(0)),
        "memory-writers" => memory::writers(&path, number(0), number(1)),
        "large-value-put" => memory::large_value_put(&path, number(0), number(1)),
        "large-value-get" => memory::large_value_get(&path, number(0), number(1)),
        other => panic!("unknown role {other:?}"),
    }
}

/// Keeps the database open until the parent closes the pipe.
fn hold(path: &std::path::Path) {
    let db = Options::new()
        .cache_bytes(1 << 20)
        .open(path)
        .expect("the directory is free");
    println!("open");
    std::io::stdout().flush().expect("the parent listens");
    let _ = std::io::stdin().read(&mut [0]);
    db.close().expect("a clean close");
}
