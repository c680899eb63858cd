//! One operation of some client, and what its answer must be.

use std::collections::BTreeMap;

use treering::{Durability, Tree, sim};

use super::Run;
use super::life::{Hands, PASSING, Passing};
use crate::model::{Content, Place};

/// Most entries of a bulk load: many pages, which later writes change and free one by one.
const LOADED_MAX: u64 = 400;

impl Run {
    /// One operation.
    pub(super) fn operate(&mut self, hands: &mut Hands) -> Result<(), String> {
        let most = self.profile.outstanding_max as u64;
        while hands.outstanding.len() as u64 > self.random.below(most + 1) {
            self.settle_one(hands)?;
        }
        match self.random.below(100) {
            0..18 => self.send_put(hands),
            18..24 => self.transaction(hands),
            24..32 => self.send_delete(hands),
            32..40 => self.send_get(hands),
            40..46 => self.send_update(hands),
            46..54 => {
                let pairs = 1 + self.random.below(6);
                self.send_batch(hands, pairs)
            }
            54..62 => self.conditional(hands),
            62..66 => self.swap(hands),
            66..80 => self.read(hands),
            80..84 => self.read_many(hands),
            84..88 => self.scan(hands),
            88..90 => self.snapshot(hands),
            90..91 => self.look_at_held(hands),
            91..92 => self.transaction(hands),
            92..93 => self.burst(hands),
            93..95 => self.passing_tree(hands),
            95..96 => {
                if self.random.one_in(2) {
                    self.flush(hands)
                } else {
                    self.follow(hands)
                }
            }
            96..97 => self.named_snapshot(hands),
            97..98 if self.random.one_in(2) => self.compact(hands),
            97..98 => self.checkpoint(hands),
            98..99 => match self.random.below(5) {
                0..2 => self.time_travel(hands),
                2..4 => self.diff(hands),
                _ if self.random.one_in(2) => self.back_up(hands),
                _ => self.restore(hands),
            },
            _ => {
                for _ in 0..self.random.below(40) {
                    sim::step(&hands.db);
                }
                Ok(())
            }
        }
    }

    pub(super) fn place(&mut self, hands: &Hands) -> Place {
        let tree = self.random.below(hands.trees.len() as u64) as usize;
        let number = self.random.below(self.profile.keys);
        (tree, self.key(number))
    }

    /// The same key for a number every time, of a length of its own, many with a long common prefix.
    fn key(&self, number: u64) -> Vec<u8> {
        let filler = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (self.profile.key_bytes_max - 3);
        let mut key = vec![b'k'; filler as usize];
        key.extend_from_slice(&(number as u16).to_be_bytes());
        key.push(number as u8);
        key
    }

    pub(super) fn content(&mut self) -> Content {
        let id = self.model.tick();
        let bytes = if self.random.one_in(self.profile.blob_one_in) {
            1_100 + self.random.below(20_000)
        } else {
            self.random.below(self.profile.value_bytes_max)
        };
        Content {
            id,
            bytes: (bytes as u32).max(Content::BYTES_MIN),
        }
    }

    pub(super) fn durability(&mut self) -> (Durability, bool) {
        if self.random.below(10) < self.profile.sync_of_ten {
            (Durability::Sync, true)
        } else {
            (Durability::Buffered, false)
        }
    }

    pub(super) fn tree(&mut self, hands: &Hands, number: usize) -> (Tree, bool) {
        let (durability, sync) = self.durability();
        (hands.trees[number].with_durability(durability), sync)
    }

    /// Creates, loads, fills or drops the tree that comes and goes.
    fn passing_tree(&mut self, hands: &mut Hands) -> Result<(), String> {
        if self.passing.perhaps.is_some() {
            return Ok(());
        }
        let key = self.key(self.random.clone().below(20));
        let content = self.content();
        let (after, answer) = match &self.passing.now {
            None => (Some(BTreeMap::new()), hands.client.create_tree(PASSING).map(drop)),
            Some(now) if now.is_empty() && !self.random.one_in(3) => {
                let mut after = BTreeMap::new();
                for number in 0..1 + self.random.below(LOADED_MAX) {
                    after.insert(self.key(number), self.content());
                }
                let entries = after.iter().map(|(key, content)| (key, content.encode()));
                let load = hands
                    .client
                    .open_tree(PASSING)
                    .and_then(|tree| tree.bulk_load(entries))
                    .map(drop);
                (Some(after), load)
            }
            Some(_) if self.random.one_in(3) => (None, hands.client.drop_tree(PASSING)),
            Some(now) => {
                let mut after = now.clone();
                after.insert(key.clone(), content);
                let put = hands
                    .client
                    .open_tree(PASSING)
                    .and_then(|tree| tree.put(&key, content.encode()));
                (Some(after), put)
            }
        };
        match self.answered(&hands.db, answer, &[], "the passing tree")? {
            Some(()) => {
                self.passing = Passing {
                    now: after,
                    perhaps: None,
                }
            }
            None => self.passing.perhaps = Some(after),
        }
        Ok(())
    }

    fn flush(&mut self, hands: &mut Hands) -> Result<(), String> {
        let began = self.model.tick();
        if self
            .answered(&hands.db, hands.db.flush(), &[], "a flush")?
            .is_some()
        {
            self.model.flushed(began);
        }
        Ok(())
    }

    fn checkpoint(&mut self, hands: &mut Hands) -> Result<(), String> {
        self.answered(&hands.db, hands.db.checkpoint(), &[], "a checkpoint")
            .map(drop)
    }

    fn compact(&mut self, hands: &mut Hands) -> Result<(), String> {
        let done = hands.db.compact_at(u64::MAX);
        if let Ok(done) = &done {
            self.outcome.relocated += done.pages_moved;
        }
        self.answered(&hands.db, done, &[], "a compaction").map(drop)
    }
}
