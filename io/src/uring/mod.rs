//! The io_uring device.
//!
//! States of an operation: *queued* in the submission ring → *in the kernel* → *completed* into the caller's list. A
//! short transfer goes from *in the kernel* back to *queued* with what remains; a durable write on a kernel
//! without `RWF_DSYNC` goes through a second *queued* as an fdatasync.
//!
//! - The ring is created disabled and enabled by the first thread that uses it: `SINGLE_ISSUER` binds a
//!   ring to that thread, and `DEFER_TASKRUN` runs completion work only inside its own calls.
//! - Each operation occupies one slot of `slots`, whose index is the entry's user data. The slot owns the
//!   operation, file and buffer included, until its completion entry is read: nothing that the kernel can
//!   still touch is ever freed.
//! - A read of an eventfd stays in the ring while the owner waits; the waker writes to it.
//!
//! Absent: SQPOLL (burns a core), IOPOLL (never completes on virtio), linked entries (slower than two
//! steps, measured).

mod entry;
mod files;
mod regions;
mod ring;
mod slots;
mod wake;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::device::{Device, DeviceKind, Wait};
use crate::operation::{Completion, Operation, OperationKind};
use crate::transfer::Next;
use crate::waker::DeviceWaker;
use files::FixedFiles;
use regions::Regions;
use ring::{Entered, Ring};
use slots::{InFlight, Slots, Stage};
use wake::WakeEntry;

/// The most operations in flight of one ring.
const CAPACITY_MAX: usize = 4096;

/// User data of the eventfd's read; slots have smaller numbers.
const WAKE_USER_DATA: u64 = u64::MAX;

/// Executes operations through io_uring.
pub struct UringDevice {
    // Dropped in this order, after `Drop::drop` has waited for the kernel: the ring before the memory that
    // its entries point to.
    ring: Ring,
    slots: Slots,
    wake: WakeEntry,
    files: FixedFiles,
    regions: Regions,
    /// Completed without the kernel: operations on files without a descriptor, or without bytes.
    finished: Vec<Completion>,
    capacity: usize,
    /// Whether the kernel takes `RWF_DSYNC`; cleared by its first refusal.
    durable_by_flag: bool,
}

impl UringDevice {
    /// Creates a ring for up to `capacity` operations in flight (between 1 and 4096).
    ///
    /// # Errors
    ///
    /// The system's refusal: `EPERM` (a seccomp filter or sysctl), `ENOSYS` (old kernel), `ENOMEM` (locked
    /// memory limit), or `Unsupported` when the kernel's io_uring is too old.
    pub fn open(capacity: usize) -> io::Result<Self> {
        let capacity = capacity.clamp(1, CAPACITY_MAX);
        // One entry more than operations: the eventfd's read.
        let entries = capacity as u32 + 1;
        let mut ring = Ring::open(entries)?;
        let files = FixedFiles::register(&ring);
        if files.is_refused() && !ring.is_enabled() {
            // Enabling is a registration too, so where those are refused only a ring that is born enabled works.
            ring = Ring::open_plain(entries)?;
        }
        Ok(Self {
            files,
            ring,
            slots: Slots::new(capacity),
            wake: WakeEntry::new()?,
            regions: Regions::default(),
            finished: Vec::new(),
            capacity,
            durable_by_flag: true,
        })
    }

