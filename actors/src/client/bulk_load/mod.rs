//! Loading an empty tree from sorted entries.
//!
//! # How
//! The calling thread builds every page once, bottom up ([`BulkBuilder`]), and sends them to the data file in long
//! writes. Neither log nor shard sees the entries. When all pages and large values are synced, one request hands the
//! root to the owner of the tree, and one record of the log names the root and every extent that was written.
//!
//! # Guarantees
//! - All or nothing: until the request's group is published nobody can reach the pages, and after a crash the log has
//!   the record, behind which everything is durable (rule R18), or it hasn't, and the pages are free.
//! - The owner takes the root only if the tree is empty at that moment, whatever was written meanwhile.
//! - Pages carry a stamp that the owner has given to this load alone (rules R4, R6), and are not used for anything else
//!   before a checkpoint has the load, even if they are retired: until then replay needs them (see
//!   `Flusher::note_loads`).
//! - In memory at a time: the content of two nodes a level, one buffer, and the writes under way. The cache is left to
//!   those who read. (Copying pages into frames that were never used before took half of the time of a load: memory
//!   that is new to the process has to be cleared first.)
//!
//! Absent: sorting, and trees that hold something already.

mod pages;
mod writes;

use std::sync::Arc;

use treering_engine::log::RecordWriter;
use treering_engine::memory::Class;
use treering_engine::page::{self, ValueRef};
use treering_engine::tree::BulkBuilder;
use treering_engine::{Extent, TreeId};
use treering_io::AlignedBuffer;

use self::pages::{Filled, Pages};
use self::writes::Writes;
use super::db::Inner;
use super::tree::Tree;
use crate::blob::blob_extents;
use crate::error::{Error, Result};
use crate::flusher::{ExtentWaiter, FlusherMessage};
use crate::options::Durability;
use crate::shard::{Action, LoadedTree};
use crate::shared::{Shared, with_guard};
use crate::ticket::Outcome;

/// Least and most bytes of pages asked for at a time: as many as the load has taken so far, within these bounds.
const EXTENT_BYTES_MIN: usize = 256 << 10;
const EXTENT_BYTES_MAX: usize = 16 << 20;
/// How full pages are: entries that come later find some room.
const FILL_PERCENT: u8 = 95;

impl Tree {
    /// Fills an empty tree with entries in ascending order of their keys, each key once. Returns how many there were.
    ///
    /// Several times faster than writing them: pages are built bottom up and written once, past the log. All entries
    /// become visible together, and survive a crash all or not at all; with what durability, this handle says. Others
    /// may use the database meanwhile. The entries may be much larger than the cache; values larger than a quarter page
    /// cost a write each.
    ///
    /// O(entries). Whatever fails, the tree is as it was, and the space is given back.
    ///
    /// # Errors
    /// [`Error::TreeNotEmpty`], if the tree holds something when the load begins or when it ends, or is still in several
    /// partitions from when it was larger (these are joined in the course of later writes, to whatever tree; a new tree
    /// can be loaded at once);
    /// [`Error::NotSorted`]; [`Error::KeyEmpty`], [`Error::KeyTooLarge`], [`Error::ValueTooLarge`];
    /// [`Error::TransactionTooLarge`], if there are so many large values that one log record can't name them;
    /// [`Error::OutOfSpace`], [`Error::TreeNotFound`], [`Error::Io`], [`Error::Poisoned`],
    /// [`Error::OutcomeUnknown`], [`Error::Closed`], [`Error::WouldDeadlock`].
    pub fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<u64> {
        self.inner.runtime.check_wait()?;
        let mut load = Load::begin(&self.inner, self.id)?;
        for (key, value) in entries {
            load.push(key.as_ref(), value.as_ref())?;
        }
        load.commit(self.durability)
    }
}

/// A load under way. Dropped before its end, it gives back what it has taken.
struct Load<'i> {
    inner: &'i Arc<Inner>,
    tree: TreeId,
    builder: BulkBuilder,
    pages: Pages,
    writes: Writes<'i>,
    /// Extents of large values.
    blobs: Vec<Extent>,
    /// The answer to the request for the next pages, which was sent before they were needed.
    ahead: Option<oneshot::Receiver<Result<Vec<Extent>>>>,
    entries: u64,
}

impl<'i> Load<'i> {
    fn begin(inner: &'i Arc<Inner>, tree: TreeId) -> Result<Load<'i>> {
        let shared = &inner.runtime.shared;
        let asked = inner.send_for_tree(tree, Action::PrepareLoad, Durability::Buffered, true, |outcome| {
            outcome
        });
        let outcome = asked?.wait()?;
        let Outcome::Stamp(stamp) = outcome else {
            unreachable!("that is what the request is answered with")
        };
        // Never later than the truth (rule R4).
        let born = with_guard(&shared.memory, |guard| shared.current.load(guard).seq.next());
        let page_bytes = shared.settings.page_bytes;
        Ok(Load {
            inner,
            tree,
            builder: BulkBuilder::new(page_bytes, FILL_PERCENT),
            pages: Pages::new(page_bytes, stamp, born),
            writes: Writes::new(inner),
            blobs: Vec::new(),
            ahead: None,
            entries: 0,
        })
    }

    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.inner.check_key(key)?;
        self.supply()?;
        let pushed = if value.len() <= self.inner.inline_bytes_max() {
            self.builder.push(&mut self.pages, key, ValueRef::Inline(value))
        } else {
            // Who holds credit doesn't wait for more.
            self.writes.finish()?;
            // Synced at the end, together with the pages.
            let descriptor = self.inner.write_blob(value, false)?;
            self.blobs
                .extend(blob_extents(&descriptor).map(|retired| retired.extent));
            self.builder
                .push(&mut self.pages, key, ValueRef::Blob(&descriptor))
        };
        let position = self.entries;
        pushed.map_err(|_| Error::NotSorted { position })?;
        self.entries += 1;
        // The last buffer is still being filled.
        while self.pages.buffers.len() > 1 {
            self.write_first()?;
        }
        Ok(())
    }

