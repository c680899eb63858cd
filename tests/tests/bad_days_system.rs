//! A system that refuses what others allow. Each in a process of its own, since refusals hold for good.

mod support;

use support::{run_child, small, watched};

#[test]
fn without_io_uring() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        run_child("uring-refused", directory.path(), &[]);
        let db = small()
            .open(directory.path())
            .expect("another process opens it, by whatever means");
        assert_eq!(
            db.client()
                .open_tree("t")
                .expect("a tree")
                .len()
                .expect("a length"),
            4_000
        );
    });
}

#[test]
fn failing_syncs() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        run_child("sync-refused", directory.path(), &[]);
        let db = small().open(directory.path()).expect("reopening heals");
        let tree = db.client().open_tree("t").expect("a tree");
        for number in 0..100_u32 {
            let found = tree.get(number.to_be_bytes()).expect("a read");
            assert_eq!(found.expect("an acknowledged write"), b"acknowledged");
        }
        let unknown = tree.get(b"unknown").expect("a read");
        assert!(
            unknown.is_none_or(|value| value == b"?"),
            "its outcome was unknown, but not any"
        );
        assert_eq!(
            tree.get(b"later").expect("a read"),
            None,
            "a refused write happened"
        );
        tree.put(b"later", b"!").expect("writes go on");
    });
}
