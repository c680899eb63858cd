//! The smallest cache that the options allow, shared by as many shards: everybody gets frames in the end.

use std::time::Duration;

use treering::{Client, Durability, Options, Result, Ticket, Tree};

const TREES: u32 = 64;
const ROUNDS: u32 = 40;
/// Even on a machine that does other things for a while.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);

fn answered(mut ticket: Ticket<()>, what: &str) -> Result<()> {
    let answer = ticket.wait_timeout(ANSWERED_WITHIN)?;
    assert!(answer.is_some(), "{what} is not answered");
    Ok(())
}

fn key(round: u32, number: u32) -> [u8; 8] {
    (u64::from(round.wrapping_mul(0x9E37_79B9)) << 32 | u64::from(number)).to_be_bytes()
}

/// Puts, batches of one tree and batches over two, each waited for.
fn write(client: &Client, trees: &[Tree], thread: usize) -> Result<()> {
    for round in 0..ROUNDS {
        for (tree, number) in trees.iter().zip(0..).skip(thread).step_by(2) {
            answered(tree.send_put(key(round, number), [7; 900])?, "a put")?;
            let pairs = [1, 2].map(|number| (key(round, number << 16), [7; 300]));
            answered(tree.send_batch(pairs)?, "a batch")?;
            let mut batch = client.batch();
            batch.put(tree, b"a", b"");
            batch.put(&trees[(number as usize + 1) % trees.len()], b"a", b"");
            answered(batch.send()?, "a batch over trees")?;
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "clients on threads of their own")]
fn all_shards_work(shards: usize) -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory");
    let db = Options::new()
        .cache_bytes(256 * 4096)
        .shards(shards)
        .durability(Durability::Buffered)
        .open(directory.path())?;
    let client = db.client();
    let names = (0..TREES).map(|number| format!("tree {number}"));
    let trees = names.map(|name| client.tree(&name)).collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|thread| {
            let (client, trees) = (&client, &trees);
            scope.spawn(move || write(client, trees, thread))
        });
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("it doesn't panic"))
    })?;
    for tree in &trees {
        assert_eq!(tree.len()?, u64::from(3 * ROUNDS + 1));
    }
    drop(trees);
    db.close()
}

#[test]
fn many_shards_share_the_least_cache() {
    for shards in [8, 64, 256] {
        all_shards_work(shards).unwrap_or_else(|error| panic!("{shards} shards: {error}"));
    }
}
