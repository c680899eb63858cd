//! The directory trait: what a database's files live in.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::file::File;
use crate::lock::{DirectoryLock, LockError};

/// How [`Directory::open`] treats a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist.
    Existing,
    /// The file must not exist and is created empty.
    CreateNew,
}

/// The directory of one database. Names are plain: no separators, not `.` or `..`.
pub trait Directory: Send + Sync + Debug {
    /// Opens a file for reading and writing. A created file survives a crash after [`Directory::sync`].
    ///
    /// # Errors
    ///
    /// `NotFound`, `AlreadyExists`, `InvalidInput` for a name that isn't plain, or the system's error.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Opens a file as it is, or creates it: for what an attempt that was interrupted may have left.
    ///
    /// # Errors
    ///
    /// As [`Directory::open`].
    fn open_or_create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        match self.open(name, OpenMode::CreateNew) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.open(name, OpenMode::Existing),
            other => other,
        }
    }

    /// The names of all files, sorted.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Removes a file's name; open handles keep its content. Survives a crash after [`Directory::sync`].
    ///
    /// # Errors
    ///
    /// `NotFound`, or the system's error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Renames a file, replacing what `to` names. Survives a crash after [`Directory::sync`].
    ///
    /// # Errors
    ///
    /// `NotFound`, or the system's error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, removals and renames durable.
    ///
    /// # Errors
    ///
    /// The system's error; the changes may then be lost.
    fn sync(&self) -> io::Result<()>;

    /// Takes the directory for this opener alone, until the returned value is dropped or the process ends.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] when another opener has it, in this process or another one.
    fn lock(&self) -> Result<DirectoryLock, LockError>;

    /// Where the directory is, if it has a place in the file system.
    fn path(&self) -> Option<&Path>;
}

/// Refuses names that would leave the directory.
pub(crate) fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let reason = "a file name must not be empty, \".\" or \"..\", nor contain '/' or NUL";
        return Err(crate::error::annotate(
            io::Error::new(io::ErrorKind::InvalidInput, reason),
            "use the name",
            name,
            None,
        ));
    }
    Ok(())
}
