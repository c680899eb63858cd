//! How much memory this process occupies, and how to confine it to a cgroup.

use std::fs;
use std::path::Path;

use treering_engine::memory::HugeBytes;

use crate::Result;

/// Resident memory of this process, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// The most that was ever resident at once, mapped files included.
    pub peak: u64,
    /// Heap, stacks and anonymous maps now.
    pub anonymous: u64,
    /// Mapped files now (the binary; LMDB's data).
    pub mapped: u64,
}

/// Reads the kernel's counters for this process.
///
/// # Errors
/// When `/proc` isn't there or lacks a counter.
pub fn resident() -> Result<Resident> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> Result<u64> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .map(|kibibytes| kibibytes << 10)
            .ok_or_else(|| format!("no {name} in /proc/self/status").into())
    };
    Ok(Resident {
        peak: field("VmHWM")?,
        anonymous: field("RssAnon")? + field("RssShmem")?,
        mapped: field("RssFile")?,
    })
}

/// Touches so many bytes of memory and gives them back at once.
///
/// On a virtual machine whose host takes free memory away, the first use of memory costs up to two seconds a gigabyte, fifty
/// times as much as otherwise, and which row pays for that is chance. After this call none does, for a second or two.
pub fn warm(bytes: u64) {
    const STEP_BYTES: usize = 4096;
    let mut memory = HugeBytes::zeroed(bytes as usize);
    for byte in memory.iter_mut().step_by(STEP_BYTES) {
        *byte = 1;
    }
    std::hint::black_box(&memory[..]);
}

/// Limits the cgroup at `directory` to `limit_bytes` of memory, page cache included, and moves this
/// process into it. Understands version 1 and version 2 groups.
///
/// The group must exist and be writable: making one is the operator's decision, not a benchmark's.
///
/// # Errors
/// When the directory isn't a memory cgroup or may not be written.
pub fn confine(directory: &Path, limit_bytes: u64) -> Result<()> {
    let version_two = directory.join("memory.max");
    let limit_file = if version_two.exists() {
        version_two
    } else {
        directory.join("memory.limit_in_bytes")
    };
    fs::write(&limit_file, limit_bytes.to_string())
        .map_err(|error| format!("{}: {error}", limit_file.display()))?;
    let members = directory.join("cgroup.procs");
    fs::write(&members, std::process::id().to_string())
        .map_err(|error| format!("{}: {error}", members.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_shows_up() {
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let resident = resident().expect("readable");
        assert!(resident.anonymous >= 64 << 20, "{resident:?}");
        assert!(resident.peak >= resident.anonymous, "{resident:?}");
        drop(block);
    }

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("missing");
        assert!(confine(&missing, 1 << 30).is_err());
    }
}
