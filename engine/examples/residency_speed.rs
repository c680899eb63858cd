//! What pinning and looking pages up costs, in nanoseconds, over 100,000 resident pages (or as many as the first
//! argument says): `cargo run --release -p treering-engine --example residency_speed [PAGES]`.
//!
//! Each row is the median of eleven rounds. The rows with "next" find each page by what the page before it
//! says, as a descent does; the others don't wait for each other.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::time::Instant;
use treering_engine::memory::{Class, Memory};
use treering_engine::{FrameId, PageId};

const PAGE_BYTES: usize = 4096;
const LOOKUPS: usize = 200_000;
const ROUNDS: usize = 11;

fn main() {
    let pages = std::env::args()
        .nth(1)
        .and_then(|argument| argument.parse().ok())
        .unwrap_or(100_000);
    let memory = match Memory::new(pages + pages / 8 + 64, PAGE_BYTES) {
        Ok(memory) => memory,
        Err(error) => return eprintln!("{error}"),
    };
    let order = fill(&memory, pages);
    let ids: Vec<PageId> = (0..LOOKUPS)
        .map(|lookup| PageId(order[lookup % pages] + 2))
        .collect();
    let thread = memory.participant();

    println!("{pages} pages of {PAGE_BYTES} bytes, {LOOKUPS} lookups a round");
    row("pin and unpin", || {
        for _ in 0..LOOKUPS {
            black_box(&thread.pin());
        }
    });
    row("lookup", || {
        let guard = thread.pin();
        let view = memory.view(&guard);
        for id in &ids {
            black_box(view.lookup(*id).map(|page| page.id));
        }
    });
    row("lookup, own check of the guard", || {
        let guard = thread.pin();
        for id in &ids {
            black_box(memory.lookup(*id, &guard).map(|page| page.id));
        }
    });
    row("pin and lookup", || {
        for id in &ids {
            let guard = thread.pin();
            black_box(memory.lookup(*id, &guard).map(|page| page.id));
        }
    });
    row("lookup and read", || {
        let guard = thread.pin();
        let view = memory.view(&guard);
        for id in &ids {
            black_box(view.lookup(*id).map(|page| page.bytes[0]));
        }
    });
    row("lookup and read, next", || {
        let guard = thread.pin();
        let view = memory.view(&guard);
        let mut id = PageId(2);
        for _ in 0..LOOKUPS {
            id = view.lookup(id).map_or(PageId(2), |page| next_in(page.bytes));
        }
        black_box(id);
    });
    row("pin, lookup and read, next", || {
        let mut id = PageId(2);
        for _ in 0..LOOKUPS {
            let guard = thread.pin();
            id = memory
                .lookup(id, &guard)
                .map_or(PageId(2), |page| next_in(page.bytes));
        }
        black_box(id);
    });
    row("lookup and read, 8 interleaved", || {
        let guard = thread.pin();
        let view = memory.view(&guard);
        for group in ids.chunks(8) {
            group.iter().for_each(|id| view.prefetch_word(*id));
            group.iter().for_each(|id| view.prefetch_page(*id, 1));
            for id in group {
                black_box(view.lookup(*id).map(|page| page.bytes[0]));
            }
        }
    });
    row("miss", || {
        let guard = thread.pin();
        let view = memory.view(&guard);
        for id in &ids {
            black_box(view.lookup(PageId(id.0 + pages as u32)).is_some());
        }
    });
    row("allocate and release", || {
        for _ in 0..LOOKUPS {
            if let Some(frame) = memory.allocate(Class::Worker) {
                memory.release_now(frame);
            }
        }
    });
    let mut frames: Vec<FrameId> = Vec::new();
    row("allocate and release by 64 through limbo", || {
        for _ in 0..LOOKUPS / 64 {
            memory.allocate_many(Class::Worker, 64, &mut frames);
            memory.release_deferred(&thread.pin(), frames.drain(..));
            thread.collect();
        }
    });
}

/// Makes `pages` pages resident, each naming the next in a random circle; returns the circle's order.
fn fill(memory: &Memory, pages: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..pages as u32).collect();
    let mut random = 88_172_645_463_325_252_u64;
    for index in (1..pages).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order.swap(index, (random % (index as u64 + 1)) as usize);
    }
    let mut next = vec![0_u32; pages];
    for (place, page) in order.iter().enumerate() {
        next[*page as usize] = order[(place + 1) % pages] + 2;
    }
    for (page, next) in next.into_iter().enumerate() {
        let Some(frame) = memory.allocate(Class::Reserve) else {
            return order;
        };
        let start = memory.frame_ptr(frame);
        // SAFETY: the frame was just allocated and isn't inserted yet, so it is ours alone, and `PAGE_BYTES` long.
        unsafe {
            start.write_bytes(0, PAGE_BYTES);
            start.cast::<u32>().write(next);
        }
        memory.insert_resident(PageId(page as u32 + 2), frame);
    }
    order
}

fn next_in(page: &[u8]) -> PageId {
    PageId(page.first_chunk().map_or(2, |bytes| u32::from_ne_bytes(*bytes)))
}

/// Prints what one of the `LOOKUPS` in `round` costs.
fn row(name: &str, mut round: impl FnMut()) {
    let mut costs: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed().as_nanos() as f64 / LOOKUPS as f64
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    println!("{name:45} {:8.1} ns", costs[ROUNDS / 2]);
}
