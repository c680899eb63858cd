//! Treering: an embedded, ordered, durable, multi-version key-value store built from actors.
//!
//! Every change travels as a message to the one thread that owns its key range; every read looks at an
//! immutable picture of the whole database; a group of changes becomes visible by one pointer swap, and, under
//! [`Durability::Sync`], only after it is durable.
//!
//! ```
//! use treering::{Db, Options};
//!
//! # fn main() -> treering::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path();
//! let db = Db::open(path)?;
//! let client = db.client();
//! let users = client.tree("users")?;
//! users.put(b"ada", b"countess")?; // durable when it returns
//! assert_eq!(users.get(b"ada")?.as_deref(), Some(&b"countess"[..]));
//! for item in users.range("a".."b")? {
//!     let (key, value) = item?;
//!     println!("{key:?} = {value:?}");
//! }
//! db.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//! - Under [`Durability::Sync`], the default, an acknowledged write survives any crash, and nobody has read it before
//!   that was so. Under [`Durability::Buffered`] a crash takes back at most the newest writes: see there.
//! - A [`Batch`] is there as a whole or not at all, at every [`Snapshot`] and after every crash.
//! - After a failed write or sync of the log, writes are refused until the database is reopened ([`Error::Poisoned`]).
//!
//! # Waiting
//! Whatever waits has a form that blocks and one that doesn't; neither needs a runtime.
//!
//! - What changes something is a request. [`Tree::put`] sends it and waits; [`Tree::send_put`] sends it and returns a
//!   [`Ticket`], to be waited for, looked at, awaited, or dropped. Requests that one thread sends for one key take effect
//!   in that order. So it is with every `send_` function and its namesake.
//! - Reads run on the caller's thread. [`Tree::get`] blocks for pages that are not in memory; [`Tree::get_async`] is a
//!   future that awaits them. So it is with every `_async` function, those that open and close included.
//!
//! Closures given to [`Tree::update`] run inside the database. They can't wait for it: see [`Error::WouldDeadlock`].
//!
//! # Features
//! `metrics`: [`Stats`] through the facade of that name.
//!
//! Where to go on reading: `docs/ARCHITECTURE.md` follows one put and one get through the code.

#![deny(missing_docs)]

mod actor;
mod blob;
mod client;
mod commit;
mod error;
mod flusher;
mod foreign;
mod options;
mod pager;
mod recovery;
#[expect(
    clippy::disallowed_methods,
    reason = "threads, clocks and waiting are this module's business"
)]
mod runtime;
mod shard;
mod shared;
#[doc(hidden)]
pub mod sim;
mod stats;
mod ticket;
mod value;

pub use client::{
    Awaiting, Backup, Batch, Change, Client, Compaction, Db, Diff, Event, IncrementalBackup, Isolation,
    KeyBounds, Range, Snapshot, Subscription, Transaction, TransactionRange, Tree,
};
pub use error::{Error, Result};
pub use options::{Durability, IoBackend, Options, Retention};
pub use stats::{Figure, FigureKind, Histogram, Stats};
pub use ticket::Ticket;
pub use value::Value;

/// The README's example, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
