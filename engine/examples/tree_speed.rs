//! How fast the tree is by itself: one thread, everything in memory, no log.
//!
//! `cargo run --release -p treering-engine --example tree_speed -- [keys] [value bytes] [page bytes]`
//!
//! Prints nanoseconds per operation and how full the pages are. Keys are 24 bytes, random or ascending.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::ops::{Bound, ControlFlow};
use std::time::Instant;

use crossbeam_epoch::Guard;
use treering_engine::memory::{Class, FrameId, Memory, View};
use treering_engine::page::{self, ValueRef};
use treering_engine::tree::{self, Cursor, Located, Miss, NodeStore, ReadNodes, Root};
use treering_engine::{PageId, PageRef, Seq, Stamp};

const KEY_BYTES: usize = 24;
const BATCH: usize = 64;

/// A worker's store without everything that isn't the tree's: frames of retired nodes are used again when
/// the batch ends, as if every version died at once.
struct Store<'m> {
    memory: &'m Memory,
    view: View<'m>,
    stamp: Stamp,
    ids: Vec<PageId>,
    frames: Vec<FrameId>,
    retired: Vec<Located>,
    next_id: u32,
    created: u64,
}

impl<'m> Store<'m> {
    fn new(memory: &'m Memory, guard: &'m Guard) -> Store<'m> {
        Store {
            memory,
            view: memory.view(guard),
            stamp: Stamp(1),
            ids: Vec::new(),
            frames: Vec::new(),
            retired: Vec::new(),
            next_id: PageId::FIRST.0,
            created: 0,
        }
    }

    fn end_batch(&mut self) {
        self.stamp = Stamp(self.stamp.0 + 1);
        while let Some(node) = self.retired.pop() {
            self.free(node);
        }
    }

    fn free(&mut self, node: Located) {
        let frame = self.memory.remove(node.reference.id);
        assert_eq!(frame, Some(FrameId(node.frame)));
        self.ids.push(node.reference.id);
        self.frames.push(FrameId(node.frame));
    }

    fn slice(&self, frame: u32) -> &[u8] {
        // SAFETY: the frame holds a node of this store; one thread, and writers borrow the store mutably.
        unsafe { std::slice::from_raw_parts(self.memory.frame_ptr(FrameId(frame)), self.memory.page_bytes()) }
    }

    fn slice_mut(&mut self, frame: u32) -> &mut [u8] {
        // SAFETY: as in `slice`.
        unsafe {
            std::slice::from_raw_parts_mut(self.memory.frame_ptr(FrameId(frame)), self.memory.page_bytes())
        }
    }

    fn allocate(&mut self) -> (PageId, FrameId) {
        self.created += 1;
        let id = self.ids.pop().unwrap_or_else(|| {
            self.next_id += 1;
            PageId(self.next_id - 1)
        });
        if self.frames.is_empty() {
            let taken = self.memory.allocate_many(Class::Worker, 64, &mut self.frames);
            assert!(taken > 0, "the memory is too small for this many keys");
        }
        (id, self.frames.pop().expect("just filled"))
    }
}

impl ReadNodes for Store<'_> {
    #[inline]
    fn node(&self, reference: PageRef) -> Result<&[u8], Miss> {
        Ok(self.view.lookup(reference.id).ok_or(Miss(reference))?.bytes)
    }

    #[inline]
    fn prefetch(&self, reference: PageRef) {
        self.view.prefetch_word(reference.id);
    }
}

impl NodeStore for Store<'_> {
    fn page_bytes(&self) -> usize {
        self.memory.page_bytes()
    }

    fn locate(&self, reference: PageRef) -> Result<Located, Miss> {
        let frame = self.view.lookup(reference.id).ok_or(Miss(reference))?;
        Ok(Located {
            reference,
            frame: frame.id.0,
        })
    }

    fn bytes(&self, node: Located) -> &[u8] {
        self.slice(node.frame)
    }

    fn bytes_mut(&mut self, node: Located) -> &mut [u8] {
        self.slice_mut(node.frame)
    }

    fn rebuild(&mut self, target: Located, sources: [Located; 2]) -> (&mut [u8], [&[u8]; 2]) {
        assert!(sources.iter().all(|source| source.frame != target.frame));
        let bytes = self.memory.page_bytes();
        let pointer = |node: Located| self.memory.frame_ptr(FrameId(node.frame));
        // SAFETY: the target's frame is none of the sources'; otherwise as in `slice`.
        unsafe {
            let read = |node| std::slice::from_raw_parts(pointer(node).cast_const(), bytes);
            (
                std::slice::from_raw_parts_mut(pointer(target), bytes),
                [read(sources[0]), read(sources[1])],
            )
        }
    }

    fn is_open(&self, node: Located) -> bool {
        page::stamp(self.slice(node.frame)) == self.stamp
    }

    fn create(&mut self) -> Located {
        let (id, frame) = self.allocate();
        let stamp = self.stamp;
        page::set_identity(self.slice_mut(frame.0), id, stamp, Seq(stamp.0));
        self.memory.insert_resident(id, frame);
        Located {
            reference: PageRef {
                id,
                birth: stamp.birth(),
            },
            frame: frame.0,
        }
    }

    fn copy(&mut self, old: Located) -> Located {
        let (id, frame) = self.allocate();
        let stamp = self.stamp;
        let node = Located {
            reference: PageRef {
                id,
                birth: stamp.birth(),
            },
            frame: frame.0,
        };
        let (target, [source, _]) = self.rebuild(node, [old, old]);
        page::copy_node(target, source);
        page::set_identity(target, id, stamp, Seq(stamp.0));
        self.memory.insert_resident(id, frame);
        node
    }

    fn retire(&mut self, node: Located) {
        if self.is_open(node) {
            self.free(node);
        } else {
            self.retired.push(node);
        }
    }

    fn retire_blob(&mut self, _descriptor: &[u8]) {}
}

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
            let mut cursor = if name.contains("backwards") {
                Cursor::descending(*root, Bound::Unbounded, Bound::Unbounded)
            } else {
                Cursor::ascending(*root, Bound::Unbounded, Bound::Unbounded)
            };
            let mut seen = 0u64;
            let mut sum = 0u64;
            let mut more = true;
            while more {
                more = cursor
                    .next_run(store, |key, value| {
                        seen += 1;
                        sum += u64::from(key[0]) + u64::from(value.bytes()[value.bytes().len() - 1]);
                        ControlFlow::Continue(())
                    })
                    .expect("resident");
            }
            black_box(sum);
            assert_eq!(seen, root.entries);
        });
    }
    let scans = 20_000.min(rounds);
    timed("range of 100, per entry", scans * 100, || {
        for key in &wanted[..scans as usize] {
            let mut cursor = Cursor::ascending(*root, Bound::Included(key), Bound::Unbounded);
            let mut left = 100;
            while left > 0
                && cursor
                    .next_run(store, |key, value| {
                        black_box((key, value));
                        left -= 1;
                        if left == 0 {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        }
                    })
                    .expect("resident")
            {}
        }
    });
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
