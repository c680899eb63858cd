//! One step: what could happen now, which of it does, and doing it.

use std::fmt::Write as _;

use treering_io::{Completion, Device, OperationKind, Wait};

use super::random::Random;
use super::{Planted, Sim, State};
use crate::actor::{Actor, Nanos};
use crate::commit::{CommitMessage, LogTask};
use crate::pager::PagerMessage;
use crate::runtime::Runtime;
use crate::runtime::seat::Seat;
use crate::shared::collect;

/// Collections after which the epoch has nothing more to give.
const COLLECTIONS: usize = 3;

/// What a step of an actor takes.
const STEP_NANOS: Nanos = 100;

/// Something that could happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// A step of the shard with this number.
    Shard(usize),
    /// A step of the commit actor.
    Commit,
    /// A step of the pager.
    Pager,
    /// A step of the flusher.
    Flusher,
    /// An action of the log task that is out: its write, or one of its syncs.
    Log,
    /// A slow task on files.
    File,
    /// Operations of the pager go to its device.
    Submit,
    /// Completions come from the device.
    Reap,
    /// Virtual time passes.
    Time,
    /// A collection of the epoch.
    Collect,
}

/// Most messages that a step of an actor takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// Of other actors.
    lane: usize,
    /// Of clients.
    requests: usize,
}

/// How likely each kind of step is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    shard: u64,
    commit: u64,
    pager: u64,
    flusher: u64,
    log: u64,
    file: u64,
    device: u64,
    time: u64,
}

impl Weights {
    pub(super) fn draw(random: &mut Random) -> Weights {
        let mut weight = || [1, 4, 16, 64][random.below(4) as usize];
        Weights {
            shard: weight(),
            commit: weight(),
            pager: weight(),
            flusher: weight(),
            log: weight(),
            file: weight(),
            device: weight(),
            time: weight().min(4),
        }
    }

    fn of(&self, choice: Turn) -> u64 {
        match choice {
            Turn::Shard(_) => self.shard,
            Turn::Commit => self.commit,
            Turn::Pager => self.pager,
            Turn::Flusher => self.flusher,
            Turn::Log => self.log,
            Turn::File => self.file,
            Turn::Submit | Turn::Reap => self.device,
            Turn::Time => self.time,
            Turn::Collect => 1,
        }
    }
}

/// The log task that is out, and how far it is.
pub(super) struct LogProgress {
    task: LogTask,
    written: bool,
    synced: usize,
    /// Whether the commit actor knows already: a planted bug.
    told: bool,
}

impl Sim {
    /// Lets one thing happen. False: nothing can, or the power is off.
    pub fn step(&self, runtime: &Runtime) -> bool {
        let cut = {
            let state = self.state();
            if !state.powered {
                return false;
            }
            self.options
                .power_cut_after_steps
                .is_some_and(|steps| state.steps >= steps)
                || self.disk.is_off()
        };
        if cut {
            self.cut_power(runtime);
            return false;
        }
        let mut state = self.state();
        let state = &mut *state;
        state.steps += 1;
        if let Some(choice) = self.choose(state, runtime) {
            self.run(choice, None, state, runtime);
            return true;
        }
        // Nothing but the epoch, or the next thing due.
        for _ in 0..COLLECTIONS {
            collect(&runtime.shared.memory);
            if let Some(choice) = self.choose(state, runtime) {
                self.run(choice, None, state, runtime);
                return true;
            }
        }
        match self.next_due(state, runtime) {
            Some(due) => {
                self.disk.advance(due.saturating_sub(self.now()));
                true
            }
            None => false,
        }
    }

    /// Lets none of these happen by themselves until they are let go.
    pub fn hold(&self, turn: Turn) {
        let held = &mut self.state().held;
        if !held.contains(&turn) {
            held.push(turn);
        }
    }

    /// What was held may happen again.
    pub fn let_go(&self, turn: Turn) {
        self.state().held.retain(|held| *held != turn);
    }

    /// Lets exactly this happen, held or not; an actor takes at most so many messages of actors and of clients.
    pub fn take(&self, runtime: &Runtime, turn: Turn, lane: usize, requests: usize) {
        if !self.is_powered() {
            return;
        }
        let mut state = self.state();
        state.steps += 1;
        self.run(turn, Some(Portion { lane, requests }), &mut state, runtime);
    }

