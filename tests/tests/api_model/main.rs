//! The public interface against a map: random operations, every answer compared, on every kind of database.
//!
//! `TREERING_MODEL_SEEDS` sets the number of runs of each kind.

mod reads;
#[path = "../support/mod.rs"]
mod support;
mod writes;

use std::collections::BTreeMap;
use std::ops::Bound;

use support::{Random, from_environment, watched};
use treering::{Client, Db, Durability, Error, IoBackend, Options, Snapshot, Tree};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const STEPS: u64 = 1_500;

#[test]
fn one_shard_on_disk() {
    runs(1, |options| options.shards(1), true);
}

#[test]
fn three_shards_on_disk() {
    runs(2, |options| options.shards(3).cache_bytes(2 << 20), true);
}

#[test]
fn pages_of_16_kib_without_io_uring() {
    runs(
        3,
        |options| {
            options
                .page_size(16384)
                .cache_bytes(4 << 20)
                .io(IoBackend::Blocking)
        },
        true,
    );
}

#[test]
fn pages_of_64_kib() {
    let of = |options: Options| options.page_size(65536).cache_bytes(16 << 20);
    runs(
        4,
        move |options| {
            of(options)
                .log_segment_bytes(256 << 10)
                .checkpoint_log_bytes(512 << 10)
        },
        true,
    );
}

#[test]
fn io_uring_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    match support::small().io(IoBackend::Uring).open(directory.path()) {
        Ok(db) => db.close().expect("a clean close"),
        Err(error) => {
            eprintln!("skipped: this system has no io_uring ({error})");
            return;
        }
    }
    runs(5, |options| options.shards(1).io(IoBackend::Uring), true);
}

#[test]
fn without_a_log() {
    runs(6, |options| options.log(false), true);
}

#[test]
fn in_memory() {
    runs(7, |options| options.cache_bytes(24 << 20), false);
}

fn runs(salt: u64, set: impl Fn(Options) -> Options + Send + 'static, on_disk: bool) {
    watched(move || {
        for seed in 0..from_environment("TREERING_MODEL_SEEDS", 2) {
            let seed = seed << 8 | salt;
            let directory = tempfile::tempdir().expect("a directory");
            let options = set(support::small().durability(Durability::Buffered));
            let path = directory.path().to_owned();
            let open = move || {
                let options = options.clone();
                if on_disk {
                    options.open(&path)
                } else {
                    options.open_in_memory()
                }
                .expect("the database opens")
            };
            let mut run = Run::new(seed, on_disk, open);
            for step in 0..STEPS {
                run.step = step;
                run.step();
            }
            run.check_all();
            run.db.close().expect("a clean close");
        }
    });
}

/// A database and what it must hold.
struct Run<O> {
    seed: u64,
    step: u64,
    random: Random,
    on_disk: bool,
    open: O,
    db: Db,
    client: Client,
    trees: BTreeMap<&'static str, (Tree, Map)>,
    snapshots: Vec<(Snapshot, Vec<(Tree, Map)>)>,
}

impl<O: Fn() -> Db> Run<O> {
    fn new(seed: u64, on_disk: bool, open: O) -> Run<O> {
        let db = open();
        let client = db.client();
        let trees = BTreeMap::new();
        Run {
            seed,
            step: 0,
            random: Random(seed),
            on_disk,
            open,
            db,
            client,
            trees,
            snapshots: Vec::new(),
        }
    }

    /// Where a comparison failed: enough to do it again.
    fn at(&self) -> String {
        format!("seed {}, step {}", self.seed, self.step)
    }

    /// Makes sure of a tree and takes its map out, to be put back by the caller.
    fn tree(&mut self) -> (&'static str, Tree, Map) {
        let name = NAMES[self.random.below(NAMES.len() as u64) as usize];
        let client = &self.client;
        let (tree, map) = self
            .trees
            .remove(name)
            .unwrap_or_else(|| (client.create_tree(name).expect("the tree is new"), Map::new()));
        (name, tree, map)
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.random.below(600);
        match number % 7 {
            // Keys with long common prefixes, short keys, and the longest that every page size takes.
            0 => format!("a common prefix of some length/{number:05}").into_bytes(),
            1 => vec![number as u8],
            2 => [&number.to_be_bytes()[..], &[7; 1016]].concat(),
            _ => number.to_be_bytes()[6..].to_vec(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let length = match self.random.below(24) {
            0 => 1_024 + self.random.below(60_000),
            // Around the limits between leaf and blob.
            1 => 1_000 + self.random.below(60),
            2 => 0,
            _ => self.random.below(150),
        };
        let fill = self.random.next().to_le_bytes();
        (0..length as usize)
            .map(|at| fill[at % 8] ^ (at >> 3) as u8)
            .collect()
    }

    fn bound(&mut self) -> Bound<Vec<u8>> {
        match self.random.below(4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.key()),
            _ => Bound::Included(self.key()),
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..2 => self.drop_tree(),
            2..4 => self.snapshot(),
            4..8 => self.check_snapshot(),
            8..9 => self.reopen(),
            9..10 => self.settle(),
            10..18 => self.batch(),
            18..34 => self.read(),
            34..46 => self.range(),
            46..54 => self.condition(),
            54..60 => self.pipeline(),
            60..72 => self.delete(),
            _ => self.put(),
        }
    }

    fn settle(&mut self) {
        if self.random.below(2) == 0 {
            self.db.flush().expect("a flush");
        } else if self.on_disk {
            self.db.checkpoint().expect("a checkpoint");
        }
    }

    /// Closes and opens again: what was there is there.
    fn reopen(&mut self) {
        if !self.on_disk || self.random.below(3) > 0 {
            return;
        }
        self.check_all();
        self.snapshots.clear();
        self.db.clone().close().expect("a clean close");
        for (tree, _) in self.trees.values() {
            assert!(matches!(tree.get(b"k"), Err(Error::Closed)), "{}", self.at());
        }
        self.db = (self.open)();
        self.client = self.db.client();
        let names: Vec<String> = self.trees.keys().map(|&name| name.to_owned()).collect();
        assert_eq!(self.client.tree_names().expect("names"), names, "{}", self.at());
        for (name, (tree, _)) in &mut self.trees {
            *tree = self.client.open_tree(name).expect("the tree is still there");
        }
        self.check_all();
    }
}
