//! Models of the shared-memory protocols, explored by `loom` in every interleaving with at most two
//! preemptions: residency, frame reuse, the pool, version publication, the sleeping flag, the gate.
//!
//! The protocol files of the engine are included by path and find, as `crate::sync`, loom's atomics and a
//! stand-in for the epoch instead of the real ones; so no build flag is needed and what is explored is the code
//! itself. Each model is also run with a mistake planted, underneath the protocol ([`planted::Mistake`]) or in
//! how the model uses it, and must fail then: a model that can't fail proves nothing.
//!
//! What the stand-in can't show is whether `crossbeam-epoch` keeps its promise: that is its own models' subject.

mod memory;
mod planted;
mod sync;

mod gate_model;
mod occupancy_model;
mod pool_model;
mod publication_model;
mod sleeping_model;
mod version_model;

#[allow(dead_code)]
#[path = "../../src/gate.rs"]
mod gate;
#[allow(dead_code)]
#[path = "../../src/sleeping.rs"]
mod sleeping;
#[path = "../../src/version.rs"]
mod version;

// The names by which the protocol files know them.
pub use treering_engine::{FrameId, PageId};
