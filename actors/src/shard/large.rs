//! Large values at the owner: requests that need the value of a blob, or whose closure has made a large one.
//!
//! # States of a request here
//! - *reading*: the blob that its key holds is brought in pieces. Then it runs again. Should the key hold another blob by
//!   then (tips were dropped), it reads that one.
//! - *placing*: what its closure made doesn't fit a leaf; extents for it were asked for.
//! - *writing*, then *syncing*: the pieces move, then the file is synced (rule R18). Then it runs again: the value is
//!   named if the key holds what the closure saw, else its extents are given back and the closure is called again.
//!
//! # Guarantees
//! - These requests keep their place like those that wait for pages: later ones for the key queue behind (rule R10).
//!   So nobody can retire the blob that is being read.
//! - At most [`PIECES_MAX`] pieces of one shard are with the pager, those of the oldest request first.
//! - Extents that were given are named by a change, or free again.

use std::collections::{BTreeMap, VecDeque};

use treering_engine::{Crc32c, Extent};
use treering_io::AlignedBuffer;

use super::messages::Stored;
use super::state::{ReadyRequest, Shard};
use crate::actor::Outbox;
use crate::blob::{BlobDescriptor, BlobReading, Piece, Pieces, blob_extents, piece_buffer};
use crate::error::{Error, Result};
use crate::flusher::{ExtentWaiter, FlusherMessage};
use crate::pager::{PagerMessage, Transfer, TransferKind, TransferReply};
use crate::shared::{Counter, with_guard};
use crate::value::Value;

/// Most pieces, of a mebibyte at most, that one shard has under way.
const PIECES_MAX: usize = 8;

/// A large value that was brought for a request, or written for it.
#[derive(Debug)]
pub(super) enum Large {
    /// The blob that the key held when the request last ran.
    Read {
        descriptor: Box<[u8]>,
        value: Result<Value>,
    },
    /// What the closure made of `old`. Durable, and named by nothing yet.
    Written { old: Stored, descriptor: Box<[u8]> },
}

/// Requests with pieces to move.
#[derive(Debug, Default)]
pub(super) struct LargeJobs {
    jobs: BTreeMap<u64, Job>,
    /// Those that may have pieces to send, oldest first.
    sending: VecDeque<u64>,
    pieces_in_flight: usize,
    next: u64,
}

#[derive(Debug)]
struct Job {
    ready: ReadyRequest,
    stage: Stage,
    pieces: Pieces,
    pieces_in_flight: usize,
    failure: Option<Error>,
}

#[derive(Debug)]
enum Stage {
    Reading {
        descriptor: Box<[u8]>,
        reading: BlobReading,
    },
    Placing {
        old: Stored,
        new: Vec<u8>,
    },
    Writing {
        old: Stored,
        new: Vec<u8>,
        blob: BlobDescriptor,
    },
    Syncing {
        old: Stored,
        blob: BlobDescriptor,
    },
}

impl Shard {
    /// Puts a request aside until the value of the blob that its key holds is here.
    pub(super) fn read_large(&mut self, mut ready: ReadyRequest, descriptor: Box<[u8]>, outbox: &mut Outbox) {
        // Its pages may leave memory meanwhile: reading takes long.
        std::mem::take(&mut ready.held)
            .into_iter()
            .for_each(|frame| self.unhold(frame));
        match BlobReading::begin(&descriptor, self.shared.settings.page_bytes) {
            Ok(reading) => {
                let pieces = reading.pieces();
                let job = self.begin_job(ready, Stage::Reading { descriptor, reading }, pieces);
                self.large.sending.push_back(job);
                self.send_pieces(outbox);
            }
            Err(error) => self.refuse(ready, error),
        }
    }

    /// Puts a request aside until what its closure has made of `old` is durable.
    pub(super) fn write_large(
        &mut self,
        mut ready: ReadyRequest,
        old: Stored,
        new: Vec<u8>,
        outbox: &mut Outbox,
    ) {
        std::mem::take(&mut ready.held)
            .into_iter()
            .for_each(|frame| self.unhold(frame));
        // At most 1 GiB.
        let pages = new.len().div_ceil(self.shared.settings.page_bytes) as u32;
        let job = self.begin_job(ready, Stage::Placing { old, new }, Pieces::new(&[], 1, 0));
        let waiter = ExtentWaiter::Shard { shard: self.id, job };
        outbox
            .flusher
            .push(FlusherMessage::ExtentRequest { pages, waiter });
    }

    fn begin_job(&mut self, mut ready: ReadyRequest, stage: Stage, pieces: Pieces) -> u64 {
        ready.missed = true;
        self.keep_place(&ready.request);
        self.shared.counters.add(Counter::Parked, 1);
        self.large.next += 1;
        let job = Job {
            ready,
            stage,
            pieces,
            pieces_in_flight: 0,
            failure: None,
        };
        self.large.jobs.insert(self.large.next, job);
        self.large.next
    }

