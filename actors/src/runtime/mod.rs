//! What drives the actors: threads, mailboxes, waiting, and the files that actors ask to be written.
//!
//! | file | subject |
//! |---|---|
//! | [`state`](state) | what the threads of one database share |
//! | [`seat`](seat) | one actor with its two mailboxes, and the rule that one caller at a time runs it |
//! | [`dispatch`](dispatch) | carrying out an outbox, and running actors on the way |
//! | [`send`](send), [`answer`](answer), [`fetch`](fetch) | clients: leaving requests, waiting for answers, reading pages |
//! | [`tasks`](tasks) | log and file tasks, carried out by whoever finds them |
//! | [`credit`](credit) | how many bytes clients may have under way |
//! | [`gate`](gate) | requests for several keys and ranges that move, out of each other's way |
//! | [`ahead`](ahead) | keys that a transaction under way names |
//! | [`waiting`](waiting) | spin, yield, sleep: the one place where threads wait |
//! | [`threads`](threads) | the dedicated thread of each actor |
//! | [`kicks`](kicks) | which actors got messages and have to be seen to |
//! | [`inside`](inside) | whether user code that wants to wait is part of a step |
//! | [`sim`](sim) | the same actors in one thread, from one seed |
//! | [`files`](files) | log segments and slow work on files |
//!
//! # Who runs an actor
//! Each actor has a thread of its own. A step may also be run by a thread that has just sent the actor a message
//! and finds it idle: on few cores handing over to a sleeping thread costs 20 to 40 µs, the step itself about
//! one. Ownership stays exclusive by the seat's lock, and messages leave in the order of steps, because they are
//! sent before the lock is given back.

mod ahead;
mod answer;
mod credit;
mod dispatch;
mod fetch;
mod files;
mod gate;
mod inside;
mod kicks;
mod seat;
mod send;
mod sim;
mod state;
mod tasks;
mod threads;
mod waiting;

pub(crate) use ahead::{KeysAhead, KeysUnderWay, key_hash};
pub(crate) use credit::Credit;
#[cfg(test)]
pub(crate) use credit::Credits;
pub(crate) use files::LogFiles;
pub(crate) use gate::{MovesGate, Passage, Shut};
pub(crate) use inside::is_inside;
pub(crate) use seat::Seat;
pub(crate) use sim::Sim;
pub use sim::{Planted, SimOptions, Turn};
pub(crate) use state::{Runtime, Started};
pub(crate) use threads::{Threads, spawn_detached};
