//! The bare ring: setup with the flags that the kernel takes, and calls that sort its errors.

use std::io;
use std::time::Duration;

use io_uring::{IoUring, Submitter, cqueue, squeue, types};

/// How a call into the kernel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It returned as asked, or must be repeated after reading completions.
    Returned,
    /// The time passed without a completion.
    TimedOut,
}

/// A ring that belongs to the first thread that uses it.
pub(super) struct Ring {
    ring: IoUring,
    /// Whether the owner has used it. A ring with flags is created disabled.
    enabled: bool,
}

impl Ring {
    /// Creates a ring for at least `entries` entries at once, with the flags that make it fast where the kernel knows
    /// them.
    pub(super) fn open(entries: u32) -> io::Result<Self> {
        let fast = IoUring::builder()
            .setup_clamp()
            .setup_single_issuer()
            .setup_defer_taskrun()
            // Tells in shared memory that completion work waits, so that looking costs no call.
            .setup_taskrun_flag()
            .setup_r_disabled()
            .build(entries);
        match fast {
            Ok(ring) => Self { ring, enabled: false }.checked(),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Self::open_plain(entries),
            Err(error) => Err(error),
        }
    }

    /// The same without flags: slower, and not bound to a thread.
    pub(super) fn open_plain(entries: u32) -> io::Result<Self> {
        let ring = IoUring::builder().setup_clamp().build(entries)?;
        Self { ring, enabled: true }.checked()
    }

    fn checked(self) -> io::Result<Self> {
        let params = self.ring.params();
        if !params.is_feature_ext_arg() || !params.is_feature_nodrop() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel's io_uring is older than 5.11",
            ));
        }
        Ok(self)
    }

    /// Whether it works without a call that enables it.
    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// Whether only the thread that used it first may use it.
    #[cfg(test)]
    pub(super) fn is_bound(&self) -> bool {
        self.ring.params().is_setup_single_issuer()
    }

    fn enable(&mut self) -> io::Result<()> {
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        Ok(())
    }

    /// Queues an entry; the kernel sees it at the next call.
    ///
    /// # Safety
    ///
    /// What the entry points to stays valid, and unused by others as its operation needs, until its completion
    /// entry has been read.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise is the one that `push` asks for.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        // There is an entry for every slot, so this takes continued transfers beside new ones to happen.
        self.submit()?;
        // SAFETY: as above; the failed push has not taken the entry.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_full| io::Error::new(io::ErrorKind::WouldBlock, "the submission ring stays full"))
    }

    /// Hands queued entries to the kernel and runs its completion work, without waiting.
    pub(super) fn submit(&mut self) -> io::Result<Entered> {
        self.enable()?;
        let submission = self.ring.submission();
        if submission.is_empty() && !submission.taskrun() && !submission.cq_overflow() {
            return Ok(Entered::Returned);
        }
        drop(submission);
        sort(self.ring.submit())
    }

    /// Hands queued entries to the kernel and waits for a completion, at most for `limit`.
    pub(super) fn submit_and_wait(&mut self, limit: Option<Duration>) -> io::Result<Entered> {
        self.enable()?;
        match limit {
            None => sort(self.ring.submit_and_wait(1)),
            Some(limit) => {
                let limit = types::Timespec::from(limit);
                let arguments = types::SubmitArgs::new().timespec(&limit);
                sort(self.ring.submitter().submit_with_args(1, &arguments))
            }
        }
    }

    /// The next completion entry that the kernel has posted.
    pub(super) fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }
}

/// Sorts a call's outcome: what only asks to be repeated is no error.
fn sort(outcome: io::Result<usize>) -> io::Result<Entered> {
    let error = match outcome {
        Ok(_) => return Ok(Entered::Returned),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::ETIME) => Ok(Entered::TimedOut),
        // A signal, or completions that must be read before more is taken.
        Some(libc::EINTR | libc::EBUSY) => Ok(Entered::Returned),
        // The kernel is short of memory for now; let others run.
        Some(libc::EAGAIN) => {
            std::thread::yield_now();
            Ok(Entered::Returned)
        }
        _ => Err(error),
    }
}
