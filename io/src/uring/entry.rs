//! Submission entries.

use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};

use super::regions::Regions;
use super::slots::{InFlight, Stage};
use crate::operation::OperationKind;

/// The entry for the next step of an operation. `fixed` is the file's index in the ring's table, if it has one.
pub(super) fn build(
    in_flight: &mut InFlight,
    descriptor: RawFd,
    fixed: Option<u32>,
    regions: &Regions,
) -> squeue::Entry {
    // The crate seals its trait for "either kind of descriptor", so the flag is set by hand.
    let (target, flags) = match fixed {
        Some(index) => (types::Fd(index as RawFd), squeue::Flags::FIXED_FILE),
        None => (types::Fd(descriptor), squeue::Flags::empty()),
    };
    let stage = in_flight.stage;
    let operation = &mut in_flight.operation;
    let done = in_flight.transfer.done();
    let len = in_flight.transfer.remaining() as u32;
    let offset = operation.offset + done as u64;
    // `done` never exceeds the buffer's length, so this stays inside the buffer or at its end.
    let start = operation.buffer.start().wrapping_add(done);
    let region = regions.index_of(start, len as usize);
    let entry = match (stage, operation.kind) {
        (Stage::Sync, _) | (_, OperationKind::SyncData) => opcode::Fsync::new(target)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        (_, OperationKind::Read) => match region {
            Some(index) => opcode::ReadFixed::new(target, start, len, index)
                .offset(offset)
                .build(),
            None => opcode::Read::new(target, start, len).offset(offset).build(),
        },
        (_, OperationKind::Write { .. }) => {
            let how = if stage == Stage::DurableTransfer {
                libc::RWF_DSYNC
            } else {
                0
            };
            match region {
                Some(index) => opcode::WriteFixed::new(target, start, len, index)
                    .offset(offset)
                    .rw_flags(how)
                    .build(),
                None => opcode::Write::new(target, start, len)
                    .offset(offset)
                    .rw_flags(how)
                    .build(),
            }
        }
    };
    entry.flags(flags)
}
