//! How fast the tree is by itself: one thread, everything in memory, no log.
//!
//! `cargo run --release -p treering-engine --example tree_speed -- [keys] [value bytes] [page bytes]`
//!
//! Prints nanoseconds per operation and how full the pages are. Keys are 24 bytes, random or ascending.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

mod store;

use std::hint::black_box;
use std::ops::{Bound, ControlFlow};
use std::time::Instant;

use store::Store;
use treering_engine::memory::Memory;
use treering_engine::page::ValueRef;
use treering_engine::tree::{self, Carry, Cursor, NodeStore, ReadNodes, Root};

const KEY_BYTES: usize = 24;
const BATCH: usize = 64;

/// A repeatable source of numbers (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }
}

fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn random_key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    for (part, bytes) in key.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&mix(number * 3 + part as u64).to_be_bytes());
    }
    key
}

fn ascending_key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [b'u'; KEY_BYTES];
    let digits = format!("{number:012}");
    key[KEY_BYTES - 12..].copy_from_slice(digits.as_bytes());
    key
}

/// What this thread has had of a processor so far: other programs disturb that less than the clock on the
/// wall.
fn processor_ns() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    status.split_whitespace().next()?.parse().ok()
}

fn timed(name: &str, operations: u64, work: impl FnOnce()) {
    let (start, start_cpu_ns) = (Instant::now(), processor_ns());
    work();
    let spent_ns = match (start_cpu_ns, processor_ns()) {
        (Some(before), Some(after)) => after - before,
        _ => start.elapsed().as_nanos() as u64,
    };
    let each_ns = spent_ns as f64 / operations as f64;
    println!("{name:<34}{each_ns:>9.1} ns");
}

fn show_fill(store: &Store<'_>, root: &Root, value_bytes: usize) {
    let summary = tree::check(store, root, |_, _| {}).expect("the tree is sound");
    let page_bytes = store.page_bytes() as f64;
    let pages = (summary.leaves + summary.inner_nodes) as f64;
    let raw = summary.entries as f64 * (KEY_BYTES + value_bytes) as f64;
    println!(
        "  height {}, {} leaves {:.1}% full, {} inner {:.1}% full; pages are {:.3} x keys and values",
        root.height,
        summary.leaves,
        100.0 * summary.leaf_bytes_used as f64 / (summary.leaves as f64 * page_bytes),
        summary.inner_nodes,
        100.0 * summary.inner_bytes_used as f64 / (summary.inner_nodes.max(1) as f64 * page_bytes),
        pages * page_bytes / raw,
    );
}

fn fill(store: &mut Store<'_>, keys: u64, value: &[u8], key_of: impl Fn(u64) -> [u8; KEY_BYTES]) -> Root {
    let mut root = Root::default();
    for number in 0..keys {
        tree::put(store, &mut root, &key_of(number), ValueRef::Inline(value)).expect("resident");
        if number % BATCH as u64 == 0 {
            store.end_batch();
        }
    }
    store.end_batch();
    root
}

