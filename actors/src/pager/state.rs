//! What the pager knows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use treering_engine::memory::FrameId;
use treering_engine::{PageId, PageRef};
use treering_io::{AlignedBuffer, File, Operation};

use super::ahead::Ahead;
use super::messages::{TransferReply, Waiter};
use crate::shared::Shared;

/// A read under way.
#[derive(Debug)]
pub(super) struct Reading {
    pub reference: PageRef,
    pub frame: FrameId,
    pub waiters: Vec<Waiter>,
}

/// What an operation that is with the device is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Read(PageId),
    /// A page that was wanted ahead of need.
    ReadAhead(PageId),
    /// Pages that lie near each other, with the place of the first.
    ReadRun {
        start: PageId,
        references: Vec<PageRef>,
    },
    WritePage {
        id: PageId,
        frame: FrameId,
    },
    Transfer(TransferReply),
    Sync(TransferReply),
}

/// The state of the pager.
pub(crate) struct Pager {
    pub(super) shared: Arc<Shared>,
    pub(super) file: Arc<dyn File>,
    /// Reads by page; what the residency table calls loading.
    pub(super) reading: BTreeMap<PageId, Reading>,
    /// Operations that are with the device, by token.
    pub(super) in_flight: BTreeMap<u64, Purpose>,
    pub(super) next_token: u64,
    /// Operations that wait for a place with the device. Bounded by what readers, workers and the flusher may
    /// have under way.
    pub(super) queued_reads: VecDeque<(Operation, Purpose)>,
    pub(super) queued_writes: VecDeque<(Operation, Purpose)>,
    /// What pages were copied to and written from, to be used again: no more than the flusher has writes under way.
    pub(super) spare_buffers: Vec<AlignedBuffer>,
    pub(super) ahead: Ahead,
    /// Fetches that wait for a frame.
    pub(super) starved: VecDeque<(PageRef, Waiter)>,
    pub(super) pressure_sent: bool,
    /// Whether the flusher knows that frames are few.
    pub(super) low_told: bool,
}

impl Pager {
    /// A pager of this data file.
    pub fn new(shared: Arc<Shared>, file: Arc<dyn File>) -> Pager {
        Pager {
            shared,
            file,
            reading: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_token: 1,
            queued_reads: VecDeque::new(),
            queued_writes: VecDeque::new(),
            spare_buffers: Vec::new(),
            ahead: Ahead::default(),
            starved: VecDeque::new(),
            pressure_sent: false,
            low_told: false,
        }
    }
}
