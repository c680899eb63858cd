//! Operations and completions: what goes into a device and what comes out.

use std::io;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::error::annotate;
use crate::file::File;

/// What to do with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Fill the buffer from the file.
    Read,
    /// Write the buffer to the file.
    Write {
        /// The completion comes only when these bytes are durable. It says nothing about other writes.
        durable: bool,
    },
    /// Make all writes durable that were completed before the submission. The offset means nothing.
    SyncData,
}

impl OperationKind {
    /// The verb in error texts.
    pub(crate) fn action(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write { .. } => "write",
            Self::SyncData => "sync",
        }
    }
}

/// One transfer or sync.
#[derive(Debug)]
pub struct Operation {
    /// Comes back in the completion; devices don't look at it.
    pub token: u64,
    /// The file; kept open until the completion.
    pub file: Arc<dyn File>,
    /// First byte in the file.
    pub offset: u64,
    /// What to do.
    pub kind: OperationKind,
    /// Where from or to. Its length is the transfer's length.
    pub buffer: Buffer,
}

impl Operation {
    /// A read of the whole buffer.
    #[must_use]
    pub fn read(token: u64, file: Arc<dyn File>, offset: u64, buffer: Buffer) -> Self {
        Self {
            token,
            file,
            offset,
            kind: OperationKind::Read,
            buffer,
        }
    }

    /// A write of the whole buffer, durable at its completion if so asked.
    #[must_use]
    pub fn write(token: u64, file: Arc<dyn File>, offset: u64, buffer: Buffer, durable: bool) -> Self {
        Self {
            token,
            file,
            offset,
            kind: OperationKind::Write { durable },
            buffer,
        }
    }

    /// A sync of all writes completed so far.
    #[must_use]
    pub fn sync_data(token: u64, file: Arc<dyn File>) -> Self {
        Self {
            token,
            file,
            offset: 0,
            kind: OperationKind::SyncData,
            buffer: Buffer::None,
        }
    }

    /// Executes in the calling thread and completes.
    #[must_use]
    pub fn complete_blocking(mut self) -> Completion {
        let result = execute_blocking(&mut self);
        self.complete(result)
    }

    /// Turns into its completion.
    pub(crate) fn complete(self, result: io::Result<()>) -> Completion {
        Completion {
            token: self.token,
            result,
            buffer: self.buffer,
        }
    }

    /// Adds file, action and offset to an error.
    pub(crate) fn annotate(&self, error: io::Error) -> io::Error {
        let offset = match self.kind {
            OperationKind::SyncData => None,
            OperationKind::Read | OperationKind::Write { .. } => Some(self.offset),
        };
        annotate(error, self.kind.action(), self.file.location(), offset)
    }
}

/// The end of an operation, with its buffer.
#[derive(Debug)]
pub struct Completion {
    /// The operation's token.
    pub token: u64,
    /// `Ok` only when all bytes were transferred; a read past the end of the file is `UnexpectedEof`.
    pub result: io::Result<()>,
    /// The operation's buffer.
    pub buffer: Buffer,
}

/// Executes one operation in the calling thread, through the file's own methods: for a thread that would
/// only wait for a device.
///
/// # Errors
///
/// As the methods of [`File`].
pub fn execute_blocking(operation: &mut Operation) -> io::Result<()> {
    let Operation {
        file,
        offset,
        kind,
        buffer,
        ..
    } = operation;
    match kind {
        // SAFETY: this is the execution of the read that the buffer belongs to.
        OperationKind::Read => file.read_at(unsafe { buffer.as_mut_slice() }, *offset),
        OperationKind::Write { durable } => {
            // SAFETY: this is the execution of the write that the buffer belongs to.
            let bytes = unsafe { buffer.as_slice() };
            if *durable {
                file.write_at_durable(bytes, *offset)
            } else {
                file.write_at(bytes, *offset)
            }
        }
        OperationKind::SyncData => file.sync_data(),
    }
}
