//! The simulated device: operations complete when virtual time has come to them, in an order drawn from the seed.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::directory::SimDirectory;
use super::disk::{InFlightWrite, check_aligned};
use super::file::{SharedDisk, SimFile, locked};
use crate::device::{Device, DeviceKind, Wait};
use crate::operation::{Completion, Operation, OperationKind};
use crate::waker::DeviceWaker;

/// A device of a simulated disk, for one thread.
///
/// [`Device::reap`] completes what is due. Asked to wait, it never blocks: it moves virtual time on to the next
/// due operation or the limit, whichever is first, and returns at once when there is neither. Dropping it carries
/// out what is in flight, as for every device, unless the power was cut or the process killed before.
#[derive(Debug)]
pub struct SimDevice {
    disk: SharedDisk,
    /// The power-up that the operations below belong to.
    generation: u64,
    capacity: usize,
    /// By when they are due, then by number.
    held: BTreeMap<(u64, u64), Held>,
    wake_sender: Sender<()>,
    wake_receiver: Receiver<()>,
}

#[derive(Debug)]
struct Held {
    operation: Operation,
    /// For a sync: it covers the writes that completed before it was submitted.
    sequence_end: u64,
}

impl SimDevice {
    /// A device for up to `capacity` operations in flight (at least one).
    #[must_use]
    pub fn new(directory: &SimDirectory, capacity: usize) -> Self {
        let (wake_sender, wake_receiver) = bounded(1);
        let generation = locked(&directory.disk).generation;
        Self {
            disk: Arc::clone(&directory.disk),
            generation,
            capacity: capacity.max(1),
            held: BTreeMap::new(),
            wake_sender,
            wake_receiver,
        }
    }

    /// Whether the power was cut, or the process killed, since the operations were submitted.
    fn is_cut_off(&self) -> bool {
        locked(&self.disk).generation != self.generation
    }

    /// A copy of a write to this disk, for a power cut before its completion. What is refused at completion
    /// can't land either.
    fn what_would_land(&self, operation: &Operation) -> Option<InFlightWrite> {
        let file = as_simulated(operation, &self.disk)?;
        if !matches!(operation.kind, OperationKind::Write { .. }) || file.handle.generation != self.generation
        {
            return None;
        }
        // SAFETY: `submit` has been given the write, so from here on it is being executed.
        let bytes = unsafe { operation.buffer.as_slice() };
        check_aligned(bytes, operation.offset).ok()?;
        Some(InFlightWrite {
            file: file.handle.file,
            offset: operation.offset,
            bytes: bytes.into(),
        })
    }

    /// Drops what a power cut has swallowed.
    fn follow_power(&mut self) {
        if self.is_cut_off() {
            self.generation = locked(&self.disk).generation;
            self.held.clear();
        }
    }

    fn complete_due(&mut self, done: &mut Vec<Completion>) {
        let now_nanos = locked(&self.disk).now_nanos;
        while let Some(entry) = self.held.first_entry() {
            let (due_nanos, number) = *entry.key();
            if due_nanos > now_nanos {
                return;
            }
            let held = entry.remove();
            done.push(carry_out(&self.disk, number, held));
        }
    }

    /// Moves virtual time to the next operation's, at most by `limit`.
    fn pass_time(&self, limit: Option<Duration>) {
        let mut disk = locked(&self.disk);
        let limit_nanos = limit.map(|limit| {
            disk.now_nanos
                .saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))
        });
        let due_nanos = self.held.keys().next().map(|(due_nanos, _)| *due_nanos);
        if let Some(until) = [due_nanos, limit_nanos].into_iter().flatten().min() {
            disk.now_nanos = disk.now_nanos.max(until);
        }
    }
}

/// The file as one of this disk, if it is one.
fn as_simulated<'a>(operation: &'a Operation, disk: &SharedDisk) -> Option<&'a SimFile> {
    let file: &dyn Any = &*operation.file;
    file.downcast_ref::<SimFile>()
        .filter(|file| Arc::ptr_eq(&file.disk, disk))
}

fn carry_out(shared: &SharedDisk, number: u64, held: Held) -> Completion {
    let Held {
        mut operation,
        sequence_end,
    } = held;
    let submitted = locked(shared)
        .in_flight
        .remove(&number)
        .and_then(|in_flight| in_flight.write);
    let Some(file) = as_simulated(&operation, shared) else {
        return operation.complete_blocking();
    };
    let handle = file.handle;
    let mut disk = locked(shared);
    let name = disk.name_of(handle, &file.opened_as);
    let result = match operation.kind {
        OperationKind::Read => {
            // SAFETY: this is the execution of the read that the buffer belongs to.
            let buffer = unsafe { operation.buffer.as_mut_slice() };
            disk.read(handle, &name, buffer, operation.offset)
        }
        OperationKind::Write { durable } => {
            // SAFETY: this is the execution of the write that the buffer belongs to.
            let bytes = unsafe { operation.buffer.as_slice() };
            if submitted.is_some_and(|submitted| *submitted.bytes != *bytes) {
                disk.counters.changed_buffers += 1;
                let reason = "the buffer has changed while the write was in flight";
                let changed = Err(io::Error::other(reason));
                disk.note("write", &name, Some(operation.offset), changed)
            } else {
                disk.write(handle, &name, bytes, operation.offset, durable)
            }
        }
        OperationKind::SyncData => disk.sync(handle, &name, sequence_end),
    };
    // Dropping the operation's file must not happen under the lock.
    drop(disk);
    operation.complete(result)
}

impl Device for SimDevice {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn in_flight(&self) -> usize {
        if self.is_cut_off() { 0 } else { self.held.len() }
    }

    fn submit(&mut self, operation: Operation) -> Result<(), Operation> {
        self.follow_power();
        if self.held.len() == self.capacity {
            return Err(operation);
        }
        let write = self.what_would_land(&operation);
        let mut disk = locked(&self.disk);
        let (number, due_nanos) = disk.begin(write);
        let sequence_end = disk.next_sequence + 1;
        drop(disk);
        self.held.insert(
            (due_nanos, number),
            Held {
                operation,
                sequence_end,
            },
        );
        Ok(())
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>, wait: Wait) -> io::Result<()> {
        self.follow_power();
        let before = done.len();
        self.complete_due(done);
        if let Wait::UntilCompletionOrWake(limit) = wait
            && done.len() == before
            && self.wake_receiver.try_recv().is_err()
        {
            self.pass_time(limit);
            self.complete_due(done);
        }
        Ok(())
    }

    fn waker(&self) -> DeviceWaker {
        DeviceWaker::of_signal(self.wake_sender.clone())
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Simulated
    }
}

impl Drop for SimDevice {
    fn drop(&mut self) {
        self.follow_power();
        while let Some(((_, number), held)) = self.held.pop_first() {
            drop(carry_out(&self.disk, number, held));
        }
    }
}
