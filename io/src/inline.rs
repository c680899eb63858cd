//! A device that executes operations at once, in the thread that submits them.
//!
//! For files in memory, where a hand-over would cost more than the copy.

use std::io;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::device::{Device, DeviceKind, Wait};
use crate::operation::{Completion, Operation};
use crate::waker::DeviceWaker;

/// Executes each operation in [`Device::submit`].
#[derive(Debug)]
pub struct InlineDevice {
    capacity: usize,
    finished: Vec<Completion>,
    wake_sender: Sender<()>,
    wake_receiver: Receiver<()>,
}

impl InlineDevice {
    /// A device that holds up to `capacity` completions (at least one) until they are reaped.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let (wake_sender, wake_receiver) = bounded(1);
        Self {
            capacity: capacity.max(1),
            finished: Vec::new(),
            wake_sender,
            wake_receiver,
        }
    }
}

impl Device for InlineDevice {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn in_flight(&self) -> usize {
        self.finished.len()
    }

    fn submit(&mut self, operation: Operation) -> Result<(), Operation> {
        if self.finished.len() == self.capacity {
            return Err(operation);
        }
        self.finished.push(operation.complete_blocking());
        Ok(())
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>, wait: Wait) -> io::Result<()> {
        if self.finished.is_empty()
            && let Wait::UntilCompletionOrWake(limit) = wait
        {
            // Nothing can complete while this thread waits, so only the waker or the clock end the wait. The
            // sender is ours, so the channel is never closed; a timeout is no error.
            match limit {
                Some(limit) => drop(self.wake_receiver.recv_timeout(limit)),
                None => drop(self.wake_receiver.recv()),
            }
        }
        done.append(&mut self.finished);
        Ok(())
    }

    fn waker(&self) -> DeviceWaker {
        DeviceWaker::of_signal(self.wake_sender.clone())
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Memory
    }
}
