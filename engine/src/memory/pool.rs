//! The frame pool: which frames are free, and how frames come back through the epoch.
//!
//! Free frames form a lock-free stack threaded through an array of links: last in, first out, so that frames
//! are handed out while the cache still knows them. The head carries a tag that every change raises, so a
//! slow taker can't mistake a head that has come back for one that never left.
//!
//! A count of free frames is kept beside the stack and is what admission is decided by: a taker first takes
//! its frames out of the count (which keeps back a reserve from all but [`Class::Reserve`], rule R11), then
//! out of the stack, which by then is sure to have them; a giver does it the other way round.
//!
//! Frames that readers may still look at go through *limbo*: they are chained up at once, by the links that
//! nobody else uses meanwhile, and one deferred function for all of them puts the chain back when every pin
//! of now has ended.

use crate::FrameId;
use crate::sync::{Arc, AtomicU32, AtomicU64, AtomicUsize, Guard, Ordering, spin_loop};

/// End of a chain, or an empty stack.
const NONE: u32 = u32::MAX;

/// Who asks for frames: what runs the system out of trouble may have the last ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Workers creating nodes. Leaves the whole reserve.
    Worker,
    /// The pager, for a client's or a worker's read. Leaves half of the reserve.
    Reader,
    /// Flusher, checkpoint, commit actor. May have the last frame.
    Reserve,
}

/// The free frames of a [`Memory`](crate::memory::Memory).
#[derive(Debug)]
pub(crate) struct Pool {
    /// `tag << 32 | first free frame`.
    head: AtomicU64,
    /// For each frame the next one below it in whatever chain it is in.
    next: Box<[AtomicU32]>,
    /// Frames that takers may still lay claim to; never more than there are in the stack.
    free: AtomicUsize,
    /// Frames given to `release_deferred` that have not come back yet.
    limbo: AtomicUsize,
    /// Frames that only `Class::Reserve` may have.
    reserve: usize,
}

/// Frames linked to each other that are in no stack now.
#[derive(Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
    length: u32,
}

impl Pool {
    /// A pool with all of its frames free, the lowest on top. The reserve is a thirty-second of them, at least 2
    /// and at most 256, but never more than a quarter.
    pub(crate) fn new(frames: u32) -> Pool {
        let next = (1..=frames)
            .map(|next| AtomicU32::new(if next < frames { next } else { NONE }))
            .collect();
        let frames = frames as usize;
        Pool {
            head: AtomicU64::new(if frames == 0 { u64::from(NONE) } else { 0 }),
            next,
            free: AtomicUsize::new(frames),
            limbo: AtomicUsize::new(0),
            reserve: (frames / 32).clamp(2, 256).min(frames / 4),
        }
    }

    /// Free frames, the reserve included.
    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// Frames on their way back.
    pub(crate) fn limbo(&self) -> usize {
        self.limbo.load(Ordering::Relaxed)
    }

    /// Frames that the class has to leave in the pool.
    pub(crate) fn kept_from(&self, class: Class) -> usize {
        match class {
            Class::Worker => self.reserve,
            Class::Reader => self.reserve / 2,
            Class::Reserve => 0,
        }
    }

    /// Takes up to `wanted` frames, as many as the class may have, and hands each to `accept`. O(taken).
    pub(crate) fn take(&self, class: Class, wanted: usize, mut accept: impl FnMut(FrameId)) -> usize {
        let claimed = self.claim(class, wanted);
        if claimed > 0 {
            let chain = self.pop(claimed as u32);
            let mut frame = chain.first;
            for taken in 1..=claimed {
                // Read before the frame is given away: then the link belongs to whoever has it.
                let next = self.next[frame as usize].load(Ordering::Relaxed);
                accept(FrameId(frame));
                debug_assert!(taken < claimed || frame == chain.last);
                frame = next;
            }
        }
        claimed
    }

    /// Puts one frame back that nobody else can be looking at.
    pub(crate) fn release_now(&self, frame: FrameId) {
        self.push(Chain {
            first: frame.0,
            last: frame.0,
            length: 1,
        });
    }

