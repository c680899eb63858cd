//! The one error type of the public interface.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use treering_engine::TreeId;

/// What every fallible call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong. Each variant names what, where and why; none of them is reported by a
/// panic. Clones share their sources, since one failed sync answers many waiting writers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key of no bytes.
    #[error("the key is empty; keys have at least one byte")]
    KeyEmpty,
    /// A key beyond a quarter of the page size.
    #[error("the key has {bytes} bytes; the limit for this page size is {limit_bytes}")]
    KeyTooLarge {
        /// Length of the refused key.
        bytes: usize,
        /// Longest key that this database takes.
        limit_bytes: usize,
    },
    /// A value beyond 1 GiB.
    #[error("the value has {bytes} bytes; the limit is {limit_bytes}")]
    ValueTooLarge {
        /// Length of the refused value.
        bytes: u64,
        /// Longest value.
        limit_bytes: u64,
    },
    /// `insert` of a key that is there.
    #[error("the key exists already")]
    KeyExists,
    /// `replace` of a key that is not there.
    #[error("the key was not found")]
    KeyNotFound,
    /// `open_tree` or a handle whose tree was dropped.
    #[error("there is no tree {name:?}")]
    TreeNotFound {
        /// Name (or number) of the tree.
        name: String,
    },
    /// `create_tree` of a name that is taken.
    #[error("there is a tree {name:?} already")]
    TreeExists {
        /// Name of the tree.
        name: String,
    },
    /// A tree name that can't be stored.
    #[error("the tree name {name:?} can't be used: {reason}")]
    TreeNameInvalid {
        /// The refused name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// No named snapshot has this name.
    #[error("there is no named snapshot {name:?}")]
    SnapshotNotFound {
        /// The name.
        name: String,
    },
    /// `create_named_snapshot` with a name that is taken.
    #[error("there is a named snapshot {name:?} already")]
    SnapshotExists {
        /// The name.
        name: String,
    },
    /// A name of a snapshot that can't be stored.
    #[error("the snapshot name {name:?} can't be used: {reason}")]
    SnapshotNameInvalid {
        /// The refused name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// `snapshot_at` of a commit group that is not retained any more, or that has not come yet.
    #[error("version {seq} can't be had: retained is what lies between {oldest} and {newest}")]
    VersionGone {
        /// The commit group asked for.
        seq: u64,
        /// The oldest version that is retained.
        oldest: u64,
        /// The newest version.
        newest: u64,
    },
    /// A snapshot that was taken of another database, or before this one was reopened.
    #[error("the snapshot belongs to another database, or to an earlier opening of this one")]
    ForeignSnapshot,
    /// A tree of another database, or from before this one was reopened, was used with a client, a snapshot, a batch or
    /// a transaction of this one.
    #[error("the tree {name:?} belongs to another database, or to an earlier opening of this one")]
    ForeignTree {
        /// Name of the tree.
        name: String,
    },
    /// The directory that a backup was to be written to holds a database already.
    #[error("{path:?} holds a database already")]
    BackupExists {
        /// The directory.
        path: PathBuf,
    },
    /// A bulk load into a tree that holds something, or has been cut into partitions.
    #[error(
        "only an empty tree in one piece can be loaded; this one holds {entries} entries in its first partition"
    )]
    TreeNotEmpty {
        /// How many its first partition holds.
        entries: u64,
    },
    /// A bulk load whose keys don't ascend, or come twice; the tree is as it was.
    #[error("the key of entry {position} isn't greater than the one before it")]
    NotSorted {
        /// Which entry, counted from 0.
        position: u64,
    },
    /// A directory that was to be restored is no backup, or doesn't follow the one before.
    #[error("{path:?} can't be restored: {reason}")]
    NotABackup {
        /// The directory, or the file in it.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A batch that doesn't fit the log or the cache; nothing of it was applied.
    #[error("the batch needs {needed} {unit}, more than the {limit} that one commit may take")]
    TransactionTooLarge {
        /// What it would have taken.
        needed: u64,
        /// What one commit may take.
        limit: u64,
        /// What is counted: bytes of log or pages.
        unit: &'static str,
    },
    /// Another transaction, or a single write, has changed what this transaction relied on; nothing of it was applied.
    /// Try again.
    #[error("what the transaction relied on was changed meanwhile; nothing was applied, try again")]
    Conflict,
    /// A shipped closure panicked; nothing of its request was applied.
    #[error("the closure passed to update panicked; its key is unchanged")]
    ClosurePanicked,
    /// A closure given to [`update`](crate::Tree::update), or something that it drops or wakes, called the database and
    /// would have waited for the step that it is part of. Nothing was done.
    ///
    /// Reads of what is in memory and sending (`send_…`, without waiting for the ticket) are possible there, but for
    /// this error whenever they would have to wait: reading, for a page; sending, for room in a full mailbox, or for
    /// memory for a large request. With more than one shard, sending something for several keys or a whole tree (a batch,
    /// a transaction, the dropping of a tree) also waits while a key range moves from one shard to another, which takes
    /// milliseconds, at worst about a second; and, over several shards, for what the database's clients have pipelined to
    /// them before. A closure that must send such a thing had better leave that to another thread.
    #[error("a closure that runs inside the database can't wait for it; nothing was done")]
    WouldDeadlock,
    /// Another process, or another handle of this one, has the directory open.
    #[error("{path:?} is open already, here or in another process")]
    AlreadyOpen {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something, but no Treering database.
    #[error("{path:?} is not a Treering database: {reason}")]
    NotADatabase {
        /// The directory.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// Written by a newer release, or an older one that is no longer read.
    #[error("the database has format {found}, this release reads {supported}")]
    UnsupportedFormat {
        /// Format number in the superblock.
        found: u32,
        /// Format number of this release.
        supported: u32,
    },
    /// Options that contradict each other or the database's own.
    #[error("option {option}: {reason}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes on disk are not what was written.
    #[error("{file} is corrupt at byte {offset}{of}: {reason}", of = of_page(*page))]
    Corrupt {
        /// File name inside the database directory.
        file: String,
        /// Byte offset in that file.
        offset: u64,
        /// Page id, where a page of the data file is meant.
        page: Option<u32>,
        /// What is wrong.
        reason: String,
    },
    /// The device, the file size limit, or the memory of an in-memory database is used up. Nothing changed.
    #[error("out of space: {what}; nothing was changed")]
    OutOfSpace {
        /// What could not be had.
        what: String,
    },
    /// A write to the log or to a superblock failed earlier. Reads go on; writes need the database reopened.
    #[error("writes are refused since an earlier failure ({cause}); reopen the database")]
    Poisoned {
        /// The failure that poisoned the database.
        #[source]
        cause: Arc<io::Error>,
    },
    /// The write was on its way to the log when that failed: it may or may not be there after reopening.
    #[error("the outcome of this write is unknown: {cause}")]
    OutcomeUnknown {
        /// The failure.
        #[source]
        cause: Arc<io::Error>,
    },
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// Reading or writing a file failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, and on which file.
        what: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// Wraps a system error with what was attempted.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Error {
        if source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::FileTooLarge {
            return Error::OutOfSpace {
                what: format!("{}: {source}", what.into()),
            };
        }
        Error::Io {
            what: what.into(),
            source: Arc::new(source),
        }
    }

    /// The error about a tree that isn't there any more, for those who only know its number.
    pub(crate) fn no_tree(tree: TreeId) -> Error {
        Error::TreeNotFound {
            name: format!("#{}", tree.0),
        }
    }
}

/// How a message names a page, if there is one to name.
fn of_page(page: Option<u32>) -> String {
    page.map_or_else(String::new, |page| format!(" (page {page})"))
}
