//! The same actors in one thread, from one seed, over a simulated disk.
//!
//! # How it runs
//! Nothing runs by itself. Whoever waits for an answer ([`Sim::wait`]) runs steps until it is there; each step
//! ([`Sim::step`]) picks one of the things that could happen now, by the seed:
//!
//! - a step of an actor that has mail or whose deadline has come, taking a few messages only;
//! - one action of the log task that is out: its write, or one of its syncs;
//! - a slow task on files;
//! - operations handed to the device of the pager, or completions taken from it;
//! - virtual time passing, up to when something is due;
//! - a collection of the epoch.
//!
//! A client's descent is no step: before each node that it looks up others may run ([`Sim::switch`]), while it is pinned.
//!
//! How likely each of them is, is drawn once per opening: so some runs have a slow disk, some a starved commit
//! actor, and so on. A test can hold some of them back ([`Sim::hold`]) and say whose turn it is ([`Sim::take`]), to have
//! one schedule and no other.
//!
//! # Guarantees
//! - Equal seeds, disks and calls give equal runs: nothing here looks at clocks, threads, addresses or hash maps.
//! - Actors get no steps that they have not asked for, so that a wake-up that is missing shows: when nothing can
//!   run and an answer is awaited, the run ends with a panic that names the seed and the state of every actor.
//! - After a power cut ([`SimOptions::power_cut_after_steps`], [`Sim::cut_power`]) nothing runs any more, every wait
//!   ends without an answer, and no message leaves.
//!
//! Absent: several threads in one step. Races on single words are for the loom models.

mod planted;
mod random;
mod schedule;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use treering_io::{Completion, SimDevice, SimDirectory};

pub use planted::Planted;
pub use schedule::Turn;

use self::random::Random;
use self::schedule::{LogProgress, Weights};
use super::inside::is_inside;
use super::seat::Seat;
use super::state::Runtime;
use crate::actor::{Actor, Nanos, Outbox};
use crate::pager::IN_FLIGHT_MAX;

/// Steps after which an answer counts as lost: thousands of times more than any needs.
const STEPS_PER_ANSWER_MAX: u64 = 3_000_000;

/// One load of a client in so many is followed by steps of others, up to so many.
const SWITCHED_ONE_IN: u64 = 16;
const SWITCHED_STEPS_MAX: u64 = 80;

/// How a simulated database runs.
#[derive(Clone, Debug, Default)]
pub struct SimOptions {
    /// Where the order of all steps comes from. The disk has a seed of its own.
    pub seed: u64,
    /// Cuts the power after so many steps.
    pub power_cut_after_steps: Option<u64>,
    /// A bug to bring in.
    pub planted: Planted,
    /// Places for clients' requests in the mailbox of each shard; `None`: as many as always.
    pub mailbox_requests: Option<usize>,
    /// Most bytes of records that recovery gathers before it applies them, but one group at least; `None`: as many as
    /// always, which is all that simulations write.
    pub replayed_bytes: Option<usize>,
}

/// The driver of one simulated database.
pub(crate) struct Sim {
    options: SimOptions,
    disk: SimDirectory,
    started_nanos: Nanos,
    state: Mutex<State>,
}

struct State {
    device: SimDevice,
    random: Random,
    weights: Weights,
    /// Most messages that one step of an actor takes.
    messages_max: usize,
    steps: u64,
    /// False after a power cut.
    powered: bool,
    log: Option<LogProgress>,
    outbox: Outbox,
    completions: Vec<Completion>,
    /// What the planted bug remembers.
    memory: planted::Memory,
    /// What doesn't happen by itself.
    held: Vec<Turn>,
}

impl Sim {
    pub fn new(disk: &SimDirectory, options: SimOptions) -> Sim {
        let mut random = Random::new(options.seed);
        let weights = Weights::draw(&mut random);
        let messages_max = [1, 2, 4, 16, 256][random.below(5) as usize];
        let state = State {
            device: SimDevice::new(disk, IN_FLIGHT_MAX),
            random,
            weights,
            messages_max,
            steps: 0,
            powered: true,
            log: None,
            outbox: Outbox::default(),
            completions: Vec::new(),
            memory: planted::Memory::default(),
            held: Vec::new(),
        };
        Sim {
            started_nanos: disk.now_nanos(),
            disk: disk.clone(),
            options,
            state: Mutex::new(state),
        }
    }

    /// What recovery gathers at a time, if that is to differ.
    pub fn replayed_bytes(&self) -> Option<usize> {
        self.options.replayed_bytes
    }

    /// Places in the mailbox of each shard, if that is to differ.
    pub fn mailbox_requests(&self) -> Option<usize> {
        self.options.mailbox_requests
    }

