//! Finding out whether a picture of many keys at once is a possible cut, and which one.

use std::collections::BTreeMap;

use super::{Content, History, Model, Place, Time};

/// What a cut must hold at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Everything that is published: the picture was taken by a reader who started now.
    Published,
    /// Everything that a crash can't take back.
    Durable,
    /// Nothing: a disk that lies may have lost anything.
    Nothing,
}

/// The numbers of writes that a key's picture allows, ascending, and the one that is tried.
#[derive(Debug)]
struct Allowed<'m> {
    place: &'m Place,
    history: &'m History,
    counts: Vec<usize>,
    tried: usize,
}

impl Allowed<'_> {
    fn count(&self) -> usize {
        self.counts[self.tried]
    }

    /// When the last write within was sent.
    fn last_sent(&self) -> Time {
        self.count()
            .checked_sub(1)
            .map_or(0, |last| self.history.writes[last].sent)
    }

    /// When the first write beyond was seen. A refused write may be missing whenever.
    fn first_missing_seen(&self) -> Time {
        let missing = self.history.writes[self.count()..]
            .iter()
            .filter(|write| !write.doubtful);
        missing.map(|write| write.seen).min().unwrap_or(Time::MAX)
    }
}

impl Model {
    /// Checks a picture of all keys: `found` holds those that are there. What it shows is published.
    ///
    /// # Errors
    /// Why the picture is not a possible cut.
    pub fn check_cut(&mut self, found: &BTreeMap<Place, Content>, need: Need) -> Result<(), String> {
        let counts = self.find_cut(found, need)?;
        let now = self.tick();
        for (place, count) in counts {
            if let Some(history) = self.keys.get_mut(&place) {
                history.writes[..count]
                    .iter_mut()
                    .for_each(|write| write.seen = write.seen.min(now));
            }
        }
        Ok(())
    }

    /// Checks what a crash has left, and goes on from there: nothing is outstanding any more, and all of it is durable.
    ///
    /// # Errors
    /// Why the recovered state is not a possible cut.
    pub fn recover(&mut self, found: &BTreeMap<Place, Content>, need: Need) -> Result<(), String> {
        self.find_cut(found, need)?;
        self.life += 1;
        self.keys.clear();
        for (place, content) in found {
            self.keys.insert(
                place.clone(),
                History {
                    before: Some(*content),
                    writes: Vec::new(),
                },
            );
        }
        Ok(())
    }

    fn find_cut(&self, found: &BTreeMap<Place, Content>, need: Need) -> Result<Vec<(Place, usize)>, String> {
        if let Some((place, content)) = found.iter().find(|(place, _)| !self.keys.contains_key(*place)) {
            return Err(format!("{place:?} holds {content:?}, and was never written"));
        }
        let mut keys = Vec::with_capacity(self.keys.len());
        for (place, history) in &self.keys {
            let least = self.least(history, need);
            let here = found.get(place).copied();
            let counts: Vec<usize> = (least..=history.writes.len())
                .filter(|count| history.can_hold(*count, here))
                .collect();
            if counts.is_empty() {
                return Err(format!(
                    "{place:?} holds {here:?}, but needs at least the first {least} of {history:?}; durable before {}",
                    self.durable_before
                ));
            }
            keys.push(Allowed {
                place,
                history,
                counts,
                tried: 0,
            });
        }
        if need == Need::Nothing {
            return Ok(keys.iter().map(|key| (key.place.clone(), key.count())).collect());
        }
        // The smallest cut that is closed under time; each round only adds writes.
        loop {
            let latest = keys.iter().map(Allowed::last_sent).max().unwrap_or(0);
            let Some(lacking) = keys.iter_mut().find(|key| key.first_missing_seen() < latest) else {
                break;
            };
            if lacking.tried + 1 == lacking.counts.len() {
                return Err(format!(
                    "{:?} lacks a write that was acknowledged at {}, but one sent at {latest} is there: {:?}",
                    lacking.place,
                    lacking.first_missing_seen(),
                    lacking.history
                ));
            }
            lacking.tried += 1;
        }
        whole_batches(&mut keys, self.refusals)?;
        Ok(keys.iter().map(|key| (key.place.clone(), key.count())).collect())
    }

    /// Fewest writes of a key that the cut must hold.
    fn least(&self, history: &History, need: Need) -> usize {
        let needed = |write: &super::Write| match need {
            Need::Nothing => false,
            Need::Published => write.seen < Time::MAX,
            Need::Durable => write.seen < Time::MAX && (write.sync || write.seen < self.durable_before),
        };
        let last = history
            .writes
            .iter()
            .rposition(|write| needed(write) && !write.doubtful);
        last.map_or(0, |last| last + 1)
    }
}

/// Every batch is there as a whole or not at all. Where a key allows several numbers, more is tried: first of the one that
/// lacks the batch; then, with `refusals`, of the one that seems to have it, since a later write may have left the same.
fn whole_batches(keys: &mut [Allowed<'_>], refusals: bool) -> Result<(), String> {
    loop {
        let mut there: BTreeMap<u64, (bool, usize)> = BTreeMap::new();
        let mut torn = None;
        for (index, key) in keys.iter().enumerate() {
            for (at, write) in key.history.writes.iter().enumerate() {
                let (Some(batch), false) = (write.batch, write.doubtful) else {
                    continue;
                };
                let within = at < key.count();
                // Hidden below a later write, and neither acknowledged nor read itself, it may have been refused.
                if refusals && within && at + 1 < key.count() && !write.known {
                    continue;
                }
                match there.get(&batch) {
                    None => {
                        there.insert(batch, (within, index));
                    }
                    Some((other, _)) if *other == within => {}
                    Some((_, other)) if within => torn = Some((batch, *other, index)),
                    Some((_, other)) => torn = Some((batch, index, *other)),
                }
            }
        }
        let Some((batch, lacking, having)) = torn else {
            return Ok(());
        };
        let more = |index: &usize| keys[*index].tried + 1 < keys[*index].counts.len();
        let mut choices = [Some(lacking), refusals.then_some(having)].into_iter().flatten();
        let Some(chosen) = choices.find(more) else {
            return Err(format!(
                "batch {batch} is there in part: {:?} lacks it, {:?} has it",
                keys[lacking], keys[having]
            ));
        };
        keys[chosen].tried += 1;
    }
}
