//! Histories of several clients in the simulator, each from one seed, with power cuts, moves, and bugs on demand.
//!
//! One thread plays all clients: each begins a transaction, reads and writes a step at a time, sends it, and hears its end
//! some time later. What was sent before a power cut and not answered stays open; what was not sent has not happened. So
//! a history goes on over crashes, and the checker compares what is found after them with what was seen before.

use adya::Valid;
use treering::sim::{self, Planted, SimOptions};
use treering::{Client, Db, Durability, Error, Isolation, Options, Snapshot, Ticket, Transaction, Tree};
use treering_io::{SimDirectory, SimOptions as DiskOptions};
use treering_tests::random::Random;
use treering_tests::seeds;
use treering_tests::workload::Outcome;

use super::plan::{Plan, name};
use super::record::{End, Kind, Recorder, Step, verdict};

const CLIENTS: usize = 8;
const TREES: usize = 3;
const TRANSACTIONS: u64 = 240;
/// Seeds within which a planted bug must show.
const CANARY_SEEDS: u64 = 300;
/// Bytes of what is written beside the keys of the history, so that trees have leaves to be cut between.
const BESIDE_BYTES: usize = 900;

/// What a client is doing.
enum Doing {
    Nothing,
    /// Reading and writing, up to so many of its steps.
    Transaction(Transaction, usize),
    /// Only reading.
    Looking(Snapshot, usize),
    Waiting(Ticket<()>),
}

struct Player {
    process: u64,
    steps: Vec<Step>,
    doing: Doing,
}

struct Run {
    random: Random,
    isolation: Isolation,
    plan: Plan,
    recorder: Recorder,
    planted: Planted,
    disk: SimDirectory,
    options: Options,
    /// Whether the power is cut now and then.
    cuts: bool,
    begun: u64,
    processes: u64,
    outcome: Outcome,
}

/// A life's handles.
struct Hands {
    db: Db,
    client: Client,
    trees: Vec<Tree>,
    players: Vec<Player>,
}

/// Runs one seed.
fn run(seed: u64, kind: Kind, isolation: Isolation, planted: Planted) -> Result<Outcome, String> {
    let mut random = Random::new(seed);
    let disk = SimDirectory::with_options(DiskOptions::new(random.word()));
    let cuts = random.one_in(2);
    let durability = if cuts || random.one_in(2) {
        Durability::Sync
    } else {
        Durability::Buffered
    };
    let mut run = Run {
        isolation,
        plan: Plan::new(kind, TRANSACTIONS),
        recorder: Recorder::new(kind),
        planted,
        disk,
        options: Options::new()
            .cache_bytes(1024 * 4096)
            .shards(2 + random.below(3) as usize)
            .balance_operations(random.pick(&[4, 12, 60]))
            .log_segment_bytes(64 << 10)
            .checkpoint_log_bytes(128 << 10)
            .durability(durability),
        cuts,
        begun: 0,
        processes: 0,
        outcome: Outcome::default(),
        random,
    };
    while run.begun < TRANSACTIONS {
        run.live().map_err(|error| format!("seed {seed}: {error}"))?;
    }
    let model = match isolation {
        Isolation::Serializable => "strict-serializable",
        Isolation::Snapshot => "snapshot-isolation",
    };
    let verdict = verdict(&run.recorder.history(), kind, model);
    if verdict.valid != Valid::True {
        return Err(format!("seed {seed}: {}", verdict.findings));
    }
    run.outcome.trace_hash = run.disk.trace_hash();
    run.outcome.power_cuts = run.disk.counters().power_cuts;
    Ok(run.outcome)
}

/// An error is right after a power cut alone.
fn unless_cut<T>(db: &Db, answer: treering::Result<T>) -> Result<Option<T>, String> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(_) if sim::is_cut(db) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

