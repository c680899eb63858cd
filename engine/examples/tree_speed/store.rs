//! A worker's store with nothing but what the tree needs: frames, the residency table, fresh ids.
//!
//! Nodes that a batch replaced are used again when it ends, as if every version died at once. So what
//! is measured is the tree and the way to its nodes, and not reclamation. The Criterion bench uses this too.

use crossbeam_epoch::Guard;
use treering_engine::memory::{Class, FrameId, Memory, View};
use treering_engine::page;
use treering_engine::tree::{Located, Miss, NodeStore, ReadNodes};
use treering_engine::{PageId, PageRef, Seq, Stamp};

/// Frames taken from the pool at once.
const FRAMES_TAKEN: usize = 64;

/// The nodes of one tree; one thread reads and writes them.
pub struct Store<'m> {
    memory: &'m Memory,
    view: View<'m>,
    stamp: Stamp,
    free_ids: Vec<PageId>,
    free_frames: Vec<FrameId>,
    retired: Vec<Located>,
    next_id: u32,
    /// Nodes made so far.
    #[allow(dead_code, reason = "the bench doesn't ask")]
    pub created: u64,
}

impl<'m> Store<'m> {
    /// An empty store; `guard` keeps the view alive.
    pub fn new(memory: &'m Memory, guard: &'m Guard) -> Self {
        Self {
            memory,
            view: memory.view(guard),
            stamp: Stamp(1),
            free_ids: Vec::new(),
            free_frames: Vec::new(),
            retired: Vec::new(),
            next_id: PageId::FIRST.0,
            created: 0,
        }
    }

    /// Freezes the open nodes and frees those that the batch replaced.
    pub fn end_batch(&mut self) {
        self.stamp = Stamp(self.stamp.0 + 1);
        while let Some(node) = self.retired.pop() {
            self.free(node);
        }
    }

    fn free(&mut self, node: Located) {
        let frame = self.memory.remove(node.reference.id);
        assert_eq!(frame, Some(FrameId(node.frame)));
        self.free_ids.push(node.reference.id);
        self.free_frames.push(FrameId(node.frame));
    }

    fn new_node(&mut self) -> Located {
        self.created += 1;
        if self.free_frames.is_empty() {
            let frames = &mut self.free_frames;
            self.memory.allocate_many(Class::Worker, FRAMES_TAKEN, frames);
        }
        let frame = self.free_frames.pop().expect("the memory holds the tree");
        let id = self.free_ids.pop().unwrap_or_else(|| {
            self.next_id += 1;
            PageId(self.next_id - 1)
        });
        Located {
            reference: PageRef {
                id,
                birth: self.stamp.birth(),
            },
            frame: frame.0,
        }
    }

    fn sign(&mut self, node: Located) {
        let (id, stamp) = (node.reference.id, self.stamp);
        page::set_identity(self.bytes_mut(node), id, stamp, Seq(stamp.0));
        self.memory.insert_resident(id, FrameId(node.frame));
    }

    fn start(&self, node: Located) -> *mut u8 {
        self.memory.frame_ptr(FrameId(node.frame))
    }
}

impl ReadNodes for Store<'_> {
    #[inline]
    fn node(&self, reference: PageRef) -> Result<&[u8], Miss> {
        Ok(self.view.lookup(reference.id).ok_or(Miss(reference))?.bytes)
    }

    #[inline]
    fn prefetch(&self, reference: PageRef) {
        self.view.prefetch_word(reference.id);
    }
}

impl NodeStore for Store<'_> {
    fn page_bytes(&self) -> usize {
        self.memory.page_bytes()
    }

    fn locate(&self, reference: PageRef) -> Result<Located, Miss> {
        let frame = self.view.lookup(reference.id).ok_or(Miss(reference))?.id.0;
        Ok(Located { reference, frame })
    }

    fn bytes(&self, node: Located) -> &[u8] {
        // SAFETY: the frame lies in the arena, is a page long, and holds a node of this store; it is
        // written only through `&mut self`, so not while this borrow of `self` lasts.
        unsafe { std::slice::from_raw_parts(self.start(node), self.memory.page_bytes()) }
    }

    fn bytes_mut(&mut self, node: Located) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow of `self` is exclusive, so nobody else looks.
        unsafe { std::slice::from_raw_parts_mut(self.start(node), self.memory.page_bytes()) }
    }

    fn rebuild(&mut self, target: Located, sources: [Located; 2]) -> (&mut [u8], [&[u8]; 2]) {
        assert!(sources.iter().all(|source| source.frame != target.frame));
        let bytes = self.memory.page_bytes();
        // SAFETY: the target's frame is neither source's (asserted), so the exclusive slice overlaps
        // no other; each frame is as `bytes` says, and all slices borrow `self` exclusively.
        unsafe {
            (
                std::slice::from_raw_parts_mut(self.start(target), bytes),
                sources.map(|source| std::slice::from_raw_parts(self.start(source).cast_const(), bytes)),
            )
        }
    }

    fn is_open(&self, node: Located) -> bool {
        page::stamp(self.bytes(node)) == self.stamp
    }

    fn create(&mut self) -> Located {
        let node = self.new_node();
        self.sign(node);
        node
    }

    fn copy(&mut self, old: Located) -> Located {
        let node = self.new_node();
        let (target, [source, _]) = self.rebuild(node, [old, old]);
        page::copy_node(target, source);
        self.sign(node);
        node
    }

    fn retire(&mut self, node: Located) {
        if self.is_open(node) {
            self.free(node);
        } else {
            self.retired.push(node);
        }
    }

    fn retire_blob(&mut self, _descriptor: &[u8]) {}
}
