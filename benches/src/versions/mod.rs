//! What versions cost: transactions over shards, snapshots that are held, backups, and the space that comes back.
//!
//! Beside Treering run LMDB and redb where they have the same thing. Settings are those of the `peers` bench
//! ([`crate::settings`]), and `PEERS_ROWS` names groups: `transactions`, `reads`, `held`, `space`. A snapshot is held for
//! [`held_time`].

mod held;
mod reads;
mod space;
mod transactions;

use std::fmt::Write as _;
use std::time::Duration;

use treering::{Db, Durability, Options, Ticket, Tree};

use crate::Result;
use crate::report::Contender;
use crate::rows::Context;
use crate::settings::Settings;

/// The engines that the table has columns for.
const COLUMNS: [Contender; 3] = [Contender::Treering, Contender::Lmdb, Contender::Redb];
/// Lengths of a row for which a snapshot is held.
const HELD_ROWS: u32 = 20;
/// Records in one batch when a database is filled.
const LOAD_BATCH_RECORDS: u64 = 1_000;

/// How long a snapshot is held while others write: a minute, with the default settings.
#[must_use]
pub fn held_time(settings: &Settings) -> Duration {
    settings.row_time * HELD_ROWS
}

/// A row of the table: what it says, what is wanted, and a figure of each engine that has one, as it is shown.
struct Row {
    title: String,
    wanted: &'static str,
    figures: Vec<(Contender, String)>,
}

impl Row {
    fn of(title: &str, wanted: &'static str, treering: String) -> Row {
        eprintln!("{title}: {treering}");
        Row {
            title: title.to_owned(),
            wanted,
            figures: vec![(Contender::Treering, treering)],
        }
    }
}

/// Rows that are measured together.
type Group = fn(&Context) -> Result<Vec<Row>>;

/// Runs all rows and returns the table.
///
/// # Errors
/// The engines'.
pub fn run(context: &Context) -> Result<String> {
    let groups: [(&str, Group); 4] = [
        ("transactions", transactions::run),
        ("reads", reads::run),
        ("held", held::run),
        ("space", space::run),
    ];
    let wanted = &context.settings.rows;
    let mut rows = Vec::new();
    for (name, run) in groups {
        if wanted.is_empty() || wanted.iter().any(|row| name.contains(row.as_str())) {
            rows.extend(run(context)?);
        }
    }
    let mut text = String::from("| | wanted |");
    for column in COLUMNS {
        let _ = write!(text, " {} |", column.title());
    }
    text.push_str("\n|---|---|---:|---:|---:|\n");
    for row in rows {
        let _ = write!(text, "| {} | {} |", row.title, row.wanted);
        for column in COLUMNS {
            let figure = row.figures.iter().find(|(engine, _)| *engine == column);
            let _ = write!(text, " {} |", figure.map_or("", |(_, figure)| figure));
        }
        text.push('\n');
    }
    Ok(text)
}

/// The middle one; of two the higher.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A database of this bench in a fresh directory, which goes with it.
struct Filled {
    db: Db,
    tree: Tree,
    directory: tempfile::TempDir,
}

impl Filled {
    /// With so many records, in memory whole, buffered; everything is on the device.
    fn new(context: &Context, records: u64) -> Result<Filled> {
        let directory = context.directory(Contender::Treering)?;
        let db = Options::new()
            .durability(Durability::Buffered)
            .cache_bytes(crate::rows::cache_bytes_ample(records))
            .open(directory.path().join("database"))?;
        let tree = db.client().tree("records")?;
        let filled = Filled { db, tree, directory };
        filled.put_all(context, 0..records, 0)?;
        filled.db.checkpoint()?;
        Ok(filled)
    }

    /// Writes these records, in their `version`-th writing.
    fn put_all(&self, context: &Context, indices: std::ops::Range<u64>, version: u64) -> Result<()> {
        let mut last: Option<Ticket<()>> = None;
        let mut first = indices.start;
        while first < indices.end {
            let end = (first + LOAD_BATCH_RECORDS).min(indices.end);
            let records = (first..end).map(|index| context.values.record(index, version));
            let sent = self
                .tree
                .send_batch(records.map(|record| (record.key, record.value)))?;
            if let Some(before) = last.replace(sent) {
                before.wait()?;
            }
            first = end;
        }
        Ok(last.map_or(Ok(()), Ticket::wait)?)
    }

    fn close(self) -> Result<()> {
        drop(self.tree);
        self.db.close()?;
        Ok(self.directory.close()?)
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
