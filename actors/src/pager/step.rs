//! One step of the pager.

use std::sync::Arc;

use treering_engine::PageId;
use treering_engine::memory::{Class, FrameId};
use treering_engine::page;
use treering_io::{AlignedBuffer, Buffer, Completion, Operation, OperationKind};

use super::IN_FLIGHT_MAX;
use super::messages::{PagerMessage, Transfer, TransferKind, TransferReply};
use super::state::{Pager, Purpose};
use crate::actor::{Actor, Nanos, Outbox};
use crate::flusher::FlusherMessage;
use crate::shard::ShardMessage;
use crate::shared::Counter;

impl Actor for Pager {
    type Message = PagerMessage;

    fn handle(&mut self, message: PagerMessage, _now: Nanos, outbox: &mut Outbox) {
        match message {
            PagerMessage::Fetch { reference, waiter } => self.fetch(reference, waiter, outbox),
            PagerMessage::WritePage { id, frame } => self.write_page(id, frame),
            PagerMessage::Transfer(transfer) => self.transfer(transfer),
            PagerMessage::ReadAhead { shard, references } => self.ahead.replace(shard, references),
            PagerMessage::Completed(completion) => self.completed(completion, outbox),
            PagerMessage::FramesFreed => {
                self.pressure_sent = false;
                for (reference, waiter) in std::mem::take(&mut self.starved) {
                    self.fetch(reference, waiter, outbox);
                }
            }
        }
    }

    fn end_batch(&mut self, _now: Nanos, outbox: &mut Outbox) {
        while self.in_flight.len() < IN_FLIGHT_MAX {
            let next = self
                .queued_reads
                .pop_front()
                .or_else(|| self.queued_writes.pop_front());
            let Some((operation, purpose)) = next else { break };
            self.in_flight.insert(operation.token, purpose);
            outbox.operations.push(operation);
        }
        self.read_ahead(outbox);
        let counters = &self.shared.counters;
        counters.set(Counter::FramesLoading, self.reading.len() as u64);
        let memory = &self.shared.memory;
        // In memory nothing can be evicted, however low it is.
        let low = !self.shared.settings.in_memory
            && memory.available_frames(Class::Worker) < crate::flusher::frames_low(memory.frames());
        // That frames are few is told once each time: the flusher answers at once as long as there are some, and
        // would be asked again, and so on, for as long as its writes take.
        if ((low && !self.low_told) || !self.starved.is_empty()) && !self.pressure_sent {
            self.pressure_sent = true;
            outbox.flusher.push(FlusherMessage::Pressure { shard: None });
        }
        self.low_told = low;
    }
}

impl Pager {
    fn write_page(&mut self, id: PageId, frame: FrameId) {
        let page_bytes = self.shared.memory.page_bytes();
        // SAFETY: the page is frozen, and its frame stays put while the flusher has it marked as being written.
        let frozen = unsafe { std::slice::from_raw_parts(self.frame_start(frame).as_ptr(), page_bytes) };
        // The checksum goes into a copy: readers may be looking at the page itself.
        let mut sealed = match self.spare_buffers.pop() {
            Some(mut buffer) => {
                buffer.copy_from_slice(frozen);
                buffer
            }
            None => AlignedBuffer::copy_of(frozen),
        };
        page::seal(&mut sealed);
        let operation = Operation {
            token: self.token(),
            file: Arc::clone(&self.file),
            offset: self.offset(id),
            kind: OperationKind::Write { durable: false },
            buffer: Buffer::Owned(sealed),
        };
        self.queued_writes
            .push_back((operation, Purpose::WritePage { id, frame }));
    }

    fn transfer(&mut self, transfer: Transfer) {
        let Transfer {
            kind,
            offset,
            buffer,
            reply,
        } = transfer;
        let kind = match kind {
            TransferKind::Read => OperationKind::Read,
            TransferKind::Write => OperationKind::Write { durable: false },
            TransferKind::Sync => {
                self.shared.counters.add(Counter::Syncs, 1);
                OperationKind::SyncData
            }
        };
        let operation = Operation {
            token: self.token(),
            file: Arc::clone(&self.file),
            offset,
            kind,
            buffer: buffer.map_or(Buffer::None, Buffer::Owned),
        };
        let queue = if kind == OperationKind::Read {
            &mut self.queued_reads
        } else {
            &mut self.queued_writes
        };
        let purpose = if kind == OperationKind::SyncData {
            Purpose::Sync(reply)
        } else {
            Purpose::Transfer(reply)
        };
        queue.push_back((operation, purpose));
    }

    fn completed(&mut self, completion: Completion, outbox: &mut Outbox) {
        let Some(purpose) = self.in_flight.remove(&completion.token) else {
            return;
        };
        if let (Purpose::Sync(_), Err(error)) = (&purpose, &completion.result) {
            // The system may have forgotten writes that completed before, anybody's, and the next sync won't tell.
            let cause = match error.raw_os_error() {
                Some(code) => std::io::Error::from_raw_os_error(code),
                None => std::io::Error::new(error.kind(), error.to_string()),
            };
            self.shared.status.poison(&Arc::new(cause));
        }
        match purpose {
            Purpose::Read(id) => self.finish_read(id, completion.result, outbox),
            Purpose::ReadAhead(id) => {
                self.ahead.page_done();
                self.finish_read(id, completion.result, outbox);
            }
            Purpose::ReadRun { start, references } => {
                self.finish_run(start, &references, completion.result, completion.buffer, outbox);
            }
            Purpose::WritePage { id, frame } => {
                if completion.result.is_ok() {
                    self.shared.counters.add(Counter::PagesWritten, 1);
                }
                self.spare_buffers.extend(completion.buffer.into_owned());
                outbox.flusher.push(FlusherMessage::PageWritten {
                    id,
                    frame,
                    result: completion.result,
                });
            }
            Purpose::Transfer(TransferReply::Flusher { token })
            | Purpose::Sync(TransferReply::Flusher { token }) => {
                outbox.flusher.push(FlusherMessage::Transferred {
                    token,
                    result: completion.result,
                });
            }
            Purpose::Transfer(TransferReply::Shard { shard, job, piece })
            | Purpose::Sync(TransferReply::Shard { shard, job, piece }) => {
                let message = ShardMessage::Transferred {
                    job,
                    piece,
                    result: completion.result,
                    buffer: completion.buffer.into_owned(),
                };
                outbox.shards.push((shard, message));
            }
            Purpose::Transfer(TransferReply::Client(sender))
            | Purpose::Sync(TransferReply::Client(sender)) => {
                sender.send((completion.result, completion.buffer.into_owned()));
            }
        }
    }

    pub(super) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    pub(super) fn offset(&self, id: PageId) -> u64 {
        u64::from(id.0) * self.shared.memory.page_bytes() as u64
    }
}
