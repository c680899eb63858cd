//! The data file after rounds of deleting and inserting, and after `compact`.

use treering::Ticket;

use super::{Filled, Row};
use crate::Result;
use crate::rows::Context;
use crate::workload::{RECORD_BYTES, Random, key_of};

const ROUNDS: u64 = 10;

pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let records = context.settings.records;
    let filled = Filled::new(context, records)?;
    let mut random = Random::new(1);
    for round in 1..=ROUNDS {
        let mut deleted = Vec::new();
        let mut last: Option<Ticket<()>> = None;
        let mut batch = filled.db.client().batch();
        for index in 0..records {
            if random.below(2) == 0 {
                batch.delete(&filled.tree, key_of(index));
                deleted.push(index);
                if deleted.len().is_multiple_of(1_000) {
                    let full = std::mem::replace(&mut batch, filled.db.client().batch());
                    if let Some(before) = last.replace(full.send()?) {
                        before.wait()?;
                    }
                }
            }
        }
        batch.commit()?;
        for run in deleted.chunks(1_000) {
            let records = run.iter().map(|&index| context.values.record(index, round));
            filled
                .tree
                .send_batch(records.map(|record| (record.key, record.value)))?
                .wait()?;
        }
    }
    filled.db.checkpoint()?;
    let live_bytes = (records * RECORD_BYTES) as f64;
    let file_bytes = || {
        let stats = filled.db.stats();
        let in_use = (stats.file_pages - stats.free_pages) * stats.page_bytes;
        ((stats.file_pages * stats.page_bytes) as f64, in_use as f64)
    };
    let (before, _) = file_bytes();
    filled.db.compact()?;
    let (after, in_use) = file_bytes();
    filled.close()?;
    Ok(vec![Row::of(
        "data file after 10 rounds of delete-half/insert-half, then `compact`: against the raw live data",
        "1.3x",
        format!(
            "{:.2}x (pages in use {:.2}x, before {:.2}x)",
            after / live_bytes,
            in_use / live_bytes,
            before / live_bytes
        ),
    )])
}
