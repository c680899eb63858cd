//! Waking a thread that waits inside a device.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Sender;

/// Makes a blocked [`Device::reap`](crate::Device::reap) return. Cheap to clone, usable from any thread.
///
/// A wake is never lost: one that comes while the device isn't waiting ends its next wait at once. Several
/// wakes may count as one.
#[derive(Clone, Debug)]
pub struct DeviceWaker {
    target: Target,
}

#[derive(Clone, Debug)]
enum Target {
    /// An eventfd that the ring reads.
    Event(Arc<OwnedFd>),
    /// A channel with room for one signal.
    Signal(Sender<()>),
}

impl DeviceWaker {
    pub(crate) fn of_event(event: Arc<OwnedFd>) -> Self {
        Self {
            target: Target::Event(event),
        }
    }

    pub(crate) fn of_signal(signal: Sender<()>) -> Self {
        Self {
            target: Target::Signal(signal),
        }
    }

    /// Ends the device's current wait, or its next one.
    pub fn wake(&self) {
        match &self.target {
            // The write can only fail when the counter is full (2^64 - 2 wakes unread) or interrupted
            // before the counter changed; the second is tried again.
            Target::Event(event) => {
                while rustix::io::write(event, &1_u64.to_ne_bytes()) == Err(rustix::io::Errno::INTR) {}
            }
            // A full channel holds a signal that nobody has seen yet; a closed one has no device.
            Target::Signal(signal) => drop(signal.try_send(())),
        }
    }
}
