//! Which record an operation touches: the request distributions of the YCSB core workloads.
//!
//! | chooser | popularity of a record | used by |
//! |---|---|---|
//! | [`Chooser::Uniform`] | all alike | `put`, `get`, `scan` |
//! | [`ScrambledZipfian`] | a few records get most requests, scattered over all keys | A, B, C, E, F |
//! | [`Latest`] | the newest records get most requests | D |
//!
//! Cooper, Silberstein, Tam, Ramakrishnan, Sears: "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010.
//! The zipfian generator is Gray, Sundaresan, Englert, Baclawski, Weinberger: "Quickly Generating
//! Billion-Record Synthetic Databases", SIGMOD 1994; constants and hash are those of YCSB itself, so that
//! the same skew is measured.

mod latest;
mod scrambled;
#[cfg(test)]
mod tests;
mod zipfian;

pub use latest::Latest;
pub use scrambled::{ScrambledZipfian, fnv_hash64};
pub use zipfian::{THETA, Zipfian, zeta};

use crate::random::Xoshiro256;

/// Picks record numbers for one thread.
#[derive(Clone, Debug)]
pub enum Chooser {
    /// Every record alike.
    Uniform,
    /// Few records often, wherever they lie.
    ScrambledZipfian(ScrambledZipfian),
    /// New records often.
    Latest(Latest),
}

impl Chooser {
    /// A record number in `0..present`, where `present` is the number of records that can be asked for now;
    /// 0 when there is none. It may grow from call to call, never shrink. Constant time on average.
    pub fn choose(&mut self, random: &mut Xoshiro256, present: u64) -> u64 {
        match self {
            Chooser::Uniform => random.below(present),
            Chooser::ScrambledZipfian(scrambled) => scrambled.choose(random, present),
            Chooser::Latest(latest) => latest.choose(random, present),
        }
    }
}
