//! How a database is opened.

use std::path::Path;
use std::time::Duration;

use treering_engine::PAGE_BYTES_MAX;
use treering_engine::memory::Memory;

use crate::client::Db;
use crate::error::{Error, Result};

/// When a write is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// After an `fdatasync` that covers it, which comes before anybody can read it: an acknowledged write survives
    /// any crash. (Not with the log switched off: see [`Options::log`].)
    #[default]
    Sync,
    /// As soon as it is visible. A crash of the process or of the machine may take back what was written during
    /// the last [`flush_interval`](Options::flush_interval) and the sync that ends it, always the newest writes: what
    /// remains is a prefix of what was visible.
    Buffered,
}

/// Which system interface moves the pages of the data file. The log is written with system calls, whatever
/// is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoBackend {
    /// io_uring; where the system refuses it, a pool of threads, which is said by `tracing::warn`.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// A pool of threads that use `pread` and `pwrite`.
    Blocking,
}

/// For how long past versions can be had by [`Client::snapshot_at`](crate::Client::snapshot_at).
///
/// Retained versions keep their pages on disk, as snapshots do. At most 4,096 are kept, at even distances where there
/// were more. They don't survive reopening; named snapshots do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Retention {
    /// Only the newest version.
    #[default]
    None,
    /// Every version that was the newest one at some time within this duration.
    Last(Duration),
    /// That many versions, the newest one included.
    Versions(u64),
}

/// Settings of a database; [`Options::open`] ends the chain.
///
/// Everything but the sizes of pages and log segments may differ from one opening to the next.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) cache_bytes: u64,
    pub(crate) shards: usize,
    pub(crate) page_bytes: Option<usize>,
    pub(crate) durability: Durability,
    pub(crate) io: IoBackend,
    pub(crate) checkpoint_log_bytes: u64,
    pub(crate) balance_operations: u64,
    pub(crate) log_segment_bytes: u64,
    pub(crate) flush_interval: Duration,
    pub(crate) gather_delay: Duration,
    pub(crate) max_dirty_pages: Option<usize>,
    pub(crate) log: bool,
    pub(crate) retention: Retention,
}

/// Page size of a database that was created without asking for another.
pub(crate) const PAGE_BYTES_DEFAULT: usize = 4096;
/// Longest time that a commit may wait for others.
const GATHER_DELAY_MAX: Duration = Duration::from_secs(1);
/// Fewest frames with which every operation can still run: paths, reserves and a working set.
const FRAMES_MIN: u64 = 256;
/// Frames for each shard: its share of open batches (a quarter of them), what it has in hand for the next operation, and
/// the way to a page that a request of its own waits for. (Bad run: 64 shards in a cache of 256 pages; each keeps the four
/// frames that were left of its first operation, and nobody has one any more.)
const FRAMES_PER_SHARD: usize = 32;

impl Default for Options {
    fn default() -> Options {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            cache_bytes: 256 << 20,
            shards: cores.saturating_sub(1).max(1),
            page_bytes: None,
            durability: Durability::Sync,
            io: IoBackend::Auto,
            checkpoint_log_bytes: 256 << 20,
            balance_operations: 1 << 16,
            log_segment_bytes: 16 << 20,
            flush_interval: Duration::from_millis(100),
            gather_delay: Duration::ZERO,
            max_dirty_pages: None,
            log: true,
            retention: Retention::None,
        }
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Options {
        Options::default()
    }

