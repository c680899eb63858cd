//! What the tests on real files share.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Once, mpsc};
use std::time::Duration;

use treering::{Db, Options, Tree};

mod futures;

#[allow(unused_imports, reason = "not each test program awaits anything")]
pub use futures::block_on;

#[path = "../../src/bin/child/operations.rs"]
pub mod operations;

#[allow(unused_imports, reason = "not each test program draws numbers")]
pub use operations::Random;

/// After this long a test counts as hanging. Far beyond what it takes: only there so that a hang is told, not waited
/// for.
const HANG: Duration = Duration::from_secs(180);

static PANICS: AtomicUsize = AtomicUsize::new(0);
static HOOK: Once = Once::new();

/// A database in memory with an empty tree.
pub fn in_memory(cache_bytes: u64) -> (Db, Tree) {
    let db = Options::new()
        .cache_bytes(cache_bytes)
        .open_in_memory()
        .expect("memory for an empty database");
    let tree = db.client().tree("t").expect("a tree");
    (db, tree)
}

/// Runs a test body: fails if it hangs, panics, or if a thread of the database does.
pub fn watched(body: impl FnOnce() + Send + 'static) {
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current()
                .name()
                .is_some_and(|name| name.starts_with("treering-"))
                && !panic
                    .payload_as_str()
                    .is_some_and(|text| text.contains("planted"))
            {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            previous(panic);
        }));
    });
    let (sender, receiver) = mpsc::channel();
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            body();
            let _ = sender.send(());
        })
        .expect("a thread");
    if receiver.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout) {
        eprintln!("hangs");
        // A hanging thread can't be ended: the process has to be.
        std::process::abort();
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(
        PANICS.load(Ordering::SeqCst),
        0,
        "a thread of the database panicked"
    );
}

/// A database so small that eviction, checkpoints and recycled segments happen all the time.
pub fn small() -> Options {
    Options::new()
        .cache_bytes(1 << 20)
        .log_segment_bytes(64 << 10)
        .checkpoint_log_bytes(128 << 10)
}

/// The process that can be killed, starved and refused things.
pub fn child(role: &str, path: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_child"));
    command.arg(role).arg(path);
    command
}

/// Runs the child to its end and expects success; returns what it printed.
pub fn run_child(role: &str, path: &Path, arguments: &[u64]) -> String {
    let mut command = child(role, path);
    command.args(arguments.iter().map(u64::to_string));
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the child starts");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{role}: {status}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{role}: {stderr}");
    String::from_utf8_lossy(&stdout).into_owned()
}

/// Copies the files of a database: of an open one, what a crash at this moment would leave.
pub fn copy_directory(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// A number from the environment, for longer runs.
pub fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
