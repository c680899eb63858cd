//! Keeping others out of a directory.

use std::path::Path;
use std::sync::Arc;

use treering_io::{Directory, DirectoryLock, LockError, OsDirectory, SimDirectory};

use super::open::SIMULATED_PATH;
use crate::error::{Error, Result};

/// A directory that nobody else has open.
pub(crate) struct Claimed {
    pub directory: Arc<dyn Directory>,
    pub(super) lock: DirectoryLock,
}

/// Opens a directory of the file system, creates it if it isn't there, and keeps others out.
pub(crate) fn claim(path: &Path) -> Result<Claimed> {
    let what = |action: &str| format!("{action} {}", path.display());
    let directory = if path.exists() {
        if !path.is_dir() {
            return Err(Error::NotADatabase {
                path: path.into(),
                reason: "it is not a directory".into(),
            });
        }
        OsDirectory::open(path)
    } else {
        OsDirectory::create(path)
    };
    let directory = directory.map_err(|error| Error::io(what("opening"), error))?;
    claim_directory(Arc::new(directory), path)
}

fn claim_directory(directory: Arc<dyn Directory>, path: &Path) -> Result<Claimed> {
    let lock = directory.lock().map_err(|error| match error {
        LockError::Held { .. } => Error::AlreadyOpen { path: path.into() },
        LockError::Io(error) => Error::io(format!("locking {}", path.display()), error),
    })?;
    Ok(Claimed { directory, lock })
}

/// Keeps others out of a simulated disk.
pub(crate) fn claim_simulated(disk: &SimDirectory) -> Result<Claimed> {
    claim_directory(Arc::new(disk.clone()), Path::new(SIMULATED_PATH))
}
