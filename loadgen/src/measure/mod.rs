//! What happened, in numbers: latencies, throughput over time, errors, and what the process took.
//!
//! [`recorder`] takes latencies on the threads that meet them, [`totals`] gathers them while the run goes on,
//! [`errors`] counts what failed, [`process`] asks the system about memory and disk. Nothing here writes files or
//! prints: that is [`crate::report`].

pub mod errors;
pub mod process;
pub mod recorder;
pub mod totals;

pub use errors::ErrorTally;
pub use recorder::{Recorder, Samples};
pub use totals::{Point, Totals};
