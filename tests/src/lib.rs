//! Simulations of whole databases against a model.
//!
//! | module | subject |
//! |---|---|
//! | [`bank`] | transactions that overlap, and sums that no order may change |
//! | [`model`] | what a database may answer |
//! | [`workload`] | several clients with random operations, power cuts and reopenings, all from one seed |
//! | [`random`] | the seed's numbers |
//!
//! The tests themselves are in `tests/tests`; `tests/README.md` lists which of them covers which rule of the design.

#![deny(missing_docs)]

pub mod bank;
pub mod model;
pub mod random;
pub mod seeds;
pub mod workload;