    /// Makes sure of page ids for whatever the builder does next: it can't stop halfway.
    fn supply(&mut self) -> Result<()> {
        while (self.pages.free_pages as usize) < self.builder.reserve() {
            let receiver = match self.ahead.take() {
                Some(receiver) => receiver,
                None => self.ask_for_pages(),
            };
            let extents = self
                .inner
                .runtime
                .wait(receiver, None)
                .unwrap_or(Err(Error::Closed))?;
            self.pages.add(extents);
            if self.pages.taken_pages as usize * self.pages.page_bytes >= EXTENT_BYTES_MIN {
                self.ahead = Some(self.ask_for_pages());
            }
        }
        Ok(())
    }

    fn ask_for_pages(&self) -> oneshot::Receiver<Result<Vec<Extent>>> {
        let taken_bytes = (self.pages.taken_pages + self.pages.free_pages) as usize * self.pages.page_bytes;
        let bytes = taken_bytes.clamp(EXTENT_BYTES_MIN, EXTENT_BYTES_MAX);
        let (reply, receiver) = oneshot::channel();
        self.inner.runtime.send_flusher(FlusherMessage::ExtentRequest {
            pages: (bytes / self.pages.page_bytes) as u32,
            waiter: ExtentWaiter::Client(reply),
        });
        receiver
    }

    /// Writes the pages of the first buffer.
    fn write_first(&mut self) -> Result<()> {
        let Some(Filled {
            start,
            pages,
            mut buffer,
        }) = self.pages.buffers.pop_front()
        else {
            return Ok(());
        };
        let page_bytes = self.pages.page_bytes;
        let bytes = pages * page_bytes;
        buffer[..bytes].chunks_exact_mut(page_bytes).for_each(page::seal);
        let shared = &self.inner.runtime.shared;
        if shared.settings.in_memory {
            return keep_in_memory(shared, &buffer[..bytes]);
        }
        let offset = u64::from(start.0) * page_bytes as u64;
        if bytes < buffer.len() {
            buffer = AlignedBuffer::copy_of(&buffer[..bytes]);
        }
        self.writes.write(offset, buffer)?;
        self.pages.spare = self.writes.spare.take();
        Ok(())
    }

    fn commit(mut self, durability: Durability) -> Result<u64> {
        self.supply()?;
        let page_bytes = self.pages.page_bytes;
        let builder = std::mem::replace(&mut self.builder, BulkBuilder::new(page_bytes, FILL_PERCENT));
        let root = builder.finish(&mut self.pages);
        while !self.pages.buffers.is_empty() {
            self.write_first()?;
        }
        let shared = Arc::clone(&self.inner.runtime.shared);
        if root.reference.is_none() {
            return Ok(0);
        }
        self.writes.sync()?;
        let extents = self.extents();
        let mut record = Vec::new();
        RecordWriter(&mut record).tree_load(self.tree, &root, &extents);
        let limit = shared.settings.batch_record_bytes_max;
        if record.len() > limit {
            return Err(Error::TransactionTooLarge {
                needed: record.len() as u64,
                limit: limit as u64,
                unit: "bytes of log",
            });
        }
        let loaded = LoadedTree {
            root,
            record,
            extents,
            joined: Vec::new(),
        };
        let action = Action::Load(Box::new(loaded));
        let ticket = self
            .inner
            .send_for_tree(self.tree, action, durability, true, |_| ())?;
        // From here on they are the request's; what was not used is given back by `drop`. A request that could not be sent
        // (the tree was dropped meanwhile) has taken nothing.
        self.pages.used.clear();
        self.blobs.clear();
        ticket.wait()?;
        Ok(self.entries)
    }

    /// Everything that was written, in ascending order, neighbours joined.
    fn extents(&self) -> Vec<Extent> {
        let mut extents: Vec<Extent> = self.pages.used.iter().chain(&self.blobs).copied().collect();
        extents.sort_unstable_by_key(|extent| extent.start);
        extents.dedup_by(|next, extent| {
            let follows = extent.start.0 + extent.pages == next.start.0;
            if follows {
                extent.pages += next.pages;
            }
            follows
        });
        extents
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        // Extents must not be given back while writes to them are under way.
        while self.writes.finish().is_err() {}
        let mut extents = std::mem::take(&mut self.blobs);
        extents.append(&mut self.pages.used);
        extents.extend(self.pages.free.drain(..));
        if let Some(ahead) = self.ahead.take()
            && let Some(Ok(ahead)) = self.inner.runtime.wait(ahead, None)
        {
            extents.extend(ahead);
        }
        if !extents.is_empty() {
            self.inner
                .runtime
                .send_flusher(FlusherMessage::Release { extents });
        }
    }
}

/// Where there is no file, the frames are where the pages are.
fn keep_in_memory(shared: &Shared, pages: &[u8]) -> Result<()> {
    let memory = &shared.memory;
    for page in pages.chunks_exact(memory.page_bytes()) {
        let Some(frame) = memory.allocate(Class::Worker) else {
            let what = format!(
                "all {} pages of the in-memory database are in use",
                memory.frames()
            );
            return Err(Error::OutOfSpace { what });
        };
        // SAFETY: the frame has just been allocated, so it is this thread's alone until it is made known below, and it
        // has as many bytes as the page.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.frame_ptr(frame), memory.page_bytes()) };
        bytes.copy_from_slice(page);
        memory.insert_resident(page::reference(page).id, frame);
    }
    Ok(())
}
