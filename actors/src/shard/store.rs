//! The nodes of a shard's private tip: what the tree code sees while one step runs.
//!
//! - A node of the open batch exists in a frame of this shard only; it is in the residency table, so that
//!   it is found like any other, but no published root reaches it and the flusher leaves it alone.
//! - A replaced node that was frozen goes to the batch's list of retired pages, with the `born` of its own
//!   header (rule R4). One that was created in the open batch gives its id and frame back at once.
//! - [`Supply`] holds ids and frames ahead of need, so that an operation that has begun can't fail (rule R11).

use std::collections::VecDeque;

use crossbeam_epoch::Guard;
use treering_engine::memory::{FrameId, Memory};
use treering_engine::page;
use treering_engine::tree::{Located, Miss, NodeStore, ReadNodes};
use treering_engine::{Extent, PageId, PageRef, Retired, Seq, Stamp};

use crate::blob::blob_extents;

/// Ids and frames for nodes to come.
#[derive(Debug, Default)]
pub(crate) struct Supply {
    /// Descending. Leaves get the lowest, so that neighbours in time become neighbours on disk, and are written together;
    /// inner nodes, most of which die before they are written, get the highest, and leave no holes between them.
    pub ids: VecDeque<PageId>,
    pub frames: Vec<FrameId>,
    /// Whether there are no readers, so that the copy of a written page may take over its frame: during replay, whose
    /// pages would otherwise take twice the memory.
    pub takes_over: bool,
    /// The page that the last copy took over, until it is retired.
    taken_over: Option<Retired>,
}

impl Supply {
    /// Whether `nodes` more can be created.
    pub fn covers(&self, nodes: usize) -> bool {
        self.ids.len() >= nodes && self.frames.len() >= nodes
    }

    /// The id for a node of this level.
    fn take_id(&mut self, level: u8) -> Option<PageId> {
        if level == 0 {
            self.ids.pop_back()
        } else {
            self.ids.pop_front()
        }
    }

    /// Takes ids in that were handed out.
    pub fn extend(&mut self, ids: impl Iterator<Item = PageId>) {
        self.ids.extend(ids);
        self.ids.make_contiguous().sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Takes an id back that was not used after all.
    pub fn give_back(&mut self, id: PageId) {
        self.ids.push_back(id);
    }
}

/// What the open batch did to pages.
#[derive(Debug)]
pub(crate) struct OpenPages {
    pub stamp: Stamp,
    /// First group that can show the batch's pages: one more than what was published when it was opened.
    pub born: Seq,
    pub created: Vec<PageId>,
    pub retired: Vec<Retired>,
    /// Whether blobs are among the retired.
    pub retires_blobs: bool,
}

/// The view of one step: shared memory, this step's pin, and the shard's own supply.
pub(crate) struct TipStore<'s> {
    pub memory: &'s Memory,
    pub guard: &'s Guard,
    pub supply: &'s mut Supply,
    pub open: &'s mut OpenPages,
}

impl TipStore<'_> {
    fn frame_bytes(&self, frame: FrameId) -> &[u8] {
        // SAFETY: the frame was found in the residency table, or created, under this store's guard: it can't
        // return to the pool before the guard is dropped, and `self` borrows the guard. Nodes of the open batch are
        // only written through `&mut self`, and all others are frozen, so nobody writes while this borrow lasts.
        unsafe { std::slice::from_raw_parts(self.memory.frame_ptr(frame), self.memory.page_bytes()) }
    }

    fn frame_bytes_mut(&mut self, frame: FrameId) -> &mut [u8] {
        // SAFETY: only called for frames of the open batch. No published root reaches them (or, for one that was taken
        // over, there are no readers yet), so no other thread reads their bytes, and `&mut self` excludes the other
        // accessors of this store.
        unsafe { std::slice::from_raw_parts_mut(self.memory.frame_ptr(frame), self.memory.page_bytes()) }
    }

    fn take(&mut self, level: u8) -> (PageId, FrameId) {
        let id = self.supply.take_id(level);
        let frame = self.supply.frames.pop();
        let (Some(id), Some(frame)) = (id, frame) else {
            unreachable!("an operation created more nodes than tree::reserve_for promises")
        };
        self.open.created.push(id);
        (id, frame)
    }

    /// Makes the copy of a written page in its own frame, if that is possible.
    fn take_over(&mut self, old: Located) -> Option<Located> {
        let frame = FrameId(old.frame);
        if !self.supply.takes_over || !self.memory.reuse(old.reference.id, frame) {
            return None;
        }
        let level = page::level(self.frame_bytes(frame));
        let Some(id) = self.supply.take_id(level) else {
            unreachable!("an operation created more nodes than tree::reserve_for promises")
        };
        self.open.created.push(id);
        self.supply.taken_over = Some(Retired {
            extent: Extent::single(old.reference.id),
            born: page::born(self.frame_bytes(frame)),
        });
        let (stamp, born) = (self.open.stamp, self.open.born);
        page::set_identity(self.frame_bytes_mut(frame), id, stamp, born);
        self.memory.insert_resident(id, frame);
        Some(self.located(id, frame))
    }

    fn located(&self, id: PageId, frame: FrameId) -> Located {
        Located {
            reference: PageRef {
                id,
                birth: self.open.stamp.birth(),
            },
            frame: frame.0,
        }
    }
}

