//! Sealing log groups, writing and syncing them, and keeping segments ready.

use std::io;
use std::sync::Arc;

use treering_engine::Seq;
use treering_engine::log::GroupStart;
use treering_io::AlignedBuffer;

use super::messages::{LogTask, LogWrite};
use super::state::{Commit, InFlight};
use super::{SEGMENTS_AHEAD, WRITE_BYTES};
use crate::actor::{Nanos, Outbox};
use crate::error::Error;
use crate::flusher::FileTask;
use crate::shared::Counter;

/// Buffers larger than this are not kept for the next group.
const SPARE_BUFFER_BYTES_MAX: usize = 8 << 20;
/// Smallest buffer, so that groups of usual size don't allocate.
const BUFFER_BYTES: usize = 512 << 10;

impl Commit {
    /// Starts a log task if the device is free and something should be written or synced. True: what waited for that is
    /// published without one. (Bad run: a batch waits for that publication, to be refused after it, and hears nothing
    /// until somebody else sends something.)
    pub(super) fn write_log(&mut self, now: Nanos, outbox: &mut Outbox) -> bool {
        if !self.logging || self.in_flight.is_some() {
            return false;
        }
        let waiting = self.pending.iter().any(|group| group.sync);
        let due = self
            .unsynced_since
            .is_some_and(|since| now >= since.saturating_add(self.shared.settings.flush_interval_nanos));
        let sync = waiting || due;
        // What is still gathered has no place behind the open group.
        let stuck = !self.gathered.is_empty() && !self.waits_for_more(now);
        let full = self.builder.record_bytes() >= WRITE_BYTES || stuck;
        let write = !self.builder.is_empty() && (sync || full);
        if !write && (!sync || self.unsynced.is_empty()) {
            if sync {
                // Everything is durable already.
                self.durable_seq = Seq(self.next_seq.0 - 1);
                self.unsynced_since = None;
                self.publish_ready(outbox);
            }
            return waiting && !self.gathered.is_empty();
        }
        // One system call does the work of two where nothing earlier waits to be synced (rule R15).
        let earlier_durable = self.unsynced.is_empty();
        let mut write = if write { self.seal() } else { None };
        if let Some(write) = &mut write {
            write.durable = sync && earlier_durable;
        }
        let written_durable = write.as_ref().is_some_and(|write| write.durable);
        let segments = if sync && !written_durable {
            self.unsynced.iter().copied().collect()
        } else {
            Vec::new()
        };
        self.in_flight = Some(InFlight {
            end: self.position,
            last_seq: Seq(self.next_seq.0 - 1),
            syncs: sync,
        });
        if sync {
            self.unsynced_since = None;
        }
        outbox.log_tasks.push(LogTask {
            write,
            sync: segments,
        });
        false
    }

    /// Closes the open log group and encodes it into an aligned buffer.
    fn seal(&mut self) -> Option<LogWrite> {
        let bytes = self.builder.encoded_bytes();
        // `has_place` made sure of a prepared segment for exactly this length.
        let lsn = self.layout.place(self.position.lsn, bytes)?;
        let mut buffer = match self.spare_buffer.take() {
            Some(buffer) if buffer.len() >= bytes => buffer,
            _ => AlignedBuffer::zeroed(bytes.next_multiple_of(BUFFER_BYTES)),
        };
        let start = GroupStart {
            lsn,
            position: self.position,
            durable_to: self.durable.lsn,
        };
        let Ok(next) = self.builder.finish_into(&start, &mut buffer) else {
            unreachable!("the buffer is as long as the builder said")
        };
        self.position = next;
        self.segments.advance(next.lsn);
        let segment = self.layout.number(lsn);
        self.unsynced.insert(segment);
        self.shared.counters.add(Counter::LogGroups, 1);
        self.shared.counters.add(Counter::LogBytes, bytes as u64);
        Some(LogWrite {
            segment,
            offset: self.layout.offset(lsn),
            buffer,
            bytes,
            durable: false,
        })
    }

    /// The log task came back.
    pub(super) fn log_done(
        &mut self,
        result: io::Result<()>,
        buffer: Option<AlignedBuffer>,
        now: Nanos,
        outbox: &mut Outbox,
    ) {
        let Some(done) = self.in_flight.take() else { return };
        if let Some(buffer) = buffer.filter(|buffer| buffer.len() <= SPARE_BUFFER_BYTES_MAX) {
            self.spare_buffer = Some(buffer);
        }
        match result {
            Ok(()) if done.syncs => {
                self.durable_seq = self.durable_seq.max(done.last_seq);
                self.durable = done.end;
                self.unsynced.clear();
                self.shared.counters.add(Counter::Syncs, 1);
                if !self.builder.is_empty() && self.unsynced_since.is_none() {
                    self.unsynced_since = Some(now);
                }
                self.publish_ready(outbox);
            }
            Ok(()) => {}
            Err(error) => {
                let cause = Arc::new(error);
                self.shared.status.poison(&cause);
                self.abandon_pending(&Error::OutcomeUnknown { cause }, outbox);
            }
        }
    }

    /// Keeps segments ready ahead of the log's end. After a failure nothing is tried before somebody needs it. (Bad run:
    /// the disk is full, and batches wait for a checkpoint because the log is at its longest; as long as that takes, each
    /// failure to make a segment is followed by the next attempt, in the thread that writes the checkpoint.)
    pub(super) fn prepare_segments(&mut self, outbox: &mut Outbox) {
        if !self.logging || (self.segment_shortage.is_some() && !self.segment_wanted) {
            return;
        }
        self.segment_wanted = false;
        if let Some(job) = self.segments.next_job() {
            outbox.file_tasks.push(FileTask::Segment(job));
        }
    }

    /// A segment job came back.
    pub(super) fn segment_done(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {
                self.segments.job_done();
                self.segment_shortage = None;
            }
            Err(error) => {
                self.segments.job_failed();
                tracing::warn!(%error, "no log segment could be prepared");
                self.segment_shortage = Some(Error::io("preparing a log segment", error));
            }
        }
    }

    /// Segments that are kept ready.
    pub const fn segments_ahead() -> u64 {
        SEGMENTS_AHEAD
    }
}
