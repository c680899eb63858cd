//! The writes of a bulk load.

use std::collections::VecDeque;

use treering_io::AlignedBuffer;

use crate::client::db::Inner;
use crate::error::{Error, Result};
use crate::pager::{PagerMessage, Transfer, TransferKind, TransferReply};
use crate::runtime::Credit;

/// Most of them under way at a time.
const WRITES_MAX: usize = 4;

/// Writes under way, answered in the order in which they were sent.
pub(super) struct Writes<'i> {
    inner: &'i Inner,
    under_way: VecDeque<UnderWay>,
    /// The last buffer that came back.
    pub spare: Option<AlignedBuffer>,
}

struct UnderWay {
    answer: oneshot::Receiver<(std::io::Result<()>, Option<AlignedBuffer>)>,
    /// For its buffer.
    _credit: Option<Credit>,
}

impl<'i> Writes<'i> {
    pub fn new(inner: &'i Inner) -> Writes<'i> {
        Writes {
            inner,
            under_way: VecDeque::new(),
            spare: None,
        }
    }

    /// Writes a buffer to a byte of the data file, as soon as there is credit for it.
    pub fn write(&mut self, offset: u64, buffer: AlignedBuffer) -> Result<()> {
        if self.under_way.len() >= WRITES_MAX {
            self.wait_for_one()?;
        }
        let runtime = &self.inner.runtime;
        let credit = loop {
            // Who holds credit doesn't wait for more: several loads with a piece each would wait for each other.
            match runtime.credit_now(buffer.len()) {
                None if self.under_way.is_empty() => break runtime.credit(buffer.len()),
                None => self.wait_for_one()?,
                credit => break credit,
            }
        };
        self.send(TransferKind::Write, offset, Some(buffer), credit);
        Ok(())
    }

    /// Waits for all that is under way.
    pub fn finish(&mut self) -> Result<()> {
        while !self.under_way.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }

    /// Makes everything durable that was written to the file.
    pub fn sync(&mut self) -> Result<()> {
        self.finish()?;
        self.send(TransferKind::Sync, 0, None, None);
        self.finish()
    }

    fn send(
        &mut self,
        kind: TransferKind,
        offset: u64,
        buffer: Option<AlignedBuffer>,
        credit: Option<Credit>,
    ) {
        let (sender, answer) = oneshot::channel();
        self.inner.runtime.send_pager(PagerMessage::Transfer(Transfer {
            kind,
            offset,
            buffer,
            reply: TransferReply::Client(sender.into()),
        }));
        self.under_way.push_back(UnderWay {
            answer,
            _credit: credit,
        });
    }

    fn wait_for_one(&mut self) -> Result<()> {
        let Some(UnderWay { answer, .. }) = self.under_way.pop_front() else {
            return Ok(());
        };
        let answer = self.inner.runtime.wait(answer, None);
        let (result, buffer) = answer.ok_or(Error::Closed)?;
        result.map_err(|error| Error::io("writing the pages of a bulk load", error))?;
        self.spare = buffer.or(self.spare.take());
        Ok(())
    }
}

impl Drop for Writes<'_> {
    fn drop(&mut self) {
        // Pages must not be given back while writes to them are under way.
        while let Some(UnderWay { answer, .. }) = self.under_way.pop_front() {
            let _ = self.inner.runtime.wait(answer, None);
        }
    }
}