    /// Hard budget of the frame pool in bytes (default 256 MiB, at least 256 pages, at most 67,108,864).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Options {
        self.cache_bytes = bytes;
        self
    }

    /// Number of shard workers, 1 to 256 (default: cores − 1, at least 1). Trees are spread over them; a shard that has
    /// too much to do gives key ranges to others. In a small cache there are fewer: one for each 32 pages.
    #[must_use]
    pub fn shards(mut self, count: usize) -> Options {
        self.shards = count;
        self
    }

    /// Bytes of a page: a power of two, 4096 to 65536, fixed when the database is created (default 4096).
    #[must_use]
    pub fn page_size(mut self, bytes: usize) -> Options {
        self.page_bytes = Some(bytes);
        self
    }

    /// What writes promise that don't say so themselves.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// Which system interface moves the pages of the data file.
    #[must_use]
    pub fn io(mut self, backend: IoBackend) -> Options {
        self.io = backend;
        self
    }

    /// Length of log, in bytes, that starts a checkpoint (default 256 MiB, at least one segment). Time to open grows
    /// with it. Where checkpoints don't keep up, writes wait when the log is four times as long.
    #[must_use]
    pub fn checkpoint_log_bytes(mut self, bytes: u64) -> Options {
        self.checkpoint_log_bytes = bytes;
        self
    }

    /// Number of writes after which it is looked at whether the shards have about as much to do, and key ranges are moved
    /// from the busiest to the idlest if they haven't (default 65,536; `u64::MAX`: never). While a range moves, sending
    /// batches and transactions waits: a millisecond or so, a second if a page or a large value is waited for.
    #[must_use]
    pub fn balance_operations(mut self, operations: u64) -> Options {
        self.balance_operations = operations;
        self
    }

    /// Bytes of one log segment (default 16 MiB): a multiple of 4096 from 64 KiB to 1 GiB. Fixed when the database is
    /// created; later openings take what they find. The records of a batch must fit into one, and into 8 MiB.
    #[must_use]
    pub fn log_segment_bytes(mut self, bytes: u64) -> Options {
        self.log_segment_bytes = bytes;
        self
    }

    /// Longest time after which a sync of `Buffered` writes begins (default 100 ms).
    #[must_use]
    pub fn flush_interval(mut self, interval: Duration) -> Options {
        self.flush_interval = interval;
        self
    }

    /// How long the first synced commit of a group waits for others that could share its sync (default none, at most a
    /// second). Without it a group takes what has come in while the device was busy, which was never slower where it was
    /// measured; on devices whose syncs are few and dear, a delay makes groups larger and each commit slower.
    #[must_use]
    pub fn gather_delay(mut self, delay: Duration) -> Options {
        self.gather_delay = delay;
        self
    }

    /// Number of changed pages in memory that starts a checkpoint (default: half of the cache, at least 1). Pages that
    /// only snapshots still reach don't count: a checkpoint doesn't write them.
    #[must_use]
    pub fn max_dirty_pages(mut self, pages: usize) -> Options {
        self.max_dirty_pages = Some(pages);
        self
    }

    /// For how long past versions can be had (default: not at all).
    #[must_use]
    pub fn retain(mut self, retention: Retention) -> Options {
        self.retention = retention;
        self
    }

    /// Switches the log off (`false`): writes are durable at checkpoints only. Whatever their durability, they return
    /// when they are visible, and a crash takes back everything since the last checkpoint. Checkpoints are written by
    /// [`Db::checkpoint`], [`Db::flush`] and [`Db::close`], and when many pages have changed
    /// ([`max_dirty_pages`](Options::max_dirty_pages)).
    #[must_use]
    pub fn log(mut self, enabled: bool) -> Options {
        self.log = enabled;
        self
    }

    /// Opens the database in `directory`, creating both, and the directory's parents, if they don't exist.
    ///
    /// Replays the log since the last checkpoint. Reads besides a map of one bit a page, and nothing of the data.
    ///
    /// # Errors
    /// [`Error::AlreadyOpen`], [`Error::NotADatabase`], [`Error::UnsupportedFormat`], [`Error::Corrupt`],
    /// [`Error::InvalidOption`], [`Error::OutOfSpace`], [`Error::Io`].
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Db> {
        self.validate()?;
        Db::open_directory(directory.as_ref(), self)
    }

    /// Opens a database that has no files and ends with its last handle. A full cache is
    /// [`Error::OutOfSpace`]. Large values are kept beside the cache, without a bound.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], or [`Error::OutOfSpace`] when the memory can't be had.
    pub fn open_in_memory(self) -> Result<Db> {
        self.validate()?;
        Db::open_memory(self)
    }

    /// Checks the size of the cache for pages of a size between these.
    pub(crate) fn check_cache(&self, least_page_bytes: usize, most_page_bytes: usize) -> Result<()> {
        let least = FRAMES_MIN * least_page_bytes as u64;
        let most = Memory::FRAMES_MAX as u64 * most_page_bytes as u64;
        if (least..=most).contains(&self.cache_bytes) {
            return Ok(());
        }
        let reason = if self.cache_bytes < least {
            format!(
                "{} is less than {least} ({FRAMES_MIN} pages of {least_page_bytes} bytes)",
                self.cache_bytes
            )
        } else {
            format!(
                "{} is more than {most} ({} pages of {most_page_bytes} bytes)",
                self.cache_bytes,
                Memory::FRAMES_MAX
            )
        };
        Err(Error::InvalidOption {
            option: "cache_bytes",
            reason,
        })
    }

    /// Shard workers of a database with pages of this length.
    pub(crate) fn shards_that_fit(&self, page_bytes: usize) -> usize {
        let frames = (self.cache_bytes / page_bytes as u64) as usize;
        self.shards.min(frames / FRAMES_PER_SHARD).max(1)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |option, reason: String| Err(Error::InvalidOption { option, reason });
        let page_bytes = self.page_bytes.unwrap_or(PAGE_BYTES_DEFAULT);
        if !page_bytes.is_power_of_two() || !(PAGE_BYTES_DEFAULT..=PAGE_BYTES_MAX).contains(&page_bytes) {
            return invalid(
                "page_size",
                format!("{page_bytes} is not a power of two from 4096 to 65536"),
            );
        }
        // Whoever doesn't ask for a page size may open a database with pages of any.
        let (least, most) = match self.page_bytes {
            Some(asked) => (asked, asked),
            None => (PAGE_BYTES_DEFAULT, PAGE_BYTES_MAX),
        };
        self.check_cache(least, most)?;
        if self.shards == 0 || self.shards > 256 {
            return invalid("shards", format!("{} is not between 1 and 256", self.shards));
        }
        if !self.log_segment_bytes.is_multiple_of(4096)
            || !(64 << 10..=1 << 30).contains(&self.log_segment_bytes)
        {
            return invalid(
                "log_segment_bytes",
                format!(
                    "{} is not a multiple of 4096 from 64 KiB to 1 GiB",
                    self.log_segment_bytes
                ),
            );
        }
        if self.checkpoint_log_bytes < self.log_segment_bytes {
            return invalid(
                "checkpoint_log_bytes",
                format!(
                    "{} is less than one segment ({})",
                    self.checkpoint_log_bytes, self.log_segment_bytes
                ),
            );
        }
        if self.gather_delay > GATHER_DELAY_MAX {
            return invalid(
                "gather_delay",
                format!("{:?} is more than {GATHER_DELAY_MAX:?}", self.gather_delay),
            );
        }
        if self.max_dirty_pages == Some(0) {
            return invalid("max_dirty_pages", "0 would never let a write finish".into());
        }
        Ok(())
    }
}
