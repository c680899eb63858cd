//! What a database may answer: the writes that were sent, per key in order, and what is known about each.
//!
//! Writes of one key are carried out in the order in which they were sent (one thread sends them all, and rule R10
//! keeps the order), so what each of them finds and leaves is known when it is sent. What is not known is how
//! many of them a reader sees, or a crash leaves. A *cut* is one number of writes per key; it is possible when
//!
//! - it holds every write that is known to be published (for readers) or durable (for recovery);
//! - it is closed under time: if it lacks a write that was acknowledged, it holds none that was sent later;
//! - it holds all writes of a batch or none.
//!
//! Recovery leaves a possible cut, and so does every snapshot see one: see `cut`.

mod cut;
mod value;

pub use cut::Need;
pub use value::Content;

use std::collections::BTreeMap;

/// A tree of the workload, by number, and a key in it.
pub type Place = (usize, Vec<u8>);

/// Logical time: grows with every event.
pub type Time = u64;

/// A write that was sent.
#[derive(Clone, Debug)]
struct Write {
    /// What the key holds after it, if it was carried out.
    after: Option<Content>,
    sent: Time,
    /// When its effect was known to be published; `Time::MAX`: not yet.
    seen: Time,
    /// Whether its own effect was acknowledged or read. A write that a later one hides is seen with that one, but may
    /// have been refused without anybody having been told.
    known: bool,
    /// Whether a crash can't take it back any more once it was seen.
    sync: bool,
    /// Whether it may have been refused: then it may have had no effect.
    doubtful: bool,
    /// Which batch it is part of.
    batch: Option<u64>,
}

/// The writes of one key since the last recovery.
#[derive(Clone, Debug, Default)]
struct History {
    before: Option<Content>,
    writes: Vec<Write>,
}

impl History {
    /// What the key holds after `count` writes, if all of them were carried out.
    fn after(&self, count: usize) -> Option<Content> {
        match count.checked_sub(1) {
            Some(last) => self.writes[last].after,
            None => self.before,
        }
    }

    /// Whether the key can hold `found` after `count` writes.
    fn can_hold(&self, count: usize, found: Option<Content>) -> bool {
        if self.after(count) == found {
            return true;
        }
        // Doubtful writes may have had no effect.
        count > 0 && self.writes[count - 1].doubtful && self.can_hold(count - 1, found)
    }

    /// Fewest writes that a reader who starts now must see.
    fn seen(&self) -> usize {
        self.writes
            .iter()
            .rposition(|write| write.seen < Time::MAX && !write.doubtful)
            .map_or(0, |last| last + 1)
    }
}

/// Names one write, for later news about it.
#[derive(Clone, Debug)]
pub struct WriteId {
    place: Place,
    index: usize,
    life: u64,
}

/// Everything that is known about a database.
#[derive(Clone, Debug, Default)]
pub struct Model {
    keys: BTreeMap<Place, History>,
    clock: Time,
    /// Everything seen before this time is durable.
    durable_before: Time,
    batches: u64,
    life: u64,
    /// Whether requests may be refused.
    refusals: bool,
}

impl Model {
    /// A database without keys. `refusals`: requests may be refused, because the disk fails or is full.
    #[must_use]
    pub fn new(refusals: bool) -> Model {
        Model {
            refusals,
            ..Model::default()
        }
    }

    /// The next moment.
    pub fn tick(&mut self) -> Time {
        self.clock += 1;
        self.clock
    }

    /// What the key holds once everything that was sent is carried out.
    #[must_use]
    pub fn newest(&self, place: &Place) -> Option<Content> {
        self.keys
            .get(place)
            .and_then(|history| history.after(history.writes.len()))
    }

    /// Whether the last value of the key is in doubt, or an answer for it is outstanding.
    #[must_use]
    pub fn is_settled(&self, place: &Place) -> bool {
        self.keys.get(place).is_none_or(|history| {
            history.seen() == history.writes.len() && !history.writes.iter().any(|write| write.doubtful)
        })
    }

    /// A number for the next batch.
    pub fn next_batch(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    /// Notes a write that is being sent.
    pub fn send(&mut self, place: Place, after: Option<Content>, sync: bool, batch: Option<u64>) -> WriteId {
        let sent = self.tick();
        let history = self.keys.entry(place.clone()).or_default();
        history.writes.push(Write {
            after,
            sent,
            seen: Time::MAX,
            known: false,
            sync,
            doubtful: false,
            batch,
        });
        WriteId {
            place,
            index: history.writes.len() - 1,
            life: self.life,
        }
    }

    /// Notes that a write is published: it was acknowledged.
    pub fn acknowledge(&mut self, id: &WriteId) {
        let now = self.tick();
        if let Some(write) = self.write(id) {
            write.seen = write.seen.min(now);
            write.known = true;
        }
    }

    /// Notes that a write was refused with an error that leaves it open whether it was carried out.
    pub fn doubt(&mut self, id: &WriteId) {
        if let Some(write) = self.write(id) {
            write.doubtful = true;
        }
    }

    /// Notes that everything that was seen before `began` is durable.
    pub fn flushed(&mut self, began: Time) {
        self.durable_before = self.durable_before.max(began);
    }

    /// All keys that were ever written in a tree.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.keys.keys()
    }

    fn write(&mut self, id: &WriteId) -> Option<&mut Write> {
        if id.life != self.life {
            return None;
        }
        self.keys.get_mut(&id.place)?.writes.get_mut(id.index)
    }

    /// Checks what one reader found at one key, in a read that began now. What it saw is published.
    ///
    /// # Errors
    /// If no possible number of writes leaves that.
    pub fn check_read(&mut self, place: &Place, found: Option<Content>) -> Result<(), String> {
        let now = self.tick();
        let history = self.keys.entry(place.clone()).or_default();
        let seen = history.seen();
        let Some(count) = (seen..=history.writes.len()).find(|count| history.can_hold(*count, found)) else {
            return Err(format!(
                "{place:?} holds {found:?} after at least {seen} of {:?}",
                history.writes
            ));
        };
        for write in &mut history.writes[..count] {
            write.seen = write.seen.min(now);
        }
        // A later write may have left the same, and this one have been refused.
        let later = count + 1..=history.writes.len();
        let is_ambiguous = self.refusals && later.into_iter().any(|more| history.can_hold(more, found));
        if let Some(last) = count.checked_sub(1)
            && !is_ambiguous
        {
            history.writes[last].known |= history.writes[last].after == found;
        }
        Ok(())
    }
}
