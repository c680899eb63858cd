//! Ranges that move under several real threads, each with a pipeline of its own.

use std::collections::VecDeque;

use treering::{Durability, Options, Result, Ticket};

const THREADS: u32 = 6;
const KEYS: u32 = 40;
const UPDATES: u32 = 6_000;
const OUTSTANDING: usize = 64;

fn key(thread: u32, number: u32) -> Vec<u8> {
    let scattered = number.wrapping_mul(0x9E37_79B9).to_be_bytes();
    [&scattered[..], &thread.to_be_bytes()].concat()
}

#[test]
fn pipelines_keep_their_order_while_ranges_move() -> Result<()> {
    let db = Options::new()
        .shards(4)
        .balance_operations(400)
        .durability(Durability::Buffered)
        .open_in_memory()?;
    let tree = db.client().tree("t")?;
    // Enough leaves for many cuts.
    for number in 0..4_000u32 {
        tree.put(number.wrapping_mul(0x85EB_CA6B).to_be_bytes(), [1; 100])?;
    }
    let before = tree.len()?;
    std::thread::scope(|scope| {
        let work = |thread: u32| {
            let tree = tree.clone();
            move || -> Result<()> {
                let mut tickets: VecDeque<Ticket<()>> = VecDeque::new();
                for update in 0..UPDATES {
                    // Half of the work is on a few keys that change, so that shares never stay even.
                    let hot = (update / 200) % KEYS;
                    let number = if update % 2 == 0 { hot } else { (update / 2) % KEYS };
                    let sent = tree.send_update(key(thread, number), move |old| {
                        Some([old.unwrap_or_default(), &update.to_be_bytes()[2..]].concat())
                    })?;
                    tickets.push_back(sent);
                    while tickets.len() > OUTSTANDING {
                        tickets.pop_front().map(Ticket::wait).transpose()?;
                    }
                }
                tickets.into_iter().try_for_each(|ticket| ticket.wait().map(drop))
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(work(thread))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    for thread in 0..THREADS {
        for number in 0..KEYS {
            let expected: Vec<u8> = (0..UPDATES)
                .filter(|update| {
                    let hot = (update / 200) % KEYS;
                    number == if update % 2 == 0 { hot } else { (update / 2) % KEYS }
                })
                .flat_map(|update| [(update >> 8) as u8, update as u8])
                .collect();
            let found = tree
                .get(key(thread, number))?
                .map_or_else(Vec::new, |value| value.to_vec());
            assert!(found[..] == expected[..], "thread {thread}, key {number}");
        }
    }
    assert_eq!(tree.len()?, before + u64::from(THREADS * KEYS));
    let stats = db.stats();
    assert!(
        stats.partition_moves > 0,
        "what never happens is not tested: {stats:?}"
    );
    db.close()
}
