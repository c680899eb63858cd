//! The sleeping flag: no wake-up is lost (loom would report a deadlock), and none is given twice.

use crate::planted::{Mistake, explore};
use crate::sleeping::SleepFlag;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::sync::Arc;

/// A thread's wake-up calls, counted like an eventfd's.
struct Bell {
    rings: Mutex<usize>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rings.lock().expect("not poisoned") += 1;
        self.rung.notify_one();
    }

    fn wait(&self) {
        let mut rings = self.rings.lock().expect("not poisoned");
        while *rings == 0 {
            rings = self.rung.wait(rings).expect("not poisoned");
        }
        *rings -= 1;
    }
}

struct Mailbox {
    messages: AtomicUsize,
    flag: SleepFlag,
    bell: Bell,
}

fn senders_and_a_sleeper(senders: usize) {
    let mailbox = Arc::new(Mailbox {
        messages: AtomicUsize::new(0),
        flag: SleepFlag::new(),
        bell: Bell {
            rings: Mutex::new(0),
            rung: Condvar::new(),
        },
    });
    let senders: Vec<_> = (0..senders)
        .map(|_| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                mailbox.messages.fetch_add(1, Ordering::Release);
                if mailbox.flag.claim_wake() {
                    mailbox.bell.ring();
                }
            })
        })
        .collect();
    let mut received = 0;
    loop {
        received += mailbox.messages.swap(0, Ordering::Acquire);
        if received == senders.len() {
            break;
        }
        mailbox.flag.prepare_sleep();
        if mailbox.messages.load(Ordering::Relaxed) == 0 {
            mailbox.bell.wait();
            assert!(!mailbox.flag.is_asleep(), "woken without a claim");
        } else if mailbox.flag.cancel() {
            mailbox.bell.wait();
        }
    }
    for sender in senders {
        sender.join().expect("a sender");
    }
    assert_eq!(
        *mailbox.bell.rings.lock().expect("not poisoned"),
        0,
        "rung for a thread that is awake"
    );
}

#[test]
fn no_wake_up_is_lost_or_given_twice() {
    explore(Mistake::None, || senders_and_a_sleeper(1));
    explore(Mistake::None, || senders_and_a_sleeper(2));
}

#[test]
#[should_panic(expected = "deadlock")]
fn wake_ups_lost_for_want_of_a_fence_are_noticed() {
    explore(Mistake::NoFence, || senders_and_a_sleeper(1));
}

#[test]
#[should_panic(expected = "rung for a thread that is awake")]
fn two_wakers_of_one_sleep_are_noticed() {
    explore(Mistake::CompareThenStore, || senders_and_a_sleeper(2));
}
