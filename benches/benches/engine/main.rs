//! `cargo bench -p treering-benches --bench engine`: the hot paths inside, under Criterion.
//!
//! `tree`: lookups, scans and writes of the tree by itself, one thread, 1,000,000 records of 24 and
//! 150 bytes. `page`: what every page read from disk goes through. `handle`: the same operations
//! through a client's handle on a database in memory: what threads and messages add.

#[path = "../../../engine/examples/tree_speed/store.rs"]
mod store;

use std::hint::black_box;
use std::ops::{Bound, ControlFlow};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use treering::{Durability, Options};
use treering_benches::workload::{Key, Random, VALUE_BYTES, Values, key_of};
use treering_engine::memory::Memory;
use treering_engine::page::{self, ValueRef};
use treering_engine::tree::{self, Carry, Cursor, ReadNodes, Root};

use store::Store;

/// One allocator for every measurement.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 1_000_000;
const PAGE_BYTES: usize = 4096;
/// Twice what the records need.
const FRAMES: usize = 110_000;
/// Writes of a batch: what a busy worker finds in its inbox.
const BATCH_WRITES: u64 = 64;
const GET_MANY_KEYS: usize = 64;
const RANGE_ENTRIES: u64 = 100;

fn fill(store: &mut Store<'_>, values: &Values) -> Root {
    let mut root = Root::default();
    for index in 0..RECORDS {
        let value = values.value_of(index, 0);
        tree::put(store, &mut root, &key_of(index), ValueRef::Inline(&value)).expect("resident");
        if index % BATCH_WRITES == 0 {
            store.end_batch();
        }
    }
    store.end_batch();
    root
}

/// Hands out up to `limit` entries from `lower` on; returns how many there were.
fn scan(store: &Store<'_>, root: &Root, lower: Bound<&[u8]>, limit: u64) -> u64 {
    let mut cursor = Cursor::ascending(*root);
    let mut carry = Carry::default();
    let mut seen = 0;
    while seen < limit
        && let Some(run) = cursor
            .find_run(store, (lower, Bound::Unbounded))
            .expect("resident")
    {
        let page = store.node(run.leaf).expect("resident");
        let next = run.next.map(|next| store.node(next).expect("resident"));
        let shown = run.hand_out(page, next, &mut carry, |key, value| {
            black_box((key, value.bytes()));
            seen += 1;
            if seen == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        cursor.pass(&run, shown);
    }
    seen
}

fn reads(criterion: &mut Criterion, store: &Store<'_>, root: &Root) {
    let mut group = criterion.benchmark_group("tree");
    let mut random = Random::new(1);
    let mut copy = [0; VALUE_BYTES];
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            let key = key_of(random.below(RECORDS));
            let found = tree::get(store, root, &key).expect("resident").expect("there");
            copy.copy_from_slice(found.bytes());
            black_box(&copy);
        });
    });
    group.throughput(Throughput::Elements(GET_MANY_KEYS as u64));
    group.bench_function("get_many of 64", |bencher| {
        bencher.iter(|| {
            let keys: [Key; GET_MANY_KEYS] = std::array::from_fn(|_| key_of(random.below(RECORDS)));
            let keys = keys.each_ref().map(Key::as_slice);
            let mut found = [Ok(None); GET_MANY_KEYS];
            tree::get_many(store, root, &keys, &mut found);
            for found in found {
                copy.copy_from_slice(found.expect("resident").expect("there").bytes());
                black_box(&copy);
            }
        });
    });
    group.throughput(Throughput::Elements(RANGE_ENTRIES));
    group.bench_function("range of 100", |bencher| {
        bencher.iter(|| {
            let from = key_of(random.below(RECORDS));
            scan(store, root, Bound::Included(&from), RANGE_ENTRIES)
        });
    });
    group.throughput(Throughput::Elements(RECORDS));
    group.sample_size(20);
    group.bench_function("full scan", |bencher| {
        bencher.iter(|| {
            assert_eq!(scan(store, root, Bound::Unbounded, u64::MAX), RECORDS);
        });
    });
    group.finish();
}

