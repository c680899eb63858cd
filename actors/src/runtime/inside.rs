//! Whether the calling thread is inside the database just now: on one of its own threads, or running a step of an
//! actor on the way.
//!
//! User code gets there too: closures given to `update`, their drops, and the wakers of awaited tickets. What it
//! waits for could be the step that it is part of, so waits ask here first and are refused.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// As long as this lives, the thread that made it is inside.
#[derive(Debug)]
pub(crate) struct Inside(PhantomData<*const ()>);

impl Inside {
    /// From here on the calling thread is inside, perhaps once more.
    pub fn enter() -> Inside {
        DEPTH.set(DEPTH.get() + 1);
        Inside(PhantomData)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether the calling thread must not wait for the database.
pub(crate) fn is_inside() -> bool {
    DEPTH.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_inside_until_the_outermost_guard_is_dropped() {
        assert!(!is_inside());
        let outer = Inside::enter();
        drop(Inside::enter());
        assert!(is_inside());
        assert!(!std::thread::spawn(is_inside).join().expect("a thread"));
        drop(outer);
        assert!(!is_inside());
    }
}
