//! The state of a simulated disk, and what concerns all of it: files, space, time and power.
//!
//! Transfers and syncs are in `execute`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::content::{Content, SECTOR_BYTES};
use super::counters::{SimCounters, Trace};
use super::directory::SimOptions;
use super::faults::{FaultKind, Faults};
use super::names::{FileNumber, Names};
use super::random::Random;
use crate::error::annotate;

/// Chances that an unsynced sector or name survives, one of which each power cut draws: runs in which all or
/// nothing survives find other faults than mixed ones.
const KEEP_PARTS_PER_MILLION: [u32; 5] = [0, 125_000, 500_000, 875_000, 1_000_000];

/// One delay in so many is ten times as long, so that operations overtake each other widely.
const LONG_DELAY_ONE_IN: u64 = 32;

/// An open file: which one, and since which power-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle {
    pub(super) file: FileNumber,
    pub(super) generation: u64,
}

#[derive(Clone, Debug)]
pub(super) struct SimulatedFile {
    /// What the file is called now, for faults and errors.
    pub(super) name: String,
    pub(super) content: Content,
}

/// An operation that a device holds.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) due_nanos: u64,
    /// For a write: what would land.
    pub(super) write: Option<InFlightWrite>,
}

#[derive(Clone, Debug)]
pub(super) struct InFlightWrite {
    pub(super) file: FileNumber,
    pub(super) offset: u64,
    pub(super) bytes: Box<[u8]>,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) counters: SimCounters,
    pub(super) trace: Trace,
    pub(super) files: BTreeMap<FileNumber, SimulatedFile>,
    pub(super) names: Names,
    pub(super) in_flight: BTreeMap<u64, InFlight>,
    pub(super) now_nanos: u64,
    /// Counts power-ups; what was opened in an earlier one is dead.
    pub(super) generation: u64,
    pub(super) capacity_bytes: Option<u64>,
    /// Actions until the power fails and stays away; `None`: it doesn't.
    pub(super) actions_left: Option<u64>,
    /// Whether the power is away: nothing can be opened, made, or even listed.
    pub(super) is_off: bool,
    pub(super) locked: Arc<AtomicBool>,
    options: SimOptions,
    next_file: FileNumber,
    next_operation: u64,
    pub(super) next_sequence: u64,
}

impl Disk {
    pub(super) fn new(options: SimOptions) -> Self {
        Self {
            random: Random::new(options.seed),
            faults: Faults::default(),
            counters: SimCounters::default(),
            trace: Trace::new(),
            files: BTreeMap::new(),
            names: Names::default(),
            in_flight: BTreeMap::new(),
            now_nanos: 0,
            generation: 0,
            capacity_bytes: options.capacity_bytes,
            actions_left: None,
            is_off: false,
            locked: Arc::default(),
            options,
            next_file: 0,
            next_operation: 0,
            next_sequence: 0,
        }
    }

