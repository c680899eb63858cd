//! Calling what users have brought: closures, and the wakers of their futures.
//!
//! It runs on threads of the database, or of other clients who run actors on the way, between things that belong
//! together. So whatever it throws must stay its own affair. (Bad run: the first of a hundred answers goes to a future whose
//! waker panics. The thread of the shard ends, or the client's who was about to tell them all; the others hear that the
//! database was closed, though their writes have happened.)

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What foreign code returns; `None`: it panicked.
pub(crate) fn call<R>(code: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(code)).map_err(forget_panic).ok()
}

/// The sending half of a channel whose receiver may be a future: its waker runs when something is sent, and also when this
/// is dropped, wherever that is. (Bad run: a piece of a large value has come, the waker of the future that waits for it
/// panics within the pager's step, and the database is poisoned.)
#[derive(Debug)]
pub(crate) struct WakingSender<T>(Option<oneshot::Sender<T>>);

impl<T> WakingSender<T> {
    /// Sends, unless the receiver went away; then the value is dropped.
    pub fn send(mut self, value: T) {
        if let Some(sender) = self.0.take() {
            call(|| drop(sender.send(value)));
        }
    }
}

impl<T> From<oneshot::Sender<T>> for WakingSender<T> {
    fn from(sender: oneshot::Sender<T>) -> WakingSender<T> {
        WakingSender(Some(sender))
    }
}

impl<T> Drop for WakingSender<T> {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            call(|| drop(sender));
        }
    }
}

/// Drops what was thrown, which may throw in its turn: once is enough.
fn forget_panic(panic: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(another);
    }
}
