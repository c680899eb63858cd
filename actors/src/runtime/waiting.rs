//! Spin, yield, sleep: the one place where threads wait.
//!
//! A wake of a thread on another virtual core costs 20 to 40 µs one way, a spinning hand-over 0.3 µs. So threads
//! look a few times, give the core away a few times, and only then sleep; and nobody wakes a thread that is
//! awake (see [`SleepFlag`] for why no wake is lost).

use std::sync::OnceLock;
use std::thread::Thread;
use std::time::Duration;

use treering_engine::SleepFlag;
use treering_io::DeviceWaker;

/// Looks before the core is given away.
pub(super) const SPINS: u32 = 20;
/// Times the core is given away before sleeping.
pub(super) const YIELDS: u32 = 8;

/// How one particular thread sleeps and is woken.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    flag: SleepFlag,
    target: OnceLock<Target>,
}

#[derive(Debug)]
enum Target {
    Parked(Thread),
    Device(DeviceWaker),
}

impl Sleeper {
    /// Says that the calling thread is the one that sleeps here.
    pub fn adopt(&self) {
        let _ = self.target.set(Target::Parked(std::thread::current()));
    }

    /// Says that the thread sleeps inside a device.
    pub fn adopt_device(&self, waker: DeviceWaker) {
        let _ = self.target.set(Target::Device(waker));
    }

    /// Wakes the thread if it sleeps and nobody else is waking it.
    pub fn wake(&self) {
        if self.flag.claim_wake() {
            match self.target.get() {
                Some(Target::Parked(thread)) => thread.unpark(),
                Some(Target::Device(waker)) => waker.wake(),
                None => {}
            }
        }
    }

    /// Whether the thread sleeps. A hint.
    pub fn is_asleep(&self) -> bool {
        self.flag.is_asleep()
    }

    /// Sleeps until woken or `timeout`, unless `ready` says that there is work.
    pub fn sleep(&self, timeout: Option<Duration>, ready: impl Fn() -> bool) {
        self.sleep_with(ready, || match timeout {
            Some(timeout) => std::thread::park_timeout(timeout),
            None => std::thread::park(),
        });
    }

    /// As [`sleep`](Self::sleep), where `block` is what blocks.
    pub fn sleep_with(&self, ready: impl Fn() -> bool, block: impl FnOnce()) {
        self.flag.prepare_sleep();
        if !ready() {
            block();
        }
        self.flag.cancel();
    }
}

/// Counts the rounds in which a thread found nothing to do.
#[derive(Debug, Default)]
pub(super) struct Idle(u32);

impl Idle {
    /// There was work.
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    /// There was none: waits a little. True when it is time to sleep.
    pub fn wait(&mut self) -> bool {
        self.0 += 1;
        if self.0 <= SPINS {
            std::hint::spin_loop();
        } else if self.0 <= SPINS + YIELDS {
            std::thread::yield_now();
        } else {
            return true;
        }
        false
    }
}
