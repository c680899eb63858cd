//! What was sent and not waited for, and what its answer must be.

use treering::{Db, Ticket, Value, sim};

use super::Run;
use super::life::Hands;
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
pub(super) type Swapped = Result<(), Option<Value>>;

/// What a swap must say.
pub(super) struct Expected {
    pub place: Place,
    pub old: Option<Content>,
    pub succeeds: bool,
}

impl Run {
    /// Waits for all tickets.
    pub(super) fn settle_tickets(&mut self, hands: &mut Hands) -> Result<(), String> {
        while !hands.outstanding.is_empty() {
            self.settle_one(hands)?;
        }
        Ok(())
    }

    pub(super) fn settle_one(&mut self, hands: &mut Hands) -> Result<(), String> {
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

    pub(super) fn take_swapped(
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

    pub(super) fn refusal(&mut self, id: &WriteId) {
        self.model.acknowledge(id);
        self.outcome.operations += 1;
    }

    /// Whether it is known what the next write of the key will find: where requests may be refused, only once all
    /// are answered.
    pub(super) fn is_known(&self, place: &Place) -> bool {
        !self.has_faults() || self.model.is_settled(place)
    }
}
