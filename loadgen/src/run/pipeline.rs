//! Writes on their way, oldest first.
//!
//! Answers come about in the order of sending (the log's), so only the oldest write is looked at. It is looked at
//! after each sending, without waiting, so that its end is noticed while the thread goes on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// A write that was sent, with what its sender needs to end it.
#[derive(Debug)]
struct InFlight<P, W> {
    pending: P,
    write: W,
}

/// The writes of one thread that are under way.
#[derive(Debug)]
pub struct Pipeline<P, W> {
    writes: VecDeque<InFlight<P, W>>,
    depth: usize,
    waker: Waker,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

impl<P: Future + Unpin, W> Pipeline<P, W> {
    /// A pipeline for the calling thread, which alone may wait on it, with room for `depth` writes.
    #[must_use]
    pub fn new(depth: usize) -> Pipeline<P, W> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        Pipeline {
            writes: VecDeque::with_capacity(depth.min(1024)),
            depth,
            waker,
        }
    }

    /// Whether the oldest write must end before another is sent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.writes.len() >= self.depth
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Adds a write that was just sent.
    pub fn push(&mut self, pending: P, write: W) {
        self.writes.push_back(InFlight { pending, write });
    }

    /// The oldest write, if it has ended.
    pub fn take_ended(&mut self) -> Option<(W, P::Output)> {
        let oldest = self.writes.front_mut()?;
        let mut context = Context::from_waker(&self.waker);
        match Pin::new(&mut oldest.pending).poll(&mut context) {
            Poll::Pending => None,
            Poll::Ready(output) => self.writes.pop_front().map(|ended| (ended.write, output)),
        }
    }

    /// Waits for the oldest write to end; `None` if nothing is under way.
    pub fn wait_oldest(&mut self) -> Option<(W, P::Output)> {
        while !self.writes.is_empty() {
            if let Some(ended) = self.take_ended() {
                return Some(ended);
            }
            // Unparked by the waker; a wake-up that came before parking makes this return at once.
            thread::park();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn writes_end_in_order() {
        let mut pipeline: Pipeline<Ready<u32>, char> = Pipeline::new(2);
        assert!(pipeline.is_empty() && pipeline.take_ended().is_none() && pipeline.wait_oldest().is_none());
        pipeline.push(ready(1), 'a');
        assert!(!pipeline.is_full());
        pipeline.push(ready(2), 'b');
        assert!(pipeline.is_full());
        assert_eq!(pipeline.take_ended(), Some(('a', 1)));
        assert_eq!(pipeline.wait_oldest(), Some(('b', 2)));
    }

    /// A future that another thread completes, once it was asked for often enough.
    #[derive(Default)]
    struct Given {
        asked: u32,
        answer: Option<u32>,
        waker: Option<Waker>,
    }

    struct Taken(Arc<Mutex<Given>>);

    impl Future for Taken {
        type Output = u32;

        fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
            let mut given = self.0.lock().expect("nobody panics with it");
            given.asked += 1;
            given.waker = Some(context.waker().clone());
            given.answer.take().map_or(Poll::Pending, Poll::Ready)
        }
    }

    #[test]
    fn waiting_ends_when_another_thread_answers() {
        let given = Arc::new(Mutex::new(Given::default()));
        let mut pipeline = Pipeline::new(1);
        pipeline.push(Taken(Arc::clone(&given)), ());
        assert!(pipeline.take_ended().is_none());
        let other = thread::spawn(move || {
            loop {
                let mut given = given.lock().expect("nobody panics with it");
                // Asked again: the other thread has found nothing and goes to sleep.
                if given.asked > 1 {
                    given.answer = Some(9);
                    return given.waker.take().expect("it came with the question").wake();
                }
                drop(given);
                thread::yield_now();
            }
        });
        assert_eq!(pipeline.wait_oldest(), Some(((), 9)));
        other.join().expect("it doesn't panic");
    }
}