fn reads(store: &Store<'_>, root: &Root, keys: u64) {
    let rounds = keys.min(1_000_000);
    let mut numbers = Numbers(1);
    let wanted: Vec<[u8; KEY_BYTES]> = (0..rounds).map(|_| random_key(numbers.next() % keys)).collect();
    let mut copy = Vec::new();
    timed("get, copied out", rounds, || {
        for key in &wanted {
            let value = tree::get(store, root, key).expect("resident").expect("present");
            copy.clear();
            copy.extend_from_slice(value.bytes());
            black_box(&copy);
        }
    });
    timed("get_many of 8, copied out", rounds, || {
        for group in wanted.chunks(8) {
            let keys: Vec<&[u8]> = group.iter().map(|key| key.as_slice()).collect();
            let mut out = [Ok(None); 8];
            tree::get_many(store, root, &keys, &mut out);
            for value in &out[..keys.len()] {
                copy.clear();
                copy.extend_from_slice(value.expect("resident").expect("present").bytes());
                black_box(&copy);
            }
        }
    });
    for name in ["full scan, per entry", "full scan backwards, per entry"] {
        timed(name, root.entries, || {
            let cursor = if name.contains("backwards") {
                Cursor::descending(*root)
            } else {
                Cursor::ascending(*root)
            };
            let mut seen = 0u64;
            let mut sum = 0u64;
            scan(store, cursor, Bound::Unbounded, |key, value| {
                seen += 1;
                sum += u64::from(key[0]) + u64::from(value.bytes()[value.bytes().len() - 1]);
                ControlFlow::Continue(())
            });
            black_box(sum);
            assert_eq!(seen, root.entries);
        });
    }
    let scans = 20_000.min(rounds);
    timed("range of 100, per entry", scans * 100, || {
        for key in &wanted[..scans as usize] {
            let mut left = 100;
            scan(
                store,
                Cursor::ascending(*root),
                Bound::Included(key),
                |key, value| {
                    black_box((key, value));
                    left -= 1;
                    if left == 0 {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                },
            );
        }
    });
}

/// Hands out what a cursor finds from `lower` on, until `visit` breaks.
fn scan(
    store: &Store<'_>,
    mut cursor: Cursor,
    lower: Bound<&[u8]>,
    mut visit: impl FnMut(&[u8], ValueRef<'_>) -> ControlFlow<()>,
) {
    let bounds = (lower, Bound::Unbounded);
    let mut carry = Carry::default();
    while let Some(run) = cursor.find_run(store, bounds).expect("resident") {
        let page = store.node(run.leaf).expect("resident");
        let next = run.next.map(|next| store.node(next).expect("resident"));
        let mut flow = ControlFlow::Continue(());
        let seen = run.hand_out(page, next, &mut carry, |key, value| {
            flow = visit(key, value);
            flow
        });
        if flow.is_break() {
            return;
        }
        cursor.pass(&run, seen);
    }
}

fn writes(store: &mut Store<'_>, root: &mut Root, keys: u64, value: &[u8]) {
    let rounds = keys.min(1_000_000);
    for batch in [1, 64, 256] {
        let created = store.created;
        let mut numbers = Numbers(batch);
        timed(&format!("overwrite, {batch} a batch"), rounds, || {
            for round in 0..rounds {
                let key = random_key(numbers.next() % keys);
                tree::put(store, root, &key, ValueRef::Inline(value)).expect("resident");
                if round % batch == 0 {
                    store.end_batch();
                }
            }
        });
        println!(
            "  {:.3} nodes created each",
            (store.created - created) as f64 / rounds as f64
        );
    }
    let mut numbers = Numbers(7);
    let mut ahead = [[0; KEY_BYTES]; 16];
    timed("overwrite, 64 a batch, 16 warmed", rounds, || {
        for round in 0..rounds / 16 {
            ahead.fill_with(|| random_key(numbers.next() % keys));
            tree::warm(
                store,
                root,
                &ahead.each_ref().map(|key| key.as_slice()),
                &mut Vec::new(),
            );
            for key in &ahead {
                tree::put(store, root, key, ValueRef::Inline(value)).expect("resident");
            }
            if round % 4 == 0 {
                store.end_batch();
            }
        }
    });
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<usize>().expect("a number"));
    let keys = arguments.next().unwrap_or(1_000_000) as u64;
    let value_bytes = arguments.next().unwrap_or(150);
    let page_bytes = arguments.next().unwrap_or(4096);
    let frames = (keys as usize * (KEY_BYTES + value_bytes + 16) / page_bytes) * 3 / 2 + 4096;
    let value = vec![b'v'; value_bytes];

    let memory = Memory::new(frames, page_bytes).expect("enough memory");
    let participant = memory.participant();
    let guard = participant.pin();
    let mut store = Store::new(&memory, &guard);
    println!("{keys} random keys of {KEY_BYTES} bytes, values of {value_bytes}, pages of {page_bytes}");
    let mut root = Root::default();
    timed("insert, random order", keys, || {
        root = fill(&mut store, keys, &value, random_key)
    });
    println!("  {:.3} nodes created each", store.created as f64 / keys as f64);
    show_fill(&store, &root, value_bytes);
    reads(&store, &root, keys);
    writes(&mut store, &mut root, keys, &value);
    show_fill(&store, &root, value_bytes);
    timed("delete, random order", keys / 2, || {
        for number in 0..keys / 2 {
            assert!(tree::delete(&mut store, &mut root, &random_key(number)).expect("resident"));
            if number % BATCH as u64 == 0 {
                store.end_batch();
            }
        }
    });
    show_fill(&store, &root, value_bytes);
    drop(store);

    let memory = Memory::new(frames, page_bytes).expect("enough memory");
    let participant = memory.participant();
    let guard = participant.pin();
    let mut store = Store::new(&memory, &guard);
    println!("{keys} ascending keys");
    timed("insert, ascending", keys, || {
        root = fill(&mut store, keys, &value, ascending_key)
    });
    show_fill(&store, &root, value_bytes);
}
