//! A simulated database with trees on given shards, and nothing that happens by chance but the order of steps.

use treering::sim::{self, Planted, SimOptions, Turn};
use treering::{Client, Db, Durability, Options, Snapshot, Ticket, Tree};
use treering_io::SimDirectory;

/// Attempts to give a tree to a shard.
const ATTEMPTS: u32 = 20;

pub struct Stage {
    pub db: Db,
    pub client: Client,
    pub trees: Vec<Tree>,
}

/// Says which call failed.
pub fn said<T>(what: &str, answer: treering::Result<T>) -> Result<T, String> {
    answer.map_err(|error| format!("{what}: {error}"))
}

impl Stage {
    /// A database with one tree for each of these owners, in the order of their ids.
    pub fn new(shards: usize, owners: &[usize], simulation: SimOptions) -> Result<Stage, String> {
        let options = Options::new()
            .cache_bytes(1024 * 4096)
            .shards(shards)
            .balance_operations(u64::MAX)
            .durability(Durability::Sync)
            .log_segment_bytes(1 << 20);
        let db = said("opening", sim::open(&SimDirectory::new(1), &options, simulation))?;
        let client = db.client();
        let name = |number: usize| format!("tree {number}");
        let trees = (0..owners.len()).map(|number| client.tree(&name(number)));
        let trees = said("creating", trees.collect::<treering::Result<Vec<_>>>())?;
        let stage = Stage { db, client, trees };
        for (tree, owner) in owners.iter().enumerate() {
            stage.move_to(tree, *owner)?;
        }
        Ok(stage)
    }

    /// The usual stage with a bug.
    pub fn with(planted: Planted, shards: usize, owners: &[usize]) -> Result<Stage, String> {
        let simulation = SimOptions {
            planted,
            ..SimOptions::default()
        };
        Stage::new(shards, owners, simulation)
    }

    /// The shard that owns a tree, which is in one piece.
    pub fn owner(&self, tree: usize) -> Option<usize> {
        sim::owner(&self.db, &self.trees[tree], &[])
    }

    /// Has the owner of a tree give it to another shard, some time.
    pub fn give(&self, tree: usize, to: usize) {
        sim::give(&self.db, &self.trees[tree], &[], to);
    }

    /// Gives a tree to a shard now.
    pub fn move_to(&self, tree: usize, to: usize) -> Result<(), String> {
        for _ in 0..ATTEMPTS {
            if self.owner(tree) == Some(to) {
                return Ok(());
            }
            self.give(tree, to);
            sim::settle(&self.db);
        }
        Err(format!("tree {tree} doesn't come to shard {to}"))
    }

    pub fn hold(&self, turn: Turn) {
        sim::hold(&self.db, turn);
    }

    pub fn let_go(&self, turn: Turn) {
        sim::let_go(&self.db, turn);
    }

    pub fn settle(&self) {
        sim::settle(&self.db);
    }

    /// A blind transaction that writes one key into each of these trees, sent and not waited for.
    pub fn send_batch(&self, trees: &[usize], key: &[u8], value: &[u8]) -> Result<Ticket<()>, String> {
        let mut batch = self.client.batch();
        for tree in trees {
            batch.put(&self.trees[*tree], key, value);
        }
        said("sending a batch", batch.send())
    }

    pub fn put(&self, tree: usize, key: &[u8], value: &[u8]) -> Result<(), String> {
        said("a put", self.trees[tree].put(key, value))
    }

    /// What a key holds now; `None` for nothing.
    pub fn get(&self, tree: usize, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let found = said("a get", self.trees[tree].get(key))?;
        Ok(found.map(|value| value.to_vec()))
    }

    /// Which of these trees hold the key in a snapshot.
    pub fn holding(&self, snapshot: &Snapshot, trees: &[usize], key: &[u8]) -> Result<Vec<usize>, String> {
        let mut holding = Vec::new();
        for tree in trees {
            if said("a look", snapshot.get(&self.trees[*tree], key))?.is_some() {
                holding.push(*tree);
            }
        }
        Ok(holding)
    }

    /// A transaction over all trees, waited for. What was sent before has run then; and nothing that follows has to wait
    /// for that in the mailboxes of shards.
    pub fn pass_through(&self) -> Result<(), String> {
        let all: Vec<usize> = (0..self.trees.len()).collect();
        said("a transaction", self.send_batch(&all, b"through", b"")?.wait())?;
        self.settle();
        Ok(())
    }

    /// Ends the scenario: everything comes to rest, and nothing is lost or owned twice.
    pub fn end(self) -> Result<(), String> {
        sim::check(&self.db)?;
        said("closing", self.db.clone().close())
    }
}

impl Drop for Stage {
    /// A scenario that has failed leaves a database that can't go on.
    fn drop(&mut self) {
        sim::crash(self.db.clone());
    }
}

/// The situation that a scenario is about has come about.
pub fn arranged(is: bool, what: &str) -> Result<(), String> {
    if is {
        Ok(())
    } else {
        Err(format!("the scenario didn't come about: {what}"))
    }
}
