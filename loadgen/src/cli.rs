//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::plan::{Durability, Io, Plan, StoreOptions};
use crate::record::KeyOrder;
use crate::workload::Workload;

/// Load for Treering: YCSB A to F and plain workloads, with latencies that can be believed and, on request,
/// every answer verified. Without arguments: a short demonstration in a temporary directory.
#[derive(Parser, Debug)]
#[command(name = "loadgen", version, about)]
pub struct Cli {
    /// What to do; a demonstration if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Runs one workload and reports.
    ///
    /// Exit code: 0 if all went well; 1 if an operation failed or, with --verify, anything acknowledged was
    /// missing or wrong; 2 if the run could not take place.
    Run(Box<RunArguments>),
}

/// Arguments of `run`. Sizes may end in k, m or g (powers of 1024).
#[derive(Args, Debug)]
pub struct RunArguments {
    /// What is done: YCSB a to f, or put, get, scan, load
    #[arg(long, value_enum, default_value_t = Workload::A)]
    pub workload: Workload,
    /// Records that are there before the load starts; missing ones are loaded first
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    pub records: u64,
    /// Bytes of every value
    #[arg(long, default_value = "150", value_name = "N", value_parser = parse_size)]
    pub value_bytes: u64,
    /// Where records lie in key order: scattered (hashed) or in turn (ordered)
    #[arg(long, value_enum, default_value_t = KeyOrder::Hashed)]
    pub key_order: KeyOrder,
    /// Longest scan in records; lengths are uniform from 1 on
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub scan_length: u64,
    /// Threads that generate load
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub threads: usize,
    /// Writes (or, if there are only reads, reads) that a thread has under way before it waits
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub depth: usize,
    /// Seconds that the load lasts, loading aside; 0 only opens, checks and loads
    #[arg(long, default_value_t = 10.0, value_name = "N")]
    pub seconds: f64,
    /// Ends the load after this many operations, if the time isn't over before
    #[arg(long, value_name = "N")]
    pub operations: Option<u64>,
    /// Operations a second that are due, over all threads (open loop): latency counts from the moment an operation
    /// was due. Left out: each operation follows on the one before (closed loop)
    #[arg(long, value_name = "N")]
    pub rate: Option<u64>,
    /// When writes are acknowledged: durable (sync) or visible (buffered)
    #[arg(long, value_enum, default_value_t = Durability::Sync)]
    pub durability: Durability,
    /// Budget of the page cache in bytes [default: Treering's]
    #[arg(long, value_name = "N", value_parser = parse_size)]
    pub cache_bytes: Option<u64>,
    /// Bytes of a page, if the directory is new [default: Treering's]
    #[arg(long, value_name = "N", value_parser = parse_size)]
    pub page_bytes: Option<u64>,
    /// Shard workers [default: Treering's]
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,
    /// Length of log that starts a checkpoint, in bytes [default: Treering's]
    #[arg(long, value_name = "N", value_parser = parse_size)]
    pub checkpoint_log_bytes: Option<u64>,
    /// Input and output: io_uring where allowed (auto), io_uring or an error (uring), threads (blocking)
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    pub io: Io,
    /// Directory of the database, made if it isn't there [default: a temporary one]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Writes the report as one JSON object; - for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the latencies in HdrHistogram's percentile format (.hgrm), in microseconds
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Draws latency percentiles and throughput over time as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Seed of all choices
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Checks every answer against what was written, and the whole database before and after; in a directory
    /// that an earlier run with --verify left behind, killed or not, first of all that nothing it was promised
    /// is missing
    #[arg(long)]
    pub verify: bool,
}

impl RunArguments {
    /// The run that they ask for.
    ///
    /// # Errors
    /// A sentence that says what can't be run.
    pub fn plan(&self) -> Result<Plan, String> {
        let to_usize = |name: &str, bytes: u64| {
            usize::try_from(bytes).map_err(|_| format!("--{name} is more than this machine can address"))
        };
        let plan = Plan {
            workload: self.workload,
            records: self.records,
            value_bytes: to_usize("value-bytes", self.value_bytes)?,
            key_order: self.key_order,
            scan_length: self.scan_length,
            threads: self.threads,
            depth: self.depth,
            duration: Duration::try_from_secs_f64(self.seconds)
                .map_err(|error| format!("--seconds: {error}"))?,
            operations: self.operations,
            rate: self.rate,
            directory: self.dir.clone(),
            seed: self.seed,
            verify: self.verify,
            store: StoreOptions {
                durability: self.durability,
                io: self.io,
                cache_bytes: self.cache_bytes,
                page_bytes: self
                    .page_bytes
                    .map(|bytes| to_usize("page-bytes", bytes))
                    .transpose()?,
                shards: self.shards,
                checkpoint_log_bytes: self.checkpoint_log_bytes,
            },
        };
        plan.validate()?;
        Ok(plan)
    }
}

/// A number of bytes: digits, and perhaps k, m or g with or without `iB` or `B`, for powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit
        .to_ascii_lowercase()
        .trim_end_matches('b')
        .trim_end_matches('i')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("{unit:?} is no unit; k, m and g are")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no number of bytes"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn plan(arguments: &str) -> Result<Plan, String> {
        let words = ["loadgen", "run"].into_iter().chain(arguments.split_whitespace());
        match Cli::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .command
        {
            Some(Command::Run(arguments)) => arguments.plan(),
            None => Err("no subcommand".into()),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        assert!(
            Cli::try_parse_from(["loadgen"])
                .expect("no arguments are needed")
                .command
                .is_none()
        );
    }

    #[test]
    fn every_documented_argument_is_taken() {
        let plan = plan(
            "--workload f --records 5000 --value-bytes 100 --threads 3 --depth 4 --seconds 2.5 --rate 1000 \
             --durability buffered --cache-bytes 64MiB --page-bytes 8k --dir d --json j --hdr h --plot p --seed 9 \
             --verify --io blocking",
        )
        .expect("it is sound");
        assert_eq!((plan.workload, plan.records, plan.seed), (Workload::F, 5000, 9));
        assert_eq!(plan.store.cache_bytes, Some(64 << 20));
        assert_eq!(plan.store.page_bytes, Some(8192));
        assert_eq!(plan.duration, Duration::from_millis(2500));
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for arguments in [
            "--records 0",
            "--threads 0",
            "--threads 5000",
            "--depth 0",
            "--threads 64 --depth 65536",
            "--seconds -1",
            "--seconds inf",
            "--rate 0",
            "--rate 5 --workload load",
            "--verify --value-bytes 31",
            "--verify --records 99999999999",
            "--value-bytes 2g",
            "--cache-bytes 1x",
            "--records 5k",
            "--cache-bytes 99999999999999g",
            "--workload g",
            "--scan-length 0",
        ] {
            assert!(plan(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let sizes = [
            ("0", 0),
            ("17", 17),
            ("4k", 4096),
            ("1MiB", 1 << 20),
            ("2GB", 2 << 30),
            ("3G", 3 << 30),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }
}