    /// The extents for a new value are here, or can't be had.
    pub(super) fn extents_came(&mut self, number: u64, result: Result<Vec<Extent>>, outbox: &mut Outbox) {
        let Some(job) = self.large.jobs.get_mut(&number) else {
            return;
        };
        let Stage::Placing { old, new } = &mut job.stage else {
            return;
        };
        match result {
            Ok(extents) => {
                let mut crc = Crc32c::new();
                crc.update(new);
                let blob = BlobDescriptor {
                    bytes: new.len() as u64,
                    crc: crc.value(),
                    born: with_guard(&self.shared.memory, |guard| {
                        self.shared.current.load(guard).seq.next()
                    }),
                    extents,
                };
                job.pieces = Pieces::new(&blob.extents, self.shared.settings.page_bytes, new.len());
                job.stage = Stage::Writing {
                    old: std::mem::replace(old, Stored::Absent),
                    new: std::mem::take(new),
                    blob,
                };
                self.large.sending.push_back(number);
                self.send_pieces(outbox);
            }
            Err(error) => {
                job.failure = Some(error);
                self.end_job(number);
            }
        }
    }

    /// A piece was read or written (`Some`), or the file was synced.
    pub(super) fn transferred(
        &mut self,
        number: u64,
        piece: Option<Piece>,
        result: std::io::Result<()>,
        buffer: Option<AlignedBuffer>,
        outbox: &mut Outbox,
    ) {
        let Some(job) = self.large.jobs.get_mut(&number) else {
            return;
        };
        if piece.is_some() {
            self.large.pieces_in_flight -= 1;
            job.pieces_in_flight -= 1;
        }
        match (result, &mut job.stage) {
            (Err(error), _) => {
                job.failure
                    .get_or_insert(Error::io("transferring a large value", error));
            }
            (Ok(()), Stage::Reading { reading, .. }) => {
                if let (Some(piece), Some(buffer)) = (piece, buffer) {
                    reading.take(piece, &buffer);
                }
            }
            (Ok(()), _) => {}
        }
        let all_sent = job.failure.is_some() || job.pieces.is_empty();
        if all_sent && job.pieces_in_flight == 0 {
            match &mut job.stage {
                Stage::Writing { old, blob, .. } if job.failure.is_none() => {
                    job.stage = Stage::Syncing {
                        old: std::mem::replace(old, Stored::Absent),
                        blob: blob.clone(),
                    };
                    outbox.pager.push(PagerMessage::Transfer(Transfer {
                        kind: TransferKind::Sync,
                        offset: 0,
                        buffer: None,
                        reply: TransferReply::Shard {
                            shard: self.id,
                            job: number,
                            piece: None,
                        },
                    }));
                }
                _ => self.end_job(number),
            }
        }
        self.send_pieces(outbox);
    }

    /// Sends pieces, as many as may be under way.
    fn send_pieces(&mut self, outbox: &mut Outbox) {
        while self.large.pieces_in_flight < PIECES_MAX {
            let Some(&number) = self.large.sending.front() else {
                return;
            };
            let next = self.large.jobs.get_mut(&number).and_then(|job| {
                let piece = if job.failure.is_none() {
                    job.pieces.next()
                } else {
                    None
                };
                piece.map(|piece| (job, piece))
            });
            let Some((job, piece)) = next else {
                self.large.sending.pop_front();
                continue;
            };
            let (kind, buffer) = match &job.stage {
                Stage::Writing { new, .. } => {
                    let bytes = &new[piece.start..piece.start + piece.bytes];
                    (TransferKind::Write, piece_buffer(piece.bytes, bytes))
                }
                _ => (TransferKind::Read, piece_buffer(piece.bytes, &[])),
            };
            job.pieces_in_flight += 1;
            self.large.pieces_in_flight += 1;
            outbox.pager.push(PagerMessage::Transfer(Transfer {
                kind,
                offset: piece.offset,
                buffer: Some(buffer),
                reply: TransferReply::Shard {
                    shard: self.id,
                    job: number,
                    piece: Some(piece),
                },
            }));
        }
    }

    /// A request that won't run here doesn't need what was written for it.
    pub(super) fn discard_large(&mut self, large: Option<Large>) {
        if let Some(Large::Written { descriptor, .. }) = large {
            let extents = blob_extents(&descriptor).map(|retired| retired.extent);
            self.open.extents_unused.extend(extents);
        }
    }

    /// Nothing of the job is under way any more: its request is ready to run again, or to be refused.
    fn end_job(&mut self, number: u64) {
        let Some(Job {
            mut ready,
            stage,
            failure,
            ..
        }) = self.large.jobs.remove(&number)
        else {
            return;
        };
        match (stage, failure) {
            (Stage::Reading { descriptor, reading }, failure) => {
                // Whether this matters is known when the request runs again: what was read may belong to a dropped tip,
                // and its place to somebody else by now.
                let value = failure.map_or_else(|| reading.finish(), Err);
                ready.large = Some(Large::Read { descriptor, value });
            }
            (Stage::Syncing { old, blob }, None) => {
                let descriptor = blob.encode().into();
                ready.large = Some(Large::Written { old, descriptor });
            }
            (stage, failure) => {
                if let Stage::Writing { blob, .. } | Stage::Syncing { blob, .. } = stage {
                    self.open.extents_unused.extend(blob.extents);
                }
                self.parked.count -= 1;
                return self.refuse(ready, failure.unwrap_or(Error::Closed));
            }
        }
        self.ready.push_back(ready);
    }
}
