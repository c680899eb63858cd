//! Applying one request to the tip: the tree operation, its log record and its outcome.
//!
//! A miss leaves everything as it was. The log record is written exactly when the tree changed.

use std::borrow::Cow;

use treering_engine::Extent;
use treering_engine::TreeId;
use treering_engine::log::{Record, RecordWriter};
use treering_engine::page::{self, ValueRef};
use treering_engine::tree::{self, Change, Decision, Miss, Root};

use super::large::Large;
use super::messages::{Action, Condition, Request, Stored, ValueKind};
use super::relocate::relocate;
use super::store::TipStore;
use super::update::UpdateFunction;
use crate::blob::blob_extents;
use crate::client::VALUE_BYTES_MAX;
use crate::error::{Error, Result};
use crate::ticket::Outcome;
use crate::value::Value;

/// How far a request came.
pub(super) enum Applied {
    /// It has run, or was refused.
    Done(Result<Outcome>),
    /// It needs the value of this blob first.
    Needs(Box<[u8]>),
    /// Its closure made this of `old`, and it has to be written to extents of its own first.
    Made { old: Stored, new: Vec<u8> },
}

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

fn stored(value: Option<ValueRef<'_>>) -> Stored {
    match value {
        None => Stored::Absent,
        Some(ValueRef::Inline(bytes)) => Stored::Inline(bytes.into()),
        Some(ValueRef::Blob(descriptor)) => Stored::Blob(descriptor.into()),
    }
}

/// The value of a blob, if it was brought.
fn read(large: Option<&Large>, wanted: &[u8]) -> Option<Result<Value>> {
    match large {
        Some(Large::Read { descriptor, value }) if **descriptor == *wanted => Some(value.clone()),
        _ => None,
    }
}

/// Runs a request that names one key. `Err` is a miss: nothing was changed.
pub(super) fn apply(
    store: &mut TipStore<'_>,
    root: &mut Root,
    request: &mut Request,
    large: Option<&Large>,
    notes: &mut Notes<'_>,
) -> std::result::Result<Applied, Miss> {
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
                return Ok(Applied::Done(Ok(Outcome::Done)));
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
            Ok(Applied::Done(outcome))
        }
        Action::Delete { key } => {
            let present = tree::delete(store, root, key)?;
            if present {
                notes.delete(tree, key);
            }
            Ok(Applied::Done(Ok(Outcome::Present(present))))
        }
        Action::Get { key } => Ok(match tree::get(store, root, key)? {
            None => Applied::Done(Ok(Outcome::Value(None))),
            Some(ValueRef::Inline(bytes)) => Applied::Done(Ok(Outcome::Value(Some(bytes.into())))),
            Some(ValueRef::Blob(descriptor)) => match read(large, descriptor) {
                None => Applied::Needs(descriptor.into()),
                Some(value) => Applied::Done(value.map(|value| Outcome::Value(Some(value)))),
            },
        }),
        Action::Swap { key, expected, new } => {
            swap(store, root, (tree, key), (expected.as_deref(), new), large, notes)
        }
        Action::Update { key, function } => update(store, root, (tree, key), function, large, notes),
        Action::MoveBlob { key, old, new } => {
            let is_same = |value: Option<ValueRef<'_>>| value == Some(ValueRef::Blob(old));
            let (change, ()) = tree::modify(store, root, key, |value| {
                let decision = if is_same(value) {
                    Decision::PutBlob(Cow::Borrowed(&**new))
                } else {
                    Decision::Keep
                };
                (decision, ())
            })?;
            if change.is_some() {
                notes.put(tree, key, ValueRef::Blob(new));
            } else {
                notes.unused(ValueRef::Blob(new));
            }
            Ok(Applied::Done(Ok(Outcome::Present(change.is_some()))))
        }
        Action::Relocate { from, below } => Ok(Applied::Done(Ok(relocate(store, root, from, *below)?))),
        Action::Batch { .. }
        | Action::Transaction(_)
        | Action::Fence
        | Action::Replay(_)
        | Action::DropTree
        | Action::PrepareLoad
        | Action::ForgetEmpty
        | Action::Load(_) => {
            unreachable!("requests for several keys are run by their own code")
        }
    }
}

