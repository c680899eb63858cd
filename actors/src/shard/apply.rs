//! Applying one request to the tip: the tree operation, its log record and its outcome.
//!
//! A miss leaves everything as it was. The log record is written exactly when the tree changed.

use std::borrow::Cow;

use treering_engine::Extent;
use treering_engine::TreeId;
use treering_engine::log::{Record, RecordWriter};
use treering_engine::page::{self, ValueRef};
use treering_engine::tree::{self, Change, Decision, Miss, Root};

use super::messages::{Action, Condition, Request, Stored, ValueKind};
use super::store::TipStore;
use super::update::UpdateFunction;
use crate::client::blob_extents;
use crate::error::{Error, Result};
use crate::ticket::Outcome;

/// Where changes are noted besides the tree.
pub(super) struct Notes<'n> {
    pub records: &'n mut Vec<u8>,
    pub extents_added: &'n mut Vec<Extent>,
    pub extents_unused: &'n mut Vec<Extent>,
}

impl Notes<'_> {
    fn put(&mut self, tree: TreeId, key: &[u8], value: ValueRef<'_>) {
        match value {
            ValueRef::Inline(bytes) => RecordWriter(self.records).put(tree, key, bytes),
            ValueRef::Blob(descriptor) => {
                RecordWriter(self.records).put_blob(tree, key, descriptor);
                self.extents_added
                    .extend(blob_extents(descriptor).map(|retired| retired.extent));
            }
        }
    }

    fn delete(&mut self, tree: TreeId, key: &[u8]) {
        RecordWriter(self.records).delete(tree, key);
    }

    /// The request that brought this value was refused: the extents of a blob are free again.
    fn unused(&mut self, value: ValueRef<'_>) {
        if let ValueRef::Blob(descriptor) = value {
            self.extents_unused
                .extend(blob_extents(descriptor).map(|retired| retired.extent));
        }
    }
}

fn value_ref(bytes: &[u8], kind: ValueKind) -> ValueRef<'_> {
    match kind {
        ValueKind::Inline => ValueRef::Inline(bytes),
        ValueKind::Blob => ValueRef::Blob(bytes),
    }
}

