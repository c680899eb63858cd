//! The eventfd that wakes a ring's owner.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use rustix::event::EventfdFlags;

use super::WAKE_USER_DATA;
use crate::waker::DeviceWaker;

/// An eventfd, and the read of it that stays in the ring while the owner waits.
#[derive(Debug)]
pub(super) struct WakeEntry {
    event: Arc<OwnedFd>,
    /// Where the kernel puts the counter; boxed so that it stays where it is.
    counter: Box<u64>,
    /// Whether a read is in the ring.
    armed: bool,
    /// A wake was read that hasn't ended a wait yet.
    pending: bool,
}

impl WakeEntry {
    pub(super) fn new() -> io::Result<Self> {
        // Without NONBLOCK: io_uring then waits for the counter instead of answering EAGAIN.
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self {
            event: Arc::new(event),
            counter: Box::new(0),
            armed: false,
            pending: false,
        })
    }

    pub(super) fn waker(&self) -> DeviceWaker {
        DeviceWaker::of_event(Arc::clone(&self.event))
    }

    /// The read to push, unless one is in the ring.
    pub(super) fn arm(&mut self) -> Option<squeue::Entry> {
        if self.armed {
            return None;
        }
        self.armed = true;
        let target = types::Fd(self.event.as_raw_fd());
        let counter: *mut u64 = &mut *self.counter;
        let len = size_of::<u64>() as u32;
        Some(
            opcode::Read::new(target, counter.cast(), len)
                .build()
                .user_data(WAKE_USER_DATA),
        )
    }

    /// The read couldn't be pushed.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// The read has completed; a failed one is armed again by the next wait.
    pub(super) fn fired(&mut self, outcome: i32) {
        self.armed = false;
        self.pending |= outcome > 0;
    }

    /// Whether a wake has come since the last call that said so.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.pending)
    }

    /// Gives up the counter's memory, which the kernel may still write to.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::replace(&mut self.counter, Box::new(0)));
        std::mem::forget(Arc::clone(&self.event));
    }
}
