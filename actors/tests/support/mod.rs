//! What tests of the public interface share.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;

use treering::Options;

/// Small limits, so that caches, segments and logs run over.
pub fn options() -> Options {
    Options::new()
        .cache_bytes(4 << 20)
        .log_segment_bytes(1 << 20)
        .checkpoint_log_bytes(8 << 20)
}

/// What a crash leaves: no last checkpoint.
pub fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
