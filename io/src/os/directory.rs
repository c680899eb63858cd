//! A directory of the operating system.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::directory::{Directory, OpenMode, check_name};
use crate::error::annotate;
use crate::file::File;
use crate::lock::{DirectoryLock, LOCK_FILE_NAME, LockError};
use crate::os::file::OsFile;

/// A directory of the operating system, whose files are open for direct I/O where the file system allows it.
#[derive(Debug)]
pub struct OsDirectory {
    path: PathBuf,
    /// The path as errors show it.
    location: String,
    /// Kept open for `sync`, and so that renaming the directory doesn't change what is synced.
    handle: std::fs::File,
    /// Cleared when the file system refuses `O_DIRECT`: said once, and not tried again.
    direct: AtomicBool,
}

impl OsDirectory {
    /// Opens a directory that exists.
    ///
    /// # Errors
    ///
    /// `NotFound`, `NotADirectory`, or the system's error.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let location = path.display().to_string();
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&path)
            .map_err(|error| annotate(error, "open directory", &location, None))?;
        Ok(Self {
            path,
            location,
            handle,
            direct: AtomicBool::new(true),
        })
    }

    /// Opens a directory, creating it and its missing parents durably.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        create_durably(&path)
            .map_err(|error| annotate(error, "create directory", &path.display().to_string(), None))?;
        Self::open(path)
    }

    /// Whether files are opened for direct I/O; false once the file system has refused it.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    fn open_with(&self, path: &Path, mode: OpenMode, direct: bool) -> io::Result<std::fs::File> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create_new(mode == OpenMode::CreateNew);
        if direct {
            options.custom_flags(libc::O_DIRECT);
        }
        options.open(path)
    }

    fn open_direct_or_buffered(&self, path: &Path, mode: OpenMode) -> io::Result<std::fs::File> {
        if !self.is_direct() {
            return self.open_with(path, mode, false);
        }
        let error = match self.open_with(path, mode, true) {
            Ok(file) => return Ok(file),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => error,
            Err(error) => return Err(error),
        };
        if self.direct.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                directory = %self.location, %error,
                "the file system refuses direct I/O; going through the page cache, which takes memory beyond the cache budget"
            );
        }
        // The refused call may have created the file before it looked at the flag.
        match self.open_with(path, mode, false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && mode == OpenMode::CreateNew => {
                let file = self.open_with(path, OpenMode::Existing, false)?;
                if file.metadata()?.len() == 0 {
                    Ok(file)
                } else {
                    Err(error)
                }
            }
            other => other,
        }
    }
}

/// Creates `path` with its parents and syncs the parent of each directory made.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    create_durably(parent)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    std::fs::File::open(parent)?.sync_all()
}

impl Directory for OsDirectory {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let path = self.path.join(name);
        let location = path.display().to_string();
        let action = match mode {
            OpenMode::Existing => "open",
            OpenMode::CreateNew => "create",
        };
        let file = self
            .open_direct_or_buffered(&path, mode)
            .map_err(|error| annotate(error, action, &location, None))?;
        Ok(Arc::new(OsFile::new(file, name.to_owned(), location)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&self.path)? {
                let entry = entry?;
                if !entry.file_type()?.is_dir() {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(|error| annotate(error, "list directory", &self.location, None))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let path = self.path.join(name);
        std::fs::remove_file(&path)
            .map_err(|error| annotate(error, "remove", &path.display().to_string(), None))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let path = self.path.join(from);
        std::fs::rename(&path, self.path.join(to))
            .map_err(|error| annotate(error, "rename", &path.display().to_string(), None))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle
            .sync_all()
            .map_err(|error| annotate(error, "sync directory", &self.location, None))
    }

    fn lock(&self) -> Result<DirectoryLock, LockError> {
        let path = self.path.join(LOCK_FILE_NAME);
        let location = path.display().to_string();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| annotate(error, "open lock file", &location, None))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let holder = read_holder(&mut file);
                return Err(LockError::Held {
                    directory: self.location.clone(),
                    holder,
                });
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(LockError::Io(annotate(error, "lock", &location, None)));
            }
        }
        write_holder(&mut file).map_err(|error| annotate(error, "write lock file", &location, None))?;
        Ok(DirectoryLock::of_file(file))
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

/// Leaves this process's number for the error text of whoever is refused.
fn write_holder(file: &mut std::fs::File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_holder(file: &mut std::fs::File) -> Option<u32> {
    let mut text = String::new();
    // At most a number and a line end; a foreign file of that name may be long.
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
