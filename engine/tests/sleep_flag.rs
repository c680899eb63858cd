//! The sleeping flag in one thread, and under real ones. (All interleavings are in the models.)

#![expect(clippy::disallowed_methods, reason = "real threads, beside the models")]

use std::sync::atomic::{AtomicU64, Ordering};
use treering_engine::SleepFlag;

#[test]
fn one_waker_and_only_of_a_sleeper() {
    let flag = SleepFlag::new();
    assert!(!flag.claim_wake(), "it is awake");
    flag.prepare_sleep();
    assert!(flag.is_asleep());
    assert!(flag.claim_wake());
    assert!(!flag.is_asleep());
    assert!(!flag.claim_wake(), "somebody else wakes it");
}

#[test]
fn cancelling_tells_whether_a_wake_up_is_on_its_way() {
    let flag = SleepFlag::new();
    flag.prepare_sleep();
    assert!(!flag.cancel());
    assert!(!flag.claim_wake());
    flag.prepare_sleep();
    assert!(flag.claim_wake());
    assert!(flag.cancel());
}

/// A lost wake-up would hang it.
#[test]
fn every_message_is_received_by_a_thread_that_sleeps_whenever_it_can() {
    const SENDERS: u64 = 3;
    const MESSAGES: u64 = 20_000;
    let (flag, sent) = (SleepFlag::new(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let mut received = 0;
            while received < SENDERS * MESSAGES {
                received += sent.swap(0, Ordering::Acquire);
                flag.prepare_sleep();
                if sent.load(Ordering::Relaxed) > 0 || received == SENDERS * MESSAGES {
                    flag.cancel();
                } else {
                    while flag.is_asleep() {
                        std::thread::park();
                    }
                }
            }
        });
        for _ in 0..SENDERS {
            let sleeper = sleeper.thread().clone();
            scope.spawn(|| {
                let sleeper = sleeper;
                for _ in 0..MESSAGES {
                    sent.fetch_add(1, Ordering::Release);
                    if flag.claim_wake() {
                        sleeper.unpark();
                    }
                }
            });
        }
    });
    assert_eq!(sent.into_inner(), 0);
}
