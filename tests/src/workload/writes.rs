//! Clients that write: pipelined, conditional, in batches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use treering::{Error, sim};

use super::Run;
use super::answers::{Expected, Outstanding};
use super::life::Hands;
use crate::model::{Content, Place, WriteId};

impl Run {
    pub(super) fn send_put(&mut self, hands: &mut Hands) -> Result<(), String> {
        let place = self.place(hands);
        self.send_put_to(hands, place)
    }

    /// Many puts of few keys, none waited for: some of them meet every move on its way.
    pub(super) fn burst(&mut self, hands: &mut Hands) -> Result<(), String> {
        let places = [self.place(hands), self.place(hands)];
        for _ in 0..self.random.below(60) {
            let place = places[self.random.below(2) as usize].clone();
            self.send_put_to(hands, place)?;
            for _ in 0..self.random.below(6) {
                sim::step(&hands.db);
            }
        }
        Ok(())
    }

    fn send_put_to(&mut self, hands: &mut Hands, place: Place) -> Result<(), String> {
        let content = self.content();
        let (tree, sync) = self.tree(hands, place.0);
        let id = self.model.send(place.clone(), Some(content), sync, None);
        match tree.send_put(&place.1, content.encode()) {
            Ok(ticket) => hands.outstanding.push(Outstanding::Put(ticket, vec![id])),
            Err(error) => drop(self.answered::<()>(&hands.db, Err(error), &[id], "sending a put")?),
        }
        Ok(())
    }

    pub(super) fn send_delete(&mut self, hands: &mut Hands) -> Result<(), String> {
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

    /// An update at the owner: replaces what is there, and makes nothing of nothing every other time.
    pub(super) fn send_update(&mut self, hands: &mut Hands) -> Result<(), String> {
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
    pub(super) fn transaction(&mut self, hands: &mut Hands) -> Result<(), String> {
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
    pub(super) fn conditional(&mut self, hands: &mut Hands) -> Result<(), String> {
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

    /// `compare_and_swap`, waited for or not, or `update`, waited for. Both are decided at the owner, after what was sent
    /// before.
    pub(super) fn swap(&mut self, hands: &mut Hands) -> Result<(), String> {
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
}
