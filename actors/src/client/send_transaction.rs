//! Sending a transaction to the owner of its first part.

use std::sync::Arc;

use treering_engine::TreeId;

use super::db::Inner;
use crate::blob::blobs_in;
use crate::commit::logged_bytes;
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::runtime::Passage;
use crate::shard::{Action, Request, Transaction, changes};
use crate::ticket::{Held, Ticket, ticket};

impl Inner {
    /// Sends a transaction, whose parts were made under the passage. `wait`: the caller is going to wait for it at once. Its large values are given back if it
    /// can't be sent.
    ///
    /// # Errors
    /// [`Error::TransactionTooLarge`] before anything is sent, and whatever keeps earlier requests from being answered.
    pub(super) fn send_transaction(
        self: &Arc<Inner>,
        transaction: Transaction,
        passage: Option<Passage>,
        wait: bool,
    ) -> Result<Ticket<()>> {
        let transaction = Arc::new(transaction);
        let sent = self.try_send_transaction(&transaction, passage, wait);
        if sent.is_err() {
            let parts = transaction.parts.iter();
            let extents: Vec<_> = parts.flat_map(|part| blobs_in(&part.records)).collect();
            if !extents.is_empty() {
                self.runtime.send_flusher(FlusherMessage::Release { extents });
            }
        }
        sent
    }

    fn try_send_transaction(
        self: &Arc<Inner>,
        transaction: &Arc<Transaction>,
        passage: Option<Passage>,
        wait: bool,
    ) -> Result<Ticket<()>> {
        let limit = self.runtime.shared.settings.batch_record_bytes_max;
        let needed = logged_bytes(transaction);
        if needed > limit {
            return Err(Error::TransactionTooLarge {
                needed: needed as u64,
                limit: limit as u64,
                unit: "bytes of log",
            });
        }
        let first = transaction.first_owner();
        let mut others = transaction.owners();
        others.retain(|shard| *shard != first);
        self.fence(&others)?;
        let keys = (!wait && !others.is_empty()).then(|| {
            let parts = transaction.parts.iter();
            self.ahead.note(parts.flat_map(|part| changes(&part.records)))
        });
        let (reply, ticket) = ticket(&self.runtime, wait.then_some(first), |_| ());
        let request = Request {
            tree: TreeId(0),
            durability: transaction.durability,
            action: Action::Transaction(Arc::clone(transaction)),
            reply: reply.holding(Held { passage, keys }),
            credit: None,
        };
        match self.runtime.send(first, request, wait) {
            Ok(()) => {
                if !wait {
                    self.fences.transaction_pipelined(first);
                    // Until it has begun it is a request in that mailbox like any other. (Bad run: this thread's next
                    // transaction begins at another owner, comes here past the mailbox, and is applied first.)
                    self.fences.pipelined(first);
                }
                Ok(ticket)
            }
            Err(_) => Err(Error::WouldDeadlock),
        }
    }
}
