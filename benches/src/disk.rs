//! What a directory occupies, and how to drop it from the kernel's page cache.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use crate::Result;

/// The regular files below `directory`, in no order. Files that vanish meanwhile (an LSM tree
/// compacts) are left out.
///
/// # Errors
/// When the directory itself can't be read.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        let entries = match fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(_) if next != directory => continue,
            Err(error) => return Err(error.into()),
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Bytes of allocated blocks of the files below `directory` that `counts` accepts: holes (LMDB's
/// map) don't count, preallocated space (logs) does.
///
/// # Errors
/// When the directory can't be read.
pub fn bytes_allocated(directory: &Path, counts: impl Fn(&Path) -> bool) -> Result<u64> {
    Ok(files(directory)?
        .iter()
        .filter(|path| counts(path))
        .filter_map(|path| fs::metadata(path).ok())
        .map(|metadata| metadata.blocks() * 512)
        .sum())
}

/// Writes back and drops everything the page cache holds of `directory`.
///
/// # Errors
/// When the directory can't be read or a file can't be synced.
pub fn evict(directory: &Path) -> Result<()> {
    for path in files(directory)? {
        let Ok(file) = File::open(path) else { continue };
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Bytes that devices have delivered to this process so far, the page cache's hits not included.
///
/// # Errors
/// When `/proc` isn't there or doesn't say.
pub fn bytes_delivered() -> Result<u64> {
    let counters = fs::read_to_string("/proc/self/io")?;
    let delivered = counters
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes:")?.trim().parse().ok());
    delivered.ok_or_else(|| "no read_bytes in /proc/self/io".into())
}

/// How often [`keep_evicted`] drops what was read since: at 100,000 reads a second it leaves
/// 500 pages, 2 MB, in the page cache.
const EVICTION_INTERVAL: Duration = Duration::from_millis(5);

/// Keeps dropping clean pages of `directory` from the page cache until `stop` is set: for engines
/// that can't bypass it, so that their own cache is all they have.
///
/// # Errors
/// When the directory can't be read.
pub fn keep_evicted(directory: &Path, stop: &AtomicBool) -> Result<()> {
    const RESCAN_ROUNDS: u32 = 20;
    while !stop.load(Ordering::Relaxed) {
        let open: Vec<File> = files(directory)?
            .iter()
            .filter_map(|path| File::open(path).ok())
            .collect();
        for _ in 0..RESCAN_ROUNDS {
            for file in &open {
                fadvise(file, 0, None, Advice::DontNeed)?;
            }
            std::thread::sleep(EVICTION_INTERVAL);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_free_and_filters_apply() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("inner")).expect("a directory in it");
        let sparse = File::create(directory.path().join("sparse")).expect("a file");
        sparse.set_len(1 << 30).expect("a hole");
        fs::write(directory.path().join("inner/full"), vec![1; 64 << 10]).expect("a file");
        let all = bytes_allocated(directory.path(), |_| true).expect("readable");
        assert!((64 << 10..1 << 20).contains(&all), "{all}");
        let none = bytes_allocated(directory.path(), |path| path.ends_with("sparse"));
        assert_eq!(none.expect("readable"), 0);
    }

    #[test]
    fn evicting_keeps_the_contents() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, b"still here").expect("a file");
        evict(directory.path()).expect("evicts");
        assert_eq!(fs::read(&path).expect("readable"), b"still here");
    }
}
