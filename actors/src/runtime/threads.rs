//! The dedicated thread of each actor.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use treering_io::{Completion, Device, Operation, Wait};

use super::inside::Inside;
use super::seat::Seat;
use super::state::Runtime;
use super::waiting::Idle;
use crate::actor::{Actor, Outbox};
use crate::pager::PagerMessage;
use crate::shared::collect;

/// The running threads of one database.
#[derive(Debug)]
pub(crate) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Starts one thread for each actor. The device belongs to the pager's.
    pub fn start(runtime: &Arc<Runtime>, device: Box<dyn Device>) -> io::Result<Threads> {
        let mut threads = Threads(Vec::new());
        match threads.spawn_all(runtime, device) {
            Ok(()) => Ok(threads),
            Err(error) => {
                threads.stop(runtime);
                Err(error)
            }
        }
    }

    fn spawn_all(&mut self, runtime: &Arc<Runtime>, device: Box<dyn Device>) -> io::Result<()> {
        for index in 0..runtime.shards.len() {
            self.spawn(runtime, format!("treering-shard-{index}"), move |runtime| {
                run_actor(runtime, &runtime.shards[index], || false, || false, true);
            })?;
        }
        self.spawn(runtime, "treering-commit".into(), |runtime| {
            run_actor(
                runtime,
                &runtime.commit,
                || runtime.run_log_task(false),
                || runtime.log_task().is_some(),
                true,
            );
        })?;
        self.spawn(runtime, "treering-flusher".into(), |runtime| {
            let work = || {
                let task = runtime.file_tasks().pop_front();
                task.map(|task| runtime.run_file_task(task)).is_some()
            };
            run_actor(
                runtime,
                &runtime.flusher,
                work,
                || !runtime.file_tasks().is_empty(),
                false,
            );
        })?;
        self.spawn(runtime, "treering-pager".into(), |runtime| {
            run_pager(runtime, device)
        })
    }

    /// No threads: something else drives the actors.
    pub fn none() -> Threads {
        Threads(Vec::new())
    }

    fn spawn(
        &mut self,
        runtime: &Arc<Runtime>,
        name: String,
        body: impl FnOnce(&Runtime) + Send + 'static,
    ) -> io::Result<()> {
        let runtime = Arc::clone(runtime);
        self.0.push(std::thread::Builder::new().name(name).spawn(move || {
            let _inside = Inside::enter();
            body(&runtime);
        })?);
        Ok(())
    }

    /// Ends the threads and waits for them. Nothing may be under way any more that somebody waits for.
    pub fn stop(self, runtime: &Runtime) {
        runtime.stopping.store(true, Ordering::SeqCst);
        runtime.wake_all();
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a thread of the database panicked");
            }
        }
    }
}

/// Runs `body` on a thread of its own, which nobody waits for.
pub(crate) fn spawn_detached(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(drop)
}

/// The life of an actor's thread: work, look again a few times, sleep.
fn run_actor<A: Actor>(
    runtime: &Runtime,
    seat: &Seat<A>,
    other_work: impl Fn() -> bool,
    has_other_work: impl Fn() -> bool,
    helps: bool,
) {
    seat.sleeper.adopt();
    let mut outbox = Outbox::default();
    let mut idle = Idle::default();
    while !runtime.stopping.load(Ordering::Relaxed) {
        let mut worked = other_work();
        let Some(step) = runtime.step_own(seat, &mut outbox, helps) else {
            // Somebody else runs the actor just now; its deadline is known afterwards.
            std::thread::yield_now();
            continue;
        };
        worked |= step.worked || step.deadline == Some(0);
        if worked || seat.more(step) {
            idle.reset();
        } else if idle.wait() {
            collect(&runtime.shared.memory);
            seat.sleep(runtime.now(), || {
                seat.more(step) || has_other_work() || runtime.stopping.load(Ordering::SeqCst)
            });
            idle.reset();
        }
    }
}

/// The life of the pager's thread: it sleeps inside its device.
fn run_pager(runtime: &Runtime, mut device: Box<dyn Device>) {
    let seat = &runtime.pager;
    seat.sleeper.adopt_device(device.waker());
    let mut outbox = Outbox::default();
    let mut idle = Idle::default();
    let mut done: Vec<Completion> = Vec::new();
    let mut queue: Vec<Operation> = Vec::new();
    while !runtime.stopping.load(Ordering::Relaxed) {
        queue.append(&mut runtime.operations());
        let mut worked = submit(&mut *device, &mut queue);
        reap(&mut *device, &mut done, Wait::No);
        for completion in done.drain(..) {
            worked = true;
            seat.tell(PagerMessage::Completed(completion));
        }
        let Some(step) = runtime.step_own(seat, &mut outbox, false) else {
            std::thread::yield_now();
            continue;
        };
        if worked || step.worked || seat.more(step) {
            idle.reset();
        } else if idle.wait() {
            collect(&runtime.shared.memory);
            let ready = || {
                seat.more(step) || !runtime.operations().is_empty() || runtime.stopping.load(Ordering::SeqCst)
            };
            seat.sleeper.sleep_with(ready, || {
                reap(&mut *device, &mut done, Wait::UntilCompletionOrWake(None));
            });
            for completion in done.drain(..) {
                seat.tell(PagerMessage::Completed(completion));
            }
            idle.reset();
        }
    }
}

/// Hands operations to the device, as many as it takes.
fn submit(device: &mut dyn Device, queue: &mut Vec<Operation>) -> bool {
    if queue.is_empty() {
        return false;
    }
    let mut rest = Vec::new();
    let mut submitted = false;
    for operation in queue.drain(..) {
        if rest.is_empty() {
            match device.submit(operation) {
                Ok(()) => submitted = true,
                Err(back) => rest.push(back),
            }
        } else {
            rest.push(operation);
        }
    }
    *queue = rest;
    if let Err(error) = device.kick() {
        tracing::warn!(%error, "the device could not be told about new operations; they will be told again");
    }
    submitted
}

fn reap(device: &mut dyn Device, done: &mut Vec<Completion>, wait: Wait) {
    if let Err(error) = device.reap(done, wait) {
        tracing::warn!(%error, "the device could not be asked for completions; it will be asked again");
        std::thread::yield_now();
    }
}
