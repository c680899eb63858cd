//! What clients have asked and seen, in the order in which it happened, and what the checker says about it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use adya::history::{Interner, Mop, Op, OpType, ReadValue, Scalar};
use adya::{History, Opts, Valid, Workload, check};
use treering::Result;

/// What the keys hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Lists that grow by one element at a time: they tell the order of their writers.
    Lists,
    /// Single values, each written once: they tell who read from whom.
    Registers,
}

/// One read, with what it found, or write.
#[derive(Clone, Debug)]
pub enum Step {
    Read(u64, Option<Vec<u8>>),
    Write(u64, u64),
}

impl Kind {
    /// What a key holds once a value was written to what it held.
    pub fn written(self, old: Option<&[u8]>, value: u64) -> Vec<u8> {
        let old = old.filter(|_| self == Kind::Lists).unwrap_or_default();
        [old, &value.to_le_bytes()].concat()
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Done,
    Refused,
    /// Nobody knows.
    Open,
}

struct Event {
    kind: OpType,
    process: u64,
    steps: Vec<Step>,
}

/// Everything that was begun and ended, in that order.
pub struct Recorder {
    events: Mutex<Vec<Event>>,
    pub kind: Kind,
}

impl Recorder {
    pub fn new(kind: Kind) -> Recorder {
        Recorder {
            events: Mutex::default(),
            kind,
        }
    }

    /// A process is about to begin this.
    pub fn begins(&self, process: u64, steps: &[Step]) {
        self.note(OpType::Invoke, process, steps);
    }

    /// What a process has begun has ended.
    pub fn ended(&self, process: u64, steps: &[Step], end: End) {
        let kind = match end {
            End::Done => OpType::Ok,
            End::Refused => OpType::Fail,
            End::Open => OpType::Info,
        };
        self.note(kind, process, steps);
    }

    fn note(&self, kind: OpType, process: u64, steps: &[Step]) {
        let event = Event {
            kind,
            process,
            steps: steps.to_vec(),
        };
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event);
    }

    /// The history as the checker takes it.
    pub fn history(self) -> History {
        let mut events = self.events.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.kind == Kind::Lists {
            settle_open(&mut events);
        }
        let mut interner = Interner::default();
        let ops = events.into_iter().enumerate().map(|(index, event)| Op {
            index: index as u64,
            kind: event.kind,
            process: Some(event.process as i64),
            value: event
                .steps
                .into_iter()
                .map(|step| self.kind.operation(step, &mut interner))
                .collect(),
            time: None,
        });
        let ops = ops.collect();
        History::from_ops(ops, interner)
    }
}

/// What is open and has left nothing that anybody has read has not happened, since at the end everything is read. (The
/// checker takes it for the last that happened to its lists.)
fn settle_open(events: &mut [Event]) {
    let mut seen = BTreeSet::new();
    for event in events.iter().filter(|event| event.kind == OpType::Ok) {
        for step in &event.steps {
            if let Step::Read(key, Some(found)) = step {
                seen.extend(found.chunks(8).map(|part| (*key, number(part))));
            }
        }
    }
    for event in events.iter_mut().filter(|event| event.kind == OpType::Info) {
        let is_seen = |step: &Step| matches!(step, Step::Write(key, value) if seen.contains(&(*key, *value)));
        if !event.steps.iter().any(is_seen) {
            event.kind = OpType::Fail;
        }
    }
}

impl Kind {
    fn operation(self, step: Step, interner: &mut Interner) -> Mop {
        let mut id = |number: u64| interner.intern(Scalar::Int(number as i64));
        match (step, self) {
            (Step::Write(key, value), Kind::Lists) => Mop::Append {
                key: id(key),
                value: id(value),
            },
            (Step::Write(key, value), Kind::Registers) => Mop::Write {
                key: id(key),
                value: id(value),
            },
            (Step::Read(key, None), _) => Mop::Read {
                key: id(key),
                value: ReadValue::Nil,
            },
            (Step::Read(key, Some(found)), Kind::Lists) => Mop::Read {
                key: id(key),
                value: ReadValue::List(found.chunks(8).map(|part| id(number(part))).collect()),
            },
            (Step::Read(key, Some(found)), Kind::Registers) => Mop::Read {
                key: id(key),
                value: ReadValue::Scalar(id(number(&found))),
            },
        }
    }
}

/// No value is that large: what nobody has written is noticed by the checker.
fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(u64::from(u32::MAX), u64::from_le_bytes)
}

/// What the checker says of a history.
pub struct Verdict {
    pub valid: Valid,
    pub findings: String,
}

/// Looks for the cycles that a model forbids.
pub fn verdict(history: &History, kind: Kind, model: &str) -> Verdict {
    let workload = match kind {
        Kind::Lists => Workload::ListAppend,
        Kind::Registers => Workload::RwRegister,
    };
    let options = Opts {
        models: vec![model.into()],
        // Otherwise nothing tells the order in which a register was written.
        linearizable_keys: kind == Kind::Registers,
        ..Opts::default()
    };
    let report = check(history, workload, &options);
    let first = report.anomalies.values().flatten().next();
    let explained = first.map(|anomaly| anomaly.explanation.chars().take(2_000).collect::<String>());
    Verdict {
        valid: report.valid,
        findings: format!("{model}: {:?}: {explained:?}", report.anomaly_types),
    }
}

/// The reads of a transaction that only reads, from a snapshot.
pub fn read_all(steps: &mut [Step], read: impl Fn(u64) -> Result<Option<treering::Value>>) -> Result<()> {
    steps.iter_mut().try_for_each(|step| {
        if let Step::Read(key, found) = step {
            *found = read(*key)?.map(|value| value.to_vec());
        }
        Ok(())
    })
}
