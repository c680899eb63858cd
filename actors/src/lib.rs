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
//! Where to go on reading: `docs/ARCHITECTURE.md` follows one put and one get through the code.

#![deny(missing_docs)]

mod actor;
mod blob;
mod client;
mod commit;
mod error;
mod flusher;
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

pub use client::{Backup, Batch, Change, Client, Db, Diff, KeyBounds, Range, Snapshot, Tree};
pub use error::{Error, Result};
pub use options::{Durability, IoBackend, Options, Retention};
pub use stats::{Figure, FigureKind, Histogram, Stats};
pub use ticket::Ticket;
pub use value::Value;

/// The README's example, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
