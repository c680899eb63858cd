//! Ordered scans: a leaf at a time, from one version, in both directions.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use treering_engine::page::ValueRef;
use treering_engine::tree::{Cursor, Miss};
use treering_engine::{PageRef, TreeId};

use super::bounds::OwnedBounds;
use super::db::Inner;
use super::node_view::NodeView;
use super::read::{Held, HeldNodes, tree_of};
use crate::error::Result;
use crate::pager::{PagerMessage, Waiter};
use crate::shared::{Version, with_guard};
use crate::value::Value;

/// Leaves that are read ahead once a scan has missed one.
const READ_AHEAD_LEAVES: usize = 16;

/// The entries of a tree within bounds, in key order, all from one instant. Double-ended.
///
/// Holds its version: pages that were replaced since stay on disk for as long as it lives. It pins nothing between
/// two items.
pub struct Range {
    inner: Arc<Inner>,
    version: Arc<Version>,
    /// One for each partition within the bounds, in key order, which no direction has finished. The first is the
    /// front's, the last is the back's; they may be the same.
    parts: VecDeque<Part>,
    front: Run,
    back: Run,
}

/// The cursors of one partition.
struct Part {
    front: Cursor,
    back: Cursor,
}

/// The entries of one leaf, copied.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    shared: Option<Arc<[u8]>>,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: u32,
    key_bytes: u32,
    value_bytes: u32,
    is_blob: bool,
}

impl Run {
    fn clear(&mut self) {
        self.bytes.clear();
        self.shared = None;
        self.entries.clear();
    }

