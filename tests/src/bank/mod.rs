//! Overlapping transactions of several clients on a simulated database, with power cuts, all from one seed.
//!
//! The workload of [`workload`](crate::workload) knows what every single key holds, and so can't let transactions
//! overlap: which of them comes first is the database's choice. Here they collide on purpose, and what is compared are
//! sums that no order may change:
//!
//! | kind | what a transaction does | what every snapshot must show, and every recovery |
//! |---|---|---|
//! | transfer | moves money from one account to others, in different trees, with a count of touches in each | all balances add up to what there was; each account was touched as often as was acknowledged, and no oftener than was sent |
//! | duty | reads two flags in different trees and turns one off if both are on | one of the two is on (write skew) |
//! | journal | counts the entries of a range, adds one, and writes the count into another tree | there are as many entries as the count says (phantoms) |
//!
//! Single updates of the same accounts, blind batches, checkpoints and long pauses run between them, and shards give each
//! other key ranges.

mod life;

use std::collections::BTreeMap;

use treering::sim::Planted;
use treering::{Options, sim};
use treering_io::{SimDirectory, SimOptions};

use crate::random::Random;
use crate::seeds::replayed_bytes;
use crate::workload::Outcome;

/// Money of an account at the beginning.
const BALANCE: i64 = 1_000;
/// Bytes of a page.
const PAGE_BYTES: u64 = 4096;
/// The smallest segments that there are.
const SEGMENT_BYTES: u64 = 64 << 10;

/// What is known about one account since the last opening.
#[derive(Clone, Copy, Debug, Default)]
struct Touches {
    /// Touches that are there for sure.
    least: u64,
    /// Those that a crash can't take back.
    durable: u64,
    /// And at most.
    most: u64,
}

/// A run under way.
struct Run {
    planted: Planted,
    random: Random,
    disk: SimDirectory,
    shards: usize,
    /// Trees with accounts, on all shards.
    trees: usize,
    accounts: u64,
    /// Bytes that lie beside each account, so that trees have leaves to be cut between.
    filler_bytes: usize,
    /// Writes after which the shards' shares are looked at.
    balance_operations: u64,
    /// Places in the mailboxes of shards, if they are few.
    mailbox_requests: Option<usize>,
    /// Most transactions that are begun and not sent, and tickets not waited for.
    open_max: usize,
    touches: BTreeMap<(usize, u64), Touches>,
    outcome: Outcome,
}

/// Runs one seed.
///
/// # Errors
/// What was wrong, in words.
///
/// # Panics
/// Where the database does, or where it waits for ever.
pub fn run(seed: u64, planted: Planted) -> Result<Outcome, String> {
    let mut random = Random::new(seed);
    let disk = SimDirectory::with_options(SimOptions {
        delay_nanos: random.pick(&[1_000, 20_000, 1_000_000])..=random.pick(&[2_000_000, 5_000_000]),
        ..SimOptions::new(random.word())
    });
    let mut run = Run {
        planted,
        disk,
        shards: random.pick(&[1, 2, 2, 3, 4]),
        trees: random.pick(&[2, 3, 4]),
        accounts: random.pick(&[1, 2, 5, 40]),
        filler_bytes: random.pick(&[0, 900]),
        balance_operations: random.pick(&[3, 8, 30, u64::MAX]),
        mailbox_requests: random.pick(&[None, None, Some(1), Some(3)]),
        open_max: random.pick(&[2, 4, 12]),
        touches: BTreeMap::new(),
        random,
        outcome: Outcome::default(),
    };
    let lives = 2 + run.random.below(2);
    for life in 0..=lives {
        run.live(life < lives)
            .map_err(|error| format!("seed {seed}, life {life}: {error}"))?;
    }
    run.outcome.trace_hash = run.disk.trace_hash();
    run.outcome.power_cuts = run.disk.counters().power_cuts;
    Ok(run.outcome)
}

impl Run {
    fn options(&self) -> Options {
        Options::new()
            .cache_bytes(1024 * PAGE_BYTES)
            .shards(self.shards)
            .balance_operations(self.balance_operations)
            .log_segment_bytes(SEGMENT_BYTES)
            .checkpoint_log_bytes(2 * SEGMENT_BYTES)
    }

    fn simulation(&mut self, cut: bool) -> sim::SimOptions {
        let seed = self.random.word();
        sim::SimOptions {
            seed,
            power_cut_after_steps: cut.then(|| self.random.below(8_000)),
            planted: self.planted,
            mailbox_requests: self.mailbox_requests,
            replayed_bytes: replayed_bytes(seed),
        }
    }
}
