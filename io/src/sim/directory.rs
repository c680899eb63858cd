//! The simulated directory, and the controls of its disk.

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::counters::SimCounters;
use super::disk::{Disk, Handle};
use super::faults::{FaultKind, FaultRates};
use super::file::{SharedDisk, SimFile, locked};
use crate::directory::{Directory, OpenMode, check_name};
use crate::error::annotate;
use crate::file::File;
use crate::lock::{DirectoryLock, LockError};

/// What a simulated disk is like.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Where all random choices come from.
    pub seed: u64,
    /// The sum of all file lengths beyond which writes and growth fail with `StorageFull`.
    pub capacity_bytes: Option<u64>,
    /// How long an operation of a device takes, in virtual nanoseconds; a few take ten times as long.
    pub delay_nanos: RangeInclusive<u64>,
}

impl SimOptions {
    /// Unlimited space; operations take 20 to 200 µs.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            capacity_bytes: None,
            delay_nanos: 20_000..=200_000,
        }
    }
}

/// A directory on a simulated disk. Clones share the disk.
#[derive(Clone, Debug)]
pub struct SimDirectory {
    pub(super) disk: SharedDisk,
}

impl SimDirectory {
    /// An empty disk with the default options.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_options(SimOptions::new(seed))
    }

    /// An empty disk.
    #[must_use]
    pub fn with_options(options: SimOptions) -> Self {
        Self::of(Disk::new(options))
    }

    fn of(disk: Disk) -> Self {
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    fn powered(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = locked(&self.disk);
        disk.check_power()?;
        Ok(disk)
    }

    /// A copy of the disk with its own future, drawn from `seed`, without handles or a lock. What is in flight
    /// never completes there, but may land when its power is cut. O(bytes stored).
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        Self::of(locked(&self.disk).fork(seed))
    }

    /// Cuts the power and brings it back: unsynced sectors and names survive or not, writes in flight may land in
    /// part, and operations in flight never complete. Files must be opened again; the lock is free.
    pub fn power_cut(&self) {
        locked(&self.disk).power_cut();
    }

    /// Lets `actions` more actions happen, of whatever kind; with the next one the power is cut, as by
    /// [`power_cut`](Self::power_cut), and stays away: for the middle of what a test can't interrupt. Then everything
    /// fails until [`restore_power`](Self::restore_power).
    pub fn cut_power_after(&self, actions: u64) {
        locked(&self.disk).actions_left = Some(actions);
    }

    /// Whether the power is away, after [`cut_power_after`](Self::cut_power_after).
    #[must_use]
    pub fn is_off(&self) -> bool {
        locked(&self.disk).is_off
    }

    /// Brings the power back, or takes back a cut that hasn't come. Returns whether the power was away.
    pub fn restore_power(&self) -> bool {
        let mut disk = locked(&self.disk);
        disk.actions_left = None;
        std::mem::take(&mut disk.is_off)
    }

    /// Kills the process that uses the disk: everything written stays, operations in flight are carried out
    /// or not, and files must be opened again; the lock is free.
    pub fn kill_process(&self) {
        locked(&self.disk).kill_process();
    }

    /// Virtual nanoseconds since the disk was made.
    #[must_use]
    pub fn now_nanos(&self) -> u64 {
        locked(&self.disk).now_nanos
    }

    /// Lets virtual time pass. Operations that become due complete when their device is reaped.
    pub fn advance(&self, nanos: u64) {
        let mut disk = locked(&self.disk);
        disk.now_nanos = disk.now_nanos.saturating_add(nanos);
    }

    /// When the next operation in flight on any device is due, in virtual nanoseconds.
    #[must_use]
    pub fn next_due_nanos(&self) -> Option<u64> {
        locked(&self.disk)
            .in_flight
            .values()
            .map(|in_flight| in_flight.due_nanos)
            .min()
    }

    /// Sets the fault rates of files whose name starts with `prefix` (`""`: all); the longest prefix counts. The
    /// directory itself is called `.`.
    pub fn set_faults(&self, prefix: &str, rates: FaultRates) {
        locked(&self.disk).faults.set_rates(prefix, rates);
    }

    /// Lets `kind` strike the next action that it can strike on a file whose name starts with `prefix`.
    pub fn fail_next(&self, kind: FaultKind, prefix: &str) {
        locked(&self.disk).faults.inject(kind, prefix);
    }

    /// How many faults of [`SimDirectory::fail_next`] haven't struck yet.
    #[must_use]
    pub fn faults_waiting(&self) -> usize {
        locked(&self.disk).faults.waiting()
    }

    /// Ends all faults: rates and waiting ones.
    pub fn clear_faults(&self) {
        locked(&self.disk).faults.clear();
    }

    /// Changes the capacity; files that exceed it stay.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        locked(&self.disk).capacity_bytes = capacity_bytes;
    }

    /// Flips one bit of what is stored.
    ///
    /// # Errors
    ///
    /// `NotFound`, or `UnexpectedEof` beyond the file's end.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        let mut disk = locked(&self.disk);
        let number = disk.names.get(name);
        let file = number.and_then(|number| disk.files.get_mut(&number));
        let Some(file) = file else {
            return Err(annotate(
                io::ErrorKind::NotFound.into(),
                "flip a bit of",
                name,
                Some(offset),
            ));
        };
        if offset >= file.content.len() {
            return Err(annotate(
                io::ErrorKind::UnexpectedEof.into(),
                "flip a bit of",
                name,
                Some(offset),
            ));
        }
        file.content.flip(offset, bit);
        Ok(())
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> SimCounters {
        locked(&self.disk).counters
    }

    /// A hash over every action so far, its data and its result, in order: equal for equal runs.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        locked(&self.disk).trace.hash()
    }
}

