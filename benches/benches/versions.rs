//! `cargo bench -p treering-benches --bench versions`: see `treering_benches::versions`.

use std::process::ExitCode;
use std::time::SystemTime;

use treering_benches::rows::{Context, default_directory};
use treering_benches::settings::Settings;
use treering_benches::{Result, exit_code, machine, versions};

/// As in the `peers` bench.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit_code("versions", run())
}

fn run() -> Result<()> {
    let settings = Settings::from_environment(default_directory(env!("CARGO_TARGET_TMPDIR")))?;
    let context = Context::new(settings)?;
    let settings = &context.settings;
    let heading = format!(
        "{}, {}: {} records of 24 and 150 bytes, {} rounds of {} s a row, snapshots held {} s, medians.\n\n",
        machine::date(SystemTime::now()),
        machine::description(),
        settings.records,
        settings.rounds,
        settings.row_time.as_secs_f64(),
        versions::held_time(settings).as_secs_f64(),
    );
    let text = heading + &versions::run(&context)?;
    settings.publish(&text)
}
