//! Opening a database: from files (or nothing) to running actors.
//!
//! | file | subject |
//! |---|---|
//! | [`open`](open), [`start`](start) | the order below; the actors' beginnings |
//! | [`claim`](claim) | keeping others out of a directory |
//! | [`create`](create) | a new database, complete before it has its name |
//! | [`load`](load) | superblocks and checkpoint image |
//! | [`log`](log), [`read_ahead`](read_ahead) | the log's files, for reading: its end, or corruption |
//! | [`gather`](gather), [`records`](records), [`chunks`](chunks) | what replay needs of the log |
//! | [`sort`](sort) | in the order of the keys, the last of each key |
//! | [`replay`](replay) | the log after the checkpoint, through the shards |
//!
//! # Order (rules R16 to R19)
//! 1. Superblocks, image: the last checkpoint.
//! 2. The log is read once to find its end, or corruption, and the blobs that it names. Its records are gathered on the
//!    way, as many as have room.
//! 3. The log's segments are synced; both superblocks get a higher generation, durably: only then may anything be
//!    appended.
//! 4. The actors start, with logging off. The extents of the blobs are reserved.
//! 5. Trees are created and dropped as the log says. The records are sorted by key (rayon), only the last of each key is
//!    applied, by the shard that owns it. What had no room is read again, gathered and applied in the same way, part by
//!    part.
//! 6. Logging goes on.

mod chunks;
mod claim;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the id of a new database is random"
)]
mod create;
mod gather;
mod history;
mod load;
mod log;
mod open;
mod read_ahead;
mod records;
mod replay;
mod sort;
mod start;

pub(crate) use self::chunks::{Change, Kind};
pub(crate) use self::claim::{Claimed, claim, claim_simulated, lock, open_or_create};
pub(crate) use self::create::{Content, check_empty, create_with, random_id};
pub(crate) use self::history::read_changes;
pub(crate) use self::open::{
    Opened, SIMULATED_ID, SIMULATED_PATH, open_directory, open_memory, open_restored, open_simulated,
};
pub(crate) use self::records::SortedRecords;
