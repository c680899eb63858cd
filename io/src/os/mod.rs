//! Directories and files of the operating system.

mod directory;
pub(crate) mod file;

pub use directory::OsDirectory;
