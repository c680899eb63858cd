//! What the generator stores: a record is a number, its key and value are computed from it.
//!
//! [`key`] turns record numbers into keys and back; [`value`] makes values that prove by themselves which write
//! they come from.

pub mod key;
pub mod value;

pub use key::{KEY_BYTES, Key, KeyOrder};
pub use value::{Defect, HEADER_BYTES, Stamp, decode, encode};
