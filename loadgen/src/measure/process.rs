//! What the process takes of the machine.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of a block as `stat` counts them, whatever the file system's are.
const STAT_BLOCK_BYTES: u64 = 512;

/// Resident memory of this process, generator and database together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Now, in bytes.
    pub resident_bytes: u64,
    /// At its highest, in bytes.
    pub peak_bytes: u64,
}

/// Reads `/proc/self/status`; zeros where there is none.
#[must_use]
pub fn memory() -> Memory {
    fs::read_to_string("/proc/self/status")
        .map(|status| parse_status(&status))
        .unwrap_or_default()
}

fn parse_status(status: &str) -> Memory {
    let kibibytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim_start_matches(':')
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let bytes = |field| kibibytes(field).unwrap_or(0) * 1024;
    Memory {
        resident_bytes: bytes("VmRSS"),
        peak_bytes: bytes("VmHWM"),
    }
}

/// Bytes of disk that the files of `directory` occupy, those of directories in it included, one file named
/// `except` left out.
///
/// # Errors
/// The system's.
pub fn disk_bytes(directory: &Path, except: &str) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A log segment may be gone between the two calls.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            bytes += disk_bytes(&entry.path(), except)?;
        } else if entry.file_name() != except {
            bytes += metadata.blocks() * STAT_BLOCK_BYTES;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_understood() {
        let status = "Name:\tloadgen\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n";
        assert_eq!(
            parse_status(status),
            Memory {
                resident_bytes: 1 << 20,
                peak_bytes: 2 << 20
            }
        );
        assert_eq!(parse_status("nonsense"), Memory::default());
    }

    #[test]
    fn this_process_has_memory() {
        let memory = memory();
        assert!(
            memory.resident_bytes > 0 && memory.peak_bytes >= memory.resident_bytes / 2,
            "{memory:?}"
        );
    }

    #[test]
    fn disk_counts_blocks_in_subdirectories_too() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        fs::create_dir(directory.path().join("inner")).expect("it can hold another");
        fs::write(directory.path().join("a"), vec![1; 100_000]).expect("it can be written");
        fs::write(directory.path().join("inner/b"), vec![1; 100_000]).expect("it can be written");
        let all = disk_bytes(directory.path(), "none").expect("it can be read");
        let some = disk_bytes(directory.path(), "b").expect("it can be read");
        assert!(all >= some && all < 1 << 20);
        assert!(disk_bytes(&directory.path().join("missing"), "none").is_err());
    }
}
