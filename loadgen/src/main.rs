//! The program `loadgen`: see `loadgen --help`, and the library for how it works.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use loadgen::cli::{Cli, Command, RunArguments};
use loadgen::demonstration;
use loadgen::progress::Progress;
use loadgen::report::{Report, draw, table, write_percentiles};
use loadgen::run::{self, Outcome};
use loadgen::stop::Stop;
use loadgen::target::treering::Treering;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something failed, or verification found something.
const EXIT_NOT_CLEAN: u8 = 1;
/// The run couldn't take place, or its report not be written.
const EXIT_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stderr)
        .init();
    match start(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_NOT_CLEAN),
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(EXIT_NOT_RUN)
        }
    }
}

/// Returns whether all was clean.
fn start(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let stop = Stop::default();
    stop.on_interrupt()?;
    let progress = Progress::visible();
    match &cli.command {
        None => Ok(demonstration::run(&Treering, &stop, &progress)?),
        Some(Command::Run(arguments)) => {
            let outcome = run::execute(&Treering, &arguments.plan()?, &stop, &progress)?;
            progress.end_run();
            report(arguments, &outcome)?;
            Ok(outcome.is_clean())
        }
    }
}

fn report(arguments: &RunArguments, outcome: &Outcome) -> Result<(), Box<dyn Error>> {
    let standard_output = Path::new("-");
    if arguments.json.as_deref() != Some(standard_output) {
        print!("{}", table(outcome));
    }
    if let Some(path) = &arguments.json {
        let report = Report::new(outcome);
        if path == standard_output {
            serde_json::to_writer_pretty(io::stdout().lock(), &report)?;
            println!();
        } else {
            write_file(path, |to| Ok(serde_json::to_writer_pretty(to, &report)?))?;
        }
    }
    if let Some(path) = &arguments.hdr {
        write_file(path, |to| Ok(write_percentiles(outcome.totals.all(), to)?))?;
    }
    if let Some(path) = &arguments.plot {
        draw(outcome, path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Creates a file and writes it whole; errors name it.
fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let attempt = || -> Result<(), Box<dyn Error>> {
        let mut to = BufWriter::new(File::create(path)?);
        write(&mut to)?;
        Ok(to.flush()?)
    };
    attempt().map_err(|error| format!("{}: {error}", path.display()).into())
}
