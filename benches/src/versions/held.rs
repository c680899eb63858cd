//! Uniform overwrites while one snapshot is held: what they lose, and what the snapshot retains.

use crate::measure::{self, Plan};
use crate::peers::Promise;
use crate::rows::{Context, Opened, size_of};
use crate::{Result, workload};

use super::{COLUMNS, Row, held_time, median};

/// Overwrites sent at a time.
const WRITES_AT_A_TIME: u64 = 1_000;

pub(super) fn run(context: &Context) -> Result<Vec<Row>> {
    let mut kept = Vec::new();
    let mut files = Vec::new();
    let mut retained = Vec::new();
    for engine in context
        .engines
        .iter()
        .copied()
        .filter(|engine| COLUMNS.contains(engine))
    {
        let opened = Opened::fresh(context, engine, &context.profile_cached(Promise::Buffered))?;
        let mut records = context.values.records(0..context.settings.records);
        opened.store.load_random(&mut records)?;
        opened.store.settle()?;
        let (mut ratios, mut growths, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..context.settings.rounds {
            let free = overwrite(context, &opened, round)?;
            opened.store.settle()?;
            let before = data_bytes(&opened)?;
            let held = opened.store.hold()?;
            let with_snapshot = overwrite(context, &opened, round)?;
            // Before the snapshot goes: what it keeps is on the device then.
            opened.store.settle()?;
            growths.push(data_bytes(&opened)? / before);
            copies.extend(
                opened
                    .store
                    .pages()
                    .map(|pages| pages.earlier as f64 / pages.present as f64),
            );
            drop(held);
            opened.store.settle()?;
            ratios.push(with_snapshot / free);
        }
        let (ratio, growth) = (median(ratios), median(growths));
        eprintln!("{}: keeps {ratio:.2}, file {growth:.2}", engine.title());
        kept.push((engine, format!("{:.0}%", ratio * 100.0)));
        files.push((engine, format!("{growth:.2}x")));
        if !copies.is_empty() {
            retained.push((engine, format!("{:.2}x", median(copies))));
        }
        opened.remove()?;
    }
    let seconds = held_time(&context.settings).as_secs_f64();
    Ok(vec![
        Row {
            title: format!(
                "buffered overwrites while one snapshot is held for {seconds:.0} s: what is kept of the rate"
            ),
            wanted: "95%",
            figures: kept,
        },
        Row {
            title: "the data file after that, against before; 2x is one old copy of everything".to_owned(),
            wanted: "2x, no more",
            figures: files,
        },
        Row {
            title: "pages that only the snapshot shows then, in memory or in the file, against those of the newest state"
                .to_owned(),
            wanted: "1x, no more",
            figures: retained,
        },
    ])
}

/// Overwrites of uniformly chosen records for [`held_time`]; records a second.
fn overwrite(context: &Context, opened: &Opened, round: u32) -> Result<f64> {
    let plan = Plan {
        window: held_time(&context.settings),
        ..context.plan(1, round)
    };
    let records = context.settings.records;
    let sample = measure::run(&*opened.store, plan, &|session, random| {
        let mut updates = (0..WRITES_AT_A_TIME).map(|_| context.update(records, random));
        let updates: &mut dyn Iterator<Item = workload::Record> = &mut updates;
        session.put_all(updates)?;
        Ok(WRITES_AT_A_TIME)
    })?;
    Ok(sample.rate)
}

fn data_bytes(opened: &Opened) -> Result<f64> {
    let size = size_of(opened.engine, opened.path())?;
    Ok((size.total_bytes - size.log_bytes) as f64)
}
