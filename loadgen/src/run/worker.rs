//! One thread of load: draws operations, keeps to the schedule, ends what it sent.
//!
//! The loop is here; what the operations do is in [`super::operations`].

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use super::Context;
use super::operations::SentWrite;
use super::outcome::Counters;
use super::pipeline::Pipeline;
use super::schedule::Schedule;
use crate::distribution::{Chooser, Latest, ScrambledZipfian};
use crate::inserts::InsertSequence;
use crate::measure::Recorder;
use crate::random::Xoshiro256;
use crate::target::{Session, Target, TargetError};
use crate::workload::Access;

/// Longest sleep before a thread looks whether it was asked to stop.
const NAP_MAX: Duration = Duration::from_millis(20);
/// Longest sleep while writes are under way whose ends are to be noticed.
const NAP_WITH_WRITES_MAX: Duration = Duration::from_micros(50);
/// A scrambled space leaves this fraction of room for records that are inserted during the run.
const INSERT_ROOM_FRACTION: u64 = 8;

/// What the measured part of a run adds to its context.
#[derive(Debug)]
pub(crate) struct Load<'a, T> {
    pub context: &'a Context<'a, T>,
    pub sequence: &'a InsertSequence,
    pub start: Instant,
    pub end: Instant,
}

/// State of one thread.
pub(crate) struct Worker<'a, T: Target> {
    pub load: &'a Load<'a, T>,
    pub session: T::Session,
    pub writer: u32,
    pub random: Xoshiro256,
    pub chooser: Chooser,
    pub recorder: Recorder<'a>,
    pub pipeline: Pipeline<<T::Session as Session>::Pending, SentWrite>,
    pub counters: Counters,
    /// Space for one value.
    pub value: Vec<u8>,
    /// Writes begun without verification: the versions in their values.
    pub unverified_versions: u64,
}

/// Runs thread `thread` of the load to its end. Returns what it counted, and when its last operation ended.
///
/// # Errors
/// When the thread's session can't be opened; all that follows is counted.
pub(crate) fn work<T: Target>(load: &Load<'_, T>, thread: usize) -> Result<(Counters, Instant), TargetError> {
    let plan = load.context.plan;
    let present = load.sequence.present();
    let chooser = match plan.workload.access() {
        Access::Uniform => Chooser::Uniform,
        Access::Latest => Chooser::Latest(Latest::new(present)),
        Access::Zipfian => {
            let grows = plan
                .workload
                .mix()
                .includes(crate::workload::OperationKind::Insert);
            let room = if grows { present / INSERT_ROOM_FRACTION } else { 0 };
            Chooser::ScrambledZipfian(ScrambledZipfian::new(present + room))
        }
    };
    let worker = Worker {
        load,
        session: load.context.target.session()?,
        writer: u32::try_from(thread).unwrap_or(u32::MAX),
        random: Xoshiro256::new(plan.seed, thread as u64),
        chooser,
        recorder: load.context.samples.recorder(thread),
        pipeline: Pipeline::new(plan.depth),
        counters: Counters::default(),
        value: vec![0; plan.value_bytes],
        unverified_versions: 0,
    };
    let schedule = match plan.rate {
        None => Schedule::Closed,
        Some(rate) => {
            let (threads, thread) = (plan.threads as u64, thread as u64);
            Schedule::Open {
                start: load.start,
                rate,
                threads,
                thread,
            }
        }
    };
    let quota = plan
        .operations
        .map_or(u64::MAX, |operations| share(operations, plan.threads, thread));
    Ok(worker.run(schedule, quota))
}

/// A thread's share of a number of operations: all differ by one at most.
fn share(operations: u64, threads: usize, thread: usize) -> u64 {
    let (threads, thread) = (threads as u64, thread as u64);
    operations / threads + u64::from(thread < operations % threads)
}

impl<T: Target> Worker<'_, T> {
    fn run(mut self, schedule: Schedule, quota: u64) -> (Counters, Instant) {
        if !matches!(schedule, Schedule::Closed) {
            // The default slack of 50 µs would be measured as the database's latency. Where it can't be changed, it
            // is.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        }
        let Load { context, end, .. } = *self.load;
        let mix = context.plan.workload.mix();
        let groups_reads = mix.only_reads() && context.plan.depth > 1;
        let mut begun = 0;
        while begun < quota && !context.stop.is_asked() && !context.errors.is_final() {
            let start = match schedule.due(begun) {
                None => Instant::now(),
                Some(due) if due >= end => break,
                Some(due) => {
                    self.idle_until(due);
                    due
                }
            };
            if Instant::now() >= end {
                break;
            }
            if groups_reads {
                let count = (quota - begun).min(context.plan.depth as u64);
                self.read_group(start, &schedule, begun, count as usize);
                begun += count;
            } else {
                let kind = mix.choose(&mut self.random);
                self.operate(kind, start);
                begun += 1;
            }
        }
        while let Some((write, outcome)) = self.pipeline.wait_oldest() {
            self.end_write(write, &outcome, Instant::now());
        }
        if !context.stop.is_asked() {
            self.counters.unsent = schedule.due_before(end).min(quota).saturating_sub(begun);
        }
        (self.counters, Instant::now())
    }

    /// Ends what ends until `due`.
    fn idle_until(&mut self, due: Instant) {
        loop {
            self.end_ended();
            let now = Instant::now();
            if now >= due || self.load.context.stop.is_asked() {
                return;
            }
            let nap_max = if self.pipeline.is_empty() {
                NAP_MAX
            } else {
                NAP_WITH_WRITES_MAX
            };
            thread::sleep((due - now).min(nap_max));
        }
    }

    /// Ends all writes that have ended, without waiting.
    pub fn end_ended(&mut self) {
        while let Some((write, outcome)) = self.pipeline.take_ended() {
            self.end_write(write, &outcome, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (operations, threads) in [(0, 3), (1, 3), (10, 3), (1000, 16), (7, 7)] {
            let shares: Vec<u64> = (0..threads)
                .map(|thread| share(operations, threads, thread))
                .collect();
            assert_eq!(shares.iter().sum::<u64>(), operations);
            let (least, most) = (shares.iter().min(), shares.iter().max());
            assert!(
                most.zip(least).is_some_and(|(most, least)| most - least <= 1),
                "{shares:?}"
            );
        }
    }
}
