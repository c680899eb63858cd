//! A map in memory that keeps its content from one opening to the next, and lies when told to.
//!
//! It stands in for the database in the generator's own tests. Every [`Lie`] is a defect that `--verify`
//! must report.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Map, Value};

use super::{Opener, Session, Target, TargetError};
use crate::plan::StoreOptions;

/// A defect that the map pretends to have, on every write or read whose number is a multiple of 97.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lie {
    /// Acknowledges a put without carrying it out.
    LosePuts,
    /// Reads the last byte of a value wrong.
    FlipBits,
    /// Says that a record isn't there.
    HideRecords,
    /// Carries out an update whose result another one overwrites.
    LoseUpdates,
    /// Leaves a record out of a scan.
    SkipInScans,
    /// Stores a put under a neighbour's key.
    Misplace,
    /// Refuses a put.
    RefusePuts,
}

/// How often a lie is told.
const LIE_EVERY: u64 = 97;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The "disk": what all openings share.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryOpener {
    records: Arc<Mutex<Records>>,
    pub(crate) lie: Option<Lie>,
}

impl MemoryOpener {
    pub(crate) fn lying(lie: Lie) -> MemoryOpener {
        MemoryOpener {
            lie: Some(lie),
            ..MemoryOpener::default()
        }
    }

    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        self.records
            .lock()
            .expect("no test panics while it holds the map")
    }
}

impl Opener for MemoryOpener {
    type Target = MemoryTarget;

    fn open(&self, _directory: &Path, _options: &StoreOptions) -> Result<MemoryTarget, TargetError> {
        Ok(MemoryTarget {
            store: self.clone(),
            operations: Arc::default(),
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct MemoryTarget {
    store: MemoryOpener,
    operations: Arc<AtomicU64>,
}

impl MemoryTarget {
    fn lies(&self, lie: Lie) -> bool {
        self.store.lie == Some(lie)
            && self.operations.fetch_add(1, Ordering::Relaxed) % LIE_EVERY == LIE_EVERY - 1
    }

    fn look<R>(&self, key: &[u8], look: impl FnOnce(Option<&[u8]>) -> R) -> R {
        if self.lies(Lie::HideRecords) {
            return look(None);
        }
        let value = self.store.records().get(key).cloned();
        match value {
            Some(mut value) if self.lies(Lie::FlipBits) => {
                if let Some(last) = value.last_mut() {
                    *last ^= 1;
                }
                look(Some(&value))
            }
            value => look(value.as_deref()),
        }
    }
}

impl Target for MemoryTarget {
    type Session = MemoryTarget;

    fn session(&self) -> Result<MemoryTarget, TargetError> {
        Ok(self.clone())
    }

    fn flush(&self) -> Result<(), TargetError> {
        Ok(())
    }

    fn stats(&self) -> Map<String, Value> {
        Map::from_iter([(
            "operations".to_owned(),
            self.operations.load(Ordering::Relaxed).into(),
        )])
    }

    fn close(self) -> Result<(), TargetError> {
        Ok(())
    }
}

impl Session for MemoryTarget {
    type Pending = Ready<Result<(), TargetError>>;

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), TargetError> {
        if self.lies(Lie::RefusePuts) {
            return Err(TargetError {
                message: "refused".into(),
                is_final: false,
            });
        }
        let mut key = key.to_vec();
        if self.lies(Lie::Misplace) {
            key[4] = if key[4] == b'0' { b'1' } else { b'0' };
        }
        if !self.lies(Lie::LosePuts) {
            self.store.records().insert(key, value.to_vec());
        }
        Ok(())
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), TargetError> {
        if self.store.records().contains_key(key) {
            return Err(TargetError {
                message: "the key exists".into(),
                is_final: false,
            });
        }
        self.put(key, value)
    }

    fn update<F>(&self, key: &[u8], mut change: F) -> Result<(), TargetError>
    where
        F: FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static,
    {
        let loses = self.lies(Lie::LoseUpdates);
        let mut records = self.store.records();
        let changed = change(records.get(key).map(Vec::as_slice));
        match changed {
            _ if loses => {}
            Some(value) => {
                records.insert(key.to_vec(), value);
            }
            None => {
                records.remove(key);
            }
        }
        Ok(())
    }

    fn send_put(&self, key: &[u8], value: &[u8]) -> Result<Self::Pending, TargetError> {
        Ok(ready(self.put(key, value)))
    }

    fn send_update<F>(&self, key: &[u8], change: F) -> Result<Self::Pending, TargetError>
    where
        F: FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static,
    {
        Ok(ready(self.update(key, change)))
    }

    fn send_batch(&self, records: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self::Pending, TargetError> {
        Ok(ready(
            records.iter().try_for_each(|(key, value)| self.put(key, value)),
        ))
    }

    fn get<R>(&self, key: &[u8], look: impl FnOnce(Option<&[u8]>) -> R) -> Result<R, TargetError> {
        Ok(self.look(key, look))
    }

    fn get_many(
        &self,
        keys: &[&[u8]],
        mut look: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), TargetError> {
        for (place, key) in keys.iter().enumerate() {
            self.look(key, |value| look(place, value));
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], limit: u64, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), TargetError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let found: Vec<(Vec<u8>, Vec<u8>)> = self
            .store
            .records()
            .range(from.to_vec()..)
            .filter(|_| !self.lies(Lie::SkipInScans))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in &found {
            visit(key, value);
        }
        Ok(())
    }

    fn len(&self) -> Result<u64, TargetError> {
        Ok(self.store.records().len() as u64)
    }
}
