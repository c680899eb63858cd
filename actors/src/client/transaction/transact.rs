//! Trying a transaction again after conflicts.
//!
//! A conflict is told when what caused it is published (rule R12), so the next attempt reads it; the first ones follow
//! at once. Those that still collide then wait, twice as long each time, and not all equally long: by how much each
//! differs follows from the transaction's number, so that simulated runs repeat.

use super::super::db::Client;
use super::{Isolation, Transaction};
use crate::error::{Error, Result};
use crate::shared::Counter;

/// Attempts before a conflict is reported.
const ATTEMPTS_MAX: u32 = 256;
/// Attempts that follow each other at once.
const ATTEMPTS_AT_ONCE: u32 = 4;
/// The first pause, and how often it is doubled at most: up to about 10 milliseconds.
const PAUSE_NANOS: u64 = 10_000;
const DOUBLINGS_MAX: u32 = 10;

impl Client {
    /// Runs `work` in a [serializable](Isolation::Serializable) transaction and commits it; after a conflict again, from
    /// a new snapshot. `work` may be called several times, and what it does besides is not taken back.
    ///
    /// ```
    /// # fn main() -> treering::Result<()> {
    /// # let db = treering::Options::new().open_in_memory()?;
    /// # let client = db.client();
    /// # let accounts = client.tree("accounts")?;
    /// # accounts.put(b"a", [5])?;
    /// let left = client.transact(|tx| {
    ///     let a = tx.get(&accounts, b"a")?.map_or(0, |value| value[0]);
    ///     let b = tx.get(&accounts, b"b")?.map_or(0, |value| value[0]);
    ///     tx.put(&accounts, b"a", [a - 1])?;
    ///     tx.put(&accounts, b"b", [b + 1])?;
    ///     Ok(a - 1)
    /// })?;
    /// assert_eq!(left, 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `work` returns, but for conflicts; [`Error::Conflict`] after 256 attempts; and as
    /// [`commit`](Transaction::commit).
    pub fn transact<R>(&self, work: impl FnMut(&mut Transaction) -> Result<R>) -> Result<R> {
        self.transact_with(Isolation::Serializable, work)
    }

    /// As [`transact`](Client::transact), with another isolation.
    ///
    /// # Errors
    /// As [`transact`](Client::transact).
    pub fn transact_with<R>(
        &self,
        isolation: Isolation,
        mut work: impl FnMut(&mut Transaction) -> Result<R>,
    ) -> Result<R> {
        let runtime = &self.inner().runtime;
        for attempt in 1..=ATTEMPTS_MAX {
            let mut transaction = self.begin(isolation)?;
            let result = work(&mut transaction).and_then(|result| transaction.commit().map(|()| result));
            match result {
                Err(Error::Conflict) if attempt < ATTEMPTS_MAX => {}
                result => return result,
            }
            runtime.shared.counters.add(Counter::Retries, 1);
            if let Some(further) = attempt.checked_sub(ATTEMPTS_AT_ONCE) {
                let longest = PAUSE_NANOS << further.min(DOUBLINGS_MAX);
                let spread = runtime
                    .shared
                    .next_transaction()
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                    >> 32;
                runtime.pause(longest / 2 + spread % (longest / 2));
            }
        }
        Err(Error::Conflict)
    }
}
