//! What the device itself gives, measured in the same run: the ceiling of the rows that wait for it.
//!
//! Random reads are 4 KiB with `O_DIRECT` from a file of the data's size, by as many threads of
//! `pread` as reads are in flight, and by one thread with an io_uring of that depth; the faster
//! of the two counts. The mix of the half-updates row is the same with a write of a random block after every other read:
//! what an engine has to do that updates pages and keeps none. Durable writes are 4 KiB with `O_DIRECT` into a file that was filled with
//! zeros before, an fdatasync after each.

use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use rustix::fs::{Mode, OFlags};

use crate::Result;
use crate::workload::Random;

/// Bytes of every transfer.
const BLOCK_BYTES: usize = 4096;
/// Bytes of the file for durable writes.
const LOG_BYTES: u64 = 64 << 20;

/// What is done again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// A read of a random block.
    Reads,
    /// A read of a random block, and every other time the write of another one.
    HalfUpdates,
}

impl Mix {
    fn writes_too(self, random: &mut Random) -> bool {
        self == Self::HalfUpdates && random.below(2) == 0
    }
}

/// A block-aligned buffer, as `O_DIRECT` wants it.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let bytes = vec![0; 2 * BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        Self { bytes, start }
    }

    fn block(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + BLOCK_BYTES]
    }
}

/// A file that is read or written past the page cache.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    blocks: u64,
}