impl Run {
    /// From an opening to a power cut, or to the end of the history.
    fn live(&mut self) -> Result<(), String> {
        let simulation = SimOptions {
            seed: self.random.word(),
            power_cut_after_steps: self.cuts.then(|| self.random.below(8_000)),
            planted: self.planted,
            ..SimOptions::default()
        };
        let cuts = self.disk.counters().power_cuts;
        let db = match sim::open(&self.disk, &self.options, simulation) {
            Ok(db) => db,
            Err(_) if self.disk.counters().power_cuts > cuts => return Ok(()),
            Err(error) => return Err(format!("opening: {error}")),
        };
        let client = db.client();
        let trees = (0..TREES).map(|tree| client.tree(&format!("tree {tree}")));
        let trees = unless_cut(&db, trees.collect::<treering::Result<Vec<_>>>())?;
        let mut hands = Hands {
            players: (0..CLIENTS).map(|_| self.player()).collect(),
            client,
            trees: trees.unwrap_or_default(),
            db,
        };
        let played = self.play(&mut hands);
        let stats = hands.db.stats();
        self.outcome.steps += sim::steps(&hands.db);
        self.outcome.moves += stats.partition_moves;
        self.outcome.joins += stats.partition_joins;
        self.outcome.refused += stats.conflicts;
        for player in std::mem::take(&mut hands.players) {
            match player.doing {
                Doing::Nothing => {}
                // Nobody has heard of it.
                Doing::Transaction(..) | Doing::Looking(..) => {
                    self.recorder.ended(player.process, &player.steps, End::Refused);
                }
                Doing::Waiting(_) => self.recorder.ended(player.process, &player.steps, End::Open),
            }
        }
        sim::crash(hands.db);
        played
    }

    fn player(&mut self) -> Player {
        // Who has left something open is not heard of again.
        self.processes += 1;
        Player {
            process: self.processes,
            steps: Vec::new(),
            doing: Doing::Nothing,
        }
    }

    fn play(&mut self, hands: &mut Hands) -> Result<(), String> {
        while !sim::is_cut(&hands.db) {
            let over = self.begun >= TRANSACTIONS;
            let index = self.random.below(CLIENTS as u64) as usize;
            let mut player = std::mem::replace(&mut hands.players[index], self.player());
            let played = if over && matches!(player.doing, Doing::Nothing) {
                Ok(())
            } else {
                self.turn(hands, &mut player)
            };
            hands.players[index] = player;
            played?;
            for _ in 0..self.random.below(12) {
                sim::step(&hands.db);
            }
            if self.random.one_in(4) {
                let key = [&name(self.random.below(self.plan.span))[..], &[1]].concat();
                let tree = &hands.trees[self.random.below(TREES as u64) as usize];
                unless_cut(&hands.db, tree.send_put(key, [0; BESIDE_BYTES]))?;
            }
            let idle = |player: &Player| matches!(player.doing, Doing::Nothing);
            if over && hands.players.iter().all(idle) {
                return self.read_all(hands);
            }
        }
        Ok(())
    }

    /// Everything is read once more.
    fn read_all(&mut self, hands: &Hands) -> Result<(), String> {
        let process = self.player().process;
        let mut steps = self.plan.reading();
        self.recorder.begins(process, &steps);
        let snapshot = hands.client.snapshot();
        for step in &mut steps {
            if let Step::Read(key, found) = step {
                let answer = snapshot.get(hands.tree(*key), name(*key));
                let Some(value) = unless_cut(&hands.db, answer)? else {
                    self.recorder.ended(process, &steps, End::Refused);
                    return Ok(());
                };
                *found = value.map(|value| value.to_vec());
            }
        }
        self.recorder.ended(process, &steps, End::Done);
        Ok(())
    }

