//! What programs hold: the database, its clients, trees, snapshots and ranges.
//!
//! Reads run on the caller's own thread against an immutable version; only a page that is not in memory costs a
//! message. Writes are messages to the shard that owns the key.

mod awaited;
mod backup;
mod batch;
mod blob;
mod bounds;
mod bulk_load;
mod changes;
mod close;
mod compact;
mod db;
mod diff;
mod fence;
mod held;
mod node_view;
mod pipelined;
mod range;
mod read;
mod restore;
mod scan;
mod send_transaction;
mod snapshot;
mod subscription;
mod transaction;
mod tree;
mod write;
mod written_file;

pub use awaited::Awaiting;
pub use backup::Backup;
pub use batch::Batch;
pub use bounds::KeyBounds;
pub use compact::Compaction;
pub use db::{Client, Db};
pub use diff::{Change, Diff};
pub(crate) use node_view::NodeView;
pub use range::Range;
pub use restore::IncrementalBackup;
pub(crate) use restore::{BACKUP_FILE, Chain, RESTORING_FILE};
pub use snapshot::Snapshot;
pub use subscription::{Event, Subscription};
pub use transaction::{Isolation, Transaction, TransactionRange};
pub use tree::Tree;

/// Longest value, bytes.
pub(crate) const VALUE_BYTES_MAX: u64 = 1 << 30;