fn swap(
    store: &mut TipStore<'_>,
    root: &mut Root,
    (tree, key): (TreeId, &[u8]),
    (expected, new): (Option<&[u8]>, &Stored),
    large: Option<&Large>,
    notes: &mut Notes<'_>,
) -> std::result::Result<Applied, Miss> {
    let (change, applied) = tree::modify(store, root, key, |old| {
        let brought = match old {
            Some(ValueRef::Blob(descriptor)) => match read(large, descriptor) {
                None => return (Decision::Keep, Applied::Needs(descriptor.into())),
                Some(Err(error)) => return (Decision::Keep, Applied::Done(Err(error))),
                Some(Ok(value)) => Some(value),
            },
            _ => None,
        };
        let current = match old {
            Some(ValueRef::Inline(bytes)) => Some(bytes),
            _ => brought.as_deref(),
        };
        if current != expected {
            let found = match old {
                Some(ValueRef::Inline(bytes)) => Some(bytes.into()),
                _ => brought,
            };
            return (Decision::Keep, Applied::Done(Ok(Outcome::Swapped(Err(found)))));
        }
        let decision = match new {
            Stored::Absent => Decision::Delete,
            Stored::Inline(bytes) => Decision::Put(Cow::Borrowed(&**bytes)),
            Stored::Blob(bytes) => Decision::PutBlob(Cow::Borrowed(&**bytes)),
        };
        (decision, Applied::Done(Ok(Outcome::Swapped(Ok(())))))
    })?;
    let new_value = match new {
        Stored::Absent => None,
        Stored::Inline(bytes) => Some(ValueRef::Inline(bytes)),
        Stored::Blob(bytes) => Some(ValueRef::Blob(bytes)),
    };
    match (change, new_value) {
        (Some(Change::Deleted), _) => notes.delete(tree, key),
        (Some(_), Some(value)) => notes.put(tree, key, value),
        (None, Some(value)) if matches!(applied, Applied::Done(_)) => notes.unused(value),
        (Some(_) | None, _) => {}
    }
    Ok(applied)
}

fn update(
    store: &mut TipStore<'_>,
    root: &mut Root,
    (tree, key): (TreeId, &[u8]),
    function: &mut UpdateFunction,
    large: Option<&Large>,
    notes: &mut Notes<'_>,
) -> std::result::Result<Applied, Miss> {
    let inline_max = page::max_inline_value_bytes(store.memory.page_bytes());
    let done = |result: Result<()>| Applied::Done(result.map(|()| Outcome::Done));
    let mut named = false;
    let (change, applied) = tree::modify(store, root, key, |old| {
        if let Some(Large::Written {
            old: seen,
            descriptor,
        }) = large
            && stored(old) == *seen
        {
            named = true;
            notes.put(tree, key, ValueRef::Blob(descriptor));
            return (Decision::PutBlob(Cow::Borrowed(&**descriptor)), done(Ok(())));
        }
        let made = match old {
            None => function.call(None),
            Some(ValueRef::Inline(bytes)) => function.call(Some(bytes)),
            Some(ValueRef::Blob(descriptor)) => match read(large, descriptor) {
                None => return (Decision::Keep, Applied::Needs(descriptor.into())),
                Some(value) => value.and_then(|value| function.call(Some(&value))),
            },
        };
        match made {
            Err(error) => (Decision::Keep, done(Err(error))),
            Ok(Some(new)) if new.len() as u64 > VALUE_BYTES_MAX => {
                let error = Error::ValueTooLarge {
                    bytes: new.len() as u64,
                    limit_bytes: VALUE_BYTES_MAX,
                };
                (Decision::Keep, done(Err(error)))
            }
            Ok(Some(new)) if new.len() > inline_max => {
                let old = stored(old);
                (Decision::Keep, Applied::Made { old, new })
            }
            Ok(Some(new)) => {
                notes.put(tree, key, ValueRef::Inline(&new));
                (Decision::Put(Cow::Owned(new)), done(Ok(())))
            }
            Ok(None) => (Decision::Delete, done(Ok(()))),
        }
    })?;
    if change == Some(Change::Deleted) {
        notes.delete(tree, key);
    }
    if let Some(Large::Written { descriptor, .. }) = large
        && !named
    {
        notes.unused(ValueRef::Blob(descriptor));
    }
    Ok(applied)
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
