//! Ordered iteration: a leaf at a time, from one version, in both directions.
//!
//! The entries of a leaf are copied once, into one allocation that all keys and values taken from it share. Each
//! direction has a cursor, made when it is first asked; what one has copied is where the other ends.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use treering_engine::TreeId;
use treering_engine::catalog::Partition;
use treering_engine::tree::{Bounds, Carry, Cursor, Miss, ReadNodes, Run};

use super::bounds::OwnedBounds;
use super::db::Inner;
use super::held::Held;
use super::node_view::NodeView;
use super::read::tree_of;
use super::scan::{Scan, bring, partitions_within, read_ahead};
use crate::error::{Error, Result};
use crate::shared::{HeldFrame, Version, with_reader};
use crate::value::Value;

/// Groups published during a scan from which on the flusher is told of its end: short scans beside writers are many.
const GROUPS_KEPT_QUIETLY: u64 = 64;

/// The entries of a tree within bounds, in key order, all from one instant. Double-ended.
///
/// Holds its version: pages that were replaced since stay on disk for as long as it lives. It pins nothing between
/// two items.
pub struct Range {
    inner: Arc<Inner>,
    version: Arc<Version>,
    /// The tree's partitions, in key order.
    partitions: Arc<[Partition]>,
    /// Those that no direction has finished. The first is the front's, the last is the back's; they may be the same.
    open: std::ops::Range<usize>,
    /// Where the front began, or the last key that it has copied, excluded.
    lower: Bound<Vec<u8>>,
    /// The same of the back.
    upper: Bound<Vec<u8>>,
    front: Side,
    back: Side,
}

/// One direction.
#[derive(Default)]
struct Side {
    /// In its partition, once it was asked.
    cursor: Option<Cursor>,
    copied: Copied,
    carry: Carry,
}

/// The entries of one leaf, copied: those that were not taken yet.
#[derive(Default)]
struct Copied {
    bytes: Arc<[u8]>,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: u32,
    key_bytes: u32,
    value_bytes: u32,
    is_blob: bool,
}

