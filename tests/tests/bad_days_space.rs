//! No room: a disk that is full, memory that is full, a directory that may not be written. Nothing acknowledged is
//! lost, what is there can be read, and when there is room again, writing goes on.

mod support;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use support::{run_child, small, watched};
use treering::{Db, Durability, Error, IoBackend, Options, Tree};

/// A small file system of its own, unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where mounting isn't allowed.
    fn new(path: &Path, bytes: u64) -> Option<Mounted> {
        std::fs::create_dir_all(path).expect("a directory");
        if let Err(error) = mount(path, 0, &format!("size={bytes}")) {
            eprintln!("skipped: no file system can be mounted here ({error})");
            return None;
        }
        Some(Mounted(path.to_owned()))
    }

    fn resize(&self, bytes: u64) {
        mount(&self.0, libc::MS_REMOUNT, &format!("size={bytes}")).expect("another size");
    }

    /// Files that were registered with a ring stay open a little longer than the ring.
    fn set_read_only(&self) {
        while let Err(error) = mount(&self.0, libc::MS_REMOUNT | libc::MS_RDONLY, "") {
            assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let path = CString::new(self.0.as_os_str().as_bytes()).expect("a path");
        // SAFETY: the path is a string that lives until the call returns.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

fn mount(path: &Path, flags: libc::c_ulong, options: &str) -> std::io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    let options = CString::new(options).expect("options");
    // SAFETY: all arguments are strings that live until the call returns.
    let failed = unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            path.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    } != 0;
    if failed {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(40)
}

/// Puts until there is no room; returns how many were acknowledged. The refusal must be the right one.
fn fill(tree: &Tree) -> u64 {
    let mut number = tree.len().expect("a length");
    loop {
        match tree.put(number.to_be_bytes(), value(number)) {
            Ok(()) => number += 1,
            Err(Error::OutOfSpace { what }) => {
                assert!(!what.is_empty());
                return number;
            }
            Err(error) => panic!("after {number} writes: {error:?}"),
        }
        assert!(number < 1_000_000, "never full");
    }
}

fn check(db: &Db, count: u64) {
    let tree = db.client().open_tree("t").expect("the tree");
    for number in 0..count {
        let found = tree.get(number.to_be_bytes()).expect("reads go on");
        assert_eq!(
            found.unwrap_or_else(|| panic!("{number} of {count} is lost")),
            value(number)
        );
    }
    assert_eq!(tree.len().expect("a length"), count);
    assert_eq!(tree.range::<&[u8]>(..).expect("a range").count() as u64, count);
}

#[test]
fn a_limit_of_the_file_size() {
    watched(|| {
        for limit_bytes in [1_200_000, 2_000_000, 3_333_333] {
            let directory = tempfile::tempdir().expect("a directory");
            let printed = run_child("file-size-limit", directory.path(), &[limit_bytes]);
            let acknowledged: u64 = printed.trim().parse().expect("a number");
            assert!(acknowledged > 100, "{acknowledged}");
            let db = small()
                .open(directory.path())
                .expect("the database opens without the limit");
            check(&db, acknowledged);
            let tree = db.client().tree("t").expect("a tree");
            tree.put(acknowledged.to_be_bytes(), value(acknowledged))
                .expect("room again");
            db.close().expect("a clean close");
        }
    });
}

#[test]
fn a_full_file_system() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, backend) in [("auto", IoBackend::Auto), ("blocking", IoBackend::Blocking)] {
            let path = directory.path().join(name);
            let Some(mounted) = Mounted::new(&path, 5 << 20) else {
                return;
            };
            let options = || small().io(backend);
            let db_path = path.join("db");
            let db = options()
                .open(&db_path)
                .expect("there is room for an empty database");
            let tree = db.client().tree("t").expect("a tree");
            let count = fill(&tree);
            // How much that is depends on whether the log or the data file took the last room.
            assert!(count > 100, "{count}");
            check(&db, count);
            // Full is full: again and again, and for large values too.
            assert!(matches!(
                tree.put(b"large", vec![1; 3 << 20]),
                Err(Error::OutOfSpace { .. })
            ));
            assert!(fill(&tree) >= count);
            let count = tree.len().expect("a length");
            match db.close() {
                Ok(()) | Err(Error::OutOfSpace { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
            // With room it opens, shows everything, and takes writes.
            mounted.resize(16 << 20);
            let db = options().open(&db_path).expect("the database opens");
            check(&db, count);
            let tree = db.client().tree("t").expect("a tree");
            let more = fill(&tree);
            assert!(more > count, "{more} of {count}");
            // And while it is open, too.
            mounted.resize(40 << 20);
            let goes_on = (0..100).any(|_| {
                // A checkpoint that had no room before makes the log's room free.
                let _ = db.checkpoint();
                fill(&tree) > more
            });
            assert!(goes_on, "there is room again, and nobody takes it");
            let count = tree.len().expect("a length");
            drop((tree, db));
            check(&options().open(&db_path).expect("the database opens"), count);
        }
    });
}