fn writes(criterion: &mut Criterion, store: &mut Store<'_>, root: &mut Root, values: &Values) {
    let mut group = criterion.benchmark_group("tree");
    let mut random = Random::new(2);
    group.throughput(Throughput::Elements(BATCH_WRITES));
    group.bench_function("overwrite, 64 a batch", |bencher| {
        bencher.iter(|| {
            for _ in 0..BATCH_WRITES {
                let index = random.below(RECORDS);
                let value = values.value_of(index, random.next_u64());
                let value = ValueRef::Inline(&value);
                tree::put(store, root, &key_of(index), value).expect("resident");
            }
            store.end_batch();
        });
    });
    group.bench_function("delete and insert, 64 a batch", |bencher| {
        bencher.iter(|| {
            for _ in 0..BATCH_WRITES / 2 {
                let index = random.below(RECORDS);
                let key = key_of(index);
                tree::delete(store, root, &key).expect("resident");
                let value = values.value_of(index, 0);
                tree::put(store, root, &key, ValueRef::Inline(&value)).expect("resident");
            }
            store.end_batch();
        });
    });
    group.finish();
}

fn pages(criterion: &mut Criterion, store: &Store<'_>, root: &Root) {
    // The leftmost leaf stands for all leaves.
    let mut reference = root.reference;
    for _ in 1..root.height {
        let node = store.node(reference).expect("resident");
        reference = page::children(node).next().expect("an inner node has children");
    }
    let mut leaf = store.node(reference).expect("resident").to_vec();
    page::seal(&mut leaf);
    let mut group = criterion.benchmark_group("page");
    group.throughput(Throughput::Bytes(PAGE_BYTES as u64));
    group.bench_function("verify a leaf", |bencher| {
        bencher.iter(|| page::verify(black_box(&leaf), reference).expect("sealed above"));
    });
    group.bench_function("seal a leaf", |bencher| {
        bencher.iter_batched_ref(
            || leaf.clone(),
            |copy| page::seal(black_box(copy)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn engine(criterion: &mut Criterion) {
    let values = Values::default();
    let memory = Memory::new(FRAMES, PAGE_BYTES).expect("enough memory");
    let participant = memory.participant();
    let guard = participant.pin();
    let mut store = Store::new(&memory, &guard);
    let mut root = fill(&mut store, &values);
    reads(criterion, &store, &root);
    pages(criterion, &store, &root);
    writes(criterion, &mut store, &mut root, &values);
}

fn handle(criterion: &mut Criterion) {
    /// Puts sent before the first is waited for.
    const IN_FLIGHT: u64 = 256;
    let values = Values::default();
    let database = Options::new()
        .cache_bytes(2 * (FRAMES * PAGE_BYTES) as u64)
        .durability(Durability::Buffered)
        .open_in_memory()
        .expect("enough memory");
    let records = database.client().tree("records").expect("a tree");
    let load: Vec<_> = (0..RECORDS)
        .map(|index| records.send_put(key_of(index), values.value_of(index, 0)))
        .collect();
    for ticket in load {
        ticket.expect("sent").wait().expect("written");
    }
    let mut group = criterion.benchmark_group("handle");
    let mut random = Random::new(3);
    let mut copy = [0; VALUE_BYTES];
    group.bench_function("get_with", |bencher| {
        bencher.iter(|| {
            let key = key_of(random.below(RECORDS));
            let copied = records.get_with(key, |found| {
                copy.copy_from_slice(found.expect("there"));
            });
            copied.expect("resident");
            black_box(&copy);
        });
    });
    group.bench_function("put, buffered", |bencher| {
        bencher.iter(|| {
            let index = random.below(RECORDS);
            let value = values.value_of(index, random.next_u64());
            records.put(key_of(index), value).expect("written");
        });
    });
    group.throughput(Throughput::Elements(IN_FLIGHT));
    group.bench_function("send_put, 256 in flight", |bencher| {
        bencher.iter(|| {
            let tickets: Vec<_> = (0..IN_FLIGHT)
                .map(|_| {
                    let index = random.below(RECORDS);
                    let value = values.value_of(index, random.next_u64());
                    records.send_put(key_of(index), value).expect("sent")
                })
                .collect();
            for ticket in tickets {
                ticket.wait().expect("written");
            }
        });
    });
    group.finish();
    database.close().expect("closes");
}

criterion_group!(benches, engine, handle);
criterion_main!(benches);
