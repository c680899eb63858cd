//! The engine's protocol files, on this crate's `sync`.

#![allow(dead_code)]

#[path = "../../src/memory/frames.rs"]
pub mod frames;
#[path = "../../src/memory/occupancy.rs"]
pub mod occupancy;
#[path = "../../src/memory/pool.rs"]
pub mod pool;
#[path = "../../src/memory/residency.rs"]
pub mod residency;
#[path = "../../src/memory/word.rs"]
pub mod word;

use crate::sync::Guard;
use crate::{FrameId, PageId};
use loom::cell::UnsafeCell;
use occupancy::Occupancy;
use pool::Class;
use residency::Bucket;

/// A memory of a few frames, whose pages hold nothing but their ids. Loom notices every access to a frame that
/// isn't ordered with the others, as it would be undefined behaviour on real pages.
pub struct Memory {
    pub occupancy: Occupancy<Vec<Bucket<2>>, 2>,
    contents: Vec<UnsafeCell<PageId>>,
}

// SAFETY: loom runs the threads of a model one at a time, and checks that accesses to the contents are ordered.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(frames: u32) -> Memory {
        Memory {
            occupancy: Occupancy::new((0..2).map(|_| Bucket::new()).collect(), frames),
            contents: (0..frames).map(|_| UnsafeCell::new(PageId::NONE)).collect(),
        }
    }

    pub fn allocate(&self) -> Option<FrameId> {
        let mut allocated = None;
        self.occupancy
            .allocate(Class::Reserve, 1, |frame| allocated = Some(frame));
        allocated
    }

    /// Writes the page, which takes the frame for its own.
    pub fn fill(&self, frame: FrameId, id: PageId) {
        // SAFETY: loom checks that no other access is concurrent.
        self.contents[frame.0 as usize].with_mut(|content| unsafe { *content = id });
    }

    /// Reads the page that is in the frame.
    pub fn content(&self, frame: FrameId) -> PageId {
        // SAFETY: loom checks that no write is concurrent.
        self.contents[frame.0 as usize].with(|content| unsafe { *content })
    }

    /// A page that was read from disk; `None` if there is no frame for it now.
    pub fn load(&self, id: PageId) -> Option<FrameId> {
        let frame = self.allocate()?;
        assert!(self.occupancy.insert_loading(id, frame));
        self.fill(frame, id);
        self.occupancy.finish_loading(id, frame);
        Some(frame)
    }

    /// A page that a worker creates.
    pub fn create(&self, id: PageId) -> Option<FrameId> {
        let frame = self.allocate()?;
        self.fill(frame, id);
        self.occupancy.insert_resident(id, frame);
        Some(frame)
    }

    /// Looks the page up and reads it, under a pin.
    pub fn read(&self, id: PageId, _guard: &Guard) -> Option<PageId> {
        self.occupancy.table.find(id).map(|frame| self.content(frame))
    }
}
