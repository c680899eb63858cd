//! A system that refuses calls: no io_uring, failing syncs.

use std::path::Path;

use treering::{Error, IoBackend, Options};

fn options() -> Options {
    Options::new()
        .cache_bytes(1 << 20)
        .log_segment_bytes(64 << 10)
        .checkpoint_log_bytes(128 << 10)
}

/// `Auto` goes on without io_uring, `Uring` says what is wrong.
pub fn uring(path: &Path) {
    refuse(libc::SYS_io_uring_setup, libc::EPERM);
    let refused = options()
        .io(IoBackend::Uring)
        .open(path)
        .expect_err("io_uring is refused");
    assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
    let db = options().open(path).expect("Auto falls back");
    let tree = db.client().tree("t").expect("a tree");
    // More than the cache: pages are written and read by the fallback.
    for number in 0..4_000_u32 {
        drop(
            tree.send_put(number.to_be_bytes(), [number as u8; 700])
                .expect("a put is sent"),
        );
    }
    for number in 0..4_000_u32 {
        let read = tree
            .send_get(number.to_be_bytes())
            .and_then(treering::Ticket::wait)
            .expect("a read");
        assert_eq!(read.expect("a value"), [number as u8; 700]);
    }
    db.close().expect("a clean close");
}

/// After a failed sync the write's outcome is unknown, later writes are refused, reads go on, and reopening shows all
/// that was acknowledged.
pub fn sync(path: &Path) {
    let db = options()
        .io(IoBackend::Blocking)
        .open(path)
        .expect("an empty directory");
    let tree = db.client().tree("t").expect("a tree");
    for number in 0..100_u32 {
        tree.put(number.to_be_bytes(), b"acknowledged").expect("a put");
    }
    // What makes the log durable: the second where a write can't do it by itself.
    refuse(libc::SYS_pwritev2, libc::EIO);
    refuse(libc::SYS_fdatasync, libc::EIO);
    let unknown = tree.put(b"unknown", b"?").expect_err("the sync fails");
    assert!(matches!(unknown, Error::OutcomeUnknown { .. }), "{unknown:?}");
    for _ in 0..3 {
        let refused = tree.put(b"later", b"?").expect_err("the database is poisoned");
        assert!(matches!(refused, Error::Poisoned { .. }), "{refused:?}");
    }
    assert!(matches!(
        tree.delete(0_u32.to_be_bytes()),
        Err(Error::Poisoned { .. })
    ));
    assert!(matches!(db.flush(), Err(Error::Poisoned { .. })));
    assert!(matches!(db.checkpoint(), Err(Error::Poisoned { .. })));
    for number in 0..100_u32 {
        let read = tree.get(number.to_be_bytes()).expect("reads go on");
        assert_eq!(read.expect("an acknowledged write"), b"acknowledged");
    }
    assert_eq!(
        tree.get(b"unknown").expect("reads go on"),
        None,
        "nobody sees what may be lost"
    );
    let client = db.client();
    let read = client.transact(|tx| tx.get(&tree, 0_u32.to_be_bytes()));
    assert_eq!(read.expect("reads go on").expect("the value"), b"acknowledged");
    let refused = client.transact(|tx| tx.put(&tree, b"later", b"?"));
    assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    let snapshot = client.snapshot();
    assert_eq!(
        snapshot.range(&tree, ..).expect("reads go on").count(),
        100,
        "nobody sees what may be lost"
    );
    assert_eq!(
        client.snapshot_at(snapshot.seq()).expect("the newest one").seq(),
        snapshot.seq()
    );
    assert_eq!(client.tree("t").expect("a tree that is there").name(), "t");
    assert!(matches!(client.tree("new"), Err(Error::Poisoned { .. })));
    let copy = path.join("copy");
    assert!(
        snapshot.backup(&copy).is_err(),
        "syncs are refused to a copy, too"
    );
    assert!(matches!(tree.send_get(b"unknown"), Err(Error::Poisoned { .. })));
    drop(snapshot);
    assert!(matches!(db.close(), Err(Error::Poisoned { .. })));
}

/// Makes `call` fail in all threads of this process, from here on.
fn refuse(call: libc::c_long, code: libc::c_int) {
    let statement = |code: u32, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let mut program = [
        // The call's number stands first in what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call as u32),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | code as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the first call takes no pointers; the second reads `program` and the instructions that it points to, both
    // of which live until it returns.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &raw const program,
            ) != 0
    };
    assert!(!failed, "{}", std::io::Error::last_os_error());
}