    /// A copy with its own future: other random numbers, nothing locked.
    pub(super) fn fork(&self, seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            locked: Arc::default(),
            ..self.clone()
        }
    }

    /// Notes an action in the trace and passes its result on, with file and offset in an error's text.
    pub(super) fn note<T>(
        &mut self,
        action: &'static str,
        file: &str,
        offset: Option<u64>,
        result: io::Result<T>,
    ) -> io::Result<T> {
        self.trace.bytes(action.as_bytes());
        self.trace.bytes(file.as_bytes());
        self.trace.number(offset.unwrap_or(u64::MAX));
        self.use_up_action();
        match result {
            Ok(value) => {
                self.trace.number(0);
                Ok(value)
            }
            Err(error) => {
                self.trace.number(
                    error
                        .raw_os_error()
                        .map_or(1 << 32 | error.kind() as u64, |code| code as u64),
                );
                Err(annotate(error, action, file, offset))
            }
        }
    }

    /// Counts an action that was carried out (or refused) against those that the power lasts for.
    fn use_up_action(&mut self) {
        match &mut self.actions_left {
            None => {}
            Some(0) => {
                self.actions_left = None;
                self.is_off = true;
                self.power_cut();
            }
            Some(left) => *left -= 1,
        }
    }

    /// Refuses everything while the power is away.
    pub(super) fn check_power(&self) -> io::Result<()> {
        if self.is_off {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the power is away"));
        }
        Ok(())
    }

    /// Whether a fault strikes, counting it.
    pub(super) fn strikes(&mut self, kind: FaultKind, file: &str) -> bool {
        let strikes = self.faults.strikes(kind, file, &mut self.random);
        self.counters.faults += u64::from(strikes);
        strikes
    }

    pub(super) fn check_alive(&self, generation: u64) -> io::Result<()> {
        if generation == self.generation {
            return Ok(());
        }
        let reason = "the machine or process that opened the file is gone";
        Err(io::Error::new(io::ErrorKind::NotConnected, reason))
    }

    /// The file behind a handle, and what it is called now.
    pub(super) fn file(&mut self, handle: Handle) -> io::Result<&mut SimulatedFile> {
        self.check_alive(handle.generation)?;
        self.files
            .get_mut(&handle.file)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What errors and faults call the file behind a handle, whose name was `opened_as` once.
    pub(super) fn name_of(&self, handle: Handle, opened_as: &str) -> String {
        self.files
            .get(&handle.file)
            .map_or_else(|| opened_as.to_owned(), |file| file.name.clone())
    }

    pub(super) fn sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }

    /// Creates a file under a name that is free.
    pub(super) fn create(&mut self, name: &str) -> io::Result<Handle> {
        if self.strikes(FaultKind::NoSpace, name) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = self.next_file;
        self.next_file += 1;
        self.files.insert(
            number,
            SimulatedFile {
                name: name.to_owned(),
                content: Content::default(),
            },
        );
        self.names.create(name, number);
        self.counters.creates += 1;
        Ok(Handle {
            file: number,
            generation: self.generation,
        })
    }

    /// Refuses what would take the files beyond the capacity.
    pub(super) fn check_space(&mut self, handle: Handle, name: &str, new_len: u64) -> io::Result<()> {
        let old_len = self.file(handle)?.content.len();
        let full = match self.capacity_bytes {
            Some(capacity_bytes) if new_len > old_len => {
                self.used_bytes() + (new_len - old_len) > capacity_bytes
            }
            _ => false,
        };
        if full || self.strikes(FaultKind::NoSpace, name) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        let reached = self
            .files
            .iter()
            .filter(|(number, _)| self.names.reaches(**number));
        reached.map(|(_, file)| file.content.len()).sum()
    }

    /// Registers an operation and returns its number and when it is due.
    pub(super) fn begin(&mut self, write: Option<InFlightWrite>) -> (u64, u64) {
        let (shortest, longest) = (*self.options.delay_nanos.start(), *self.options.delay_nanos.end());
        let mut delay = shortest + self.random.below(longest.saturating_sub(shortest) + 1);
        if self.random.below(LONG_DELAY_ONE_IN) == 0 {
            delay = delay.saturating_mul(10);
        }
        let due_nanos = self.now_nanos.saturating_add(delay);
        let number = self.next_operation;
        self.next_operation += 1;
        self.in_flight.insert(number, InFlight { due_nanos, write });
        (number, due_nanos)
    }

    /// The power fails and comes back.
    pub(super) fn power_cut(&mut self) {
        let choice = self.random.below(KEEP_PARTS_PER_MILLION.len() as u64);
        let keep = KEEP_PARTS_PER_MILLION[choice as usize];
        // What was in flight may have landed in part, in any order: as unsynced layers, drawn with the others.
        self.land_in_flight(|_| true);
        for file in self.files.values_mut() {
            file.content.power_cut(keep, &mut self.random);
        }
        self.names.draw(keep, &mut self.random);
        self.counters.power_cuts += 1;
        self.trace.bytes(b"power cut");
        self.restart();
    }

    /// The process dies; the system carries out some of what is in flight, whole, and forgets the rest.
    pub(super) fn kill_process(&mut self) {
        self.land_in_flight(|random| random.chance(500_000));
        self.trace.bytes(b"kill");
        self.restart();
    }

    fn land_in_flight(&mut self, mut lands: impl FnMut(&mut Random) -> bool) {
        let in_flight = std::mem::take(&mut self.in_flight).into_values();
        let mut writes: Vec<InFlightWrite> = in_flight.filter_map(|in_flight| in_flight.write).collect();
        self.random.shuffle(&mut writes);
        for write in writes {
            let sequence = self.sequence();
            if lands(&mut self.random)
                && let Some(file) = self.files.get_mut(&write.file)
            {
                file.content.write(sequence, write.offset, &write.bytes, |_| true);
            }
        }
    }

    /// Invalidates handles, operations and the lock; forgets files without names.
    fn restart(&mut self) {
        self.generation += 1;
        self.locked = Arc::default();
        let names = &self.names;
        self.files.retain(|number, _| names.reaches(*number));
        for name in self.names.list() {
            if let Some(file) = self
                .names
                .get(&name)
                .and_then(|number| self.files.get_mut(&number))
            {
                file.name = name;
            }
        }
    }
}

/// Refuses what direct I/O would refuse.
pub(super) fn check_aligned(buffer: &[u8], offset: u64) -> io::Result<()> {
    let sector = SECTOR_BYTES as u64;
    let address = buffer.as_ptr() as u64;
    let aligned = [address, buffer.len() as u64, offset]
        .into_iter()
        .all(|number| number.is_multiple_of(sector));
    if aligned {
        return Ok(());
    }
    let reason = "address, length and offset of direct I/O must be multiples of 512";
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}