impl Directory for SimDirectory {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let mut disk = self.powered()?;
        let (action, handle) = match (disk.names.get(name), mode) {
            (Some(file), OpenMode::Existing) => (
                "open",
                Ok(Handle {
                    file,
                    generation: disk.generation,
                }),
            ),
            (None, OpenMode::Existing) => ("open", Err(io::ErrorKind::NotFound.into())),
            (None, OpenMode::CreateNew) => ("create", disk.create(name)),
            (Some(_), OpenMode::CreateNew) => ("create", Err(io::ErrorKind::AlreadyExists.into())),
        };
        let handle = disk.note(action, name, None, handle)?;
        Ok(Arc::new(SimFile {
            disk: Arc::clone(&self.disk),
            handle,
            opened_as: name.to_owned(),
        }))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.powered()?.names.list())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut disk = self.powered()?;
        disk.counters.removes += 1;
        let removed = if disk.names.remove(name) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        };
        disk.note("remove", name, None, removed)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let mut disk = self.powered()?;
        disk.counters.renames += 1;
        disk.trace.bytes(to.as_bytes());
        let renamed = match disk.names.rename(from, to) {
            Some(number) => {
                if let Some(file) = disk.files.get_mut(&number) {
                    to.clone_into(&mut file.name);
                }
                Ok(())
            }
            None => Err(io::ErrorKind::NotFound.into()),
        };
        disk.note("rename", from, None, renamed)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.powered()?;
        disk.counters.directory_syncs += 1;
        let result = if disk.strikes(FaultKind::SyncErrorLost, ".") {
            let disk = &mut *disk;
            disk.names.draw(500_000, &mut disk.random);
            Err(io::Error::from_raw_os_error(libc::EIO))
        } else {
            disk.names.sync();
            let fails = disk.strikes(FaultKind::SyncErrorKept, ".");
            if fails {
                Err(io::Error::from_raw_os_error(libc::EIO))
            } else {
                Ok(())
            }
        };
        disk.note("sync directory", ".", None, result)
    }

    fn lock(&self) -> Result<DirectoryLock, LockError> {
        let flag = Arc::clone(&locked(&self.disk).locked);
        DirectoryLock::of_flag(&flag, "the simulated directory")
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}
