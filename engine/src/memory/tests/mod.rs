#![expect(clippy::disallowed_methods, reason = "real threads, beside the models")]

mod lifecycle;
mod pool;
mod stress;
mod table;