    /// A client does one thing.
    fn turn(&mut self, hands: &Hands, player: &mut Player) -> Result<(), String> {
        let db = &hands.db;
        match std::mem::replace(&mut player.doing, Doing::Nothing) {
            Doing::Nothing => {
                let mut state = self.random.word();
                player.steps = self.plan.transaction(self.begun, &mut state);
                self.begun += 1;
                self.recorder.begins(player.process, &player.steps);
                player.doing = match &player.steps[..] {
                    [Step::Write(key, value)] if self.random.one_in(2) => {
                        let (kind, value) = (self.recorder.kind, *value);
                        let sent = hands
                            .tree(*key)
                            .send_update(name(*key), move |old| Some(kind.written(old, value)));
                        match unless_cut(db, sent)? {
                            Some(ticket) => Doing::Waiting(ticket),
                            None => return self.ends(player, End::Open),
                        }
                    }
                    steps if steps.iter().all(|step| matches!(step, Step::Read(..))) => {
                        Doing::Looking(hands.client.snapshot(), 0)
                    }
                    _ => match unless_cut(db, hands.client.begin(self.isolation))? {
                        Some(transaction) => Doing::Transaction(transaction, 0),
                        None => return self.ends(player, End::Refused),
                    },
                };
            }
            Doing::Looking(snapshot, at) => {
                let Some(Step::Read(key, found)) = player.steps.get_mut(at) else {
                    return self.ends(player, End::Done);
                };
                match unless_cut(db, snapshot.get(hands.tree(*key), name(*key)))? {
                    Some(value) => *found = value.map(|value| value.to_vec()),
                    None => return self.ends(player, End::Refused),
                }
                player.doing = Doing::Looking(snapshot, at + 1);
            }
            Doing::Transaction(mut transaction, at) => {
                let Some(step) = player.steps.get_mut(at) else {
                    // By a thread that goes on, or by one that waits.
                    let send = if self.random.one_in(2) {
                        Transaction::send
                    } else {
                        sim::commit
                    };
                    match send(transaction) {
                        Ok(ticket) => player.doing = Doing::Waiting(ticket),
                        Err(_) if sim::is_cut(db) => return self.ends(player, End::Open),
                        Err(error) => return Err(error.to_string()),
                    }
                    return Ok(());
                };
                let kind = self.recorder.kind;
                let stepped = match step {
                    Step::Read(key, found) => transaction
                        .get(hands.tree(*key), name(*key))
                        .map(|value| *found = value.map(|value| value.to_vec())),
                    Step::Write(key, value) => {
                        let tree = hands.tree(*key);
                        let old = match kind {
                            Kind::Lists => transaction.get(tree, name(*key)),
                            Kind::Registers => Ok(None),
                        };
                        old.and_then(|old| {
                            transaction.put(tree, name(*key), kind.written(old.as_deref(), *value))
                        })
                    }
                };
                if unless_cut(db, stepped)?.is_none() {
                    return self.ends(player, End::Refused);
                }
                player.doing = Doing::Transaction(transaction, at + 1);
            }
            Doing::Waiting(mut ticket) => match ticket.try_wait() {
                Ok(Some(())) => return self.ends(player, End::Done),
                Ok(None) => {
                    sim::step(db);
                    player.doing = Doing::Waiting(ticket);
                }
                Err(Error::Conflict) => return self.ends(player, End::Refused),
                Err(_) if sim::is_cut(db) => return self.ends(player, End::Open),
                Err(error) => return Err(error.to_string()),
            },
        }
        Ok(())
    }

    fn ends(&self, player: &Player, end: End) -> Result<(), String> {
        self.recorder.ended(player.process, &player.steps, end);
        Ok(())
    }
}

impl Hands {
    fn tree(&self, key: u64) -> &Tree {
        &self.trees[key as usize % TREES]
    }
}

fn must_be(kind: Kind, isolation: Isolation) {
    let sum = seeds::run_all(200, |seed| run(seed, kind, isolation, Planted::Nothing));
    let is_single = std::env::var_os("TREERING_SIM_SEED").is_some();
    assert!(
        is_single || sum.power_cuts > 0 && sum.moves > 0 && sum.refused > 0,
        "what never happens is not tested: {sum:?}"
    );
}

#[test]
fn simulated_lists_are_strictly_serializable() {
    must_be(Kind::Lists, Isolation::Serializable);
}

#[test]
fn simulated_registers_are_strictly_serializable() {
    must_be(Kind::Registers, Isolation::Serializable);
}

#[test]
fn simulated_lists_are_isolated_by_snapshots() {
    must_be(Kind::Lists, Isolation::Snapshot);
}

/// The checker must find the bug, by an anomaly that it names.
fn must_be_seen_in_lists(bug: Planted) {
    let found = (0..CANARY_SEEDS)
        .filter_map(|seed| run(seed, Kind::Lists, Isolation::Serializable, bug).err())
        .find(|error| error.contains("strict-serializable"));
    println!("{bug:?}: {found:?}");
    assert!(
        found.is_some(),
        "{bug:?} was not seen in {CANARY_SEEDS} histories"
    );
}

#[test]
fn histories_without_validation_are_seen() {
    must_be_seen_in_lists(Planted::SkipValidation);
}

#[test]
fn histories_with_locks_given_back_too_early_are_seen() {
    must_be_seen_in_lists(Planted::ReleaseLocksEarly);
}

#[test]
fn histories_with_a_shard_published_early_are_seen() {
    must_be_seen_in_lists(Planted::PublishPartsEarly);
}

#[test]
fn histories_with_transactions_applied_twice_are_seen() {
    must_be_seen_in_lists(Planted::ApplySetsTwice);
}