impl RawFile {
    /// Creates a file of about `bytes` at `path`, filled and synced, and opens it with `O_DIRECT`.
    ///
    /// # Errors
    /// When the file can't be written, or the file system has no `O_DIRECT`.
    pub fn create(path: &Path, bytes: u64) -> Result<Self> {
        const CHUNK_BYTES: usize = 1 << 20;
        let mut random = Random::new(bytes);
        let mut chunk = vec![0; CHUNK_BYTES];
        for word in chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next_u64().to_le_bytes());
        }
        let mut file = File::create(path)?;
        let chunks = bytes.div_ceil(CHUNK_BYTES as u64).max(1);
        for _ in 0..chunks {
            file.write_all(&chunk)?;
        }
        file.sync_all()?;
        // What the page cache still has of it would have to be invalidated by the first writes.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        let file = rustix::fs::open(path, OFlags::RDWR | OFlags::DIRECT, Mode::empty())?;
        Ok(Self {
            file: File::from(file),
            blocks: chunks * (CHUNK_BYTES / BLOCK_BYTES) as u64,
        })
    }

    /// How often a second the mix is done with `in_flight` transfers at a time, by threads or by a ring, whichever is
    /// faster.
    ///
    /// # Errors
    /// The first failed transfer. A kernel that refuses rings is no error.
    pub fn random(&self, mix: Mix, in_flight: u32, window: Duration, seed: u64) -> Result<f64> {
        let by_threads = self.by_threads(mix, in_flight, window, seed)?;
        let by_ring = match IoUring::new(in_flight) {
            Ok(ring) => self.by_ring(ring, mix, in_flight, window, seed)?,
            Err(_) => 0.0,
        };
        Ok(by_threads.max(by_ring))
    }

    fn by_threads(&self, mix: Mix, threads: u32, window: Duration, seed: u64) -> Result<f64> {
        let stop = AtomicBool::new(false);
        let done = AtomicU64::new(0);
        let begun = Instant::now();
        std::thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> = (0..u64::from(threads))
                .map(|thread| {
                    let (stop, done) = (&stop, &done);
                    scope.spawn(move || -> Result<()> {
                        let mut random = Random::new(seed.wrapping_add(thread));
                        let mut buffer = Aligned::new();
                        let mut own = 0;
                        while !stop.load(Ordering::Relaxed) {
                            let read =
                                rustix::io::pread(&self.file, buffer.block(), self.offset(&mut random))?;
                            let written = if mix.writes_too(&mut random) {
                                rustix::io::pwrite(&self.file, buffer.block(), self.offset(&mut random))?
                            } else {
                                BLOCK_BYTES
                            };
                            if read != BLOCK_BYTES || written != BLOCK_BYTES {
                                return Err("a short transfer".into());
                            }
                            own += 1;
                        }
                        done.fetch_add(own, Ordering::Relaxed);
                        Ok(())
                    })
                })
                .collect();
            std::thread::sleep(window);
            stop.store(true, Ordering::Relaxed);
            for worker in workers {
                worker.join().map_err(|_| "a reader panicked")??;
            }
            Ok(())
        })?;
        Ok(done.into_inner() as f64 / begun.elapsed().as_secs_f64())
    }

    fn offset(&self, random: &mut Random) -> u64 {
        random.below(self.blocks) * BLOCK_BYTES as u64
    }

    fn by_ring(&self, mut ring: IoUring, mix: Mix, depth: u32, window: Duration, seed: u64) -> Result<f64> {
        // Freed only when nothing is in flight: a ring that is dropped doesn't wait for its reads,
        // so after an error (or a panic) the kernel may still use them, and they are leaked.
        let mut buffers = ManuallyDrop::new((0..depth).map(|_| Aligned::new()).collect::<Vec<_>>());
        let rate = self.drive(&mut ring, mix, &mut buffers, window, seed)?;
        drop(ManuallyDrop::into_inner(buffers));
        Ok(rate)
    }

    /// Keeps a transfer in flight for each of `buffers`; returns `Ok` only when none is any more.
    fn drive(
        &self,
        ring: &mut IoUring,
        mix: Mix,
        buffers: &mut [Aligned],
        window: Duration,
        seed: u64,
    ) -> Result<f64> {
        let mut random = Random::new(seed);
        let mut idle: Vec<usize> = (0..buffers.len()).collect();
        // Those whose next transfer is the write that belongs to the read before.
        let mut writes = vec![false; buffers.len()];
        let mut done = 0_u64;
        let begun = Instant::now();
        loop {
            let over = begun.elapsed() >= window;
            while let Some(slot) = if over { None } else { idle.pop() } {
                let target = buffers[slot].block().as_mut_ptr();
                let file = types::Fd(self.file.as_raw_fd());
                let (bytes, offset) = (BLOCK_BYTES as u32, self.offset(&mut random));
                let transfer = if writes[slot] {
                    opcode::Write::new(file, target, bytes).offset(offset).build()
                } else {
                    opcode::Read::new(file, target, bytes).offset(offset).build()
                };
                // SAFETY: `target` points to BLOCK_BYTES bytes that only this slot's transfer uses:
                // the slot left `idle` above and comes back with the completion. The caller frees
                // the buffers only after `Ok`, which is returned when every slot is idle. The
                // file stays open as long as `self`, which outlives this call.
                let pushed = unsafe { ring.submission().push(&transfer.user_data(slot as u64)) };
                if pushed.is_err() {
                    idle.push(slot);
                    break;
                }
            }
            if idle.len() == buffers.len() {
                return Ok(done as f64 / begun.elapsed().as_secs_f64());
            }
            ring.submit_and_wait(1)?;
            for completion in ring.completion() {
                if completion.result() != BLOCK_BYTES as i32 {
                    return Err(io::Error::from_raw_os_error(-completion.result()).into());
                }
                let slot = completion.user_data() as usize;
                idle.push(slot);
                writes[slot] = !writes[slot] && mix.writes_too(&mut random);
                done += u64::from(!writes[slot]);
            }
        }
    }

    /// Durable single-block writes a second, one after the other.
    ///
    /// # Errors
    /// The first failed write or sync.
    pub fn durable_writes(&self, window: Duration) -> Result<f64> {
        let mut buffer = Aligned::new();
        let mut writes = 0_u64;
        let begun = Instant::now();
        while begun.elapsed() < window {
            let offset = writes % self.blocks * BLOCK_BYTES as u64;
            rustix::io::pwrite(&self.file, buffer.block(), offset)?;
            rustix::fs::fdatasync(&self.file)?;
            writes += 1;
        }
        Ok(writes as f64 / begun.elapsed().as_secs_f64())
    }

    /// A file for [`RawFile::durable_writes`].
    ///
    /// # Errors
    /// As [`RawFile::create`].
    pub fn create_log(path: &Path) -> Result<Self> {
        Self::create(path, LOG_BYTES)
    }
}

#[cfg(test)]
mod tests;
