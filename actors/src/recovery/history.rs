//! Reading the log of a running database, for subscriptions that begin in the past.

use std::sync::Arc;

use treering_engine::Seq;
use treering_engine::log::{LogPosition, Record, SegmentLayout};
use treering_io::Directory;

use super::log::Log;
use super::read_ahead::Readers;
use crate::error::Result;

/// Reads the log from `start` on, and hands out what its commit groups changed, in order. Returns where it found the
/// end. Segments that are used again meanwhile end it early, or look corrupt: the caller has to find out whether that
/// may have happened.
pub(crate) fn read_changes(
    directory: &Arc<dyn Directory>,
    log_id: u64,
    layout: SegmentLayout,
    start: LogPosition,
    mut visit: impl FnMut(Seq, Vec<Record<'_>>),
) -> Result<LogPosition> {
    let log = Log::of(directory, log_id, layout, Readers::Nobody)?;
    let end = log.visit(start, start, |group| {
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
                    let changes = changes.map_while(std::result::Result::ok);
                    changes.for_each(|record| note(seq, record));
                }
                record if record.tree().is_some() => note(begun, record),
                _ => {}
            }
        }
        groups.into_iter().for_each(|(seq, records)| visit(seq, records));
        Ok(())
    })?;
    Ok(end.position)
}
