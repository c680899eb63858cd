//! The pages of a bulk load: their ids, and the buffers that they are built in.

use std::collections::VecDeque;

use treering_engine::tree::NewNodes;
use treering_engine::{Extent, PageId, PageRef, Seq, Stamp, page};
use treering_io::AlignedBuffer;

/// Bytes of pages written at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Pages to be: ids, and the buffers that they are built in.
pub(super) struct Pages {
    pub page_bytes: usize,
    stamp: Stamp,
    born: Seq,
    /// Ids to come, in the order in which they are given.
    pub free: VecDeque<Extent>,
    pub free_pages: u32,
    /// Ids that were given.
    pub used: Vec<Extent>,
    pub taken_pages: u32,
    /// Pages that were built and not written; the last one is being filled.
    pub buffers: VecDeque<Filled>,
    /// A buffer that was written: memory that is new to the process costs as much as filling it.
    pub spare: Option<AlignedBuffer>,
}

/// A buffer with the pages from `start` on.
pub(super) struct Filled {
    pub start: PageId,
    pub pages: usize,
    pub buffer: AlignedBuffer,
}

impl Pages {
    pub fn new(page_bytes: usize, stamp: Stamp, born: Seq) -> Pages {
        Pages {
            page_bytes,
            stamp,
            born,
            free: VecDeque::new(),
            free_pages: 0,
            used: Vec::new(),
            taken_pages: 0,
            buffers: VecDeque::new(),
            spare: None,
        }
    }

    pub fn add(&mut self, extents: Vec<Extent>) {
        self.free_pages += extents.iter().map(|extent| extent.pages).sum::<u32>();
        self.free.extend(extents);
    }

    fn take_id(&mut self) -> PageId {
        let Some(first) = self.free.front_mut() else {
            unreachable!("the builder created more nodes than BulkBuilder::reserve promises")
        };
        let id = first.start;
        first.start = PageId(id.0 + 1);
        first.pages -= 1;
        if first.pages == 0 {
            self.free.pop_front();
        }
        self.free_pages -= 1;
        self.taken_pages += 1;
        match self.used.last_mut() {
            Some(last) if last.start.0 + last.pages == id.0 => last.pages += 1,
            _ => self.used.push(Extent::single(id)),
        }
        id
    }
}

impl NewNodes for Pages {
    fn new_node(&mut self) -> (PageRef, &mut [u8]) {
        let id = self.take_id();
        let full = BUFFER_BYTES / self.page_bytes;
        let goes_on = |last: &Filled| last.pages < full && last.start.0 + last.pages as u32 == id.0;
        if !self.buffers.back().is_some_and(goes_on) {
            // Pieces of blobs have buffers of their own length.
            let spare = self.spare.take().filter(|spare| spare.len() >= BUFFER_BYTES);
            self.buffers.push_back(Filled {
                start: id,
                pages: 0,
                buffer: spare.unwrap_or_else(|| AlignedBuffer::zeroed(BUFFER_BYTES)),
            });
        }
        let Some(last) = self.buffers.back_mut() else {
            unreachable!("one was added if there was none")
        };
        let start = last.pages * self.page_bytes;
        last.pages += 1;
        let page = &mut last.buffer[start..start + self.page_bytes];
        page::set_identity(page, id, self.stamp, self.born);
        let birth = self.stamp.birth();
        (PageRef { id, birth }, page)
    }
}