    #[inline]
    fn push(&mut self, key: &[u8], value: ValueRef<'_>) {
        let (value, is_blob) = match value {
            ValueRef::Inline(bytes) => (bytes, false),
            ValueRef::Blob(bytes) => (bytes, true),
        };
        self.entries.push_back(Entry {
            start: self.bytes.len() as u32,
            key_bytes: key.len() as u32,
            value_bytes: value.len() as u32,
            is_blob,
        });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    fn key(&self, entry: Entry) -> &[u8] {
        &self.bytes[entry.start as usize..][..entry.key_bytes as usize]
    }

    fn value(&self, entry: Entry) -> &[u8] {
        &self.bytes[(entry.start + entry.key_bytes) as usize..][..entry.value_bytes as usize]
    }

    /// One copy of the leaf, shared by all of its entries that are handed out.
    fn share(&mut self) -> &Arc<[u8]> {
        self.shared.get_or_insert_with(|| Arc::from(&self.bytes[..]))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
}

impl Range {
    pub(super) fn new(
        inner: Arc<Inner>,
        version: Arc<Version>,
        tree: TreeId,
        (lower, upper): OwnedBounds,
    ) -> Result<Range> {
        let state = tree_of(&version, tree)?;
        let first = match &lower {
            Bound::Included(key) | Bound::Excluded(key) => state.partition_for(key),
            Bound::Unbounded => 0,
        };
        let last = match &upper {
            Bound::Included(key) | Bound::Excluded(key) => state.partition_for(key),
            Bound::Unbounded => state.partitions.len() - 1,
        };
        let (lower, upper) = (as_slice(&lower), as_slice(&upper));
        let parts = state
            .partitions
            .get(first..=last)
            .unwrap_or_default()
            .iter()
            .map(|partition| Part {
                front: Cursor::ascending(partition.root, lower, upper),
                back: Cursor::descending(partition.root, lower, upper),
            })
            .collect();
        Ok(Range {
            inner,
            version,
            parts,
            front: Run::default(),
            back: Run::default(),
        })
    }

    /// Hands the remaining entries to `visit`, ascending, until it breaks. Faster than iterating: nothing is
    /// allocated per entry or leaf.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt), [`Io`](crate::Error::Io), [`Closed`](crate::Error::Closed).
    pub fn scan(mut self, mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        if self.front.entries.is_empty() && self.back.entries.is_empty() {
            return self.scan_in_place(&mut visit);
        }
        loop {
            while let Some(entry) = self.front.entries.pop_front() {
                let flow = if entry.is_blob {
                    let value = self.inner.read_blob(self.front.value(entry))?;
                    visit(self.front.key(entry), &value)
                } else {
                    visit(self.front.key(entry), self.front.value(entry))
                };
                if flow.is_break() {
                    return Ok(());
                }
            }
            if !self.refill(Side::Front)? {
                // What the other direction had copied is the rest.
                if self.back.entries.is_empty() {
                    return Ok(());
                }
                std::mem::swap(&mut self.front, &mut self.back);
                let entries: Vec<Entry> = self.front.entries.drain(..).rev().collect();
                self.front.entries.extend(entries);
            }
        }
    }

    /// Hands the entries out where they lie: the leaf is held in memory meanwhile, and no epoch is pinned.
    fn scan_in_place(&mut self, visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        let Range { inner, parts, .. } = self;
        let mut held = Held::new(inner);
        while let Some(part) = parts.front_mut() {
            let mut flow = ControlFlow::Continue(());
            let mut failure = None;
            let nodes = HeldNodes::new(inner);
            let step = part.front.next_run(&nodes, |key, value| {
                flow = match value {
                    ValueRef::Inline(bytes) => visit(key, bytes),
                    ValueRef::Blob(descriptor) => match inner.read_blob(descriptor) {
                        Ok(value) => visit(key, &value),
                        Err(error) => {
                            failure = Some(error);
                            ControlFlow::Break(())
                        }
                    },
                };
                flow
            });
            let more = match step {
                Ok(more) => more,
                Err(miss) => {
                    drop(nodes);
                    bring(inner, &part.front, miss, &mut held)?;
                    continue;
                }
            };
            if let Some(error) = failure {
                return Err(error);
            }
            if flow.is_break() {
                return Ok(());
            }
            if !more {
                parts.pop_front();
            }
        }
        Ok(())
    }

    /// Copies the next leaf of one side; false when there is none.
    fn refill(&mut self, side: Side) -> Result<bool> {
        let Range {
            inner,
            parts,
            front,
            back,
            ..
        } = self;
        let run = if side == Side::Front {
            &mut *front
        } else {
            &mut *back
        };
        run.clear();
        loop {
            let part = if side == Side::Front {
                parts.front_mut()
            } else {
                parts.back_mut()
            };
            let Some(part) = part else { return Ok(false) };
            let cursor = if side == Side::Front {
                &mut part.front
            } else {
                &mut part.back
            };
            let more = advance(inner, cursor, run)?;
            // The other direction stops before what this one has copied.
            if let Some(&last) = run.entries.back() {
                let other = if side == Side::Front {
                    &mut part.back
                } else {
                    &mut part.front
                };
                other.set_end(Bound::Excluded(run.key(last)));
            }
            if !more {
                if side == Side::Front {
                    parts.pop_front()
                } else {
                    parts.pop_back()
                };
            }
            if !run.entries.is_empty() {
                return Ok(true);
            }
        }
    }

    fn take(&mut self, side: Side) -> Option<Result<(Value, Value)>> {
        loop {
            let (mine, other) = match side {
                Side::Front => (&mut self.front, &mut self.back),
                Side::Back => (&mut self.back, &mut self.front),
            };
            if let Some(entry) = mine.entries.pop_front() {
                return Some(item(&self.inner, mine, entry));
            }
            if self.parts.is_empty() {
                // What is left was copied by the other direction, the nearest entry last.
                let entry = other.entries.pop_back()?;
                return Some(item(&self.inner, other, entry));
            }
            if let Err(error) = self.refill(side) {
                // The range ends here: going on could leave entries out unnoticed.
                self.parts.clear();
                self.front.clear();
                self.back.clear();
                return Some(Err(error));
            }
        }
    }
}

impl Iterator for Range {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take(Side::Front)
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take(Side::Back)
    }
}

fn item(inner: &Inner, run: &mut Run, entry: Entry) -> Result<(Value, Value)> {
    let bytes = run.share();
    let key = Value::part(bytes, entry.start as usize, entry.key_bytes as usize);
    let value = Value::part(
        bytes,
        (entry.start + entry.key_bytes) as usize,
        entry.value_bytes as usize,
    );
    if entry.is_blob {
        return Ok((key, inner.read_blob(&value)?));
    }
    Ok((key, value))
}

/// Copies the cursor's next leaf into `run`, bringing what isn't in memory; tells whether there may be more.
fn advance(inner: &Inner, cursor: &mut Cursor, run: &mut Run) -> Result<bool> {
    let shared = &inner.runtime.shared;
    let mut held = Held::new(inner);
    loop {
        let step = with_guard(&shared.memory, |guard| {
            cursor.next_run(&NodeView(shared.memory.view(guard)), |key, value| {
                run.push(key, value);
                ControlFlow::Continue(())
            })
        });
        match step {
            Ok(more) => return Ok(more),
            Err(miss) => bring(inner, cursor, miss, &mut held)?,
        }
    }
}

/// Brings the page that a cursor misses, and asks for the leaves behind it. The page is held by `held`, in the
/// place of what that held before: a scan that held all it ever missed could take all frames.
fn bring<'i>(inner: &'i Inner, cursor: &Cursor, miss: Miss, held: &mut Held<'i>) -> Result<()> {
    let shared = &inner.runtime.shared;
    let Miss(reference) = miss;
    let mut ahead: Vec<PageRef> = Vec::new();
    with_guard(&shared.memory, |guard| {
        let view = NodeView(shared.memory.view(guard));
        cursor.upcoming(
            &view,
            READ_AHEAD_LEAVES.min(shared.settings.fetched_max),
            &mut ahead,
        );
    });
    for reference in ahead.into_iter().filter(|next| next.id != reference.id) {
        inner.runtime.send_pager(PagerMessage::Fetch {
            reference,
            waiter: Waiter::Nobody,
        });
    }
    *held = Held::new(inner);
    *held = Held::of(inner, inner.runtime.fetch(reference)?);
    Ok(())
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

impl std::fmt::Debug for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Range")
            .field("seq", &self.version.seq)
            .finish_non_exhaustive()
    }
}
