//! Keys of transactions over several shards that were sent and are not answered yet, and trees that are being dropped.
//!
//! Requests that one thread sends for one key are carried out in that order. Mailboxes see to that, but for one case: a
//! transaction over several shards reaches the later ones past their mailboxes (see `client/fence.rs`, which keeps what
//! was sent before it ahead of it), and so what its client sends behind it, straight to one of those, could overtake it.
//! Whoever sends for a key that such a transaction names waits until that is answered. Likewise who sends for a key of a
//! tree in several partitions that is being dropped: such a tree is noted as a key of no bytes, which no tree has.
//!
//! Only transactions that are pipelined are noted, and where there are none, looking costs one load. Keys are known by a
//! hash: two that share one wait for each other in vain.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use treering_engine::TreeId;

/// The keys of one database's transactions under way.
#[derive(Debug, Default)]
pub(crate) struct KeysAhead(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// Transactions that are noted.
    transactions: AtomicUsize,
    /// Hashes of their keys, and how many of them name each.
    hashes: Mutex<BTreeMap<u64, u32>>,
    fewer: Condvar,
}

/// The keys of one transaction; dropped when it is over.
#[derive(Debug)]
#[must_use = "its keys count as under way for as long as this lives"]
pub(crate) struct KeysUnderWay {
    noted: Arc<Noted>,
    hashes: Vec<u64>,
}

/// By what a key is known here.
pub(crate) fn key_hash(tree: TreeId, key: &[u8]) -> u64 {
    // Without random keys: equal runs hash equally.
    let mut hasher = DefaultHasher::new();
    (tree.0, key).hash(&mut hasher);
    hasher.finish()
}

impl KeysAhead {
    /// Notes the keys of a transaction that is about to be sent.
    pub fn note<'k>(&self, keys: impl Iterator<Item = (TreeId, &'k [u8])>) -> KeysUnderWay {
        let hashes: Vec<u64> = keys.map(|(tree, key)| key_hash(tree, key)).collect();
        let mut noted = self.0.hashes();
        for hash in &hashes {
            *noted.entry(*hash).or_default() += 1;
        }
        // Relaxed: senders must see their own transactions, not those of other threads.
        self.0.transactions.fetch_add(1, Ordering::Relaxed);
        drop(noted);
        KeysUnderWay {
            noted: Arc::clone(&self.0),
            hashes,
        }
    }

    /// Whether nothing is noted.
    pub fn is_empty(&self) -> bool {
        self.0.transactions.load(Ordering::Relaxed) == 0
    }

    /// Whether none of the keys with these hashes is under way, after waiting for that at most this long.
    pub fn are_free(&self, hashes: &[u64], timeout: Duration) -> bool {
        let under_way = |noted: &BTreeMap<u64, u32>| hashes.iter().any(|hash| noted.contains_key(hash));
        let noted = self.0.hashes();
        if !under_way(&noted) || timeout.is_zero() {
            return !under_way(&noted);
        }
        let waited = self
            .0
            .fewer
            .wait_timeout_while(noted, timeout, |noted| under_way(noted));
        let (noted, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !under_way(&noted)
    }
}

impl Noted {
    fn hashes(&self) -> MutexGuard<'_, BTreeMap<u64, u32>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KeysUnderWay {
    fn drop(&mut self) {
        let mut noted = self.noted.hashes();
        for hash in &self.hashes {
            if let Some(count) = noted.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    noted.remove(hash);
                }
            }
        }
        self.noted.transactions.fetch_sub(1, Ordering::Relaxed);
        drop(noted);
        self.noted.fewer.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Even on a machine that does other things for a while. Who is not called waits for longer.
    const CALLED_WITHIN: Duration = Duration::from_secs(120);

    #[test]
    fn keys_are_free_when_all_that_name_them_are_over() {
        let ahead = KeysAhead::default();
        let (tree, other) = (TreeId(1), TreeId(2));
        let hashes = [key_hash(tree, b"k")];
        assert!(ahead.is_empty() && ahead.are_free(&hashes, Duration::ZERO));
        let first = ahead.note([(tree, &b"k"[..]), (tree, b"l")].into_iter());
        let second = ahead.note([(tree, &b"k"[..]), (tree, b"k")].into_iter());
        assert!(!ahead.is_empty() && !ahead.are_free(&hashes, Duration::ZERO));
        assert!(ahead.are_free(&[key_hash(other, b"k"), key_hash(tree, b"m")], Duration::ZERO));
        drop(first);
        assert!(!ahead.are_free(&hashes, Duration::from_millis(1)));
        assert!(ahead.are_free(&[key_hash(tree, b"l")], Duration::ZERO));
        drop(second);
        assert!(ahead.is_empty() && ahead.are_free(&hashes, Duration::ZERO));
    }

    #[test]
    fn who_waits_is_called() {
        let ahead = KeysAhead::default();
        let under_way = ahead.note([(TreeId(1), &b"k"[..])].into_iter());
        let (told, heard) = channel();
        let hashes = [key_hash(TreeId(1), b"k")];
        std::thread::spawn(move || told.send(ahead.are_free(&hashes, 10 * CALLED_WITHIN)));
        std::thread::sleep(Duration::from_millis(20));
        drop(under_way);
        assert_eq!(heard.recv_timeout(CALLED_WITHIN), Ok(true), "nobody was called");
    }
}
