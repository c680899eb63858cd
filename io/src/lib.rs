//! How bytes reach a device: the only crate of Treering that opens files.
//!
//! Three traits, and backends for each:
//!
//! | trait | job | backends |
//! |---|---|---|
//! | [`Directory`] | names, creation, removal, the exclusive lock | [`OsDirectory`], [`MemoryDirectory`], [`SimDirectory`] |
//! | [`File`] | whole-or-error reads and writes from any thread, growth, syncs | of each directory |
//! | [`Device`] | many [`Operation`]s in flight, owned by one thread | [`UringDevice`], [`BlockingDevice`], [`InlineDevice`], [`SimDevice`] |
//!
//! Any device serves any file: a file that has no descriptor is served inline. [`open_device`] chooses
//! io_uring and falls back to a pool of threads where the system refuses it.
//!
//! Guarantees that every backend keeps (one conformance suite tests them all):
//!
//! - A transfer is whole or an error; short transfers are continued inside.
//! - A device owns an operation's buffer from [`Device::submit`] until its [`Completion`], and
//!   gives every buffer back exactly once; dropping a device waits for what is in flight.
//! - Every error names the file, the action and the offset ([`FileError`]).
//!
//! Absent from here: pages, checksums, log records, retries and any decision about what an error means.

#![deny(missing_docs)]

mod blocking;
mod buffer;
mod device;
mod directory;
mod error;
mod file;
mod inline;
mod lock;
mod memory;
mod operation;
mod os;
mod sim;
mod transfer;
mod uring;
mod waker;

pub use blocking::BlockingDevice;
pub use buffer::{AlignedBuffer, Buffer, RawBuffer};
pub use device::{BackendChoice, Device, DeviceKind, Wait, open_device};
pub use directory::{Directory, OpenMode};
pub use error::{FileError, os_error_code};
pub use file::File;
pub use inline::InlineDevice;
pub use lock::{DirectoryLock, LockError};
pub use memory::MemoryDirectory;
pub use operation::{Completion, Operation, OperationKind, execute_blocking};
pub use os::OsDirectory;
pub use sim::{FaultKind, FaultRates, SimCounters, SimDevice, SimDirectory, SimOptions};
pub use uring::UringDevice;
pub use waker::DeviceWaker;

/// Alignment and granule of direct I/O in bytes: offsets, lengths and addresses that are multiples of
/// it suit every device.
pub const BLOCK_BYTES: usize = 4096;
