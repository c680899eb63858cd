//! The memory budget: `cache_bytes`, 64 MiB, and 2 %. Each in a process of its own, whose peak the system keeps.

mod support;

use support::{run_child, watched};

#[test]
fn a_database_stays_within_its_budget() {
    watched(|| {
        for cache_bytes in [4 << 20, 16 << 20] {
            let directory = tempfile::tempdir().expect("a directory");
            print!("{}", run_child("memory", directory.path(), &[cache_bytes]));
        }
    });
}

#[test]
fn many_writers_stay_within_the_budget() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let (cache_bytes, threads) = (8 << 20, 64);
        print!(
            "{}",
            run_child("memory-writers", directory.path(), &[cache_bytes, threads])
        );
    });
}

#[test]
fn a_large_value_is_streamed() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let (cache_bytes, value_bytes) = (2 << 20, 128 << 20);
        print!(
            "{}",
            run_child("large-value-put", directory.path(), &[cache_bytes, value_bytes])
        );
        print!(
            "{}",
            run_child("large-value-get", directory.path(), &[cache_bytes, value_bytes])
        );
    });
}
