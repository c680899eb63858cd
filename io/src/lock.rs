//! The exclusive lock of a directory.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the lock file in a directory of the operating system. It is never removed: removing it would
/// let two openers lock two different files of that name.
pub(crate) const LOCK_FILE_NAME: &str = "lock";

/// Why a directory couldn't be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another opener has the directory.
    #[error("{directory:?} is already open{}", by(*holder))]
    Held {
        /// The directory's location.
        directory: String,
        /// The process that holds it, as far as the lock file tells.
        holder: Option<u32>,
    },
    /// The lock file couldn't be created or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn by(holder: Option<u32>) -> String {
    match holder {
        Some(process) if process == std::process::id() => " in this process".to_owned(),
        Some(process) => format!(" in process {process}"),
        None => " elsewhere".to_owned(),
    }
}

/// Proof that this opener alone has the directory; released on drop.
pub struct DirectoryLock {
    holding: Holding,
}

enum Holding {
    /// The system's lock, on an open file.
    File(std::fs::File),
    /// A flag of a directory that lives in this process.
    Flag(Arc<AtomicBool>),
}

impl DirectoryLock {
    pub(crate) fn of_file(file: std::fs::File) -> Self {
        Self {
            holding: Holding::File(file),
        }
    }

    /// Sets `flag`, or fails if it is set.
    pub(crate) fn of_flag(flag: &Arc<AtomicBool>, directory: &str) -> Result<Self, LockError> {
        if flag.swap(true, Ordering::Acquire) {
            let holder = Some(std::process::id());
            return Err(LockError::Held {
                directory: directory.to_owned(),
                holder,
            });
        }
        Ok(Self {
            holding: Holding::Flag(Arc::clone(flag)),
        })
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        match &self.holding {
            Holding::File(file) => {
                // Closing the file would do only if nobody else had it open: a process that some other thread is just
                // starting has a copy of it until it runs its own program. Should the system refuse, closing it is all
                // that is left.
                let _ = file.unlock();
            }
            Holding::Flag(flag) => flag.store(false, Ordering::Release),
        }
    }
}

impl fmt::Debug for DirectoryLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectoryLock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_ends_though_a_process_that_is_just_starting_has_a_copy_of_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(LOCK_FILE_NAME);
        let open = || std::fs::File::create(&path).expect("a file");
        let file = open();
        file.try_lock().expect("nobody has locked it");
        let copy = file.try_clone().expect("a copy, as a fork makes it");
        drop(DirectoryLock::of_file(file));
        open().try_lock().expect("the lock has ended");
        drop(copy);
    }
}
