//! What changed between two snapshots, key by key, without reading what they share.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use treering_engine::catalog::TreeState;
use treering_engine::page::ValueRef;
use treering_engine::tree::{self, Difference, Miss, Part};
use treering_engine::{PageRef, TreeId};

use super::db::Inner;
use super::held::Held;
use super::node_view::NodeView;
use super::read::tree_of;
use crate::error::{Error, Result};
use crate::pager::{Kept, PagerMessage, Waiter};
use crate::shared::{Version, with_guard};
use crate::value::Value;

/// Bytes of keys and values that are copied at a time.
const RUN_BYTES: usize = 32 << 10;
/// Nodes of either snapshot that are read ahead once one was missed.
const READ_AHEAD_NODES: usize = 16;

/// A key whose value differs between two snapshots. At least one of the values is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key.
    pub key: Value,
    /// Its value in the older snapshot; `None`: it was inserted since.
    pub old: Option<Value>,
    /// Its value in the newer snapshot; `None`: it was deleted since.
    pub new: Option<Value>,
}

/// The changes of a tree between two snapshots, in key order.
///
/// Takes time in proportion to what differs: subtrees that both share are skipped unread. Holds both versions, and
/// pins nothing between two items.
pub struct Diff {
    inner: Arc<Inner>,
    /// Kept alive, with all their pages, for as long as they are compared.
    versions: Arc<[Arc<Version>; 2]>,
    comparison: tree::Diff,
    /// Copied differences that were not handed out yet.
    run: VecDeque<Copied>,
    done: bool,
}

/// A difference, with blobs not read yet.
struct Copied {
    bytes: Arc<[u8]>,
    key_bytes: usize,
    old: Option<Place>,
    new: Option<Place>,
}

/// Where a value stands behind its key.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    length: usize,
    is_blob: bool,
}

impl Diff {
    pub(super) fn new(
        inner: Arc<Inner>,
        older: Arc<Version>,
        newer: Arc<Version>,
        tree: TreeId,
    ) -> Result<Diff> {
        let comparison = match (tree_of(&older, tree), tree_of(&newer, tree)) {
            (Err(error), Err(_)) => return Err(error),
            // A tree that isn't there has no keys.
            (old, new) => tree::Diff::of_parts(parts(old.ok()), parts(new.ok())),
        };
        Ok(Diff {
            inner,
            versions: Arc::new([older, newer]),
            comparison,
            run: VecDeque::new(),
            done: false,
        })
    }

    /// Copies some differences, bringing what isn't in memory; false when there are no more.
    fn refill(&mut self) -> Result<bool> {
        let Diff {
            inner,
            versions,
            comparison,
            run,
            done,
            ..
        } = self;
        let shared = &inner.runtime.shared;
        // Only kept, never looked at: its end gives the hold back.
        let mut _held = Held::new(inner);
        while run.is_empty() && !*done {
            let mut copied_bytes = 0;
            let step = with_guard(&shared.memory, |guard| {
                let view = NodeView::beside(shared.memory.view(guard), &inner.runtime);
                comparison.next_run(&view, |difference| {
                    let copied = Copied::of(&difference);
                    copied_bytes += copied.bytes.len();
                    run.push_back(copied);
                    if copied_bytes < RUN_BYTES {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                })
            });
            match step {
                Ok(more) => *done = !more,
                // What was found before it is handed out first; the page is missed again then.
                Err(_) if !run.is_empty() => {}
                Err(Miss(reference)) => {
                    read_ahead(inner, versions, comparison, reference);
                    // Nothing is held while a page is waited for: see `read_version`.
                    _held = Held::new(inner);
                    _held = Held::of(inner, inner.runtime.fetch(reference)?);
                }
            }
        }
        Ok(!run.is_empty())
    }

    fn take(&mut self) -> Result<Option<Change>> {
        loop {
            if self.run.is_empty() && !self.refill()? {
                return Ok(None);
            }
            let Some(copied) = self.run.pop_front() else {
                return Ok(None);
            };
            let change = Change {
                key: Value::part(&copied.bytes, 0, copied.key_bytes),
                old: copied.value(copied.old, &self.inner)?,
                new: copied.value(copied.new, &self.inner)?,
            };
            // A blob that was written anew with the same bytes is another blob, but no change.
            if change.old != change.new {
                return Ok(Some(change));
            }
        }
    }
}

impl Iterator for Diff {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        let taken = self.take();
        if taken.is_err() {
            // It ends here: going on could leave changes out unnoticed.
            self.run.clear();
            self.done = true;
        }
        taken.transpose()
    }
}

impl Copied {
    fn of(difference: &Difference<'_>) -> Copied {
        let mut bytes = Vec::with_capacity(
            difference.key.len()
                + difference.old.map_or(0, |value| value.bytes().len())
                + difference.new.map_or(0, |value| value.bytes().len()),
        );
        bytes.extend_from_slice(difference.key);
        let mut place = |value: ValueRef<'_>| {
            let start = bytes.len();
            bytes.extend_from_slice(value.bytes());
            Place {
                start,
                length: value.bytes().len(),
                is_blob: matches!(value, ValueRef::Blob(_)),
            }
        };
        let (old, new) = (difference.old.map(&mut place), difference.new.map(&mut place));
        Copied {
            key_bytes: difference.key.len(),
            bytes: Arc::from(bytes),
            old,
            new,
        }
    }

    fn value(&self, place: Option<Place>, inner: &Inner) -> Result<Option<Value>> {
        let Some(place) = place else { return Ok(None) };
        let value = Value::part(&self.bytes, place.start, place.length);
        if place.is_blob {
            return inner.read_blob(&value).map(Some);
        }
        Ok(Some(value))
    }
}

fn parts(state: Option<&TreeState>) -> Vec<Part> {
    let partitions = state.map_or(&[][..], |state| &state.partitions);
    partitions
        .iter()
        .map(|partition| (Arc::clone(&partition.lower), partition.root))
        .collect()
}

/// Asks for the nodes that will be missed next.
fn read_ahead(inner: &Inner, versions: &Arc<[Arc<Version>; 2]>, comparison: &tree::Diff, missed: PageRef) {
    let shared = &inner.runtime.shared;
    let mut ahead: Vec<PageRef> = Vec::new();
    with_guard(&shared.memory, |guard| {
        let view = NodeView::new(shared.memory.view(guard));
        let count = READ_AHEAD_NODES.min(shared.settings.fetched_max / 2);
        comparison.upcoming(&view, count, &mut ahead);
    });
    for reference in ahead.into_iter().filter(|next| next.id != missed.id) {
        inner.runtime.send_pager(PagerMessage::Fetch {
            reference,
            waiter: Waiter::Nobody {
                kept: Arc::clone(versions) as Kept,
            },
        });
    }
}

/// Checks that a snapshot is one of this database.
pub(super) fn check_own(inner: &Arc<Inner>, of: &Arc<Inner>) -> Result<()> {
    if Arc::ptr_eq(inner, of) {
        Ok(())
    } else {
        Err(Error::ForeignSnapshot)
    }
}

impl std::fmt::Debug for Diff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Diff")
            .field("older", &self.versions[0].seq)
            .field("newer", &self.versions[1].seq)
            .finish_non_exhaustive()
    }
}
