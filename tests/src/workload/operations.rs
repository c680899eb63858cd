//! One operation of some client, and what its answer must be.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use treering::{Awaiting, Db, Durability, Error, Ticket, Tree, Value, sim};

use super::Run;
use super::life::{Hands, PASSING, Passing};
use crate::model::{Content, Place, WriteId};

/// A request that was sent and not waited for.
pub(super) enum Outstanding {
    Put(Ticket<()>, Vec<WriteId>),
    Transaction(Ticket<()>, Vec<WriteId>),
    Delete(Ticket<bool>, WriteId, bool),
    Get(Ticket<Option<Value>>, Place, Option<Content>),
    Update(Ticket<()>, WriteId),
    Swap(Ticket<Swapped>, WriteId, Expected),
}

/// What `compare_and_swap` says.
type Swapped = Result<(), Option<Value>>;

/// What a swap must say.
pub(super) struct Expected {
    place: Place,
    old: Option<Content>,
    succeeds: bool,
}

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
            88..91 => self.snapshot(hands),
            91..93 => self.transaction(hands),
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

    fn place(&mut self, hands: &Hands) -> Place {
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

    fn content(&mut self) -> Content {
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

    fn durability(&mut self) -> (Durability, bool) {
        if self.random.below(10) < self.profile.sync_of_ten {
            (Durability::Sync, true)
        } else {
            (Durability::Buffered, false)
        }
    }

    fn tree(&mut self, hands: &Hands, number: usize) -> (Tree, bool) {
        let (durability, sync) = self.durability();
        (hands.trees[number].with_durability(durability), sync)
    }

    // ---- answers ----

    /// Waits for all tickets.
    pub(super) fn settle_tickets(&mut self, hands: &mut Hands) -> Result<(), String> {
        while !hands.outstanding.is_empty() {
            self.settle_one(hands)?;
        }
        Ok(())
    }

    fn settle_one(&mut self, hands: &mut Hands) -> Result<(), String> {
        let chosen = self.random.below(hands.outstanding.len() as u64) as usize;
        let ticket = hands.outstanding.remove(chosen);
        self.take_answer(ticket, &hands.db)
    }

    /// Waits for one answer and compares it.
    pub(super) fn take_answer(&mut self, ticket: Outstanding, db: &Db) -> Result<(), String> {
        match ticket {
            Outstanding::Put(ticket, ids) => {
                let answer = ticket.wait();
                self.answered(db, answer, &ids, "a put")?;
            }
            Outstanding::Transaction(ticket, ids) => {
                let answer = ticket.wait();
                self.answered(db, answer, &ids, "a batch over trees")?;
            }
            Outstanding::Delete(ticket, id, expected) => {
                let answer = ticket.wait();
                // Where requests may be refused, what an earlier one left is known only later.
                let doubtful = self.has_faults();
                if let Some(present) = self.answered(db, answer, &[id], "a delete")?
                    && present != expected
                    && !doubtful
                {
                    return Err(format!("a delete says {present}"));
                }
            }
            Outstanding::Get(ticket, place, expected) => {
                let answer = ticket.wait();
                if let Some(found) = self.answered(db, answer, &[], "a get at the owner")? {
                    let found = found.map(|value| Content::decode(&value)).transpose()?;
                    if found != expected && !self.has_faults() {
                        return Err(format!(
                            "a get at the owner of {place:?} finds {found:?}, not {expected:?}"
                        ));
                    }
                }
            }
            Outstanding::Update(ticket, id) => {
                let answer = ticket.wait();
                self.answered(db, answer, &[id], "an update")?;
            }
            Outstanding::Swap(ticket, id, expected) => {
                let answer = ticket.wait();
                self.take_swapped(db, answer, id, &expected)?;
            }
        }
        Ok(())
    }

    /// Notes an answer; `None`: it was refused for a good reason.
    pub(super) fn answered<T>(
        &mut self,
        db: &Db,
        answer: treering::Result<T>,
        ids: &[WriteId],
        what: &str,
    ) -> Result<Option<T>, String> {
        match answer {
            Ok(answer) => {
                ids.iter().for_each(|id| self.model.acknowledge(id));
                self.outcome.operations += 1;
                Ok(Some(answer))
            }
            Err(error) => {
                ids.iter().for_each(|id| self.model.doubt(id));
                if sim::is_cut(db) {
                    return Ok(None);
                }
                if self.has_faults() {
                    self.outcome.refused += 1;
                    return Ok(None);
                }
                Err(format!("{what}: {error}"))
            }
        }
    }

    // ---- writes ----

    fn send_put(&mut self, hands: &mut Hands) -> Result<(), String> {
        let place = self.place(hands);
        let content = self.content();
        let (tree, sync) = self.tree(hands, place.0);
        let id = self.model.send(place.clone(), Some(content), sync, None);
        match tree.send_put(&place.1, content.encode()) {
            Ok(ticket) => hands.outstanding.push(Outstanding::Put(ticket, vec![id])),
            Err(error) => drop(self.answered::<()>(&hands.db, Err(error), &[id], "sending a put")?),
        }
        Ok(())
    }

    fn send_delete(&mut self, hands: &mut Hands) -> Result<(), String> {
        let place = self.place(hands);
        let present = self.model.newest(&place).is_some();
        let (tree, sync) = self.tree(hands, place.0);
        let id = self.model.send(place.clone(), None, sync, None);
        match tree.send_delete(&place.1) {
            Ok(ticket) => hands.outstanding.push(Outstanding::Delete(ticket, id, present)),
            Err(error) => drop(self.answered::<()>(&hands.db, Err(error), &[id], "sending a delete")?),
        }
        Ok(())
    }

    fn send_get(&mut self, hands: &mut Hands) -> Result<(), String> {
        let place = self.place(hands);
        let expected = self.model.newest(&place);
        match hands.trees[place.0].send_get(&place.1) {
            Ok(ticket) => hands.outstanding.push(Outstanding::Get(ticket, place, expected)),
            Err(error) => drop(self.answered::<()>(&hands.db, Err(error), &[], "sending a get")?),
        }
        Ok(())
    }

    /// An update at the owner: replaces what is there, and makes nothing of nothing every other time.
    fn send_update(&mut self, hands: &mut Hands) -> Result<(), String> {
        let place = self.place(hands);
        if !self.is_known(&place) {
            return Ok(());
        }
        let content = self.content();
        let new = (!self.random.one_in(4)).then_some(content);
        let (tree, sync) = self.tree(hands, place.0);
        let id = self.model.send(place.clone(), new, sync, None);
        let written = new.map(Content::encode);
        match tree.send_update(&place.1, move |_| written.clone()) {
            Ok(ticket) => hands.outstanding.push(Outstanding::Update(ticket, id)),
            Err(error) => drop(self.answered::<()>(&hands.db, Err(error), &[id], "sending an update")?),
        }
        Ok(())
    }

    pub(super) fn send_batch(&mut self, hands: &mut Hands, pairs: u64) -> Result<(), String> {
        let number = self.random.below(hands.trees.len() as u64) as usize;
        let (tree, sync) = self.tree(hands, number);
        let batch = self.model.next_batch();
        let mut chosen = BTreeMap::new();
        for _ in 0..pairs {
            let place = self.place(hands);
            chosen.insert(place.1, self.content());
        }
        let ids: Vec<WriteId> = chosen
            .iter()
            .map(|(key, content)| {
                self.model
                    .send((number, key.clone()), Some(*content), sync, Some(batch))
            })
            .collect();
        match tree.send_batch(chosen.iter().map(|(key, content)| (key, content.encode()))) {
            Ok(ticket) => hands.outstanding.push(Outstanding::Put(ticket, ids)),
            Err(error) => drop(self.answered::<()>(&hands.db, Err(error), &ids, "sending a batch")?),
        }
        Ok(())
    }

    /// A batch over several trees.
    fn transaction(&mut self, hands: &mut Hands) -> Result<(), String> {
        let (durability, sync) = self.durability();
        let mut chosen = BTreeMap::new();
        for _ in 0..1 + self.random.below(6) {
            let content = self.content();
            chosen.insert(self.place(hands), (!self.random.one_in(4)).then_some(content));
        }
        let number = self.model.next_batch();
        let mut batch = hands.client.batch().durability(durability);
        for (place, content) in &chosen {
            match content {
                Some(content) => batch.put(&hands.trees[place.0], &place.1, content.encode()),
                None => batch.delete(&hands.trees[place.0], &place.1),
            };
        }
        let ids: Vec<WriteId> = chosen
            .into_iter()
            .map(|(place, content)| self.model.send(place, content, sync, Some(number)))
            .collect();
        match batch.send() {
            Ok(ticket) => {
                hands.outstanding.push(Outstanding::Transaction(ticket, ids));
                Ok(())
            }
            Err(error) => self
                .answered::<()>(&hands.db, Err(error), &ids, "a batch over trees")
                .map(drop),
        }
    }

    /// `insert` or `replace`, waited for.
    fn conditional(&mut self, hands: &mut Hands) -> Result<(), String> {
        let place = self.place(hands);
        let old = self.model.newest(&place);
        let content = self.content();
        let (tree, sync) = self.tree(hands, place.0);
        if !self.is_known(&place) {
            return Ok(());
        }
        let insert = self.random.one_in(2);
        let succeeds = insert == old.is_none();
        let after = if succeeds { Some(content) } else { old };
        let id = self.model.send(place.clone(), after, sync, None);
        let value = content.encode();
        let answer = if insert {
            tree.insert(&place.1, value)
        } else {
            tree.replace(&place.1, value)
        };
        match answer {
            // A refusal is published as what it saw is (rule R12).
            Err(Error::KeyExists) if insert && !succeeds => self.refusal(&id),
            Err(Error::KeyNotFound) if !insert && !succeeds => self.refusal(&id),
            Ok(()) if !succeeds => return Err(format!("{place:?}: the condition didn't hold")),
            answer => drop(self.answered(&hands.db, answer, &[id], "a conditional put")?),
        }
        Ok(())
    }

    fn refusal(&mut self, id: &WriteId) {
        self.model.acknowledge(id);
        self.outcome.operations += 1;
    }

    /// Whether it is known what the next write of the key will find: where requests may be refused, only once all
    /// are answered.
    fn is_known(&self, place: &Place) -> bool {
        !self.has_faults() || self.model.is_settled(place)
    }

    /// `compare_and_swap`, waited for or not, or `update`, waited for. Both are decided at the owner, after what was sent
    /// before.
    fn swap(&mut self, hands: &mut Hands) -> Result<(), String> {
        let place = self.place(hands);
        if !self.is_known(&place) {
            return Ok(());
        }
        let old = self.model.newest(&place);
        let content = self.content();
        let new = (!self.random.one_in(4)).then_some(content);
        let (tree, sync) = self.tree(hands, place.0);
        if self.random.one_in(2) {
            let id = self.model.send(place.clone(), new, sync, None);
            let saw = Arc::new(Mutex::new(None));
            let noted = Arc::clone(&saw);
            let written = new.map(Content::encode);
            let answer = tree.update(&place.1, move |old| {
                *noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    Some(old.map(<[u8]>::to_vec));
                written.clone()
            });
            if self.answered(&hands.db, answer, &[id], "an update")?.is_some() {
                let saw = saw
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .take();
                if saw != Some(old.map(Content::encode)) {
                    return Err(format!("an update of {place:?} saw something else than {old:?}"));
                }
            }
            return Ok(());
        }
        let right = !self.random.one_in(3);
        let other = self.content();
        let expected = if right { old } else { Some(other) };
        let id = self
            .model
            .send(place.clone(), if right { new } else { old }, sync, None);
        let (given, new) = (expected.map(Content::encode), new.map(Content::encode));
        let expected = Expected {
            place,
            old,
            succeeds: right,
        };
        let key = &expected.place.1;
        if self.random.one_in(2) {
            match tree.send_compare_and_swap(key, given.as_deref(), new.as_deref()) {
                Ok(ticket) => hands.outstanding.push(Outstanding::Swap(ticket, id, expected)),
                Err(error) => drop(self.answered::<()>(&hands.db, Err(error), &[id], "sending a swap")?),
            }
            return Ok(());
        }
        let answer = tree.compare_and_swap(key, given.as_deref(), new.as_deref());
        self.take_swapped(&hands.db, answer, id, &expected)
    }

    fn take_swapped(
        &mut self,
        db: &Db,
        answer: treering::Result<Swapped>,
        id: WriteId,
        expected: &Expected,
    ) -> Result<(), String> {
        let Expected { place, old, succeeds } = expected;
        match self.answered(db, answer, &[id], "a swap")? {
            Some(Ok(())) if !succeeds => Err(format!("a swap of {place:?} took the wrong value")),
            Some(Err(found)) if *succeeds || found.as_deref() != old.map(Content::encode).as_deref() => {
                Err(format!("a swap of {place:?} found {found:?} instead of {old:?}"))
            }
            _ => Ok(()),
        }
    }

    // ---- reads ----

    fn read(&mut self, hands: &mut Hands) -> Result<(), String> {
        let place = self.place(hands);
        let tree = &hands.trees[place.0];
        let answer = match self.random.below(4) {
            3 => self
                .drive(&hands.db, tree.get_async(&place.1))
                .map(|value| value.map(|value| Content::decode(&value))),
            0 => tree
                .get(&place.1)
                .map(|value| value.map(|value| Content::decode(&value))),
            1 => tree.get_with(&place.1, |value| value.map(Content::decode)),
            _ => {
                let bounds = (Bound::Included(&place.1), Bound::Included(&place.1));
                tree.range::<&Vec<u8>>(bounds).and_then(|mut range| {
                    let item = if self.random.one_in(2) {
                        range.next()
                    } else {
                        range.next_back()
                    };
                    Ok(item.transpose()?.map(|(_, value)| Content::decode(&value)))
                })
            }
        };
        match answer {
            Ok(found) => {
                self.outcome.operations += 1;
                let found = found.transpose()?;
                self.model.check_read(&place, found)
            }
            Err(error) => self.excuse(hands, &error, "a read"),
        }
    }

    /// Polls a future, and lets things happen in between.
    fn drive<T>(&self, db: &Db, mut future: Awaiting<T>) -> treering::Result<T> {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut future).poll(&mut context) {
                return answer;
            }
            if !sim::step(db) && sim::is_cut(db) {
                return Err(Error::Closed);
            }
        }
    }

    fn read_many(&mut self, hands: &mut Hands) -> Result<(), String> {
        let (number, _) = self.place(hands);
        let keys: Vec<Vec<u8>> = (0..1 + self.random.below(20))
            .map(|_| self.place(hands).1)
            .collect();
        let answer = if self.random.one_in(2) {
            hands.trees[number].get_many(&keys)
        } else {
            self.drive(&hands.db, hands.trees[number].get_many_async(&keys))
        };
        match answer {
            Ok(values) => {
                self.outcome.operations += 1;
                for (key, value) in keys.into_iter().zip(values) {
                    let found = value.map(|value| Content::decode(&value)).transpose()?;
                    self.model.check_read(&(number, key), found)?;
                }
                Ok(())
            }
            Err(error) => self.excuse(hands, &error, "many reads"),
        }
    }

    fn scan(&mut self, hands: &mut Hands) -> Result<(), String> {
        match self.picture(hands, None)? {
            Some(found) => self.check_picture(&found),
            None => Ok(()),
        }
    }

    /// Takes a snapshot, or looks whether one still shows what it showed first.
    fn snapshot(&mut self, hands: &mut Hands) -> Result<(), String> {
        if hands.snapshots.len() < 3 && self.random.one_in(2) {
            let snapshot = hands.client.snapshot();
            if let Some(found) = self.picture(hands, Some(&snapshot))? {
                self.check_picture(&found)?;
                hands.snapshots.push((snapshot, found));
            }
        } else if !hands.snapshots.is_empty() {
            let chosen = self.random.below(hands.snapshots.len() as u64) as usize;
            let (snapshot, first) = hands.snapshots.swap_remove(chosen);
            if let Some(found) = self.picture(hands, Some(&snapshot))? {
                if found != first {
                    return Err("a snapshot has changed".into());
                }
                if self.random.one_in(2) {
                    hands.snapshots.push((snapshot, first));
                }
            }
        }
        Ok(())
    }

    // ---- the rest ----

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
