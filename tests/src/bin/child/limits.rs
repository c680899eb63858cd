//! Writing against a limit of the file size: a disk that is full.

use std::path::Path;

use treering::{Error, Options};

/// Writes until files may not grow any more, and checks that nothing acknowledged is lost by that. Prints the number
/// of acknowledged writes for the parent, which looks again without the limit.
pub fn file_size(path: &Path, limit_bytes: u64) {
    let options = Options::new()
        .cache_bytes(1 << 20)
        .log_segment_bytes(64 << 10)
        .checkpoint_log_bytes(128 << 10);
    let db = options.open(path).expect("there is room for an empty database");
    let tree = db.client().tree("t").expect("a tree");
    set_limit(limit_bytes);
    let mut acknowledged = 0_u64;
    let refusal = loop {
        match tree.put(acknowledged.to_be_bytes(), value(acknowledged)) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1_000_000, "the limit was never met");
    };
    assert!(matches!(refusal, Error::OutOfSpace { .. }), "{refusal:?}");
    for number in 0..acknowledged {
        let read = tree.get(number.to_be_bytes()).expect("reads go on");
        assert_eq!(read.expect("an acknowledged write"), value(number));
    }
    assert_eq!(tree.len().expect("reads go on"), acknowledged);
    assert_eq!(
        tree.get(acknowledged.to_be_bytes()).expect("reads go on"),
        None,
        "a refused write is seen"
    );
    println!("{acknowledged}");
    // A close that can't write its last checkpoint keeps everything in the log.
    match db.close() {
        Ok(()) | Err(Error::OutOfSpace { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
}

/// The value of a number: also the parent's.
fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(40)
}

fn set_limit(limit_bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: limit_bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: ignoring a signal installs no handler; `setrlimit` only reads `limit`, which lives until it returns.
    let failed = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) != 0
    };
    assert!(!failed, "{}", std::io::Error::last_os_error());
}