fn decision(value: ValueRef<'_>) -> Decision<'_> {
    match value {
        ValueRef::Inline(bytes) => Decision::Put(Cow::Borrowed(bytes)),
        ValueRef::Blob(bytes) => Decision::PutBlob(Cow::Borrowed(bytes)),
    }
}

/// Runs a request that names one key. `Err` is a miss: nothing was changed.
pub(super) fn apply(
    store: &mut TipStore<'_>,
    root: &mut Root,
    request: &mut Request,
    notes: &mut Notes<'_>,
) -> std::result::Result<Result<Outcome>, Miss> {
    let tree = request.tree;
    match &mut request.action {
        Action::Put {
            pair,
            kind,
            condition,
        } => {
            let value = value_ref(pair.value(), *kind);
            if matches!(condition, Condition::None) {
                tree::put(store, root, pair.key(), value)?;
                notes.put(tree, pair.key(), value);
                return Ok(Ok(Outcome::Done));
            }
            let (_, outcome) = tree::modify(store, root, pair.key(), |old| match (&*condition, old) {
                (Condition::Absent, Some(_)) => (Decision::Keep, Err(Error::KeyExists)),
                (Condition::Present, None) => (Decision::Keep, Err(Error::KeyNotFound)),
                _ => (decision(value), Ok(Outcome::Done)),
            })?;
            if outcome.is_ok() {
                notes.put(tree, pair.key(), value);
            } else {
                notes.unused(value);
            }
            Ok(outcome)
        }
        Action::Delete { key } => {
            let present = tree::delete(store, root, key)?;
            if present {
                notes.delete(tree, key);
            }
            Ok(Ok(Outcome::Present(present)))
        }
        Action::Get { key } => Ok(Ok(match tree::get(store, root, key)? {
            None => Outcome::Value(None),
            Some(ValueRef::Inline(bytes)) => Outcome::Value(Some(bytes.into())),
            Some(ValueRef::Blob(_)) => Outcome::IsBlob(None),
        })),
        Action::Swap { key, expected, new } => swap(store, root, tree, key, expected, new, notes),
        Action::Update { key, function } => update(store, root, tree, key, function, notes),
        Action::Batch { .. } | Action::Replay { .. } | Action::DropTree => {
            unreachable!("requests for several keys are run by their own code")
        }
    }
}

fn swap(
    store: &mut TipStore<'_>,
    root: &mut Root,
    tree: TreeId,
    key: &[u8],
    expected: &Stored,
    new: &Stored,
    notes: &mut Notes<'_>,
) -> std::result::Result<Result<Outcome>, Miss> {
    let (change, outcome) = tree::modify(store, root, key, |old| {
        let matches = match (expected, old) {
            (Stored::Absent, None) => true,
            (Stored::Inline(bytes), Some(ValueRef::Inline(stored))) => **bytes == *stored,
            (Stored::Blob(bytes), Some(ValueRef::Blob(stored))) => **bytes == *stored,
            _ => false,
        };
        if !matches {
            let outcome = match old {
                Some(ValueRef::Blob(_)) => Outcome::IsBlob(None),
                Some(ValueRef::Inline(bytes)) => Outcome::Swapped(Err(Some(bytes.into()))),
                None => Outcome::Swapped(Err(None)),
            };
            return (Decision::Keep, outcome);
        }
        let decision = match new {
            Stored::Absent => Decision::Delete,
            Stored::Inline(bytes) => Decision::Put(Cow::Borrowed(&**bytes)),
            Stored::Blob(bytes) => Decision::PutBlob(Cow::Borrowed(&**bytes)),
        };
        (decision, Outcome::Swapped(Ok(())))
    })?;
    let new_value = match new {
        Stored::Absent => None,
        Stored::Inline(bytes) => Some(ValueRef::Inline(bytes)),
        Stored::Blob(bytes) => Some(ValueRef::Blob(bytes)),
    };
    match (change, new_value) {
        (Some(Change::Deleted), _) => notes.delete(tree, key),
        (Some(_), Some(value)) => notes.put(tree, key, value),
        (None, Some(value)) => notes.unused(value),
        (Some(_) | None, None) => {}
    }
    Ok(Ok(outcome))
}

fn update(
    store: &mut TipStore<'_>,
    root: &mut Root,
    tree: TreeId,
    key: &[u8],
    function: &mut UpdateFunction,
    notes: &mut Notes<'_>,
) -> std::result::Result<Result<Outcome>, Miss> {
    let inline_max = page::max_inline_value_bytes(store.memory.page_bytes());
    // What the request's reply shall be; `None`: the closure goes back to the client.
    let (change, outcome) = tree::modify(store, root, key, |old| {
        let old = match old {
            Some(ValueRef::Blob(_)) => return (Decision::Keep, None),
            Some(ValueRef::Inline(bytes)) => Some(bytes),
            None => None,
        };
        match function.call(old) {
            Err(error) => (Decision::Keep, Some(Err(error))),
            Ok(Some(new)) if new.len() > inline_max => (Decision::Keep, None),
            Ok(Some(new)) => {
                notes.put(tree, key, ValueRef::Inline(&new));
                (Decision::Put(Cow::Owned(new)), Some(Ok(Outcome::Done)))
            }
            Ok(None) => (Decision::Delete, Some(Ok(Outcome::Done))),
        }
    })?;
    if change == Some(Change::Deleted) {
        notes.delete(tree, key);
    }
    Ok(outcome.unwrap_or_else(|| {
        let spent = UpdateFunction::new(|_| None);
        Ok(Outcome::IsBlob(Some(std::mem::replace(function, spent))))
    }))
}

/// Applies a change that is encoded as the log holds it. It is not written to the log by this.
pub(super) fn apply_record(
    store: &mut TipStore<'_>,
    root: &mut Root,
    record: &Record<'_>,
    extents_added: &mut Vec<Extent>,
) -> std::result::Result<(), Miss> {
    match *record {
        Record::Put { key, value, .. } => {
            tree::put(store, root, key, ValueRef::Inline(value))?;
        }
        Record::PutBlob { key, descriptor, .. } => {
            tree::put(store, root, key, ValueRef::Blob(descriptor))?;
            extents_added.extend(blob_extents(descriptor).map(|retired| retired.extent));
        }
        Record::Delete { key, .. } => {
            tree::delete(store, root, key)?;
        }
        _ => {}
    }
    Ok(())
}
