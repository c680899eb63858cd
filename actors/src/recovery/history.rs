//! Reading the log of a running database, for subscriptions that begin in the past.
//!
//! Only what lies between two known positions is read, from the segments that hold it: all other segments may be renamed,
//! removed or half made at any moment, and so may these, when a checkpoint shortens the log meanwhile. Then reading
//! fails, or finds damage, in whatever way: who reads has to ask where the log starts, and then again.

use std::sync::Arc;

use treering_engine::Seq;
use treering_engine::log::{Record, SegmentLayout};
use treering_io::Directory;

use super::log::Log;
use crate::commit::LogRange;
use crate::error::Result;

/// Reads what is in the log, and hands out what its commit groups changed, in order. An error doesn't tell of damage if
/// the log starts elsewhere by now.
pub(crate) fn read_changes(
    directory: &Arc<dyn Directory>,
    log_id: u64,
    layout: SegmentLayout,
    range: &LogRange,
    mut visit: impl FnMut(Seq, Vec<Record<'_>>),
) -> Result<()> {
    let log = Log::between(directory, log_id, layout, range.start, range.end)?;
    log.visit_known(range.start, range.end, |group| {
        let mut groups: Vec<(Seq, Vec<Record<'_>>)> = Vec::new();
        let mut begun = Seq(0);
        let mut note = |seq, record| match groups.last_mut() {
            Some((last, records)) if *last == seq => records.push(record),
            _ => groups.push((seq, vec![record])),
        };
        for record in group.records() {
            match record? {
                Record::BatchBegin { seq, .. } => begun = seq,
                Record::Transaction { seq, changes } => {
                    for record in changes {
                        note(seq, record?);
                    }
                }
                record if record.tree().is_some() => note(begun, record),
                _ => {}
            }
        }
        groups.into_iter().for_each(|(seq, records)| visit(seq, records));
        Ok(())
    })
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
