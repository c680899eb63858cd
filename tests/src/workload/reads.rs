//! Clients that read: keys, many keys, ranges, snapshots.

use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use treering::{Awaiting, Db, Error, sim};

use super::Run;
use super::answers::Outstanding;
use super::life::Hands;
use crate::model::Content;

impl Run {
    pub(super) fn send_get(&mut self, hands: &mut Hands) -> Result<(), String> {
        let place = self.place(hands);
        let expected = self.model.newest(&place);
        match hands.trees[place.0].send_get(&place.1) {
            Ok(ticket) => hands.outstanding.push(Outstanding::Get(ticket, place, expected)),
            Err(error) => drop(self.answered::<()>(&hands.db, Err(error), &[], "sending a get")?),
        }
        Ok(())
    }

    pub(super) fn read(&mut self, hands: &mut Hands) -> Result<(), String> {
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

    pub(super) fn read_many(&mut self, hands: &mut Hands) -> Result<(), String> {
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

    pub(super) fn scan(&mut self, hands: &mut Hands) -> Result<(), String> {
        match self.picture(hands, None)? {
            Some(found) => self.check_picture(&found),
            None => Ok(()),
        }
    }

    /// Takes a snapshot, or looks whether one still shows what it showed first.
    pub(super) fn snapshot(&mut self, hands: &mut Hands) -> Result<(), String> {
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
}
