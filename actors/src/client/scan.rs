//! Scans that hand entries out where they lie: nothing is allocated for an entry or a leaf.
//!
//! A step pins once, finds the next leaf and holds it, together with the one behind it, whose memory is asked for
//! meanwhile. While user code looks at the entries nothing is pinned. What the caller must see to: the version that
//! the cursors walk through is counted for as long as the scan lasts.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use treering_engine::PageRef;
use treering_engine::catalog::TreeState;
use treering_engine::memory::View;
use treering_engine::page::ValueRef;
use treering_engine::tree::{Bounds, Carry, Cursor, Miss, ReadNodes, Run};

use super::db::Inner;
use super::held::{Held, HeldPage};
use super::node_view::NodeView;
use crate::error::Result;
use crate::pager::{Kept, PagerMessage, Waiter};
use crate::shared::{Version, with_guard, with_reader};

/// Leaves that are read ahead once a scan has missed one.
const READ_AHEAD_LEAVES: usize = 16;

/// A scan under way.
pub(super) struct Scan<'s> {
    inner: &'s Inner,
    version: &'s Arc<Version>,
    bounds: Bounds<'s>,
    carry: Carry,
    /// The leaf behind the one that was handed out last.
    next: Option<HeldPage<'s>>,
}

impl<'s> Scan<'s> {
    pub fn new(inner: &'s Inner, version: &'s Arc<Version>, bounds: Bounds<'s>) -> Scan<'s> {
        Scan {
            inner,
            version,
            bounds,
            carry: Carry::default(),
            next: None,
        }
    }

    /// Hands out what the cursor has left, until `visit` breaks.
    pub fn run(
        &mut self,
        cursor: &mut Cursor,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut brought = Held::new(self.inner);
        let mut missed = false;
        loop {
            let (run, leaf) = match self.step(cursor, missed) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(ControlFlow::Continue(())),
                Err(miss) => {
                    self.next = None;
                    bring(self.inner, self.version, cursor, miss, &mut brought)?;
                    missed = true;
                    continue;
                }
            };
            missed = false;
            let next = self.next.as_ref().map(HeldPage::bytes);
            let mut flow = ControlFlow::Continue(());
            let mut failure = None;
            let seen = run.hand_out(leaf.bytes(), next, &mut self.carry, |key, value| {
                flow = match value {
                    ValueRef::Inline(bytes) => visit(key, bytes),
                    ValueRef::Blob(descriptor) => match self.inner.read_blob(descriptor) {
                        Ok(value) => visit(key, &value),
                        Err(error) => {
                            failure = Some(error);
                            ControlFlow::Break(())
                        }
                    },
                };
                flow
            });
            if let Some(error) = failure {
                return Err(error);
            }
            if flow.is_break() {
                return Ok(flow);
            }
            cursor.pass(&run, seen);
        }
    }

    /// The next leaf with entries within the bounds, held. `missed`: it was not in memory when it was looked for before.
    fn step(
        &mut self,
        cursor: &mut Cursor,
        missed: bool,
    ) -> std::result::Result<Option<(Run, HeldPage<'s>)>, Miss> {
        let memory = &self.inner.runtime.shared.memory;
        with_reader(memory, |guard, reader| {
            let view = ViewToHold(memory.view(guard));
            let Some(run) = cursor.find_run(&view, self.bounds)? else {
                return Ok(None);
            };
            // Found before anything is held: a hold waits for memory, and lets nothing overtake it.
            let _ = run.next.map(|next| view.node(next));
            let leaf = match self.next.take().filter(|page| page.reference() == run.leaf) {
                Some(page) => page,
                None => HeldPage::new(memory, run.leaf, guard).ok_or(Miss(run.leaf))?,
            };
            self.next = run.next.and_then(|next| HeldPage::new(memory, next, guard));
            reader.add_hits(u64::from(!missed));
            Ok(Some((run, leaf)))
        })
    }
}

/// Nodes as a pinned thread sees them, some of which will be held.
struct ViewToHold<'g>(View<'g>);

impl ReadNodes for ViewToHold<'_> {
    #[inline]
    fn node(&self, reference: PageRef) -> std::result::Result<&[u8], Miss> {
        let frame = self.0.lookup(reference.id).ok_or(Miss(reference))?;
        self.0.prefetch_hold(frame.id);
        Ok(frame.bytes)
    }

    #[inline]
    fn prefetch(&self, reference: PageRef) {
        self.0.prefetch_word(reference.id);
    }
}

/// The partitions that keys within the bounds may lie in; empty if the bounds are the wrong way round.
pub(super) fn partitions_within(state: &TreeState, bounds: Bounds<'_>) -> std::ops::Range<usize> {
    let first = match bounds.0 {
        Bound::Included(key) | Bound::Excluded(key) => state.partition_for(key),
        Bound::Unbounded => 0,
    };
    let last = match bounds.1 {
        Bound::Included(key) | Bound::Excluded(key) => state.partition_for(key),
        Bound::Unbounded => state.partitions.len() - 1,
    };
    first..last + 1
}

/// Brings the page that a cursor misses, and asks for the leaves behind it. The page is held by `held`, in the
/// place of what that held before: a scan that held all it ever missed could take all frames.
pub(super) fn bring<'i>(
    inner: &'i Inner,
    version: &Arc<Version>,
    cursor: &Cursor,
    miss: Miss,
    held: &mut Held<'i>,
) -> Result<()> {
    read_ahead(inner, version, cursor, miss);
    *held = Held::new(inner);
    *held = Held::of(inner, inner.runtime.fetch(miss.0)?);
    Ok(())
}

/// Asks for the leaves behind the page that a cursor misses.
pub(super) fn read_ahead(inner: &Inner, version: &Arc<Version>, cursor: &Cursor, miss: Miss) {
    let shared = &inner.runtime.shared;
    let Miss(reference) = miss;
    let mut ahead: Vec<PageRef> = Vec::new();
    with_guard(&shared.memory, |guard| {
        let view = NodeView::new(shared.memory.view(guard));
        cursor.upcoming(
            &view,
            READ_AHEAD_LEAVES.min(shared.settings.fetched_max),
            &mut ahead,
        );
    });
    for reference in ahead.into_iter().filter(|next| next.id != reference.id) {
        inner.runtime.send_pager(PagerMessage::Fetch {
            reference,
            waiter: Waiter::Nobody {
                kept: Arc::clone(version) as Kept,
            },
        });
    }
}
