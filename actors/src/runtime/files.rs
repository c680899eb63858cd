//! The log's segment files, and slow work on files.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use treering_engine::log::segment::segment_file_name;
use treering_engine::log::{SegmentHeader, SegmentJob};
use treering_io::{AlignedBuffer, Directory, File, OpenMode};

use crate::commit::{LogTask, LogWrite};

/// Open segment files by number.
#[derive(Debug)]
pub(crate) struct LogFiles {
    directory: Arc<dyn Directory>,
    log_id: u64,
    segment_bytes: u64,
    open: Mutex<BTreeMap<u64, Arc<dyn File>>>,
}

impl LogFiles {
    pub fn new(directory: Arc<dyn Directory>, log_id: u64, segment_bytes: u64) -> LogFiles {
        LogFiles {
            directory,
            log_id,
            segment_bytes,
            open: Mutex::default(),
        }
    }

    /// Directory, log id and segment size, for reading.
    pub fn place(&self) -> (&Arc<dyn Directory>, u64, u64) {
        (&self.directory, self.log_id, self.segment_bytes)
    }

    /// The segment's file; opened at the first use.
    pub fn file(&self, number: u64) -> io::Result<Arc<dyn File>> {
        let mut open = self.open();
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        let file = self
            .directory
            .open(&segment_file_name(number), OpenMode::Existing)?;
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// Writes and syncs, in the calling thread.
    pub fn execute(&self, task: &LogTask) -> io::Result<()> {
        if let Some(write) = &task.write {
            self.write(write, write.durable)?;
        }
        for &segment in &task.sync {
            self.file(segment)?.sync_data()?;
        }
        Ok(())
    }

    /// Writes a log group.
    pub fn write(&self, write: &LogWrite, durable: bool) -> io::Result<()> {
        let file = self.file(write.segment)?;
        let bytes = &write.buffer[..write.bytes];
        if durable {
            file.write_at_durable(bytes, write.offset)
        } else {
            file.write_at(bytes, write.offset)
        }
    }

    /// Makes, recycles or removes a segment, durably (rule R17).
    pub fn prepare(&self, job: SegmentJob) -> io::Result<()> {
        match job {
            SegmentJob::Create { number } => {
                let name = segment_file_name(number);
                let file = self.directory.open_or_create(&name)?;
                if let Err(error) = file.prefill(self.segment_bytes) {
                    // Half a segment is of no use, and its space may be what others wait for.
                    let _ = self.directory.remove(&name);
                    return Err(error);
                }
                self.finish(number, file)
            }
            SegmentJob::Recycle { from, number } => {
                self.open().remove(&from);
                if from != number {
                    self.directory
                        .rename(&segment_file_name(from), &segment_file_name(number))?;
                }
                let file = self
                    .directory
                    .open(&segment_file_name(number), OpenMode::Existing)?;
                if file.len()? < self.segment_bytes {
                    file.prefill(self.segment_bytes)?;
                }
                self.finish(number, file)
            }
            SegmentJob::Remove { number } => {
                self.open().remove(&number);
                self.directory.remove(&segment_file_name(number))?;
                self.directory.sync()
            }
        }
    }

    fn finish(&self, number: u64, file: Arc<dyn File>) -> io::Result<()> {
        let header = SegmentHeader {
            log_id: self.log_id,
            number,
            segment_bytes: self.segment_bytes,
        };
        file.write_at(&AlignedBuffer::copy_of(&header.encode()), 0)?;
        file.sync_data()?;
        self.directory.sync()?;
        self.open().insert(number, file);
        Ok(())
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<dyn File>>> {
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