    /// Puts frames back as soon as no pin of now can still look at them; all of them by one deferred function.
    /// O(frames).
    pub(crate) fn release_deferred(
        pool: &Arc<Pool>,
        guard: &Guard,
        frames: impl IntoIterator<Item = FrameId>,
    ) {
        let Some(chain) = pool.link(frames) else { return };
        pool.limbo.fetch_add(chain.length as usize, Ordering::Relaxed);
        let pool = Arc::clone(pool);
        // Three words: what crossbeam keeps in place, without a box.
        guard.defer(move || pool.leave_limbo(chain));
        // Into the sight of all threads: this one may not come back to the epoch for long (rule R11).
        guard.flush();
    }

    /// Counts a frame into limbo whose function is deferred later, by whoever lets go of it.
    pub(crate) fn enter_limbo(&self) {
        self.limbo.fetch_add(1, Ordering::Relaxed);
    }

    /// Like `release_deferred`, for a frame that `enter_limbo` has counted.
    pub(crate) fn release_from_limbo(pool: &Arc<Pool>, guard: &Guard, frame: FrameId) {
        let pool = Arc::clone(pool);
        let chain = Chain {
            first: frame.0,
            last: frame.0,
            length: 1,
        };
        guard.defer(move || pool.leave_limbo(chain));
        guard.flush();
    }

    fn leave_limbo(&self, chain: Chain) {
        self.push(chain);
        self.limbo.fetch_sub(chain.length as usize, Ordering::Relaxed);
    }

    fn link(&self, frames: impl IntoIterator<Item = FrameId>) -> Option<Chain> {
        let mut frames = frames.into_iter();
        let first = frames.next()?.0;
        let mut chain = Chain {
            first,
            last: first,
            length: 1,
        };
        for FrameId(frame) in frames {
            self.next[chain.last as usize].store(frame, Ordering::Relaxed);
            chain.last = frame;
            chain.length += 1;
        }
        Some(chain)
    }

    /// Lays claim to up to `wanted` frames; the result says how many.
    fn claim(&self, class: Class, wanted: usize) -> usize {
        let kept = self.kept_from(class);
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            let claimed = free.saturating_sub(kept).min(wanted);
            if claimed == 0 {
                return 0;
            }
            // Acquire: pairs with the count's rise in `push`, so that the stack's head that `pop` loads is one
            // that has the frames.
            match self
                .free
                .compare_exchange_weak(free, free - claimed, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return claimed,
                Err(current) => free = current,
            }
        }
    }

    /// Takes the top `length` frames, which the caller has claimed: the stack has them.
    fn pop(&self, length: u32) -> Chain {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let first = head as u32;
            if let Some((last, below)) = self.walk(first, length) {
                match self.head.compare_exchange_weak(
                    head,
                    retagged(head, below),
                    Ordering::AcqRel,
                    Ordering::Acquire,
                ) {
                    Ok(_) => return Chain { first, last, length },
                    Err(current) => head = current,
                }
            } else {
                // The links changed under the walk, so the head did too.
                spin_loop();
                head = self.head.load(Ordering::Acquire);
            }
        }
    }

    /// The last of `length` frames from `first` on, and what comes after it. What it reads may be out of date:
    /// then the head is too, and the swap that follows fails.
    fn walk(&self, first: u32, length: u32) -> Option<(u32, u32)> {
        let mut last = first;
        for _ in 1..length {
            last = self.next.get(last as usize)?.load(Ordering::Relaxed);
        }
        let below = self.next.get(last as usize)?.load(Ordering::Relaxed);
        Some((last, below))
    }

    fn push(&self, chain: Chain) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.next[chain.last as usize].store(head as u32, Ordering::Relaxed);
            // Release: the links, and all that was done to the frames' bytes.
            match self.head.compare_exchange_weak(
                head,
                retagged(head, chain.first),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(current) => head = current,
            }
        }
        self.free.fetch_add(chain.length as usize, Ordering::Release);
    }
}

/// The head that follows `head` when `first` becomes the top.
fn retagged(head: u64, first: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(first)
}
