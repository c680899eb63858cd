//! Bringing pages into memory: through the device, or by the thread that misses the page.
//!
//! # Two ways, one set of rules
//! A fetch by message ([`Pager::fetch`]) leaves a read for the pager's device. A client that would only wait takes the
//! read itself: [`Pager::begin`] and [`Pager::finish`] are short and run in its thread, with the pager's seat taken; in
//! between, with nothing taken, it reads the page into the frame and verifies it ([`OwnRead::execute`]). Both make the
//! page loading in the same list, so concurrent misses of one page share one read, whoever does it.
//!
//! An own read that has begun is finished in every case: somebody may have joined it.

use std::ptr::NonNull;
use std::sync::Arc;

use treering_engine::memory::{Class, FrameId, Residency};
use treering_engine::{PageRef, page};
use treering_io::{Buffer, Operation, OperationKind, RawBuffer};

use super::messages::{Kept, Waiter};
use super::state::{Pager, Purpose, Reading};
use crate::actor::Outbox;
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::shard::ShardMessage;
use crate::shared::{Counter, DATA_FILE, Shared, with_guard};

/// What a client that misses a page has to do.
pub(crate) enum Begun {
    /// Nothing: the page is here, held for the client.
    Here(FrameId),
    /// Wait: somebody reads the page already, or a frame has to become free first.
    Wait(oneshot::Receiver<Result<FrameId>>),
    /// Read it.
    Own(OwnRead),
}

/// A read that a client does itself: begun, and to be finished by [`Pager::finish`].
#[must_use = "others may wait for the page"]
pub(crate) struct OwnRead {
    shared: Arc<Shared>,
    operation: Operation,
    reference: PageRef,
    frame: FrameId,
}

/// An own read that was carried out: whether the page is in its frame, and what it should be.
#[must_use = "others may wait for the page"]
pub(crate) struct OwnReadDone {
    reference: PageRef,
    result: Result<()>,
}

impl OwnRead {
    /// Reads and verifies the page, in the calling thread. Takes as long as the device does.
    pub fn execute(self) -> OwnReadDone {
        let completion = self.operation.complete_blocking();
        OwnReadDone {
            reference: self.reference,
            result: believe(&self.shared, self.frame, self.reference, completion.result),
        }
    }
}

/// What became of a page that was asked for, before anything was read.
enum Look {
    Resident(FrameId),
    Loading(FrameId),
    /// It can't be read now: tried again when frames were freed.
    Later,
}

impl Pager {
    pub(super) fn fetch(&mut self, reference: PageRef, waiter: Waiter, outbox: &mut Outbox) {
        if let Some(reading) = self.reading.get_mut(&reference.id) {
            reading.waiters.push(waiter);
            return;
        }
        match self.look(reference, !matches!(waiter, Waiter::Nobody { .. })) {
            Look::Resident(frame) => answer(waiter, reference, Ok(frame), outbox),
            Look::Later => match waiter {
                Waiter::Nobody { kept } => give_up(kept, outbox),
                waiter => self.starved.push_back((reference, waiter)),
            },
            Look::Loading(frame) => {
                self.note_reading(reference, frame, vec![waiter]);
                let operation = self.read_operation(reference, frame);
                self.queued_reads
                    .push_back((operation, Purpose::Read(reference.id)));
            }
        }
    }

    /// A client misses a page and is ready to read it itself.
    pub fn begin(&mut self, reference: PageRef) -> Begun {
        if let Some(reading) = self.reading.get_mut(&reference.id) {
            let (sender, receiver) = oneshot::channel();
            reading.waiters.push(Waiter::Client(sender));
            return Begun::Wait(receiver);
        }
        match self.look(reference, true) {
            Look::Resident(frame) => Begun::Here(frame),
            Look::Later => {
                let (sender, receiver) = oneshot::channel();
                self.starved.push_back((reference, Waiter::Client(sender)));
                Begun::Wait(receiver)
            }
            Look::Loading(frame) => {
                self.note_reading(reference, frame, Vec::new());
                Begun::Own(OwnRead {
                    shared: Arc::clone(&self.shared),
                    operation: self.read_operation(reference, frame),
                    reference,
                    frame,
                })
            }
        }
    }

    /// The client's read has ended: the page is held for it, and for everybody who joined.
    pub fn finish(&mut self, done: OwnReadDone, outbox: &mut Outbox) -> Result<FrameId> {
        let OwnReadDone { reference, result } = done;
        let Some(reading) = self.reading.remove(&reference.id) else {
            unreachable!("a read that was begun is in the list until it is finished")
        };
        let frame = reading.frame;
        if result.is_ok() {
            hold(&self.shared, frame);
        }
        self.arrive(reading, result.clone(), outbox);
        result.map(|()| frame)
    }

    /// A read of the device has ended.
    pub(super) fn finish_read(
        &mut self,
        id: treering_engine::PageId,
        result: std::io::Result<()>,
        outbox: &mut Outbox,
    ) {
        let Some(reading) = self.reading.remove(&id) else {
            return;
        };
        let result = believe(&self.shared, reading.frame, reading.reference, result);
        self.arrive(reading, result, outbox);
    }

