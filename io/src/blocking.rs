//! A pool of threads that execute operations with blocking calls, for systems that refuse io_uring.
//!
//! Operations go to the threads through one bounded channel and come back through another; both have room for
//! `capacity` entries, so neither the owner nor a thread ever blocks on a send. Dropping the device closes
//! the first channel, lets the threads finish what it holds, and joins them.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use crate::device::{Device, DeviceKind, Wait};
use crate::operation::{Completion, Operation};
use crate::waker::DeviceWaker;

/// The most threads of one pool: beyond it virtual disks gain nothing and switching costs more.
const THREADS_MAX: usize = 16;

/// Executes operations on a pool of threads.
#[derive(Debug)]
pub struct BlockingDevice {
    capacity: usize,
    in_flight: usize,
    /// `None` only while dropping.
    operations: Option<Sender<Operation>>,
    completions: Receiver<Completion>,
    wake_sender: Sender<()>,
    wake_receiver: Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

impl BlockingDevice {
    /// Starts `min(capacity, 16)` threads for up to `capacity` operations in flight (at least one).
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub fn open(capacity: usize) -> io::Result<Self> {
        let capacity = capacity.max(1);
        let (operation_sender, operation_receiver) = bounded(capacity);
        let (completion_sender, completion_receiver) = bounded(capacity);
        let (wake_sender, wake_receiver) = bounded(1);
        let mut device = Self {
            capacity,
            in_flight: 0,
            operations: Some(operation_sender),
            completions: completion_receiver,
            wake_sender,
            wake_receiver,
            threads: Vec::new(),
        };
        for index in 0..capacity.min(THREADS_MAX) {
            let operations = operation_receiver.clone();
            let completions = completion_sender.clone();
            let thread = std::thread::Builder::new()
                .name(format!("treering-io-{index}"))
                .spawn(move || serve(&operations, &completions))?;
            device.threads.push(thread);
        }
        Ok(device)
    }

    fn take(&mut self, completion: Completion, done: &mut Vec<Completion>) {
        self.in_flight -= 1;
        done.push(completion);
    }
}

fn serve(operations: &Receiver<Operation>, completions: &Sender<Completion>) {
    for operation in operations {
        // The send fails only when the device is being dropped: the completion, buffer and all, ends here.
        if completions.send(operation.complete_blocking()).is_err() {
            return;
        }
    }
}

impl Device for BlockingDevice {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn submit(&mut self, operation: Operation) -> Result<(), Operation> {
        if self.in_flight == self.capacity {
            return Err(operation);
        }
        let Some(operations) = &self.operations else {
            return Err(operation);
        };
        operations
            .try_send(operation)
            .map_err(crossbeam_channel::TrySendError::into_inner)?;
        self.in_flight += 1;
        Ok(())
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>, wait: Wait) -> io::Result<()> {
        let before = done.len();
        while let Ok(completion) = self.completions.try_recv() {
            self.take(completion, done);
        }
        let Wait::UntilCompletionOrWake(limit) = wait else {
            return Ok(());
        };
        if done.len() > before {
            return Ok(());
        }
        let timeout = limit.map_or_else(never, crossbeam_channel::after);
        let completion = select! {
            recv(self.completions) -> completion => completion.ok(),
            recv(self.wake_receiver) -> _ => None,
            recv(timeout) -> _ => None,
        };
        if let Some(completion) = completion {
            self.take(completion, done);
        }
        while let Ok(completion) = self.completions.try_recv() {
            self.take(completion, done);
        }
        Ok(())
    }

    fn waker(&self) -> DeviceWaker {
        DeviceWaker::of_signal(self.wake_sender.clone())
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind::Blocking
    }
}

impl Drop for BlockingDevice {
    fn drop(&mut self) {
        drop(self.operations.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the blocking I/O pool panicked");
            }
        }
    }
}