    /// Virtual nanoseconds since the database was opened.
    pub fn now(&self) -> Nanos {
        self.disk.now_nanos().saturating_sub(self.started_nanos)
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.state().powered
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Cuts the power, unless that has happened before.
    pub fn cut_power(&self, runtime: &Runtime) {
        let mut state = self.state();
        if std::mem::replace(&mut state.powered, false) {
            self.disk.power_cut();
            runtime.shared.status.close();
        }
    }

    /// Leaves a client's message; runs steps while the mailbox is full. After a power cut it goes nowhere.
    pub fn request<A: Actor>(&self, runtime: &Runtime, seat: &Seat<A>, message: A::Message) {
        let mut message = message;
        while self.is_powered() {
            match seat.request(message) {
                Ok(()) => return,
                Err(refused) => message = refused.into_inner(),
            }
            self.step_for_room(runtime);
        }
    }

    /// Runs steps until `look` finds something. `None`: the power is off.
    pub fn wait_until<T>(&self, runtime: &Runtime, look: impl Fn() -> Option<T>) -> Option<T> {
        while self.is_powered() {
            let found = look();
            if found.is_some() {
                return found;
            }
            if !self.step(runtime) && self.is_powered() {
                self.give_up(
                    runtime,
                    "nothing can run, and a client waits for credit, a move or a transaction",
                );
            }
        }
        None
    }

    /// A step while a client waits for room in a mailbox; false: the power is off.
    pub fn step_for_room(&self, runtime: &Runtime) -> bool {
        if !self.is_powered() {
            return false;
        }
        if !self.step(runtime) && self.is_powered() {
            self.give_up(runtime, "nothing can run, and a mailbox is full");
        }
        self.is_powered()
    }

    /// Runs steps until the answer is there. `None`: there will be none.
    pub fn wait<T>(&self, runtime: &Runtime, receiver: &oneshot::Receiver<T>) -> Option<T> {
        for _ in 0..STEPS_PER_ANSWER_MAX {
            match receiver.try_recv() {
                Ok(answer) => return Some(answer),
                Err(oneshot::TryRecvError::Disconnected) => return None,
                Err(oneshot::TryRecvError::Empty) => {}
            }
            if !self.step(runtime) {
                if !self.is_powered() {
                    return None;
                }
                // The last step may have been a collection, or the very answer.
                if let Ok(answer) = receiver.try_recv() {
                    return Some(answer);
                }
                self.give_up(runtime, "nothing can run, and an answer is awaited");
            }
        }
        self.give_up(runtime, "an answer takes for ever")
    }

    /// What happens while a client does something that takes time, in its own thread: a few steps, or none. False: the
    /// power is off.
    pub fn let_others_run(&self, runtime: &Runtime) -> bool {
        let steps = {
            let mut state = self.state();
            let most = [1, 4, 32][state.random.below(3) as usize];
            state.random.below(most)
        };
        for _ in 0..steps {
            if !self.step(runtime) {
                break;
            }
        }
        self.is_powered()
    }

    /// Whether a client's thread is interrupted here, and what happens meanwhile: nearly always nothing.
    pub fn switch(&self, runtime: &Runtime) {
        // An actor is one step, whatever it calls.
        if is_inside() {
            return;
        }
        let steps = {
            let mut state = self.state();
            if state.random.below(SWITCHED_ONE_IN) > 0 {
                return;
            }
            state.random.below(SWITCHED_STEPS_MAX)
        };
        for _ in 0..steps {
            if !self.step(runtime) {
                return;
            }
        }
    }

    /// Runs steps until the answer is there or virtual time has passed `timeout`.
    pub fn wait_timeout<T>(
        &self,
        runtime: &Runtime,
        receiver: &oneshot::Receiver<T>,
        timeout: Duration,
    ) -> Result<T, oneshot::RecvTimeoutError> {
        let until = self.now().saturating_add(timeout.as_nanos() as Nanos);
        loop {
            match receiver.try_recv() {
                Ok(answer) => return Ok(answer),
                Err(oneshot::TryRecvError::Disconnected) => {
                    return Err(oneshot::RecvTimeoutError::Disconnected);
                }
                Err(oneshot::TryRecvError::Empty) => {}
            }
            if self.now() >= until || !self.step(runtime) {
                return Err(oneshot::RecvTimeoutError::Timeout);
            }
        }
    }

    /// Runs steps until so much time has passed, or the power is cut.
    pub fn pause(&self, runtime: &Runtime, nanos: Nanos) {
        let until = self.now().saturating_add(nanos);
        while self.now() < until && self.is_powered() {
            if !self.step(runtime) && self.is_powered() {
                self.disk.advance(until.saturating_sub(self.now()));
            }
        }
    }

    /// Runs steps until nothing is left to do, or the power is cut.
    pub fn settle(&self, runtime: &Runtime) {
        for _ in 0..STEPS_PER_ANSWER_MAX {
            if !self.step(runtime) {
                return;
            }
        }
        self.give_up(runtime, "the database doesn't come to rest")
    }

    /// A run that can't go on has found a bug. Nothing runs afterwards, so that unwinding is quiet.
    fn give_up(&self, runtime: &Runtime, what: &str) -> ! {
        let dump = self.dump(runtime);
        self.state().powered = false;
        runtime.shared.status.close();
        panic!("seed {}: {what}\n{dump}", self.options.seed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
