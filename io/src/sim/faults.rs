//! Which faults strike, and when.

use super::random::Random;

/// A way to fail. "Reported" faults return an error; the others return success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Reported: a read fails (EIO).
    ReadError,
    /// Reported: a write fails (EIO) and changed nothing.
    WriteErrorNotLanded,
    /// Reported: a write fails (EIO) but was carried out whole, and a durable one durably.
    WriteErrorLanded,
    /// Reported: a write fails (EIO) after some of its sectors were carried out.
    WriteErrorTorn,
    /// Reported: a sync fails (EIO), and each unsynced sector is durable now or gone. A later sync succeeds
    /// without bringing anything back. For a directory's sync, the same with names.
    SyncErrorLost,
    /// Reported: a sync fails (EIO) but everything became durable.
    SyncErrorKept,
    /// Reported: a write, growth, prefill or creation fails (`StorageFull`) and changed nothing.
    NoSpace,
    /// Silent: a stored bit of what is read flips, for good.
    BitRot,
    /// Silent: a write goes to another place of the same file.
    MisdirectedWrite,
    /// Silent: a write is acknowledged and dropped.
    LostWrite,
    /// Silent: a read returns what the blocks held before their last write.
    StaleRead,
}

impl FaultKind {
    const COUNT: usize = 11;
}

/// How probable each fault is, in parts per million of the actions that it can strike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    parts_per_million: [u32; FaultKind::COUNT],
}

impl FaultRates {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The same rates with another one for `kind`; 1,000,000 and more means always.
    #[must_use]
    pub fn with(mut self, kind: FaultKind, parts_per_million: u32) -> Self {
        self.parts_per_million[kind as usize] = parts_per_million;
        self
    }
}

/// What has been asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// By prefix of file names; of several that fit, the longest counts.
    rates: Vec<(String, FaultRates)>,
    /// One-shot faults in the order in which they were asked for.
    injected: Vec<(FaultKind, String)>,
}

impl Faults {
    pub(super) fn set_rates(&mut self, prefix: &str, rates: FaultRates) {
        self.rates.retain(|(known, _)| known != prefix);
        self.rates.push((prefix.to_owned(), rates));
        self.rates
            .sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    }

    pub(super) fn inject(&mut self, kind: FaultKind, prefix: &str) {
        self.injected.push((kind, prefix.to_owned()));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// One-shot faults that haven't struck yet.
    pub(super) fn waiting(&self) -> usize {
        self.injected.len()
    }

    /// Whether `kind` strikes the action on `file` that is being carried out.
    pub(super) fn strikes(&mut self, kind: FaultKind, file: &str, random: &mut Random) -> bool {
        let injected = self
            .injected
            .iter()
            .position(|(known, prefix)| *known == kind && file.starts_with(prefix));
        if let Some(index) = injected {
            self.injected.remove(index);
            return true;
        }
        let rates = self.rates.iter().find(|(prefix, _)| file.starts_with(prefix));
        rates.is_some_and(|(_, rates)| random.chance(rates.parts_per_million[kind as usize]))
    }
}
