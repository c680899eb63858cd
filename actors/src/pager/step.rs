//! One step of the pager.

use std::ptr::NonNull;
use std::sync::Arc;

use treering_engine::memory::{Class, FrameId, Residency};
use treering_engine::page;
use treering_engine::{PageId, PageRef};
use treering_io::{Buffer, Completion, Operation, OperationKind, RawBuffer};

use super::IN_FLIGHT_MAX;
use super::messages::{PagerMessage, Transfer, TransferKind, TransferReply, Waiter};
use super::state::{Pager, Purpose, Reading};
use crate::actor::{Actor, Nanos, Outbox};
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::shard::ShardMessage;
use crate::shared::{Counter, DATA_FILE, with_guard};

impl Actor for Pager {
    type Message = PagerMessage;

    fn handle(&mut self, message: PagerMessage, _now: Nanos, outbox: &mut Outbox) {
        match message {
            PagerMessage::Fetch { reference, waiter } => self.fetch(reference, waiter, outbox),
            PagerMessage::WritePage { id, frame } => self.write_page(id, frame),
            PagerMessage::Transfer(transfer) => self.transfer(transfer),
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
    fn fetch(&mut self, reference: PageRef, waiter: Waiter, outbox: &mut Outbox) {
        if let Some(reading) = self.reading.get_mut(&reference.id) {
            reading.waiters.push(waiter);
            return;
        }
        // Somebody may have been faster: then the page is here. A hold that fails says that it is just leaving.
        let resident = with_guard(&self.shared.memory, |guard| {
            let frame = self.shared.memory.lookup(reference.id, guard)?.id;
            (matches!(waiter, Waiter::Nobody) || self.shared.memory.hold(frame)).then_some(frame)
        });
        if let Some(frame) = resident {
            answer(waiter, reference, Ok(frame), outbox);
            return;
        }
        if self.shared.memory.state(reference.id) != Residency::Absent {
            // The flusher is between claiming the frame and forgetting the page: next round.
            return self.starve(reference, waiter);
        }
        let Some(frame) = self.shared.memory.allocate(Class::Reader) else {
            return self.starve(reference, waiter);
        };
        if !self.shared.memory.insert_loading(reference.id, frame) {
            self.shared.memory.release_now(frame);
            return self.starve(reference, waiter);
        }
        self.shared.counters.add(Counter::Misses, 1);
        self.reading.insert(
            reference.id,
            Reading {
                reference,
                frame,
                waiters: vec![waiter],
            },
        );
        let operation = Operation {
            token: self.token(),
            file: Arc::clone(&self.file),
            offset: self.offset(reference.id),
            kind: OperationKind::Read,
            buffer: self.frame_buffer(frame),
        };
        self.queued_reads
            .push_back((operation, Purpose::Read(reference.id)));
    }

    /// Tries the fetch again later. Not for read-ahead: its page may be dead by then, and its id somebody else's, since
    /// nobody who waits keeps the version alive.
    fn starve(&mut self, reference: PageRef, waiter: Waiter) {
        if !matches!(waiter, Waiter::Nobody) {
            self.starved.push_back((reference, waiter));
        }
    }

    fn write_page(&mut self, id: PageId, frame: FrameId) {
        // SAFETY: the page is frozen and its frame stays put while the flusher has it marked as being written.
        // Only the checksum field changes, which readers never look at and which is stored atomically.
        unsafe { page::seal_shared(self.frame_start(frame).as_ptr(), self.shared.memory.page_bytes()) };
        let operation = Operation {
            token: self.token(),
            file: Arc::clone(&self.file),
            offset: self.offset(id),
            kind: OperationKind::Write { durable: false },
            buffer: self.frame_buffer(frame),
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
            Purpose::WritePage { id, frame } => {
                if completion.result.is_ok() {
                    self.shared.counters.add(Counter::PagesWritten, 1);
                }
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
            Purpose::Transfer(TransferReply::Client(sender))
            | Purpose::Sync(TransferReply::Client(sender)) => {
                let _ = sender.send((completion.result, completion.buffer.into_owned()));
            }
        }
    }

    fn finish_read(&mut self, id: PageId, result: std::io::Result<()>, outbox: &mut Outbox) {
        let Some(Reading {
            reference,
            frame,
            waiters,
        }) = self.reading.remove(&id)
        else {
            return;
        };
        let memory = &self.shared.memory;
        let result = match result {
            Ok(()) => {
                self.shared.counters.add(Counter::PagesRead, 1);
                self.verify(frame, reference)
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.corrupt(id, "the file ends before this page".into()))
            }
            Err(error) => Err(Error::io(format!("reading page {} of {DATA_FILE}", id.0), error)),
        };
        if let Err(error) = result {
            memory.abandon_loading(id, frame);
            for waiter in waiters {
                answer(waiter, reference, Err(error.clone()), outbox);
            }
            return;
        }
        // The holds come first: from `finish_loading` on the page could be evicted.
        let mut waiters = waiters.into_iter();
        for waiter in waiters.as_slice() {
            let held = matches!(waiter, Waiter::Nobody) || memory.hold(frame);
            debug_assert!(held, "a page that is still loading can't be leaving");
        }
        memory.finish_loading(id, frame);
        for waiter in waiters.by_ref() {
            answer(waiter, reference, Ok(frame), outbox);
        }
    }

    fn verify(&self, frame: FrameId, reference: PageRef) -> Result<()> {
        // SAFETY: the read has completed, so the device gave the frame back; until `finish_loading` nobody
        // else can find it.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.frame_start(frame).as_ptr(), self.shared.memory.page_bytes())
        };
        page::verify(bytes, reference).map_err(|defect| self.corrupt(reference.id, defect.to_string()))
    }

    fn corrupt(&self, id: PageId, reason: String) -> Error {
        Error::Corrupt {
            file: DATA_FILE.into(),
            offset: self.offset(id),
            page: Some(id.0),
            reason,
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn offset(&self, id: PageId) -> u64 {
        u64::from(id.0) * self.shared.memory.page_bytes() as u64
    }

    fn frame_start(&self, frame: FrameId) -> NonNull<u8> {
        // SAFETY: frames lie in a mapping, which never starts at address zero.
        unsafe { NonNull::new_unchecked(self.shared.memory.frame_ptr(frame)) }
    }

    fn frame_buffer(&self, frame: FrameId) -> Buffer {
        // SAFETY: a frame that is read into belongs to the pager until the read has completed, and is found by
        // nobody while it is loading; a frame that is written from is frozen and can't be evicted or freed while it
        // is marked as being written. The arena outlives the device: the runtime drops the device first.
        let raw = unsafe { RawBuffer::new(self.frame_start(frame), self.shared.memory.page_bytes()) };
        Buffer::Borrowed(raw)
    }
}

fn answer(waiter: Waiter, reference: PageRef, result: Result<FrameId>, outbox: &mut Outbox) {
    match waiter {
        Waiter::Shard(shard) => outbox
            .shards
            .push((shard, ShardMessage::Loaded { reference, result })),
        Waiter::Client(sender) => outbox.fetched.push((sender, result)),
        Waiter::Nobody => {}
    }
}
