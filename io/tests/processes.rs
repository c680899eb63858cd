//! What needs a second process: the lock between processes, and limits on a process.
//!
//! The tests run this same program again, for one of the ignored tests below, which play the other process.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use treering_io::{
    AlignedBuffer, BLOCK_BYTES, BackendChoice, Buffer, Directory, LockError, OpenMode, Operation,
    OsDirectory, Wait, open_device,
};

const HOME_VARIABLE: &str = "TREERING_IO_TEST_HOME";
const BLOCK: u64 = BLOCK_BYTES as u64;

fn home() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Starts this program again to play `part`.
fn play(part: &str, home: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([part, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(HOME_VARIABLE, home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn played_home() -> PathBuf {
    PathBuf::from(std::env::var_os(HOME_VARIABLE).expect("only run by the tests of this file"))
}

/// Reads the part's lines until one contains `wanted`.
fn await_line(child: &mut Child, wanted: &str) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.map_while(Result::ok).find(|line| line.contains(wanted));
    assert!(found.is_some(), "the other process ended without {wanted:?}");
}

#[test]
#[ignore = "played by lock_between_processes"]
fn part_holds_the_lock() {
    let directory = OsDirectory::open(played_home()).unwrap();
    let _lock = directory.lock().unwrap();
    println!("locked");
    // Until the parent kills this process or goes away.
    let _ended = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
fn lock_between_processes() {
    let home = home();
    let directory = OsDirectory::open(home.path()).unwrap();
    let mut other = play("part_holds_the_lock", home.path());
    await_line(&mut other, "locked");
    let refused = directory.lock().unwrap_err();
    let text = refused.to_string();
    assert!(text.contains(&home.path().display().to_string()), "{text}");
    assert!(text.ends_with(&format!("in process {}", other.id())), "{text}");
    assert!(matches!(refused, LockError::Held { holder, .. } if holder == Some(other.id())));
    other.kill().unwrap();
    other.wait().unwrap();
    drop(directory.lock().expect("a killed holder's lock is free"));
}

/// The most bytes of a file in the limited process.
const LIMIT_BYTES: u64 = 16 * BLOCK + 1024;

#[test]
#[ignore = "played by a_size_limit_is_an_error_not_a_signal"]
fn part_is_limited() {
    let limit = libc::rlimit {
        rlim_cur: LIMIT_BYTES,
        rlim_max: LIMIT_BYTES,
    };
    // SAFETY: sets this process's own limit from a valid struct, and ignores the signal that goes with it; neither
    // touches memory of ours.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    let directory = OsDirectory::open(played_home()).unwrap();
    let file = directory.open("data", OpenMode::CreateNew).unwrap();
    file.grow(8 * BLOCK).unwrap();
    let full = |error: std::io::Error| {
        assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{error}");
        assert!(error.to_string().contains("data"), "{error}");
    };
    full(file.grow(32 * BLOCK).unwrap_err());
    assert_eq!(file.len().unwrap(), 8 * BLOCK);
    // The first part of this write fits, so the system begins with a short transfer.
    full(
        file.write_at(&AlignedBuffer::zeroed(8 * BLOCK_BYTES), 12 * BLOCK)
            .unwrap_err(),
    );
    for choice in [BackendChoice::Auto, BackendChoice::Blocking] {
        let mut device = open_device(choice, 2).unwrap();
        let buffer = Buffer::Owned(AlignedBuffer::zeroed(8 * BLOCK_BYTES));
        device
            .submit(Operation::write(1, Arc::clone(&file), 12 * BLOCK, buffer, true))
            .unwrap();
        let mut done = Vec::new();
        device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
        full(done.pop().unwrap().result.unwrap_err());
    }
    file.write_at(&AlignedBuffer::zeroed(BLOCK_BYTES), 0).unwrap();
    file.sync_data().unwrap();
    println!("limited as expected");
}

#[test]
fn a_size_limit_is_an_error_not_a_signal() {
    let home = home();
    let output = play("part_is_limited", home.path()).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("limited as expected"),
        "{text}"
    );
}
