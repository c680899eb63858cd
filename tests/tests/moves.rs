//! Ranges that move under a client which sends without waiting: nothing is lost, done twice, or overtaken (rule R22).
//!
//! Every update appends its number to the value of its key, so that a value tells which updates ran, and in which
//! order.

use treering::sim::{self, Planted, SimOptions};
use treering::{Durability, Options, Ticket};
use treering_io::{SimDirectory, SimOptions as DiskOptions};
use treering_tests::random::Random;

const SEEDS: u64 = 300;

/// What happened in some runs.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    moves: u64,
    joins: u64,
}

fn key(number: u64) -> [u8; 4] {
    (number as u32).wrapping_mul(0x9E37_79B9).to_be_bytes()
}

fn append(old: Option<&[u8]>, number: u32) -> Vec<u8> {
    [old.unwrap_or_default(), &number.to_be_bytes()].concat()
}

/// One run: updates of few keys in two trees, while two or three shards give each other ranges all the time.
fn run(seed: u64, planted: Planted) -> Result<Done, String> {
    let mut random = Random::new(seed);
    let disk = SimDirectory::with_options(DiskOptions::new(random.word()));
    let options = Options::new()
        .cache_bytes(512 * 4096)
        .shards(2 + random.below(2) as usize)
        .balance_operations(random.pick(&[4, 8, 30]))
        .durability(random.pick(&[Durability::Buffered, Durability::Sync]))
        .log_segment_bytes(64 << 10);
    let simulation = SimOptions {
        seed: random.word(),
        planted,
        ..SimOptions::default()
    };
    let db = sim::open(&disk, &options, simulation).map_err(|error| error.to_string())?;
    let client = db.client();
    let trees = ["a", "b"].map(|name| client.tree(name).expect("a tree"));
    let keys = random.pick(&[2, 9, 400]);
    // Enough for several leaves, so that trees can be cut.
    for number in 0..keys {
        for tree in &trees {
            tree.put(key(number), vec![0; if keys > 100 { 200 } else { 0 }])
                .map_err(|error| error.to_string())?;
        }
    }
    let mut expected = vec![vec![Vec::<u8>::new(); keys as usize]; trees.len()];
    let mut tickets: Vec<Ticket<()>> = Vec::new();
    for number in 0..300u32 {
        let (tree, place) = (random.below(2) as usize, random.below(keys));
        expected[tree][place as usize].extend_from_slice(&number.to_be_bytes());
        let sent = trees[tree].send_update(key(place), move |old| Some(append(old, number)));
        tickets.push(sent.map_err(|error| error.to_string())?);
        for _ in 0..random.below(6) {
            sim::step(&db);
        }
        if random.one_in(40) {
            let at = random.below(tickets.len() as u64) as usize;
            let done = tickets.swap_remove(at).wait();
            done.map_err(|error| format!("an update: {error}"))?;
        }
    }
    for ticket in tickets {
        ticket.wait().map_err(|error| format!("an update: {error}"))?;
    }
    let filler = if keys > 100 { 200 } else { 0 };
    for (tree, expected) in trees.iter().zip(&expected) {
        for (number, expected) in expected.iter().enumerate() {
            let found = tree.get(key(number as u64)).map_err(|error| error.to_string())?;
            let found = found.ok_or_else(|| format!("key {number} is gone"))?;
            if found[filler..] != expected[..] {
                return Err(format!(
                    "key {number} holds {:?}, not {expected:?}",
                    &found[filler..]
                ));
            }
        }
    }
    let stats = db.stats();
    sim::check(&db)?;
    drop(trees);
    drop(client);
    db.close().map_err(|error| format!("closing: {error}"))?;
    Ok(Done {
        moves: stats.partition_moves,
        joins: stats.partition_joins,
    })
}

#[test]
fn nothing_is_lost_doubled_or_overtaken() {
    let mut all = Done::default();
    for seed in 0..SEEDS {
        let done = run(seed, Planted::Nothing).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        all.moves += done.moves;
        all.joins += done.joins;
    }
    assert!(
        all.moves > SEEDS && all.joins > 0,
        "what never happens is not tested: {all:?}"
    );
}

/// The run must be able to see it: a new owner who begins before it has heard what was sent to the former one.
#[test]
fn an_owner_that_begins_too_early_is_caught() {
    let caught = (0..SEEDS).find_map(|seed| run(seed, Planted::OvertakeInMove).err());
    assert!(caught.is_some(), "not found in {SEEDS} seeds");
}