#[test]
fn no_room_for_a_database() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("full");
        let Some(mounted) = Mounted::new(&path, 256 << 10) else {
            return;
        };
        let refused = small().open(path.join("db")).expect_err("no room");
        assert!(matches!(refused, Error::OutOfSpace { .. }), "{refused:?}");
        mounted.resize(16 << 20);
        small()
            .open(path.join("db"))
            .expect("an interrupted creation is done again")
            .close()
            .expect("a clean close");
    });
}

#[test]
fn a_directory_that_may_not_be_written() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("read-only");
        let Some(mounted) = Mounted::new(&path, 16 << 20) else {
            return;
        };
        let db = small().open(path.join("db")).expect("an empty directory");
        db.client()
            .tree("t")
            .expect("a tree")
            .put(b"k", b"v")
            .expect("a put");
        db.close().expect("a clean close");
        mounted.set_read_only();
        for name in ["db", "new"] {
            let refused = small().open(path.join(name)).expect_err("read-only");
            assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
        }
    });
}

#[test]
fn a_full_memory() {
    watched(|| {
        for shards in [1, 2] {
            let options = Options::new().cache_bytes(2 << 20).shards(shards);
            let db = options.open_in_memory().expect("memory for an empty database");
            let tree = db.client().tree("t").expect("a tree");
            let mut count = fill(&tree);
            assert!(count > 1_000, "{count}");
            for _ in 0..3 {
                check(&db, count);
                // Deleting needs room too, and finds it.
                for number in count / 2..count {
                    let deleted = tree.delete(number.to_be_bytes());
                    assert!(
                        deleted.unwrap_or_else(|error| panic!("deleting {number} of {count}: {error:?}"))
                    );
                }
                check(&db, count / 2);
                let again = fill(&tree);
                assert!(again > count * 3 / 4, "{again} fit, where {count} did");
                count = again;
            }
            assert!(matches!(
                tree.put(b"large", vec![1; 4 << 20]),
                Err(Error::OutOfSpace { .. })
            ));
            check(&db, count);
            db.close().expect("a clean close");
        }
    });
}

#[test]
fn many_writers_meet_a_full_file_system() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("mounted");
        let Some(mounted) = Mounted::new(&path, 6 << 20) else {
            return;
        };
        let db = small()
            .open(path.join("db"))
            .expect("there is room for an empty database");
        let tree = db.client().tree("t").expect("a tree");
        let counts: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4_u64)
                .map(|thread| {
                    let durability = if thread % 2 == 0 {
                        Durability::Sync
                    } else {
                        Durability::Buffered
                    };
                    let tree = tree.with_durability(durability);
                    scope.spawn(move || {
                        let mut count = 0_u64;
                        loop {
                            let key = [thread.to_be_bytes(), count.to_be_bytes()].concat();
                            match tree.put(key, value(count)) {
                                Ok(()) => count += 1,
                                Err(Error::OutOfSpace { .. }) => return count,
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                    })
                })
                .collect();
            writers
                .into_iter()
                .map(|writer| writer.join().expect("a writer"))
                .collect()
        });
        let check = |tree: &Tree| {
            for (thread, &count) in (0_u64..).zip(&counts) {
                for number in 0..count {
                    let found = tree
                        .get([thread.to_be_bytes(), number.to_be_bytes()].concat())
                        .expect("a read");
                    assert_eq!(
                        found.unwrap_or_else(|| panic!("{number} of {thread} is lost")),
                        value(number)
                    );
                }
            }
            assert_eq!(tree.len().expect("a length"), counts.iter().sum::<u64>());
        };
        check(&tree);
        drop((tree, db));
        mounted.resize(32 << 20);
        let db = small().open(path.join("db")).expect("the database opens");
        check(&db.client().tree("t").expect("a tree"));
    });
}
