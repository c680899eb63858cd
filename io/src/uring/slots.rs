//! The operations that a ring holds, by slot number.

use std::io;

use crate::operation::{Operation, OperationKind};
use crate::os::file::is_flag_refusal;
use crate::transfer::{Direction, Next, Transfer};

/// What the kernel is doing for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A plain read or write.
    Transfer,
    /// A write with `RWF_DSYNC`.
    DurableTransfer,
    /// A plain write that a sync must follow, because the kernel refused `RWF_DSYNC`.
    TransferThenSync,
    /// A sync.
    Sync,
}

/// An operation that the ring holds.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) operation: Operation,
    pub(super) transfer: Transfer,
    pub(super) stage: Stage,
}

impl InFlight {
    pub(super) fn new(operation: Operation) -> Self {
        let (direction, stage) = match operation.kind {
            OperationKind::Read => (Direction::Read, Stage::Transfer),
            OperationKind::Write { durable: false } => (Direction::Write, Stage::Transfer),
            OperationKind::Write { durable: true } => (Direction::Write, Stage::DurableTransfer),
            OperationKind::SyncData => (Direction::Write, Stage::Sync),
        };
        let transfer = Transfer::new(direction, operation.buffer.len());
        Self {
            operation,
            transfer,
            stage,
        }
    }

    /// Takes the kernel's answer to the current step; [`Next::Again`] asks to queue another one.
    pub(super) fn advance(&mut self, outcome: io::Result<usize>) -> Next {
        match (self.stage, outcome) {
            (Stage::DurableTransfer, Err(error)) if is_flag_refusal(&error) => {
                self.stage = Stage::TransferThenSync;
                Next::Again
            }
            (Stage::Sync, Ok(_)) => Next::Finished,
            (Stage::Sync, Err(error)) if error.kind() == io::ErrorKind::Interrupted => Next::Again,
            (Stage::Sync, Err(error)) => Next::Failed(error),
            (stage, outcome) => {
                let Operation { file, offset, .. } = &self.operation;
                let next = self
                    .transfer
                    .advance(outcome, || Ok(file.len()?.saturating_sub(*offset)));
                if stage == Stage::TransferThenSync && matches!(next, Next::Finished) {
                    self.stage = Stage::Sync;
                    return Next::Again;
                }
                next
            }
        }
    }
}

/// A fixed number of slots.
#[derive(Debug)]
pub(super) struct Slots {
    entries: Vec<Option<InFlight>>,
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: (0..capacity).map(|_| None).collect(),
            free: (0..capacity as u32).rev().collect(),
        }
    }

    /// Number of slots in use.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Takes a free slot; the caller has checked that one is free.
    pub(super) fn insert(&mut self, in_flight: InFlight) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            // Unreachable while the device checks its capacity; one slot more is better than a lost operation.
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        self.entries[slot as usize] = Some(in_flight);
        slot
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut InFlight> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    /// Frees a slot and returns what it held.
    pub(super) fn release(&mut self, slot: u32) -> Option<InFlight> {
        let in_flight = self.entries.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(in_flight)
    }

    /// Forgets everything without freeing it.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.entries));
        self.free.clear();
    }
}
