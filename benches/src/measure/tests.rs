use std::sync::Mutex;

use super::*;
use crate::peers::Seen;
use crate::workload::{Key, Record, Value};

/// A store whose operations do nothing; the operations under test bring their own work.
struct Nothing;

struct NothingSession;

impl Store for Nothing {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(NothingSession))
    }
    fn load_sorted(&self, _: &mut dyn Iterator<Item = Record>) -> Result<()> {
        Ok(())
    }
    fn load_random(&self, _: &mut dyn Iterator<Item = Record>) -> Result<()> {
        Ok(())
    }
    fn settle(&self) -> Result<()> {
        Ok(())
    }
    fn sync_log(&self) -> Result<()> {
        Ok(())
    }
    fn log_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Session for NothingSession {
    fn get(&mut self, _: &Key, _: &mut Value) -> Result<bool> {
        Ok(false)
    }
    fn get_many(&mut self, _: &[Key], _: &mut [Value]) -> Result<u64> {
        Ok(0)
    }
    fn scan(&mut self, _: &Key, _: u64) -> Result<Seen> {
        Ok(Seen::default())
    }
    fn put(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }
    fn put_batch(&mut self, _: &[Record]) -> Result<()> {
        Ok(())
    }
    fn read_modify_write(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }
    fn delete_batch(&mut self, _: &[Key]) -> Result<()> {
        Ok(())
    }
}

fn plan(threads: u64, window_ms: u64) -> Plan {
    Plan {
        threads,
        warm_up: Duration::from_millis(20),
        window: Duration::from_millis(window_ms),
        seed: 1,
        latencies: true,
    }
}

/// Threads that queue for one lock, each holding it for 5 ms: together 200 a second at most,
/// however many there are and however short the window is for each of them.
#[test]
fn contending_threads_are_not_counted_alone() {
    let lock = Mutex::new(());
    let sample = run(&Nothing, plan(16, 200), &|_, _| {
        let held = lock.lock().map_err(|_| "poisoned")?;
        std::thread::sleep(Duration::from_millis(5));
        drop(held);
        Ok(1)
    })
    .expect("runs");
    assert!(sample.rate <= 220.0, "{}", sample.rate);
}

#[test]
fn an_operation_longer_than_the_window_is_measured_once() {
    let sample = run(&Nothing, plan(1, 10), &|_, _| {
        std::thread::sleep(Duration::from_millis(50));
        Ok(1_000)
    })
    .expect("runs");
    assert!(sample.rate > 0.0 && sample.rate <= 20_000.0, "{}", sample.rate);
    assert!(sample.latency_ns.min() >= 50_000_000 * 99 / 100);
}

#[test]
fn one_failing_thread_ends_the_row() {
    let failed = run(&Nothing, plan(4, 200), &|_, random| {
        if random.below(1_000) == 0 {
            return Err("planted".into());
        }
        Ok(1)
    });
    assert_eq!(failed.expect_err("planted").to_string(), "planted");
}