impl Copied {
    fn fill(&mut self, run: &Run, page: &[u8], next: Option<&[u8]>, carry: &mut Carry) {
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, run.bytes(page)).collect();
        let Some(target) = Arc::get_mut(&mut bytes) else {
            unreachable!("nobody else has it yet")
        };
        self.entries.clear();
        self.entries.reserve(run.len());
        let mut start = 0;
        run.copy_to(page, next, carry, target, |key_bytes, value_bytes, is_blob| {
            self.entries.push_back(Entry {
                start,
                key_bytes: key_bytes as u32,
                value_bytes: value_bytes as u32,
                is_blob,
            });
            start += (key_bytes + value_bytes) as u32;
        });
        self.bytes = bytes;
    }

    fn key(&self, entry: Entry) -> &[u8] {
        &self.bytes[entry.start as usize..][..entry.key_bytes as usize]
    }

    fn value(&self, entry: Entry) -> &[u8] {
        &self.bytes[(entry.start + entry.key_bytes) as usize..][..entry.value_bytes as usize]
    }

    fn item(&self, inner: &Inner, entry: Entry) -> Result<(Value, Value)> {
        if entry.is_blob {
            let key = Value::part(&self.bytes, entry.start as usize, entry.key_bytes as usize);
            return Ok((key, inner.read_blob(self.value(entry))?));
        }
        Ok(self.pair(entry))
    }

    /// The key and what its leaf holds: the value, or the descriptor of a blob.
    fn pair(&self, entry: Entry) -> (Value, Value) {
        let (key_bytes, value_bytes) = (entry.key_bytes as usize, entry.value_bytes as usize);
        let key = Value::part(&self.bytes, entry.start as usize, key_bytes);
        let value = Value::part(&self.bytes, entry.start as usize + key_bytes, value_bytes);
        (key, value)
    }

    fn show(
        &self,
        inner: &Inner,
        entry: Entry,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        if entry.is_blob {
            let value = inner.read_blob(self.value(entry))?;
            return Ok(visit(self.key(entry), &value));
        }
        Ok(visit(self.key(entry), self.value(entry)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
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
        let open = partitions_within(state, as_slices(&lower, &upper));
        let partitions = Arc::clone(&state.partitions);
        Ok(Range {
            inner,
            version,
            partitions,
            open,
            lower,
            upper,
            front: Side::default(),
            back: Side::default(),
        })
    }

    /// Hands the remaining entries to `visit`, ascending, until it breaks. Faster than iterating: nothing is
    /// allocated per entry or leaf.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt), [`Io`](crate::Error::Io), [`Closed`](crate::Error::Closed).
    pub fn scan(mut self, mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        let inner = &*self.inner;
        for entry in self.front.copied.entries.drain(..).collect::<Vec<_>>() {
            if self.front.copied.show(inner, entry, &mut visit)?.is_break() {
                return Ok(());
            }
        }
        let mut scan = Scan::new(inner, &self.version, as_slices(&self.lower, &self.upper));
        for index in self.open.clone() {
            let root = self.partitions[index].root;
            let mut cursor = self
                .front
                .cursor
                .take()
                .unwrap_or_else(|| Cursor::ascending(root));
            if scan.run(&mut cursor, &mut visit)?.is_break() {
                return Ok(());
            }
        }
        // What the other direction had copied is the rest.
        for entry in self.back.copied.entries.iter().rev() {
            if self.back.copied.show(inner, *entry, &mut visit)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Copies the next leaf of one side, bringing what isn't in memory; false when there is none.
    fn refill(&mut self, direction: Direction) -> Result<bool> {
        match self.try_refill(direction, false) {
            Ok(found) => Ok(found),
            Err(miss) => self.refill_missing(direction, miss),
        }
    }

    fn refill_missing(&mut self, direction: Direction, mut miss: Miss) -> Result<bool> {
        let inner = Arc::clone(&self.inner);
        let mut held = Held::new(&inner);
        loop {
            if let Some(cursor) = self.cursor(direction) {
                bring(&inner, &self.version, cursor, miss, &mut held)?;
            }
            match self.try_refill(direction, true) {
                Ok(found) => return Ok(found),
                Err(another) => miss = another,
            }
        }
    }

    async fn refill_awaiting(&mut self, direction: Direction) -> Result<bool> {
        let mut _held: Option<HeldFrame> = None;
        let mut missed = false;
        loop {
            self.inner.runtime.shared.status.check_read()?;
            let miss = match self.try_refill(direction, missed) {
                Ok(found) => return Ok(found),
                Err(miss) => miss,
            };
            missed = true;
            if let Some(cursor) = self.cursor(direction) {
                read_ahead(&self.inner, &self.version, cursor, miss);
            }
            // Given back first, as by readers that block.
            _held = None;
            let answer = self.inner.ask_for(miss.0, &self.version).await;
            _held = Some(answer.unwrap_or(Err(Error::Closed))?);
        }
    }

    fn cursor(&self, direction: Direction) -> Option<&Cursor> {
        match direction {
            Direction::Front => self.front.cursor.as_ref(),
            Direction::Back => self.back.cursor.as_ref(),
        }
    }

    /// Copies the next leaf of one side, if it is in memory; false when there is none. `missed`: it was not when it was
    /// looked for before.
    fn try_refill(&mut self, direction: Direction, missed: bool) -> std::result::Result<bool, Miss> {
        while !self.open.is_empty() {
            let (side, root) = match direction {
                Direction::Front => (&mut self.front, self.partitions[self.open.start].root),
                Direction::Back => (&mut self.back, self.partitions[self.open.end - 1].root),
            };
            let cursor = side.cursor.get_or_insert_with(|| match direction {
                Direction::Front => Cursor::ascending(root),
                Direction::Back => Cursor::descending(root),
            });
            let bounds = as_slices(&self.lower, &self.upper);
            let found = copy_next(
                &self.inner,
                cursor,
                bounds,
                (&mut side.copied, &mut side.carry),
                missed,
            )?;
            // The other direction stops before what this one has copied.
            if found && let Some(&last) = side.copied.entries.back() {
                let bound = match direction {
                    Direction::Front => &mut self.lower,
                    Direction::Back => &mut self.upper,
                };
                exclude(bound, side.copied.key(last));
            }
            if cursor.is_finished() {
                side.cursor = None;
                match direction {
                    Direction::Front => self.open.start += 1,
                    Direction::Back => self.open.end -= 1,
                }
            }
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, direction: Direction) -> Option<Result<(Value, Value)>> {
        loop {
            let (mine, other) = match direction {
                Direction::Front => (&mut self.front.copied, &mut self.back.copied),
                Direction::Back => (&mut self.back.copied, &mut self.front.copied),
            };
            if let Some(entry) = mine.entries.pop_front() {
                return Some(mine.item(&self.inner, entry));
            }
            if self.open.is_empty() {
                // What is left was copied by the other direction, the nearest entry last.
                let entry = other.entries.pop_back()?;
                return Some(other.item(&self.inner, entry));
            }
            if let Err(error) = self.refill(direction) {
                return Some(Err(self.end_with(error)));
            }
        }
    }

    /// The range ends with an error: going on could leave entries out unnoticed.
    fn end_with(&mut self, error: Error) -> Error {
        self.open = 0..0;
        self.front = Side::default();
        self.back = Side::default();
        error
    }

    /// The next entry, ascending, as [`next`](Iterator::next), awaiting what is not in memory. The future may be dropped
    /// at any time; no entry is lost by that before it was handed out, except a large value that was being read.
    ///
    /// # Errors
    /// As the items of the iterator.
    pub async fn next_async(&mut self) -> Option<Result<(Value, Value)>> {
        self.take_awaiting(Direction::Front).await
    }

    /// The next entry, descending, as [`next_async`](Range::next_async).
    ///
    /// # Errors
    /// As the items of the iterator.
    pub async fn next_back_async(&mut self) -> Option<Result<(Value, Value)>> {
        self.take_awaiting(Direction::Back).await
    }

    async fn take_awaiting(&mut self, direction: Direction) -> Option<Result<(Value, Value)>> {
        let (entry, (key, value)) = loop {
            let (mine, other) = match direction {
                Direction::Front => (&mut self.front.copied, &mut self.back.copied),
                Direction::Back => (&mut self.back.copied, &mut self.front.copied),
            };
            if let Some(entry) = mine.entries.pop_front() {
                break (entry, mine.pair(entry));
            }
            if self.open.is_empty() {
                let entry = other.entries.pop_back()?;
                break (entry, other.pair(entry));
            }
            if let Err(error) = self.refill_awaiting(direction).await {
                return Some(Err(self.end_with(error)));
            }
        };
        if !entry.is_blob {
            return Some(Ok((key, value)));
        }
        let value = self.inner.read_blob_awaiting(&value).await;
        Some(value.map(|value| (key, value)))
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        self.inner.give_up(&self.version, GROUPS_KEPT_QUIETLY);
    }
}

impl Iterator for Range {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take(Direction::Front)
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take(Direction::Back)
    }
}

/// Copies the cursor's next leaf, if it is in memory; false when there is none.
fn copy_next(
    inner: &Inner,
    cursor: &mut Cursor,
    bounds: Bounds<'_>,
    (copied, carry): (&mut Copied, &mut Carry),
    missed: bool,
) -> std::result::Result<bool, Miss> {
    let memory = &inner.runtime.shared.memory;
    with_reader(memory, |guard, reader| {
        let view = NodeView::beside(memory.view(guard), &inner.runtime);
        let Some(run) = cursor.find_run(&view, bounds)? else {
            return Ok(false);
        };
        let page = view.node(run.leaf)?;
        let next = run.next.and_then(|next| view.node(next).ok());
        copied.fill(&run, page, next, carry);
        cursor.pass(&run, run.len());
        reader.add_hits(u64::from(!missed));
        Ok(true)
    })
}

fn as_slices<'b>(lower: &'b Bound<Vec<u8>>, upper: &'b Bound<Vec<u8>>) -> Bounds<'b> {
    let slice = |bound: &'b Bound<Vec<u8>>| bound.as_ref().map(Vec::as_slice);
    (slice(lower), slice(upper))
}

/// Moves a bound to a key that is no longer wanted.
fn exclude(bound: &mut Bound<Vec<u8>>, key: &[u8]) {
    let mut bytes = match std::mem::replace(bound, Bound::Unbounded) {
        Bound::Included(bytes) | Bound::Excluded(bytes) => bytes,
        Bound::Unbounded => Vec::new(),
    };
    bytes.clear();
    bytes.extend_from_slice(key);
    *bound = Bound::Excluded(bytes);
}

impl std::fmt::Debug for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Range")
            .field("seq", &self.version.seq)
            .finish_non_exhaustive()
    }
}
