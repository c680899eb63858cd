//! A disk that loses, tears, reorders, delays, corrupts and fails, all from one seed.
//!
//! A [`SimDirectory`] keeps apart what a running system sees (*live*) and what survives a power cut
//! (*durable*). Everything random comes from its own generator, and time from [`SimDirectory::advance`], so
//! that equal seeds and equal calls give equal runs; [`SimDirectory::trace_hash`] tells whether two were.
//!
//! What becomes durable, and when:
//!
//! | action | durable |
//! |---|---|
//! | write | by a sync that is submitted after the write has completed; before that, each sector of 512 bytes may survive a power cut or not, by itself, whichever order the writes came in |
//! | durable write | these sectors, at completion; nothing else |
//! | sync of a file | writes completed before its submission, and the length |
//! | grow, prefill | the length (and zeros), at return |
//! | truncate | by a sync, or the next grow |
//! | create, rename, remove | by the directory's sync; before that each may survive or not, by itself |
//!
//! [`SimDirectory::power_cut`] draws what survives; a write in flight may land in part. Handles of before then
//! fail, and operations in flight never complete. Faults ([`FaultKind`]) strike by probability
//! ([`SimDirectory::set_faults`]) or on demand ([`SimDirectory::fail_next`]); whether something happened and
//! what the caller is told vary apart.
//!
//! Transfers must be aligned to 512 bytes in memory and on disk, as direct I/O asks, and a write's buffer must not
//! change while it is in flight: the simulator reports both as errors.

mod content;
mod counters;
mod device;
mod directory;
mod disk;
mod execute;
mod faults;
mod file;
mod names;
mod random;

#[cfg(test)]
mod tests;

pub use counters::SimCounters;
pub use device::SimDevice;
pub use directory::{SimDirectory, SimOptions};
pub use faults::{FaultKind, FaultRates};
