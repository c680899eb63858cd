//! How far a transfer has come: the one place that decides what a short transfer means.
//!
//! The system may transfer less than asked: at the end of the file, at a full disk or a size limit, when a signal
//! comes. A transfer is continued until it is whole or an error says why not. Direct I/O can only be
//! continued on a sector boundary, so the count is rounded down to one; the rest of that sector is transferred
//! twice, which changes nothing.

use std::io;

/// Smallest sector of direct I/O in bytes.
const SECTOR_BYTES: usize = 512;

/// The most times in a row that the system may ask to try again before that is an error.
const RETRIES_MAX: u32 = 10_000;

/// The most bytes that one call asks for; Linux transfers at most 2^31 - 4096.
const CALL_BYTES_MAX: usize = 1 << 30;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// File to memory.
    Read,
    /// Memory to file.
    Write,
}

/// What follows a call.
#[derive(Debug)]
pub(crate) enum Next {
    /// The transfer is whole.
    Finished,
    /// Ask for [`Transfer::remaining`] from [`Transfer::done`] on.
    Again,
    /// The transfer failed.
    Failed(io::Error),
}

/// Progress of one transfer of `len` bytes.
#[derive(Debug)]
pub(crate) struct Transfer {
    direction: Direction,
    len: usize,
    done: usize,
    retries: u32,
}

impl Transfer {
    /// Nothing is transferred yet.
    pub(crate) fn new(direction: Direction, len: usize) -> Self {
        Self {
            direction,
            len,
            done: 0,
            retries: 0,
        }
    }

    /// Bytes that need no further call.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// How many bytes the next call asks for.
    pub(crate) fn remaining(&self) -> usize {
        (self.len - self.done).min(CALL_BYTES_MAX)
    }

    /// Takes the outcome of a call for [`Transfer::remaining`] bytes. `bytes_to_end` tells how many bytes
    /// the file holds from the transfer's start on; it is asked only after a short read.
    pub(crate) fn advance(
        &mut self,
        outcome: io::Result<usize>,
        bytes_to_end: impl FnOnce() -> io::Result<u64>,
    ) -> Next {
        let count = match outcome {
            Ok(count) => count,
            Err(error) => return self.retry(error),
        };
        let reached = self.done + count;
        if reached >= self.len {
            self.done = self.len;
            return Next::Finished;
        }
        match self.direction {
            Direction::Write if count == 0 => return Next::Failed(io::ErrorKind::WriteZero.into()),
            Direction::Write => {}
            Direction::Read => match bytes_to_end() {
                Ok(bytes) if bytes > reached as u64 && count > 0 => {}
                Ok(_) => return Next::Failed(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Next::Failed(error),
            },
        }
        let rounded = reached - reached % SECTOR_BYTES;
        // Without progress by whole sectors the exact count is the only way on: a buffered file accepts it, and a
        // direct one answers with the error that stopped it.
        self.done = if rounded > self.done { rounded } else { reached };
        self.retries = 0;
        Next::Again
    }

    fn retry(&mut self, error: io::Error) -> Next {
        let may_retry = matches!(
            error.kind(),
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
        );
        if !may_retry || self.retries == RETRIES_MAX {
            return Next::Failed(error);
        }
        self.retries += 1;
        Next::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END_FAR: u64 = 1 << 40;

    fn transfer(direction: Direction) -> Transfer {
        Transfer::new(direction, 4096)
    }

    #[test]
    fn whole_at_once() {
        let mut transfer = transfer(Direction::Read);
        assert_eq!(transfer.remaining(), 4096);
        assert!(matches!(
            transfer.advance(Ok(4096), || Ok(END_FAR)),
            Next::Finished
        ));
    }

    #[test]
    fn short_transfer_goes_on_at_the_sector() {
        let mut transfer = transfer(Direction::Write);
        assert!(matches!(transfer.advance(Ok(1000), || Ok(0)), Next::Again));
        assert_eq!((transfer.done(), transfer.remaining()), (512, 3584));
        assert!(matches!(transfer.advance(Ok(3584), || Ok(0)), Next::Finished));
    }

    #[test]
    fn less_than_a_sector_goes_on_exactly() {
        let mut transfer = transfer(Direction::Write);
        assert!(matches!(transfer.advance(Ok(100), || Ok(0)), Next::Again));
        assert_eq!(transfer.done(), 100);
        assert!(matches!(transfer.advance(Ok(0), || Ok(0)), Next::Failed(_)));
    }

    #[test]
    fn end_of_file_is_an_error() {
        for (count, end) in [(0, 0), (0, END_FAR), (512, 512), (700, 700)] {
            let next = transfer(Direction::Read).advance(Ok(count), || Ok(end));
            match next {
                Next::Failed(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
                other => panic!("{count} of 4096 bytes, {end} to the end: {other:?}"),
            }
        }
    }

    #[test]
    fn interruptions_are_retried_but_not_for_ever() {
        let mut transfer = transfer(Direction::Read);
        for _ in 0..RETRIES_MAX {
            let next = transfer.advance(Err(io::ErrorKind::Interrupted.into()), || Ok(END_FAR));
            assert!(matches!(next, Next::Again));
        }
        let next = transfer.advance(Err(io::ErrorKind::Interrupted.into()), || Ok(END_FAR));
        assert!(matches!(next, Next::Failed(_)));
    }
}