/// Puts, batches and transactions all over a tree in many pieces, then its end: whatever was sent before is done, and
/// nothing that was sent after (rule R22).
#[test]
fn a_tree_is_dropped_behind_what_was_sent_for_it() {
    let mut cut = 0;
    for seed in 0..SEEDS {
        cut += u64::from(drop_behind(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}")));
    }
    assert!(cut > SEEDS / 2, "the tree was in pieces in {cut} of {SEEDS} runs");
}

fn drop_behind(seed: u64) -> Result<bool, String> {
    let mut random = Random::new(seed);
    let disk = SimDirectory::with_options(DiskOptions::new(random.word()));
    let options = Options::new()
        .cache_bytes(512 * 4096)
        .shards(3)
        .balance_operations(random.pick(&[8, 30]))
        .durability(Durability::Buffered);
    let simulation = SimOptions {
        seed: random.word(),
        ..SimOptions::default()
    };
    let db = sim::open(&disk, &options, simulation).map_err(|error| error.to_string())?;
    let client = db.client();
    let (tree, other) = (
        client.tree("dropped").expect("a tree"),
        client.tree("kept").expect("a tree"),
    );
    for number in 0..400 {
        tree.put(key(number), [0; 200]).expect("written");
        other.put(key(number), [0; 200]).expect("written");
    }
    let pieces = db.stats().partitions;
    let mut tickets: Vec<Ticket<()>> = Vec::new();
    for _ in 0..60 {
        let [first, second] = [random.below(400), random.below(400)];
        let sent = match random.below(4) {
            0 => {
                let mut batch = client.batch();
                batch.put(&tree, key(first), b"batch");
                batch.put(&other, key(second), b"batch");
                batch.send()
            }
            1 => {
                let mut transaction = client.begin(treering::Isolation::Snapshot).expect("begun");
                // Of keys that nothing else names: it can't conflict.
                transaction
                    .put(&tree, random.word().to_be_bytes(), b"transaction")
                    .expect("noted");
                transaction.send()
            }
            _ => tree.send_put(key(first), b"single"),
        };
        tickets.push(sent.map_err(|error| format!("sending: {error}"))?);
        for _ in 0..random.below(3) {
            sim::step(&db);
        }
    }
    let dropped = client
        .send_drop_tree("dropped")
        .map_err(|error| format!("sending the drop: {error}"))?;
    for _ in 0..random.below(3) {
        sim::step(&db);
    }
    for _ in 0..5 {
        let late = tree
            .send_put(key(random.below(400)), b"late")
            .and_then(Ticket::wait);
        if !matches!(late, Err(treering::Error::TreeNotFound { .. })) {
            return Err(format!("a put behind the drop: {late:?}"));
        }
    }
    for ticket in tickets {
        ticket
            .wait()
            .map_err(|error| format!("sent before the drop: {error}"))?;
    }
    dropped.wait().map_err(|error| format!("dropping: {error}"))?;
    drop((tree, other));
    sim::check(&db)?;
    drop(client);
    db.close().map_err(|error| format!("closing: {error}"))?;
    Ok(pieces > 4)
}

/// The transaction reaches the tree's owner from another shard.
#[test]
fn a_bulk_load_comes_behind_what_was_sent_before() {
    for seed in 0..SEEDS / 3 {
        let disk = SimDirectory::with_options(DiskOptions::new(seed));
        let simulation = SimOptions {
            seed,
            ..SimOptions::default()
        };
        let db = sim::open(&disk, &Options::new().shards(2), simulation).expect("opened");
        let client = db.client();
        let trees = ["a", "b"].map(|name| client.tree(name).expect("a tree"));
        // So much that the batch has to wait for its turn at the first shard.
        for number in 0..400u64 {
            let sent = trees[0].send_put(key(number), [0; 100]);
            drop(sent.expect("sent"));
        }
        let mut batch = client.batch();
        for tree in &trees {
            batch.put(tree, b"k", b"sent before");
        }
        let sent = batch.send().expect("sent");
        let loaded = trees[1].bulk_load([(b"k", b"loaded")]);
        assert!(
            matches!(loaded, Err(treering::Error::TreeNotEmpty { .. })),
            "seed {seed}: {loaded:?}"
        );
        sent.wait().expect("done");
        let found = trees[1].get(b"k").expect("read");
        assert_eq!(found.as_deref(), Some(&b"sent before"[..]), "seed {seed}");
        drop(trees);
        drop(client);
        db.close().expect("closed");
    }
}
