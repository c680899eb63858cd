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
    if path.exists() && !path.is_dir() {
        return Err(Error::NotADatabase {
            path: path.into(),
            reason: "it is not a directory".into(),
        });
    }
    claim_directory(Arc::new(open_or_create(path)?), path)
}

/// Opens a directory of the file system, or creates it.
pub(crate) fn open_or_create(path: &Path) -> Result<OsDirectory> {
    let directory = if path.exists() {
        OsDirectory::open(path)
    } else {
        OsDirectory::create(path)
    };
    directory.map_err(|error| Error::io(format!("opening {}", path.display()), error))
}

/// Keeps others out of a directory for as long as what it returns lives.
pub(crate) fn lock(directory: &dyn Directory, path: &Path) -> Result<DirectoryLock> {
    directory.lock().map_err(|error| match error {
        LockError::Held { .. } => Error::AlreadyOpen { path: path.into() },
        LockError::Io(error) => Error::io(format!("locking {}", path.display()), error),
    })
}

fn claim_directory(directory: Arc<dyn Directory>, path: &Path) -> Result<Claimed> {
    let lock = lock(&*directory, path)?;
    Ok(Claimed { directory, lock })
}

/// Keeps others out of a simulated disk.
pub(crate) fn claim_simulated(disk: &SimDirectory) -> Result<Claimed> {
    claim_directory(Arc::new(disk.clone()), Path::new(SIMULATED_PATH))
}
