//! `cargo bench -p treering-benches --bench peers`: see `treering_benches` and its `settings`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use treering_benches::child::{self, Assignment, Task};
use treering_benches::report::{Results, markdown};
use treering_benches::rows::{Context, beyond, cached, default_directory, durable, recovery};
use treering_benches::settings::Settings;
use treering_benches::workload::RECORD_BYTES;
use treering_benches::{Result, exit_code, machine};

/// One allocator for every engine written in Rust.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit_code("peers", run())
}

fn run() -> Result<()> {
    let settings = Settings::from_environment(default_directory(env!("CARGO_TARGET_TMPDIR")))?;
    let context = Context::new(settings)?;
    if let Some(assignment) = Assignment::from_environment()? {
        child::die_with_parent()?;
        return match assignment.task {
            Task::Beyond => beyond::run_as_child(&context, &assignment),
            Task::Crash => recovery::run_as_child(&context, &assignment),
        };
    }
    let mut results = Results::default();
    let begun = SystemTime::now();
    let groups = [cached::run, durable::run, beyond::run, recovery::run];
    // A group that fails doesn't take the figures of the others with it.
    let failures: Vec<String> = groups
        .into_iter()
        .filter_map(|group| group(&context, &mut results).err())
        .map(|error| error.to_string())
        .inspect(|error| eprintln!("failed: {error}"))
        .collect();
    let mut text = heading(&context, begun);
    text.push_str(&markdown::render(
        &results,
        context.settings.records * RECORD_BYTES,
    ));
    context.settings.publish(&text)?;
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("; ").into())
    }
}

fn heading(context: &Context, begun: SystemTime) -> String {
    let settings = &context.settings;
    let took = begun.elapsed().unwrap_or(Duration::ZERO).as_secs();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}, {}: {} records of 24 and 150 bytes ({} beyond the cache), {} rounds of {} s a row, \
         medians; took {} min {} s. {}.\n",
        machine::date(begun),
        machine::description(),
        settings.records,
        settings.records_beyond,
        settings.rounds,
        settings.row_time.as_secs_f64(),
        took / 60,
        took % 60,
        machine::versions(include_str!("../../Cargo.lock")),
    );
    text
}
