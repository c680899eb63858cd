//! What clients have seen, checked for cycles: histories that are recorded as they happen and handed to a checker of
//! isolation levels (Adya's anomalies, by the crate `adya`).
//!
//! Lists that grow by one element at a time tell the order of their writers; registers tell who read from whom. Single
//! updates at the owner, plain reads and snapshots stand in the histories as transactions of their own: all of them
//! together are strictly serializable.
//!
//! | module | subject |
//! |---|---|
//! | [`threads`] | eight real threads on four shards; `TREERING_HISTORY_TRANSACTIONS` says how many transactions are recorded (default 100,000 for each of four tests) |
//! | [`simulated`] | eight clients in the simulator, with power cuts and planted bugs; `TREERING_SIM_SEEDS` as in `model.rs` |
//! | [`plan`] | what the transactions are |
//! | [`record`] | recording, and asking the checker |

mod plan;
mod record;
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod threads;
