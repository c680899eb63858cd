//! The one place that decides which atomics the shared-memory protocols run on.
//!
//! Here it is the standard library's and `crossbeam-epoch`'s. The models under `tests/` include the same
//! protocol files by path and put a `sync` module of their own at their crate root, built from `loom`'s
//! atomics and a stand-in for the epoch, so what they explore is this code, not a copy of it. Whatever a
//! protocol file shares between threads must therefore come from here.

pub(crate) use crossbeam_epoch::{Collector, Guard};
pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