    /// Looks where the page is; if it is absent, takes a frame and marks it as loading.
    fn look(&self, reference: PageRef, held: bool) -> Look {
        let memory = &self.shared.memory;
        // Somebody may have been faster: then the page is here. A hold that fails says that it is just leaving.
        let resident = with_guard(memory, |guard| {
            let frame = memory.lookup(reference.id, guard)?.id;
            (!held || memory.hold(frame)).then_some(frame)
        });
        if let Some(frame) = resident {
            return Look::Resident(frame);
        }
        if memory.state(reference.id) != Residency::Absent {
            // The flusher is between claiming the frame and forgetting the page: next round.
            return Look::Later;
        }
        let Some(frame) = memory.allocate(Class::Reader) else {
            return Look::Later;
        };
        if !memory.insert_loading(reference.id, frame) {
            memory.release_now(frame);
            return Look::Later;
        }
        Look::Loading(frame)
    }

    pub(super) fn note_reading(&mut self, reference: PageRef, frame: FrameId, waiters: Vec<Waiter>) {
        self.shared.counters.add(Counter::Misses, 1);
        let reading = Reading {
            reference,
            frame,
            waiters,
        };
        self.reading.insert(reference.id, reading);
    }

    fn read_operation(&mut self, reference: PageRef, frame: FrameId) -> Operation {
        Operation {
            token: self.token(),
            file: Arc::clone(&self.file),
            offset: offset(&self.shared, reference),
            kind: OperationKind::Read,
            buffer: self.frame_buffer(frame),
        }
    }

    /// Makes the page findable, or forgets it, and tells those who wait.
    fn arrive(&self, reading: Reading, result: Result<()>, outbox: &mut Outbox) {
        let Reading {
            reference,
            frame,
            waiters,
        } = reading;
        let memory = &self.shared.memory;
        match result {
            Err(error) => {
                memory.abandon_loading(reference.id, frame);
                for waiter in waiters {
                    answer(waiter, reference, Err(error.clone()), outbox);
                }
            }
            Ok(()) => {
                // The holds come first: from `finish_loading` on the page could be evicted.
                for waiter in &waiters {
                    if !matches!(waiter, Waiter::Nobody { .. }) {
                        hold(&self.shared, frame);
                    }
                }
                memory.finish_loading(reference.id, frame);
                for waiter in waiters {
                    answer(waiter, reference, Ok(frame), outbox);
                }
            }
        }
    }

    pub(super) fn frame_start(&self, frame: FrameId) -> NonNull<u8> {
        // SAFETY: frames lie in a mapping, which never starts at address zero.
        unsafe { NonNull::new_unchecked(self.shared.memory.frame_ptr(frame)) }
    }

    pub(super) fn frame_buffer(&self, frame: FrameId) -> Buffer {
        // SAFETY: a frame that is read into belongs to its read until that has completed, and is found by
        // nobody while it is loading. The arena outlives the device, which the runtime drops first, and the reads of
        // clients: who carries one out keeps `Shared` alive.
        let raw = unsafe { RawBuffer::new(self.frame_start(frame), self.shared.memory.page_bytes()) };
        Buffer::Borrowed(raw)
    }
}

fn hold(shared: &Shared, frame: FrameId) {
    let held = shared.memory.hold(frame);
    debug_assert!(held, "a page that is still loading can't be leaving");
}

/// Whether the page arrived, and is what it should be (rule R6).
fn believe(shared: &Shared, frame: FrameId, reference: PageRef, result: std::io::Result<()>) -> Result<()> {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(corrupt(
                shared,
                reference,
                "the file ends before this page".into(),
            ));
        }
        Err(error) => {
            let what = format!("reading page {} of {DATA_FILE}", reference.id.0);
            return Err(Error::io(what, error));
        }
    }
    shared.counters.add(Counter::PagesRead, 1);
    let memory = &shared.memory;
    // SAFETY: the read has completed, so the frame is nobody's but the caller's, who has made the page loading; until
    // `finish_loading` nobody else can find it.
    let bytes = unsafe { std::slice::from_raw_parts(memory.frame_ptr(frame), memory.page_bytes()) };
    page::verify(bytes, reference).map_err(|defect| corrupt(shared, reference, defect.to_string()))
}

fn corrupt(shared: &Shared, reference: PageRef, reason: String) -> Error {
    Error::Corrupt {
        file: DATA_FILE.into(),
        offset: offset(shared, reference),
        page: Some(reference.id.0),
        reason,
    }
}

fn offset(shared: &Shared, reference: PageRef) -> u64 {
    u64::from(reference.id.0) * shared.memory.page_bytes() as u64
}

fn answer(waiter: Waiter, reference: PageRef, result: Result<FrameId>, outbox: &mut Outbox) {
    match waiter {
        Waiter::Shard(shard) => outbox
            .shards
            .push((shard, ShardMessage::Loaded { reference, result })),
        Waiter::Client(sender) => outbox.fetched.push((sender, result)),
        Waiter::Future { sender, kept } => {
            outbox.fetched_for_futures.push((sender, result));
            give_up(kept, outbox);
        }
        Waiter::Nobody { kept } => give_up(kept, outbox),
    }
}

/// Lets go of what kept a page alive. If nothing else keeps it, the flusher is told, since nothing else may tell.
fn give_up(kept: Kept, outbox: &mut Outbox) {
    if Arc::strong_count(&kept) == 1 {
        outbox.flusher.push(FlusherMessage::Released { kept });
    }
}