    /// Queues the next step of the operation in `slot`.
    fn queue(&mut self, slot: u32) -> io::Result<()> {
        let Some(in_flight) = self.slots.get_mut(slot) else {
            return Ok(());
        };
        if in_flight.stage == Stage::DurableTransfer && !self.durable_by_flag {
            in_flight.stage = Stage::TransferThenSync;
        }
        let Some(descriptor) = in_flight.operation.file.raw_fd() else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the file has lost its descriptor",
            ));
        };
        let fixed = self
            .files
            .index_of(&in_flight.operation.file, descriptor, &self.ring);
        let entry = entry::build(in_flight, descriptor, fixed, &self.regions).user_data(u64::from(slot));
        // SAFETY: the entry points into the buffer and names the file of the operation in `slot`; both stay
        // there, untouched by us, until the completion entry with this user data has been read, or are
        // leaked if it never can be (`drop`). `RawBuffer::new` extends that to borrowed memory.
        unsafe { self.ring.push(&entry) }
    }

    /// Reads all completion entries: completes, continues, or notes a wake.
    fn drain(&mut self, done: &mut Vec<Completion>) {
        while let Some(entry) = self.ring.next_completion() {
            let outcome = entry.result();
            if entry.user_data() == WAKE_USER_DATA {
                self.wake.fired(outcome);
                continue;
            }
            let slot = entry.user_data() as u32;
            let outcome = if outcome < 0 {
                Err(io::Error::from_raw_os_error(-outcome))
            } else {
                Ok(outcome as usize)
            };
            let Some(in_flight) = self.slots.get_mut(slot) else {
                continue;
            };
            let next = in_flight.advance(outcome);
            self.durable_by_flag &= in_flight.stage != Stage::TransferThenSync;
            let result = match next {
                Next::Finished => Ok(()),
                Next::Failed(error) => Err(error),
                Next::Again => match self.queue(slot) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
            };
            if let Some(in_flight) = self.slots.release(slot) {
                let result = result.map_err(|error| in_flight.operation.annotate(error));
                done.push(in_flight.operation.complete(result));
            }
        }
    }

    /// Enters the kernel to submit and, if `limit` is given, to wait for one completion.
    fn enter(&mut self, limit: Option<Option<Duration>>) -> io::Result<Entered> {
        let Some(limit) = limit else {
            return self.ring.submit();
        };
        self.files.sweep(&self.ring);
        if let Some(entry) = self.wake.arm() {
            // SAFETY: the entry points into the wake entry's own box, which lives until the kernel has
            // answered, see `drop`.
            let pushed = unsafe { self.ring.push(&entry) };
            if pushed.is_err() {
                self.wake.disarm();
                pushed?;
            }
        }
        self.ring.submit_and_wait(limit)
    }
}

impl Device for UringDevice {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn in_flight(&self) -> usize {
        self.slots.len() + self.finished.len()
    }

    fn submit(&mut self, operation: Operation) -> Result<(), Operation> {
        if self.in_flight() == self.capacity {
            return Err(operation);
        }
        let has_bytes = !operation.buffer.is_empty() || operation.kind == OperationKind::SyncData;
        if operation.file.raw_fd().is_none() || !has_bytes {
            self.finished.push(operation.complete_blocking());
            return Ok(());
        }
        let slot = self.slots.insert(InFlight::new(operation));
        if let Err(error) = self.queue(slot)
            && let Some(in_flight) = self.slots.release(slot)
        {
            let error = in_flight.operation.annotate(error);
            self.finished.push(in_flight.operation.complete(Err(error)));
        }
        Ok(())
    }

    fn kick(&mut self) -> io::Result<()> {
        self.ring.submit().map(drop)
    }

    fn reap(&mut self, done: &mut Vec<Completion>, wait: Wait) -> io::Result<()> {
        let before = done.len();
        done.append(&mut self.finished);
        let limit = match wait {
            Wait::UntilCompletionOrWake(limit) if done.len() == before => limit,
            Wait::UntilCompletionOrWake(_) | Wait::No => {
                self.enter(None)?;
                self.drain(done);
                // Continued transfers go to the kernel at once, not at the next call.
                return self.kick();
            }
        };
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            // A wake that an earlier call has read still ends this wait.
            if self.wake.take() {
                self.enter(None)?;
                self.drain(done);
                return self.kick();
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let entered = self.enter(Some(left))?;
            self.drain(done);
            if done.len() > before || self.wake.take() || entered == Entered::TimedOut {
                return self.kick();
            }
        }
    }

    fn waker(&self) -> DeviceWaker {
        self.wake.waker()
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Uring
    }

    unsafe fn register_region(&mut self, start: NonNull<u8>, len: usize) -> bool {
        // SAFETY: our caller keeps the memory allocated until the device, and with it the ring, is dropped.
        unsafe { self.regions.register(&self.ring, start, len) }
    }
}

impl Drop for UringDevice {
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.slots.len() > 0 || self.wake.is_armed() {
            if self.slots.len() == 0 {
                self.wake.waker().wake();
            }
            if let Err(error) = self.ring.submit_and_wait(None) {
                // Another thread than the owner may not reap, and then the kernel may still write into these
                // buffers: they must never be used again.
                tracing::error!(%error, operations = self.slots.len(), "io_uring dropped with operations in flight; leaking their buffers");
                self.slots.leak();
                self.wake.leak();
                return;
            }
            self.drain(&mut done);
            done.clear();
        }
    }
}

impl fmt::Debug for UringDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDevice")
            .field("capacity", &self.capacity)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
