//! Bringing pages into memory, for clients.

use treering_engine::PageRef;
use treering_engine::memory::FrameId;

use super::kicks::Kicks;
use super::state::Runtime;
use crate::actor::Outbox;
use crate::error::{Error, Result};
use crate::pager::{Begun, Pager, PagerMessage, Waiter};

impl Runtime {
    /// Brings a page into memory and holds it; the caller ends the hold.
    ///
    /// The calling thread, which would only wait, reads the page itself: with many readers, waking each of them from
    /// the pager's thread is what would limit them.
    pub fn fetch(&self, reference: PageRef) -> Result<FrameId> {
        self.check_wait()?;
        let poisoned = || Err(Error::Closed);
        match self.visit_pager(|pager, _| pager.begin(reference)) {
            None => poisoned(),
            Some(Begun::Here(frame)) => Ok(frame),
            Some(Begun::Wait(receiver)) => self.wait_for_page(receiver),
            Some(Begun::Own(read)) => {
                if let Some(sim) = &self.sim
                    && !sim.let_others_run(self)
                {
                    // The power is off.
                    return Err(Error::Closed);
                }
                let done = read.execute();
                self.visit_pager(|pager, outbox| pager.finish(done, outbox))
                    .unwrap_or_else(poisoned)
            }
        }
    }

    /// In a simulation: others may run here, while a client looks at what is shared.
    #[cold]
    pub fn switch(&self) {
        if let Some(sim) = &self.sim {
            sim.switch(self);
        }
    }

    /// Runs a step of the pager that consists of `work`, in the calling thread, and sees to what follows from it.
    fn visit_pager<R>(&self, work: impl FnOnce(&mut Pager, &mut Outbox) -> R) -> Option<R> {
        let mut outbox = Outbox::default();
        let mut kicks = Kicks::default();
        let (result, step) =
            self.pager
                .visit(self.now(), &mut outbox, |outbox| kicks = self.post(outbox), work)?;
        self.finish_step(&mut outbox);
        self.tell_of_panic(Some(step));
        if self.sim.is_none() {
            // Whoever found the seat taken counts on this thread.
            if self.pager.more(step) {
                self.pager.sleeper.wake();
            }
            if !kicks.is_empty() {
                // A shard may have joined the read, and the commit actor may wait for that shard.
                self.see_to(kicks, &mut outbox);
                self.leave_log_task();
            }
        }
        result
    }

    /// A read takes longer than giving the core away a few times: the thread sleeps soon, and leaves the core to
    /// those who have something to do.
    fn wait_for_page(&self, receiver: oneshot::Receiver<Result<FrameId>>) -> Result<FrameId> {
        let answer = if self.sim.is_some() {
            self.wait(receiver, None)
        } else {
            self.sleep_for(&receiver)
        };
        answer.unwrap_or(Err(Error::Closed))
    }

    /// Brings several pages into memory at once, each held.
    pub fn fetch_all(&self, references: &[PageRef]) -> Vec<Result<FrameId>> {
        if let Err(error) = self.check_wait() {
            return vec![Err(error); references.len()];
        }
        let mut receivers = Vec::with_capacity(references.len());
        for &reference in references {
            let (sender, receiver) = oneshot::channel();
            let message = PagerMessage::Fetch {
                reference,
                waiter: Waiter::Client(sender),
            };
            if self.sim.is_some() {
                self.send_pager(message);
            } else {
                self.pager.request_blocking(message);
            }
            receivers.push(receiver);
        }
        self.pager.sleeper.wake();
        receivers
            .into_iter()
            .map(|receiver| self.wait_for_page(receiver))
            .collect()
    }
}
