//! Each thread's membership in the epochs of the databases that it uses.

use std::cell::RefCell;
use std::rc::Rc;

use crossbeam_epoch::{Collector, Guard};
use treering_engine::memory::{FrameId, Memory, Participant};

/// A thread that worked with more databases than this drops its idle memberships.
const MEMBERSHIPS_MAX: usize = 16;

struct Membership {
    collector: Collector,
    participant: Rc<Participant>,
}

thread_local! {
    static MEMBERSHIPS: RefCell<Vec<Membership>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with this thread pinned in `memory`'s epoch. Pins are for one descent or one step of an
/// actor: never across blocking, user code or a cursor's lifetime.
pub(crate) fn with_guard<R>(memory: &Memory, work: impl FnOnce(&Guard) -> R) -> R {
    let guard = with_participant(memory, |participant| participant.pin());
    work(&guard)
}

/// Ends a hold on a frame; pins only if the frame's page has died meanwhile.
pub(crate) fn unhold(memory: &Memory, frame: FrameId) {
    memory.unhold(frame, || {
        with_participant(memory, |participant| participant.pin())
    });
}

/// As [`with_guard`], for reading: `work` says how many lookups found what they needed in memory, with
/// [`Participant::add_hits`].
pub(crate) fn with_reader<R>(memory: &Memory, work: impl FnOnce(&Guard, &Participant) -> R) -> R {
    let (guard, participant) =
        with_participant(memory, |participant| (participant.pin(), Rc::clone(participant)));
    work(&guard, &participant)
}

/// Runs what has become due of the deferred functions. Does nothing while this thread is pinned, since it would
/// hold the epoch back itself.
pub(crate) fn collect(memory: &Memory) {
    let participant = with_participant(memory, Rc::clone);
    if !participant.is_pinned() {
        participant.collect();
    }
}

fn with_participant<R>(memory: &Memory, work: impl FnOnce(&Rc<Participant>) -> R) -> R {
    MEMBERSHIPS.with_borrow_mut(|memberships| {
        let collector = memory.collector();
        if let Some(membership) = memberships
            .iter()
            .find(|membership| membership.collector == *collector)
        {
            return work(&membership.participant);
        }
        // Memberships of closed databases would keep their garbage alive: few of them are kept, and none
        // that is still pinned further up this thread's stack is among the dropped.
        if memberships.len() >= MEMBERSHIPS_MAX {
            memberships.retain(|membership| membership.participant.is_pinned());
        }
        let participant = Rc::new(memory.participant());
        memberships.push(Membership {
            collector: collector.clone(),
            participant: Rc::clone(&participant),
        });
        work(&participant)
    })
}
