//! Treering.
//!
//! * Buffered and synced are its own `Durability::Buffered` and `Durability::Sync`; everything else
//!   is as it comes: 4 KiB pages, one shard worker less than there are cores.
//! * Sorted loads: `Tree::bulk_load`, which builds pages and writes them once. Random loads: buffered batches of 1,000, a
//!   few in flight, and a flush at the end. Pipelined writes: every write has its own ticket, [`TICKETS_IN_FLIGHT`] of them open at a time.
//! * Reads copy the value out (`get_with`); scans look at the entries in place (`scan`), as LMDB's do.
//! * It reads and writes with `O_DIRECT` always.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;

use ::treering::{Client, Db, Durability, Options, Ticket, Tree};

use super::{Held, Pages, Profile, Promise, SEND_BATCH_WRITES, Seen, Session, Store, copy_out, refill};
use crate::Result;
use crate::workload::{Key, Record, Value};

/// Writes sent and not yet waited for.
const TICKETS_IN_FLIGHT: usize = 1_024;
/// Batches of a load sent and not yet waited for.
const BATCHES_IN_FLIGHT: usize = 8;
/// Length of log that no bench reaches.
const LOG_BYTES_UNBOUNDED: u64 = 8 << 30;

pub(super) struct Treering {
    database: Db,
    records: Tree,
}

impl Treering {
    pub(super) fn open(directory: &Path, profile: &Profile) -> Result<Self> {
        let mut options = Options::new()
            .cache_bytes(profile.cache_bytes)
            .durability(match profile.promise {
                Promise::Synced => Durability::Sync,
                Promise::Buffered => Durability::Buffered,
            });
        if profile.keep_log {
            options = options.checkpoint_log_bytes(LOG_BYTES_UNBOUNDED);
        }
        let database = options.open(directory)?;
        let records = database.client().tree("records")?;
        Ok(Self { database, records })
    }

    fn load(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        let tree = self.records.with_durability(Durability::Buffered);
        let mut in_flight = InFlight::new(BATCHES_IN_FLIGHT);
        let mut batch = Vec::with_capacity(SEND_BATCH_WRITES);
        while refill(&mut batch, records, SEND_BATCH_WRITES) {
            let pairs = batch.iter().map(|record| (&record.key, &record.value));
            in_flight.push(tree.send_batch(pairs)?)?;
        }
        in_flight.finish()?;
        Ok(self.database.flush()?)
    }
}

impl Store for Treering {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(TreeringSession {
            client: self.database.client(),
            records: self.records.clone(),
        }))
    }

    fn load_sorted(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        self.records
            .bulk_load(records.map(|record| (record.key, record.value)))?;
        Ok(())
    }

    fn load_random(&self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        self.load(records)
    }

    fn settle(&self) -> Result<()> {
        self.database.flush()?;
        Ok(self.database.checkpoint()?)
    }

    fn sync_log(&self) -> Result<()> {
        Ok(self.database.flush()?)
    }

    fn log_bytes(&self) -> Result<Option<u64>> {
        Ok(Some(self.database.stats().log_length_bytes))
    }

    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        Ok(Box::new(self.database.client().snapshot()))
    }

    fn pages(&self) -> Option<Pages> {
        let stats = self.database.stats();
        Some(Pages {
            present: stats.live_pages,
            earlier: stats.retained_pages,
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Self { database, records } = *self;
        drop(records);
        Ok(database.close()?)
    }
}

/// Tickets in the order they were given out, up to a limit.
struct InFlight<T> {
    tickets: VecDeque<Ticket<T>>,
    limit: usize,
}

impl<T> InFlight<T> {
    fn new(limit: usize) -> Self {
        Self {
            tickets: VecDeque::with_capacity(limit),
            limit,
        }
    }

    /// Takes a ticket in, and waits for the oldest when there are too many.
    fn push(&mut self, ticket: Ticket<T>) -> Result<()> {
        if self.tickets.len() == self.limit
            && let Some(oldest) = self.tickets.pop_front()
        {
            oldest.wait()?;
        }
        self.tickets.push_back(ticket);
        Ok(())
    }

    fn finish(self) -> Result<()> {
        for ticket in self.tickets {
            ticket.wait()?;
        }
        Ok(())
    }
}

struct TreeringSession {
    client: Client,
    records: Tree,
}

impl Session for TreeringSession {
    fn get(&mut self, key: &Key, value: &mut Value) -> Result<bool> {
        self.records.get_with(key, |found| match found {
            Some(found) => copy_out(found, value).map(|()| true),
            None => Ok(false),
        })?
    }

    fn get_many(&mut self, keys: &[Key], values: &mut [Value]) -> Result<u64> {
        let mut count = 0;
        for (found, value) in self.records.get_many(keys)?.into_iter().zip(values) {
            if let Some(found) = found {
                copy_out(&found, value)?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn scan(&mut self, from: &Key, limit: u64) -> Result<Seen> {
        let mut seen = Seen::default();
        self.records.scan::<&Key>(from.., |key, value| {
            seen.note(key, value);
            if seen.entries == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(seen)
    }

    fn put(&mut self, record: &Record) -> Result<()> {
        Ok(self.records.put(record.key, record.value)?)
    }

    fn put_batch(&mut self, records: &[Record]) -> Result<()> {
        let mut batch = self.client.batch();
        for record in records {
            batch.put(&self.records, record.key, record.value);
        }
        Ok(batch.commit()?)
    }

    fn delete_batch(&mut self, keys: &[Key]) -> Result<()> {
        let mut batch = self.client.batch();
        for key in keys {
            batch.delete(&self.records, key);
        }
        Ok(batch.commit()?)
    }

    fn read_modify_write(&mut self, record: &Record) -> Result<()> {
        let value = record.value;
        Ok(self.records.update(record.key, move |old| {
            std::hint::black_box(old);
            Some(value.to_vec())
        })?)
    }

    fn put_all(&mut self, records: &mut dyn Iterator<Item = Record>) -> Result<()> {
        let mut in_flight = InFlight::new(TICKETS_IN_FLIGHT);
        for record in records {
            in_flight.push(self.records.send_put(record.key, record.value)?)?;
        }
        in_flight.finish()
    }

    fn delete_all(&mut self, keys: &mut dyn Iterator<Item = Key>) -> Result<()> {
        let mut in_flight = InFlight::new(TICKETS_IN_FLIGHT);
        for key in keys {
            in_flight.push(self.records.send_delete(key)?)?;
        }
        in_flight.finish()
    }
}
