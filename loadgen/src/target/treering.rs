//! Treering behind the generator's traits: a thin layer that renames.

use std::future::Future;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde_json::{Map, Value};
use treering::{Db, Durability, Error, IoBackend, Options, Ticket, Tree};

use super::{Opener, Session, Target, TargetError};
use crate::plan::{self, StoreOptions};

/// The tree that holds the records, named as YCSB's table.
const TREE: &str = "usertable";

/// A map of some fields of a struct, by their names.
macro_rules! fields {
    ($from:ident: $($field:ident),*) => {
        Map::from_iter([$((stringify!($field).to_owned(), Value::from($from.$field))),*])
    };
}

/// Opens Treering databases.
#[derive(Clone, Copy, Debug, Default)]
pub struct Treering;

impl Opener for Treering {
    type Target = Db;

    fn open(&self, directory: &Path, options: &StoreOptions) -> Result<Db, TargetError> {
        let mut open = Options::new()
            .durability(match options.durability {
                plan::Durability::Sync => Durability::Sync,
                plan::Durability::Buffered => Durability::Buffered,
            })
            .io(match options.io {
                plan::Io::Auto => IoBackend::Auto,
                plan::Io::Uring => IoBackend::Uring,
                plan::Io::Blocking => IoBackend::Blocking,
            });
        if let Some(bytes) = options.cache_bytes {
            open = open.cache_bytes(bytes);
        }
        if let Some(bytes) = options.page_bytes {
            open = open.page_size(bytes);
        }
        if let Some(count) = options.shards {
            open = open.shards(count);
        }
        if let Some(bytes) = options.checkpoint_log_bytes {
            open = open.checkpoint_log_bytes(bytes);
        }
        Ok(open.open(directory)?)
    }
}

impl Target for Db {
    type Session = Tree;

    fn session(&self) -> Result<Tree, TargetError> {
        Ok(self.client().tree(TREE)?)
    }

    fn flush(&self) -> Result<(), TargetError> {
        Ok(Db::flush(self)?)
    }

    fn stats(&self) -> Map<String, Value> {
        let stats = Db::stats(self);
        fields!(
            stats: hits, misses, evictions, flushes, background_flushes, pages_read, pages_written, log_groups, log_bytes,
            syncs, commit_groups, committed_operations, commits_per_group_p50, commits_per_group_max, parked,
            checkpoints, checkpoint_seq, checkpoint_age_nanos, log_length_bytes, published_seq, live_versions,
            oldest_live_seq, retained_pages, file_pages, free_pages, dirty_pages, frames, frames_free,
            frames_available, frames_in_limbo, shard_queue_depth, page_bytes, records_replayed, recovery_nanos
        )
    }

    fn close(self) -> Result<(), TargetError> {
        Ok(Db::close(self)?)
    }
}

impl Session for Tree {
    type Pending = Pending;

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), TargetError> {
        Ok(Tree::put(self, key, value)?)
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), TargetError> {
        Ok(Tree::insert(self, key, value)?)
    }

    fn update<F>(&self, key: &[u8], change: F) -> Result<(), TargetError>
    where
        F: FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static,
    {
        Ok(Tree::update(self, key, change)?)
    }

    fn send_put(&self, key: &[u8], value: &[u8]) -> Result<Pending, TargetError> {
        Ok(Pending(Tree::send_put(self, key, value)?))
    }

    fn send_update<F>(&self, key: &[u8], change: F) -> Result<Pending, TargetError>
    where
        F: FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static,
    {
        Ok(Pending(Tree::send_update(self, key, change)?))
    }

    fn send_batch(&self, records: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Pending, TargetError> {
        Ok(Pending(Tree::send_batch(self, records)?))
    }

    fn get<R>(&self, key: &[u8], look: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, TargetError> {
        // The plain get, with a value of its own, because that is what most programs call.
        Ok(look(Tree::get(self, key)?.as_deref()))
    }

    fn get_many(
        &self,
        keys: &[&[u8]],
        mut look: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), TargetError> {
        for (place, value) in Tree::get_many(self, keys)?.iter().enumerate() {
            look(place, value.as_deref());
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], limit: u64, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), TargetError> {
        if limit == 0 {
            return Ok(());
        }
        let mut left = limit;
        Tree::scan::<&[u8]>(self, (Bound::Included(from), Bound::Unbounded), |key, value| {
            visit(key, value);
            left -= 1;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(())
    }

    fn len(&self) -> Result<u64, TargetError> {
        Ok(Tree::len(self)?)
    }
}

/// A ticket of a write.
#[derive(Debug)]
pub struct Pending(Ticket<()>);

impl Future for Pending {
    type Output = Result<(), TargetError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Pending(ticket) = self.get_mut();
        Pin::new(ticket).poll(context).map(|done| Ok(done?))
    }
}

impl From<Error> for TargetError {
    fn from(error: Error) -> TargetError {
        let is_final = matches!(error, Error::Poisoned { .. } | Error::Closed);
        TargetError {
            message: error.to_string(),
            is_final,
        }
    }
}
