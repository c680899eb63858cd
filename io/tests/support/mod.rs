//! What the tests of refusals share.

pub mod seccomp;
pub mod warnings;