impl ReadNodes for TipStore<'_> {
    fn node(&self, reference: PageRef) -> Result<&[u8], Miss> {
        let frame = self
            .memory
            .lookup(reference.id, self.guard)
            .ok_or(Miss(reference))?;
        Ok(frame.bytes)
    }

    fn prefetch(&self, reference: PageRef) {
        self.memory.view(self.guard).prefetch_word(reference.id);
    }
}

impl NodeStore for TipStore<'_> {
    fn page_bytes(&self) -> usize {
        self.memory.page_bytes()
    }

    fn locate(&self, reference: PageRef) -> Result<Located, Miss> {
        let frame = self
            .memory
            .lookup(reference.id, self.guard)
            .ok_or(Miss(reference))?;
        Ok(Located {
            reference,
            frame: frame.id.0,
        })
    }

    fn bytes(&self, node: Located) -> &[u8] {
        self.frame_bytes(FrameId(node.frame))
    }

    fn bytes_mut(&mut self, node: Located) -> &mut [u8] {
        debug_assert!(self.is_open(node), "a frozen node never changes");
        self.frame_bytes_mut(FrameId(node.frame))
    }

    fn rebuild(&mut self, target: Located, sources: [Located; 2]) -> (&mut [u8], [&[u8]; 2]) {
        assert!(
            sources.iter().all(|source| source.frame != target.frame),
            "a node can't be rebuilt from itself"
        );
        let bytes = self.memory.page_bytes();
        // SAFETY: the target is an open node in a frame of its own, distinct from both sources (asserted), so the
        // exclusive slice overlaps nothing; the sources are readable for the borrow as in `frame_bytes`.
        unsafe {
            let target = std::slice::from_raw_parts_mut(self.memory.frame_ptr(FrameId(target.frame)), bytes);
            let read =
                |node: Located| std::slice::from_raw_parts(self.memory.frame_ptr(FrameId(node.frame)), bytes);
            (target, [read(sources[0]), read(sources[1])])
        }
    }

    fn is_open(&self, node: Located) -> bool {
        page::stamp(self.frame_bytes(FrameId(node.frame))) == self.open.stamp
    }

    fn create(&mut self) -> Located {
        let (id, frame) = self.take(0);
        let (stamp, born) = (self.open.stamp, self.open.born);
        page::set_identity(self.frame_bytes_mut(frame), id, stamp, born);
        self.memory.insert_resident(id, frame);
        self.located(id, frame)
    }

    fn copy(&mut self, old: Located) -> Located {
        if let Some(node) = self.take_over(old) {
            return node;
        }
        let (id, frame) = self.take(page::level(self.bytes(old)));
        let (stamp, born) = (self.open.stamp, self.open.born);
        let node = self.located(id, frame);
        let (target, [source, _]) = self.rebuild(node, [old, old]);
        // Not the checksum, which is made when a page is written.
        page::copy_node(target, source);
        page::set_identity(target, id, stamp, born);
        self.memory.insert_resident(id, frame);
        node
    }

    fn retire(&mut self, node: Located) {
        let id = node.reference.id;
        if let Some(retired) = self
            .supply
            .taken_over
            .take_if(|retired| retired.extent.start == id)
        {
            // Its frame holds the copy by now.
            self.open.retired.push(retired);
            return;
        }
        if !self.is_open(node) {
            let born = page::born(self.bytes(node));
            self.open.retired.push(Retired {
                extent: Extent::single(id),
                born,
            });
            return;
        }
        // Created and replaced within the open batch: no other thread ever saw it. The node was mostly created a
        // moment ago, so the search from the end is short.
        if let Some(position) = self.open.created.iter().rposition(|created| *created == id) {
            self.open.created.swap_remove(position);
        }
        if let Some(frame) = self.memory.remove(id) {
            self.supply.frames.push(frame);
        }
        self.supply.give_back(id);
    }

    fn retire_blob(&mut self, descriptor: &[u8]) {
        self.open.retired.extend(blob_extents(descriptor));
        self.open.retires_blobs = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_get_neighbouring_ids_whatever_inner_nodes_take() {
        let mut supply = Supply::default();
        supply.extend([40, 41, 42, 43, 44, 10, 11].map(PageId).into_iter());
        let mut leaves = Vec::new();
        let mut inner = Vec::new();
        for _ in 0..3 {
            leaves.extend(supply.take_id(0));
            inner.extend(supply.take_id(1));
        }
        assert_eq!(leaves, [10, 11, 40].map(PageId));
        assert_eq!(inner, [44, 43, 42].map(PageId));
        supply.give_back(PageId(40));
        assert_eq!(
            supply.take_id(0),
            Some(PageId(40)),
            "what was given back is the next"
        );
    }
}
