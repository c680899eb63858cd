//! The published version: one atomic pointer that makes a group of commits visible.
//!
//! - [`VersionCell::publish`] swaps the pointer. The cell's own count of the replaced version is given up
//!   by a function deferred through the epoch, never at once: a reader that was pinned before the swap may
//!   still be looking at it, or be about to count it (rule R3).
//! - [`VersionCell::load`] borrows the current version for as long as the pin lasts and writes nothing.
//! - [`VersionCell::hold`] counts the current version, for snapshots, cursors, and every reader that has to
//!   unpin in order to wait.
//!
//! A version is dead when its count reaches zero. By the above that is never before every pin that could
//! have seen it as the current one has ended, so `V`'s [`Drop`] is where a death is reported from. It runs
//! in whichever thread gives up the last count, often inside an epoch collection: it must be short, must
//! not block, and must not need this cell.
//!
//! All guards must come from the collector that the cell was made with; this is checked, because a foreign
//! pin protects nothing.

use crate::sync::{Arc, AtomicPtr, Collector, Guard, Ordering};
use std::fmt;

/// Holds the current version of a `V`. See the module's page for who may do what when.
pub struct VersionCell<V> {
    current: AtomicPtr<V>,
    collector: Collector,
}

impl<V: Send + Sync + 'static> VersionCell<V> {
    /// A cell that shows `initial` to readers pinned in `collector`.
    #[must_use]
    pub fn new(collector: Collector, initial: Arc<V>) -> VersionCell<V> {
        VersionCell {
            current: AtomicPtr::new(Arc::into_raw(initial).cast_mut()),
            collector,
        }
    }

    /// Makes `next` the current version. Whoever pins and loads from here on sees it, or a later one.
    ///
    /// The replaced version loses the cell's count once all pins that exist now have ended.
    ///
    /// # Panics
    /// If `guard` belongs to another collector.
    pub fn publish(&self, next: Arc<V>, guard: &Guard) {
        self.check(guard);
        let next = Arc::into_raw(next).cast_mut();
        let replaced = CountedPointer(self.current.swap(next, Ordering::AcqRel));
        guard.defer(move || {
            let replaced = replaced;
            // SAFETY: the pointer came out of `Arc::into_raw` with the cell's count, and the swap above took
            // it out of the cell, so this is the only function that gives that count up.
            drop(unsafe { Arc::from_raw(replaced.0) });
        });
        // Into the sight of all threads: a death must not wait for what this thread does next.
        guard.flush();
    }

    /// The current version. Writes to no shared memory.
    ///
    /// # Panics
    /// If `guard` belongs to another collector.
    #[inline]
    #[must_use]
    pub fn load<'g>(&'g self, guard: &'g Guard) -> &'g V {
        self.check(guard);
        // SAFETY: the pointer is what `Arc::into_raw` gave, and the cell holds a count of it until a function
        // deferred after its replacement runs, which is not before `guard`'s pin ends.
        unsafe { &*self.current.load(Ordering::Acquire) }
    }

    /// The current version, counted: it stays alive, with all its pages, until this count is dropped.
    ///
    /// # Panics
    /// If `guard` belongs to another collector.
    #[must_use]
    pub fn hold(&self, guard: &Guard) -> Arc<V> {
        self.check(guard);
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: as in `load`, the cell's own count is given up no earlier than the end of `guard`'s pin, so
        // the count is at least one here and may be raised; `from_raw` then owns what was added.
        unsafe {
            Arc::increment_strong_count(current);
            Arc::from_raw(current)
        }
    }

    #[inline]
    fn check(&self, guard: &Guard) {
        assert!(
            guard.collector() == Some(&self.collector),
            "pinned in a foreign collector"
        );
    }
}

impl<V> Drop for VersionCell<V> {
    fn drop(&mut self) {
        // Exclusive access: no borrow that `load` gave can still exist, so no pin has to be waited for.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: the pointer came out of `Arc::into_raw` and the cell still has its count.
        drop(unsafe { Arc::from_raw(current) });
    }
}

impl<V> fmt::Debug for VersionCell<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the version itself: it can only be looked at under a pin.
        formatter.debug_struct("VersionCell").finish_non_exhaustive()
    }
}

/// One count of an `Arc<V>` on its way to being given up.
struct CountedPointer<V>(*mut V);

// SAFETY: it stands for an `Arc<V>`, which may go to another thread exactly if `V` is both.
unsafe impl<V: Send + Sync> Send for CountedPointer<V> {}
