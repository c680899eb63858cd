//! Reading ahead for recovery: many pages, named long before they are needed.
//!
//! Pages that lie near each other come with one read into a buffer of its own, from where they are copied to their
//! frames: a device gives a megabyte in a few pieces five to ten times as fast as in pages. What lies between them is
//! read and left.
//!
//! Nobody waits for these pages yet. Who does later asks with a fetch, which joins the read that is under way or goes
//! its own way; and where frames are few, or a run can't be read, the rest is left to those fetches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use treering_engine::memory::{Class, Residency};
use treering_engine::{PageId, PageRef, ShardId};
use treering_io::{AlignedBuffer, Buffer, Operation, OperationKind};

use super::state::{Pager, Purpose};
use crate::actor::Outbox;

/// Most pages between two that are read together.
const GAP_PAGES_MAX: u32 = 8;
/// Longest run, bytes.
const RUN_BYTES_MAX: usize = 256 << 10;
/// Most runs, and reads of single pages, that are with the device.
const RUNS_MAX: usize = 8;
const PAGES_MAX: usize = 64;

/// What is to be read ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Ascending by id.
    wanted: BTreeMap<ShardId, VecDeque<PageRef>>,
    runs: usize,
    pages: usize,
    /// Buffers of runs that have ended; none once nothing is wanted.
    spare: Vec<AlignedBuffer>,
}

impl Ahead {
    /// The shard wants these pages now, and no others.
    pub fn replace(&mut self, shard: ShardId, references: Vec<PageRef>) {
        if references.is_empty() {
            self.wanted.remove(&shard);
        } else {
            self.wanted.insert(shard, references.into());
        }
        if self.wanted.is_empty() {
            self.spare = Vec::new();
        }
    }

    /// A read of a single page has ended.
    pub fn page_done(&mut self) {
        self.pages -= 1;
    }
}

impl Pager {
    /// Begins reads for what is wanted, as many as may be with the device.
    pub(super) fn read_ahead(&mut self, outbox: &mut Outbox) {
        while self.ahead.runs < RUNS_MAX
            && self.ahead.pages < PAGES_MAX
            && self.in_flight.len() < super::IN_FLIGHT_MAX
        {
            let Some(shard) = self.ahead.wanted.keys().next().copied() else {
                return;
            };
            let run = self.take_run(shard);
            match run[..] {
                [] => {}
                [reference] => self.read_page_ahead(reference, outbox),
                [first, .., last] => self.read_run(first.id, last.id, run, outbox),
            }
        }
    }

    /// Takes the next pages that aren't in memory and lie near each other, and makes them loading.
    fn take_run(&mut self, shard: ShardId) -> Vec<PageRef> {
        let run_pages_max = (RUN_BYTES_MAX / self.shared.memory.page_bytes()) as u32;
        let mut run: Vec<PageRef> = Vec::new();
        let Some(mut wanted) = self.ahead.wanted.remove(&shard) else {
            return run;
        };
        let shared = Arc::clone(&self.shared);
        let memory = &shared.memory;
        while let Some(&reference) = wanted.front() {
            if let (Some(first), Some(last)) = (run.first(), run.last())
                && (reference.id.0 - last.id.0 > GAP_PAGES_MAX + 1
                    || reference.id.0 - first.id.0 >= run_pages_max)
            {
                break;
            }
            wanted.pop_front();
            if memory.state(reference.id) != Residency::Absent {
                continue;
            }
            let Some(frame) = memory.allocate(Class::Reader) else {
                wanted.clear();
                break;
            };
            if !memory.insert_loading(reference.id, frame) {
                memory.release_now(frame);
                continue;
            }
            self.note_reading(reference, frame, Vec::new());
            run.push(reference);
        }
        if !wanted.is_empty() {
            self.ahead.wanted.insert(shard, wanted);
        }
        run
    }

    fn read_page_ahead(&mut self, reference: PageRef, outbox: &mut Outbox) {
        let Some(frame) = self.reading.get(&reference.id).map(|reading| reading.frame) else {
            return;
        };
        self.ahead.pages += 1;
        let buffer = self.frame_buffer(frame);
        self.start_read(reference.id, buffer, Purpose::ReadAhead(reference.id), outbox);
    }

    fn read_run(&mut self, start: PageId, last: PageId, references: Vec<PageRef>, outbox: &mut Outbox) {
        self.ahead.runs += 1;
        let mut buffer = self
            .ahead
            .spare
            .pop()
            .unwrap_or_else(|| AlignedBuffer::zeroed(RUN_BYTES_MAX));
        buffer.set_len((last.0 - start.0 + 1) as usize * self.shared.memory.page_bytes());
        let purpose = Purpose::ReadRun { start, references };
        self.start_read(start, Buffer::Owned(buffer), purpose, outbox);
    }

    fn start_read(&mut self, start: PageId, buffer: Buffer, purpose: Purpose, outbox: &mut Outbox) {
        let operation = Operation {
            token: self.token(),
            file: Arc::clone(&self.file),
            offset: self.offset(start),
            kind: OperationKind::Read,
            buffer,
        };
        self.in_flight.insert(operation.token, purpose);
        outbox.operations.push(operation);
    }

    /// A run was read: its pages go to their frames.
    pub(super) fn finish_run(
        &mut self,
        start: PageId,
        references: &[PageRef],
        result: std::io::Result<()>,
        buffer: Buffer,
        outbox: &mut Outbox,
    ) {
        self.ahead.runs -= 1;
        let page_bytes = self.shared.memory.page_bytes();
        let buffer = buffer.into_owned();
        for reference in references {
            let Some(frame) = self.reading.get(&reference.id).map(|reading| reading.frame) else {
                continue;
            };
            if let (Ok(()), Some(bytes)) = (&result, &buffer) {
                let offset = (reference.id.0 - start.0) as usize * page_bytes;
                let page = &bytes[offset..offset + page_bytes];
                // SAFETY: the frame was allocated for this page, which is loading: until `finish_read` nobody else
                // finds it, and no device reads into it. It has `page_bytes` bytes, and lies in the arena, while the
                // page lies in the buffer.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        page.as_ptr(),
                        self.frame_start(frame).as_ptr(),
                        page_bytes,
                    );
                }
                self.finish_read(reference.id, Ok(()), outbox);
            } else if let Some(reading) = self.reading.remove(&reference.id) {
                // Which of the pages it was will be seen when somebody asks for it.
                self.shared.memory.abandon_loading(reference.id, frame);
                for waiter in reading.waiters {
                    self.fetch(reading.reference, waiter, outbox);
                }
            }
        }
        if let Some(buffer) = buffer
            && !self.ahead.wanted.is_empty()
        {
            self.ahead.spare.push(buffer);
        }
    }
}
