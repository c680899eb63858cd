//! The public interface against a map: random operations, every answer compared, on every kind of database.
//!
//! `TREERING_MODEL_SEEDS` sets the number of runs of each kind.

mod support;

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

    fn put(&mut self) {
        let (name, tree, mut map) = self.tree();
        let (key, value) = (self.key(), self.value());
        match self.random.below(4) {
            0 => match tree.insert(&key, &value) {
                Ok(()) => assert!(map.insert(key, value).is_none(), "{}", self.at()),
                Err(Error::KeyExists) => assert!(map.contains_key(&key), "{}", self.at()),
                Err(error) => panic!("{}: {error:?}", self.at()),
            },
            1 => match tree.replace(&key, &value) {
                Ok(()) => assert!(map.insert(key, value).is_some(), "{}", self.at()),
                Err(Error::KeyNotFound) => assert!(!map.contains_key(&key), "{}", self.at()),
                Err(error) => panic!("{}: {error:?}", self.at()),
            },
            _ => {
                tree.put(&key, &value).expect("a put");
                map.insert(key, value);
            }
        }
        self.trees.insert(name, (tree, map));
    }

    fn delete(&mut self) {
        let (name, tree, mut map) = self.tree();
        let key = self.key();
        assert_eq!(
            tree.delete(&key).expect("a delete"),
            map.remove(&key).is_some(),
            "{}",
            self.at()
        );
        self.trees.insert(name, (tree, map));
    }

    fn read(&mut self) {
        let (name, tree, map) = self.tree();
        let at = self.at();
        let keys: Vec<Vec<u8>> = (0..1 + self.random.below(40)).map(|_| self.key()).collect();
        let many = tree.get_many(&keys).expect("a read");
        for (key, found) in keys.iter().zip(many) {
            let expected = map.get(key).map(Vec::as_slice);
            assert_eq!(found.as_deref(), expected, "{at}: get_many");
            assert_eq!(tree.get(key).expect("a read").as_deref(), expected, "{at}: get");
            assert_eq!(
                tree.contains(key).expect("a read"),
                expected.is_some(),
                "{at}: contains"
            );
            let same = tree.get_with(key, |value| value == expected).expect("a read");
            assert!(same, "{at}: get_with");
        }
        let owned = |entry: Option<(treering::Value, treering::Value)>| {
            entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
        };
        let of_map =
            |entry: Option<(&Vec<u8>, &Vec<u8>)>| entry.map(|(key, value)| (key.clone(), value.clone()));
        assert_eq!(
            owned(tree.first().expect("a read")),
            of_map(map.first_key_value()),
            "{at}: first"
        );
        assert_eq!(
            owned(tree.last().expect("a read")),
            of_map(map.last_key_value()),
            "{at}: last"
        );
        assert_eq!(tree.len().expect("a read"), map.len() as u64, "{at}: len");
        assert_eq!(tree.is_empty().expect("a read"), map.is_empty(), "{at}: is_empty");
        self.trees.insert(name, (tree, map));
    }

    fn range(&mut self) {
        let (name, tree, map) = self.tree();
        let at = self.at();
        if self.random.below(4) == 0 {
            let mut prefix = self.key();
            prefix.truncate(self.random.below(6) as usize);
            let found = tree.prefix(&prefix).expect("a range").map(pair);
            let expected = map.iter().filter(|(key, _)| key.starts_with(&prefix)).map(clone);
            assert!(found.eq(expected), "{at}: prefix {prefix:?}");
        }
        let (mut lower, mut upper) = (self.bound(), self.bound());
        if is_backward(&lower, &upper) {
            // The map refuses such bounds; a tree has nothing between them.
            assert!(
                tree.range((lower.clone(), upper.clone()))
                    .expect("a range")
                    .next()
                    .is_none(),
                "{at}: backward"
            );
            std::mem::swap(&mut lower, &mut upper);
            if is_backward(&lower, &upper) {
                upper = Bound::Unbounded;
            }
        }
        let mut expected = map.range((lower.clone(), upper.clone()));
        let mut found = tree.range((lower.clone(), upper.clone())).expect("a range");
        let style = self.random.below(4);
        // Now and then a range is left in the middle.
        let mut left = if self.random.below(5) == 0 {
            1 + self.random.below(20)
        } else {
            u64::MAX
        };
        loop {
            let back = match style {
                0 => false,
                1 => true,
                _ => self.random.below(2) == 0,
            };
            let (found, expected) = match back {
                true => (found.next_back(), expected.next_back()),
                false => (found.next(), expected.next()),
            };
            assert_eq!(
                found.map(pair),
                expected.map(clone),
                "{at}: range, back: {back}, {lower:?} to {upper:?}"
            );
            left -= 1;
            if expected.is_none() || left == 0 {
                break;
            }
        }
        let mut rest = Vec::new();
        found
            .scan(|key, value| {
                rest.push((key.to_vec(), value.to_vec()));
                std::ops::ControlFlow::Continue(())
            })
            .expect("a scan");
        assert!(
            rest.into_iter().eq(expected.map(clone)),
            "{at}: scan of what a range has left"
        );
        let mut visited = Vec::new();
        let limit = self.random.below(map.len() as u64 + 2) as usize;
        tree.scan((lower.clone(), upper.clone()), |key, value| {
            visited.push((key.to_vec(), value.to_vec()));
            if visited.len() >= limit {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        })
        .expect("a scan");
        let expected = map.range((lower, upper)).map(clone).take(limit.max(1));
        assert!(visited.into_iter().eq(expected), "{at}: scan");
        self.trees.insert(name, (tree, map));
    }

    /// Compare-and-swap and shipped closures, also where large values come and go.
    fn condition(&mut self) {
        let (name, tree, mut map) = self.tree();
        let (key, value) = (self.key(), self.value());
        let at = self.at();
        if self.random.below(2) == 0 {
            let guess = match self.random.below(3) {
                0 => None,
                1 => Some(self.value()),
                _ => map.get(&key).cloned(),
            };
            let new = (self.random.below(4) > 0).then_some(value);
            let swapped = tree
                .compare_and_swap(&key, guess.as_deref(), new.as_deref())
                .expect("a swap");
            let held = map.get(&key).cloned();
            if held == guess {
                assert_eq!(swapped, Ok(()), "{at}: a swap with the right guess");
                set(&mut map, &key, new);
            } else {
                let told = swapped.expect_err("a swap with a wrong guess");
                assert_eq!(
                    told.as_deref(),
                    held.as_deref(),
                    "{at}: what a refused swap tells"
                );
            }
        } else {
            let change = move |old: Option<&[u8]>| match old {
                Some(old) if old.len() % 5 == 0 => None,
                Some(old) => Some([&value[..], &old[..old.len() / 2]].concat()),
                None => Some(value.clone()),
            };
            let new = change(map.get(&key).map(Vec::as_slice));
            tree.update(&key, change).expect("an update");
            set(&mut map, &key, new);
        }
        assert_eq!(
            tree.get(&key).expect("a read").as_deref(),
            map.get(&key).map(Vec::as_slice),
            "{at}"
        );
        self.trees.insert(name, (tree, map));
    }

    /// Many requests on their way at once: carried out in the order in which they were sent.
    fn pipeline(&mut self) {
        let (name, tree, mut map) = self.tree();
        let at = self.at();
        let mut puts = Vec::new();
        let mut deletes = Vec::new();
        let mut gets = Vec::new();
        for _ in 0..self.random.below(120) {
            let key = self.key();
            match self.random.below(5) {
                0 => {
                    let was_there = map.remove(&key).is_some();
                    deletes.push((tree.send_delete(&key).expect("sent"), was_there));
                }
                1 => {
                    // Owners don't read large values.
                    let expected = map.get(&key).filter(|value| value.len() < 1000).cloned();
                    if map.get(&key).is_none_or(|value| value.len() < 1000) {
                        gets.push((tree.send_get(&key).expect("sent"), expected));
                    }
                }
                2 => {
                    let mut pairs = Map::new();
                    for _ in 0..self.random.below(10) {
                        pairs.insert(self.key(), self.value());
                    }
                    // Pairs of a batch needn't be sorted.
                    puts.push(tree.send_batch(pairs.iter().rev()).expect("sent"));
                    map.append(&mut pairs);
                }
                _ => {
                    let value = self.value();
                    puts.push(tree.send_put(&key, &value).expect("sent"));
                    map.insert(key, value);
                }
            }
        }
        for (ticket, expected) in gets {
            assert_eq!(
                ticket.wait().expect("a read").as_deref(),
                expected.as_deref(),
                "{at}: send_get"
            );
        }
        for (ticket, was_there) in deletes {
            assert_eq!(ticket.wait().expect("a delete"), was_there, "{at}: send_delete");
        }
        puts.into_iter().for_each(|ticket| ticket.wait().expect("a put"));
        self.trees.insert(name, (tree, map));
    }

    fn batch(&mut self) {
        let (name, tree, mut map) = self.tree();
        let other = self.trees.keys().next().copied();
        let mut batch = self.client.batch();
        let (mut changed, mut other_changed) = (map.clone(), None);
        for _ in 0..self.random.below(60) {
            let (key, value) = (self.key(), self.value());
            let into_other = other.filter(|_| self.random.below(4) == 0);
            let (tree, map) = match into_other {
                Some(other) => {
                    let (tree, map) = &self.trees[other];
                    (tree, other_changed.get_or_insert_with(|| map.clone()))
                }
                None => (&tree, &mut changed),
            };
            if self.random.below(3) == 0 {
                batch.delete(tree, &key);
                map.remove(&key);
            } else {
                batch.put(tree, &key, &value);
                map.insert(key, value);
            }
        }
        match (self.random.below(10), batch) {
            // Dropped without a commit: nothing happens.
            (0, batch) => drop(batch),
            (_, batch) => match batch.commit() {
                Ok(()) => {
                    map = changed;
                    if let (Some(other), Some(changed)) = (other, other_changed)
                        && let Some((_, map)) = self.trees.get_mut(other)
                    {
                        *map = changed;
                    }
                }
                Err(error) => panic!("{}: {error:?}", self.at()),
            },
        }
        self.trees.insert(name, (tree, map));
    }

    fn drop_tree(&mut self) {
        let name = NAMES[self.random.below(NAMES.len() as u64) as usize];
        let at = self.at();
        match self.trees.remove(name) {
            Some((tree, _)) => {
                assert!(
                    matches!(self.client.create_tree(name), Err(Error::TreeExists { .. })),
                    "{at}"
                );
                self.client.drop_tree(name).expect("a tree that is there");
                assert!(
                    matches!(tree.get(b"k"), Err(Error::TreeNotFound { .. })),
                    "{at}: a dropped tree is read"
                );
                assert!(
                    matches!(tree.put(b"k", b"v"), Err(Error::TreeNotFound { .. })),
                    "{at}: and written"
                );
            }
            None => assert!(
                matches!(self.client.drop_tree(name), Err(Error::TreeNotFound { .. })),
                "{at}"
            ),
        }
        assert!(
            matches!(self.client.open_tree(name), Err(Error::TreeNotFound { .. })),
            "{at}"
        );
        let names: Vec<String> = self.trees.keys().map(|&name| name.to_owned()).collect();
        assert_eq!(self.client.tree_names().expect("names"), names, "{at}");
    }

    fn snapshot(&mut self) {
        if self.snapshots.len() >= 3 {
            self.snapshots.swap_remove(self.random.below(3) as usize);
        }
        let trees = self.trees.values().cloned().collect();
        self.snapshots.push((self.client.snapshot(), trees));
    }

    fn check_snapshot(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let chosen = self.random.below(self.snapshots.len() as u64) as usize;
        let keys: Vec<Vec<u8>> = (0..10).map(|_| self.key()).collect();
        let (snapshot, trees) = &self.snapshots[chosen];
        for (tree, map) in trees {
            check(snapshot, tree, map, &self.at());
            for key in &keys {
                let found = snapshot.get(tree, key).expect("a read");
                assert_eq!(
                    found.as_deref(),
                    map.get(key).map(Vec::as_slice),
                    "{}: snapshot",
                    self.at()
                );
            }
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

    fn check_all(&self) {
        let snapshot = self.client.snapshot();
        for (tree, map) in self.trees.values() {
            check(&snapshot, tree, map, &self.at());
        }
    }
}

/// Compares a whole tree, in both directions.
fn check(snapshot: &Snapshot, tree: &Tree, map: &Map, at: &str) {
    let forward = snapshot.range::<&[u8]>(tree, ..).expect("a range").map(pair);
    assert!(forward.eq(map.iter().map(clone)), "{at}: {} forward", tree.name());
    let backward = snapshot
        .range::<&[u8]>(tree, ..)
        .expect("a range")
        .rev()
        .map(pair);
    assert!(
        backward.eq(map.iter().rev().map(clone)),
        "{at}: {} backward",
        tree.name()
    );
    assert_eq!(
        snapshot.len(tree).expect("a length"),
        map.len() as u64,
        "{at}: length of {}",
        tree.name()
    );
}

fn pair(item: treering::Result<(treering::Value, treering::Value)>) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = item.expect("an entry");
    (key.to_vec(), value.to_vec())
}

fn clone((key, value): (&Vec<u8>, &Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    (key.clone(), value.clone())
}

fn set(map: &mut Map, key: &[u8], value: Option<Vec<u8>>) {
    match value {
        Some(value) => map.insert(key.to_vec(), value),
        None => map.remove(key),
    };
}

/// Whether a map would panic over these bounds.
fn is_backward(lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Excluded(lower), Bound::Excluded(upper)) => lower >= upper,
        (
            Bound::Included(lower) | Bound::Excluded(lower),
            Bound::Included(upper) | Bound::Excluded(upper),
        ) => lower > upper,
    }
}
