//! What the protocol files get for `crate::sync`: loom's atomics, a counted pointer that notices its misuse, and
//! the shortest possible epoch.

use crate::planted::{Mistake, is_planted};
pub use loom::hint::spin_loop;
use loom::sync::Mutex;
pub use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

/// A fence, unless that is the planted mistake.
pub fn fence(order: Ordering) {
    if !is_planted(Mistake::NoFence) {
        loom::sync::atomic::fence(order);
    }
}

/// A flag whose compare-and-swap may be planted not to be one.
#[derive(Debug)]
pub struct AtomicBool(loom::sync::atomic::AtomicBool);

impl AtomicBool {
    pub fn new(value: bool) -> AtomicBool {
        AtomicBool(loom::sync::atomic::AtomicBool::new(value))
    }

    pub fn load(&self, order: Ordering) -> bool {
        self.0.load(order)
    }

    pub fn store(&self, value: bool, order: Ordering) {
        self.0.store(value, order);
    }

    pub fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value, order)
    }

    pub fn compare_exchange(
        &self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        if !is_planted(Mistake::CompareThenStore) {
            return self.0.compare_exchange(current, new, success, failure);
        }
        let found = self.0.load(Ordering::Acquire);
        if found != current {
            return Err(found);
        }
        self.0.store(new, Ordering::Release);
        Ok(found)
    }
}

/// A pointer. While a failed model unwinds, outside of loom's reach, it is null.
pub struct AtomicPtr<T>(loom::sync::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub fn new(pointer: *mut T) -> AtomicPtr<T> {
        AtomicPtr(loom::sync::atomic::AtomicPtr::new(pointer))
    }

    pub fn load(&self, order: Ordering) -> *mut T {
        if std::thread::panicking() {
            std::ptr::null_mut()
        } else {
            self.0.load(order)
        }
    }

    pub fn swap(&self, pointer: *mut T, order: Ordering) -> *mut T {
        self.0.swap(pointer, order)
    }
}

/// A counted pointer that drops its value with the last count, but never frees the memory, so that even a
/// model with a mistake reads memory that is there.
pub struct Arc<T> {
    counted: NonNull<Counted<T>>,
}

// The value first: a pointer to it is one to the whole.
#[repr(C)]
struct Counted<T> {
    value: ManuallyDrop<T>,
    count: AtomicUsize,
}

// SAFETY: as for the standard library's; the count is atomic and the value is shared.
unsafe impl<T: Send + Sync> Send for Arc<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Arc<T> {}

impl<T> Arc<T> {
    pub fn new(value: T) -> Arc<T> {
        let counted = Counted {
            value: ManuallyDrop::new(value),
            count: AtomicUsize::new(1),
        };
        Arc {
            counted: NonNull::from(Box::leak(Box::new(counted))),
        }
    }

    pub fn into_raw(this: Arc<T>) -> *const T {
        let this = ManuallyDrop::new(this);
        this.counted.as_ptr().cast::<T>()
    }

    /// # Safety
    /// `pointer` came from `into_raw`, with a count that is given up by it; or a failed model unwinds.
    pub unsafe fn from_raw(pointer: *const T) -> Arc<T> {
        Arc {
            counted: NonNull::new(pointer.cast_mut().cast()).unwrap_or(NonNull::dangling()),
        }
    }

    /// # Safety
    /// `pointer` came from `into_raw`.
    pub unsafe fn increment_strong_count(pointer: *const T) {
        // SAFETY: the memory is never freed.
        let counted = unsafe { &*pointer.cast::<Counted<T>>() };
        let before = counted.count.fetch_add(1, Ordering::Relaxed);
        assert!(before > 0, "a count was raised from zero");
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: the memory is never freed.
        unsafe { self.counted.as_ref() }
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Arc<T> {
        let before = self.counted().count.fetch_add(1, Ordering::Relaxed);
        assert!(before > 0, "a count was raised from zero");
        Arc {
            counted: self.counted,
        }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        // A model that fails unwinds, and loom is of no more use then.
        if !std::thread::panicking() && self.counted().count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: this was the last count, so nobody else uses the value or will drop it.
            unsafe { ManuallyDrop::drop(&mut self.counted.as_mut().value) };
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Arc<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(formatter)
    }
}

/// The epoch, reduced to its promise: what is deferred runs when all pins that existed then have ended.
#[derive(Clone)]
pub struct Collector(std::sync::Arc<Mutex<Epoch>>);

#[derive(Default)]
struct Epoch {
    pins_made: u64,
    pinned: Vec<u64>,
    deferred: Vec<Deferred>,
}

struct Deferred {
    waits_for: Vec<u64>,
    function: Box<dyn FnOnce() + Send>,
}

impl Collector {
    pub fn new() -> Collector {
        Collector(std::sync::Arc::new(Mutex::new(Epoch::default())))
    }

    pub fn pin(&self) -> Guard {
        let mut epoch = self.0.lock().expect("not poisoned");
        epoch.pins_made += 1;
        let pin = epoch.pins_made;
        epoch.pinned.push(pin);
        Guard {
            collector: self.clone(),
            pin,
        }
    }
}

impl PartialEq for Collector {
    fn eq(&self, other: &Collector) -> bool {
        std::sync::Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A pin.
pub struct Guard {
    collector: Collector,
    pin: u64,
}

impl Guard {
    pub fn collector(&self) -> Option<&Collector> {
        Some(&self.collector)
    }

    pub fn defer<R>(&self, function: impl FnOnce() -> R + Send + 'static) {
        if is_planted(Mistake::NoGracePeriod) {
            function();
            return;
        }
        let function = Box::new(move || drop(function()));
        let mut epoch = self.collector.0.lock().expect("not poisoned");
        let waits_for = epoch.pinned.clone();
        epoch.deferred.push(Deferred { waits_for, function });
    }

    /// Nothing is kept back here.
    pub fn flush(&self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut epoch = self.collector.0.lock().expect("not poisoned");
        epoch.pinned.retain(|pin| *pin != self.pin);
        for deferred in &mut epoch.deferred {
            deferred.waits_for.retain(|pin| *pin != self.pin);
        }
        let (due, waiting) = std::mem::take(&mut epoch.deferred)
            .into_iter()
            .partition(|deferred: &Deferred| deferred.waits_for.is_empty());
        epoch.deferred = waiting;
        drop(epoch);
        due.into_iter().for_each(|deferred| (deferred.function)());
    }
}
