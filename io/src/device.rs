//! The device trait: many operations in flight, owned by one thread.

use std::io;
use std::time::Duration;

use crate::blocking::BlockingDevice;
use crate::operation::{Completion, Operation};
use crate::uring::UringDevice;
use crate::waker::DeviceWaker;

/// How [`Device::reap`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until something completes, the waker is called, or the time (if given) has passed.
    UntilCompletionOrWake(Option<Duration>),
}

/// Which backend a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Linux io_uring.
    Uring,
    /// A pool of threads that block.
    Blocking,
    /// Operations are executed by `submit`, for files in memory.
    Memory,
    /// The simulated disk.
    Simulated,
}

/// Which backend to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// io_uring, or the pool of threads where the system refuses it.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// The pool of threads.
    Blocking,
}

/// Executes [`Operation`]s asynchronously, for the one thread that owns it.
///
/// A device may be moved to its thread before its first use, and must be dropped there: dropping waits
/// for everything in flight, because the kernel writes into its buffers until then. Operations complete in
/// any order.
pub trait Device: Send {
    /// The most operations in flight.
    fn capacity(&self) -> usize;

    /// Operations submitted and not reaped yet.
    fn in_flight(&self) -> usize;

    /// Takes an operation; it reaches the system at the next [`Device::kick`] or [`Device::reap`].
    ///
    /// # Errors
    ///
    /// Gives the operation back when [`Device::capacity`] operations are in flight.
    // The error is the caller's own operation, moved back; boxing it would allocate on the common path.
    #[allow(clippy::result_large_err)]
    fn submit(&mut self, operation: Operation) -> Result<(), Operation>;

    /// Hands everything submitted to the system, without waiting.
    ///
    /// # Errors
    ///
    /// The system's error; the operations stay queued for the next call.
    fn kick(&mut self) -> io::Result<()>;

    /// Appends finished operations to `done`, waiting first as `wait` says. Implies [`Device::kick`]. May return
    /// without a completion after a wake or a timeout.
    ///
    /// # Errors
    ///
    /// When the device itself fails; errors of operations come in their completions. Nothing is lost: a later
    /// call goes on.
    fn reap(&mut self, done: &mut Vec<Completion>, wait: Wait) -> io::Result<()>;

    /// A handle that ends this device's waits.
    fn waker(&self) -> DeviceWaker;

    /// Which backend this is.
    fn kind(&self) -> DeviceKind;

    /// Tells the device that buffers will come from `len` bytes from `start` on, so that it may prepare them
    /// once. Returns whether it did; operations work either way. Pins the memory: all of it becomes resident.
    ///
    /// # Safety
    ///
    /// The memory stays allocated until the device is dropped.
    unsafe fn register_region(&mut self, start: std::ptr::NonNull<u8>, len: usize) -> bool {
        let _ = (start, len);
        false
    }
}

/// Opens a device for up to `capacity` operations in flight (at least one).
///
/// # Errors
///
/// With [`BackendChoice::Uring`], the system's refusal; otherwise only when threads can't be started.
pub fn open_device(choice: BackendChoice, capacity: usize) -> io::Result<Box<dyn Device>> {
    let refusal = match choice {
        BackendChoice::Blocking => None,
        BackendChoice::Uring => return Ok(Box::new(UringDevice::open(capacity)?)),
        BackendChoice::Auto => match UringDevice::open(capacity) {
            Ok(device) => return Ok(Box::new(device)),
            Err(error) => Some(error),
        },
    };
    if let Some(error) = refusal {
        tracing::warn!(%error, "io_uring is not available, using a pool of blocking threads: random reads and commits will be slower");
    }
    Ok(Box::new(BlockingDevice::open(capacity)?))
}
