//! The transactions of a history: which keys are in use, and what each transaction does with them.
//!
//! Few keys are in use at a time, so that transactions meet. Those of lists move on, so that lists stay short. Those of
//! registers stay: from each write the checker follows real time to the next transaction with the same key, which for
//! keys that nobody uses any more takes time with the square of the history's length. (12,000 transactions took it 12 s,
//! 100,000 more than three minutes.)

use super::record::{Kind, Step};

/// Keys that are in use at a time.
const KEYS: u64 = 6;
/// Transactions after which the keys move on by one.
const TRANSACTIONS_PER_KEY: u64 = 20;

/// The transactions of one history.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    kind: Kind,
    /// All keys are below it.
    pub span: u64,
}

impl Plan {
    pub fn new(kind: Kind, transactions: u64) -> Plan {
        let span = transactions / TRANSACTIONS_PER_KEY + KEYS;
        Plan { kind, span }
    }

    fn key(&self, number: u64, chosen: u64) -> u64 {
        match self.kind {
            Kind::Lists => number / TRANSACTIONS_PER_KEY + chosen,
            // Far from each other: shards cut their trees between them.
            Kind::Registers => self.span / KEYS * chosen,
        }
    }

    /// The steps of the transaction with that number.
    pub fn transaction(&self, number: u64, state: &mut u64) -> Vec<Step> {
        let steps = 1 + next(state) % 4;
        let one = |at: u64| {
            let key = self.key(number, next(state) % KEYS);
            if next(state).is_multiple_of(2) {
                // No two writes of the history write the same.
                Step::Write(key, number * 4 + at)
            } else {
                Step::Read(key, None)
            }
        };
        (0..steps).map(one).collect()
    }

    /// A transaction that reads every key.
    pub fn reading(&self) -> Vec<Step> {
        let keys = 0..self.span;
        let used = keys.filter(|key| self.kind == Kind::Lists || key % (self.span / KEYS) == 0);
        used.map(|key| Step::Read(key, None)).collect()
    }
}

/// The next number of a sequence.
pub fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// The key of a tree that stands for a key of the history.
pub fn name(key: u64) -> [u8; 8] {
    key.to_be_bytes()
}