    fn choose(&self, state: &mut State, runtime: &Runtime) -> Option<Turn> {
        let now = self.now();
        let mut choices = [Turn::Time; 16];
        let mut count = 0;
        let held = &state.held;
        let mut add = |choice: Turn, possible: bool| {
            if possible && count < choices.len() && !held.contains(&choice) {
                choices[count] = choice;
                count += 1;
            }
        };
        for (index, seat) in runtime.shards.iter().enumerate() {
            add(Turn::Shard(index), is_ready(seat, now));
        }
        add(Turn::Commit, is_ready(&runtime.commit, now));
        add(Turn::Pager, is_ready(&runtime.pager, now));
        add(Turn::Flusher, is_ready(&runtime.flusher, now));
        add(Turn::Log, state.log.is_some() || runtime.log_task().is_some());
        add(Turn::File, !runtime.file_tasks().is_empty());
        add(Turn::Submit, !runtime.operations().is_empty());
        let due = self.disk.next_due_nanos();
        add(Turn::Reap, due.is_some_and(|due| due <= self.disk.now_nanos()));
        if count == 0 {
            return None;
        }
        // Only beside something else: by themselves they would hide that nothing can happen.
        if count < choices.len() {
            choices[count] = if state.random.below(4) == 0 {
                Turn::Collect
            } else {
                Turn::Time
            };
            count += 1;
        }
        let choices = &choices[..count];
        let total: u64 = choices.iter().map(|choice| state.weights.of(*choice)).sum();
        let mut drawn = state.random.below(total);
        for choice in choices {
            let weight = state.weights.of(*choice);
            if drawn < weight {
                return Some(*choice);
            }
            drawn -= weight;
        }
        None
    }

    /// When the next thing is due that only time brings, in nanoseconds since opening.
    fn next_due(&self, state: &State, runtime: &Runtime) -> Option<Nanos> {
        let device = self
            .disk
            .next_due_nanos()
            .map(|due| due.saturating_sub(self.started_nanos));
        let shards = runtime.shards.iter().enumerate();
        let deadlines = shards
            .map(|(index, seat)| (Turn::Shard(index), seat.next_deadline()))
            .chain([
                (Turn::Commit, runtime.commit.next_deadline()),
                (Turn::Pager, runtime.pager.next_deadline()),
                (Turn::Flusher, runtime.flusher.next_deadline()),
                (Turn::Reap, device),
            ]);
        deadlines
            .filter(|(turn, _)| !state.held.contains(turn))
            .filter_map(|(_, due)| due)
            .min()
    }

    fn run(&self, choice: Turn, portion: Option<Portion>, state: &mut State, runtime: &Runtime) {
        match choice {
            Turn::Shard(index) => self.run_actor(&runtime.shards[index], portion, state, runtime),
            Turn::Commit => self.run_actor(&runtime.commit, portion, state, runtime),
            Turn::Pager => self.run_actor(&runtime.pager, portion, state, runtime),
            Turn::Flusher => self.run_actor(&runtime.flusher, portion, state, runtime),
            Turn::Log => self.run_log(state, runtime),
            Turn::File => {
                let task = runtime.file_tasks().pop_front();
                if let Some(task) = task {
                    runtime.run_file_task(task);
                }
            }
            Turn::Submit => self.submit(state, runtime),
            Turn::Reap => {
                let State {
                    device, completions, ..
                } = state;
                // The simulated device has no errors of its own; its operations have.
                let _ = device.reap(completions, Wait::No);
                completions
                    .drain(..)
                    .for_each(|done| runtime.pager.tell(PagerMessage::Completed(done)));
            }
            Turn::Time => {
                let most = self
                    .next_due(state, runtime)
                    .map_or(1_000, |due| due.saturating_sub(self.now()));
                let passed = state.random.below(most.clamp(1, 1_000_000));
                self.disk.advance(passed);
            }
            Turn::Collect => collect(&runtime.shared.memory),
        }
    }

    fn run_actor<A: Actor>(
        &self,
        seat: &Seat<A>,
        portion: Option<Portion>,
        state: &mut State,
        runtime: &Runtime,
    ) {
        let Portion { lane, requests } = portion.unwrap_or_else(|| Portion {
            lane: 1 + state.random.below(state.messages_max as u64) as usize,
            requests: 1 + state.random.below(state.messages_max as u64) as usize,
        });
        let planted = self.options.planted;
        // Nothing is done in no time: two actors that keep each other busy must not keep the disk waiting for ever.
        self.disk.advance(STEP_NANOS);
        // Nobody else runs actors here, so the seat is free.
        let State { outbox, memory, .. } = state;
        seat.try_step_of(lane, requests, self.now(), outbox, |outbox| {
            if planted != Planted::Nothing {
                planted.interfere(runtime, outbox, memory);
            }
            runtime.post(outbox);
        });
        runtime.finish_step(&mut state.outbox);
        if planted != Planted::Nothing {
            planted.meddle(runtime, &mut state.memory);
        }
    }

    /// One action of the log task.
    fn run_log(&self, state: &mut State, runtime: &Runtime) {
        let mut progress = match state.log.take() {
            Some(progress) => progress,
            None => match runtime.log_task().take() {
                Some(task) => LogProgress {
                    task,
                    written: false,
                    synced: 0,
                    told: false,
                },
                None => return,
            },
        };
        let Some(files) = &runtime.log_files else { return };
        let result = if !progress.written {
            progress.written = true;
            match &progress.task.write {
                Some(write) => files.write(write, false),
                None => Ok(()),
            }
        } else if let Some(write) = progress.task.write.as_mut().filter(|write| write.durable) {
            // A durable write takes time: until it returns, the power may be cut and find any part of it.
            write.durable = false;
            match self.options.planted {
                Planted::SkipLogSync => Ok(()),
                _ => files.write(write, true),
            }
        } else if let Some(segment) = progress.task.sync.get(progress.synced) {
            progress.synced += 1;
            match self.options.planted {
                Planted::SkipLogSync => Ok(()),
                _ => files.file(*segment).and_then(|file| file.sync_data()),
            }
        } else {
            Ok(())
        };
        let durable = progress.task.write.as_ref().is_none_or(|write| !write.durable);
        let synced = durable && progress.synced == progress.task.sync.len();
        let done = result.is_err() || (progress.written && synced);
        let early = self.options.planted == Planted::AcknowledgeBeforeSync && progress.written;
        if (done || early) && !progress.told {
            progress.told = true;
            let write = progress.task.write.take();
            if let Some(write) = write.as_ref().filter(|write| write.durable) {
                // Told too early; the sync comes later.
                progress.task.sync.push(write.segment);
            }
            let buffer = write.map(|write| write.buffer);
            runtime.commit.tell(CommitMessage::LogDone { result, buffer });
        }
        if !done {
            state.log = Some(progress);
        }
    }

    fn submit(&self, state: &mut State, runtime: &Runtime) {
        let mut queue = std::mem::take(&mut *runtime.operations());
        let count = 1 + state.random.below(queue.len() as u64) as usize;
        let mut rest = queue.split_off(count);
        for operation in queue {
            if self.options.planted == Planted::SkipDataSync && operation.kind == OperationKind::SyncData {
                let done = Completion {
                    token: operation.token,
                    result: Ok(()),
                    buffer: operation.buffer,
                };
                runtime.pager.tell(PagerMessage::Completed(done));
            } else if let Err(back) = state.device.submit(operation) {
                rest.push(back);
            }
        }
        *runtime.operations() = rest;
    }

    /// The state of everything that could run, for a run that can't go on.
    pub(super) fn dump(&self, runtime: &Runtime) -> String {
        let mut text = String::new();
        let mut line = |name: &str, lane: usize, requests: usize, accepts: bool, deadline: Option<Nanos>| {
            let _ = writeln!(
                text,
                "{name}: lane {lane}, requests {requests}, accepts {accepts}, deadline {deadline:?}"
            );
        };
        for (index, seat) in runtime.shards.iter().enumerate() {
            describe(&format!("shard {index}"), seat, &mut line);
        }
        describe("commit", &runtime.commit, &mut line);
        describe("pager", &runtime.pager, &mut line);
        describe("flusher", &runtime.flusher, &mut line);
        for seat in &runtime.shards {
            let _ = seat.with(|shard| writeln!(text, "{shard:?}"));
        }
        let memory = &runtime.shared.memory;
        let _ = writeln!(
            text,
            "now {}, log task {}, operations {}, file tasks {}, device due {:?}, frames free {} of {}, in limbo {}",
            self.now(),
            runtime.log_task().is_some(),
            runtime.operations().len(),
            runtime.file_tasks().len(),
            self.disk.next_due_nanos(),
            memory.free_frames(),
            memory.frames(),
            memory.limbo_frames(),
        );
        text
    }
}

fn describe<A: Actor>(
    name: &str,
    seat: &Seat<A>,
    line: &mut impl FnMut(&str, usize, usize, bool, Option<Nanos>),
) {
    let accepts = seat.with(Actor::accepts_requests).unwrap_or(false);
    line(
        name,
        seat.lane_length(),
        seat.requests_length(),
        accepts,
        seat.next_deadline(),
    );
}

/// Whether a step of the actor would do something.
fn is_ready<A: Actor>(seat: &Seat<A>, now: Nanos) -> bool {
    let accepts = seat.with(Actor::accepts_requests).unwrap_or(false);
    seat.has_work(accepts) || seat.next_deadline().is_some_and(|deadline| deadline <= now)
}
