//! Treering beside LMDB, redb, fjall and RocksDB: what each does with the same records under the
//! same promise of durability, in one process and in alternating rounds.
//!
//! ```text
//! settings ─▶ rows/ ──────────▶ report ─▶ Markdown
//!              │  cached      all engines open at once, everything in memory
//!              │  durable     the same, every write on the device before it counts
//!              │  beyond      one child process per engine, cache = data / 8
//!              │  recovery    a child process is killed, its directory opened again
//!              ▼
//!           measure (threads, warm-up, latency)   device (what the hardware gives)
//!              ▼
//!           peers/ (one file per engine behind `Store` and `Session`)
//! ```
//!
//! How to run it, on a machine that does nothing else (a compile beside it voids every durable row):
//!
//! ```text
//! PEERS_QUICK=1 cargo bench -p treering-benches --bench peers            two minutes, no RocksDB
//! cargo bench -p treering-benches --features rocksdb --bench peers       everything
//! PEERS_ROWS=put-durable PEERS_ENGINES=treering,rocksdb cargo bench ...  some of it
//! cargo bench -p treering-benches --bench engine                         Criterion, the hot paths
//! ```
//!
//! ```text
//! cargo bench -p treering-benches --bench versions                       snapshots, transactions, backups, compaction
//! ```
//!
//! All variables: [`settings`]. For LMDB beyond the cache the operator provides a memory cgroup, as in
//! `mkdir /sys/fs/cgroup/memory/peers` (version 1) or a delegated group (version 2), and says
//! `PEERS_CGROUP=/sys/fs/cgroup/memory/peers`.
//!
//! What makes the comparison fair, and where it is decided:
//!
//! * Keys and values are a function of an index ([`workload`]), so every engine gets the same ones
//!   and no lookup touches a table of keys first.
//! * Rounds alternate between the engines and start with another one each time; what is quoted is
//!   the median ([`report`]).
//! * Each engine uses its best documented way for each row; the choices are in the header of its
//!   file under [`peers`].
//! * A ratio is always "how many times better Treering is", whatever the unit.
//!
//! Absent from here: correctness. The rows check that reads find what they look for and nothing
//! more; the `tests` crate does the rest.

pub mod child;
pub mod device;
pub mod disk;
pub mod machine;
pub mod measure;
pub mod memory;
pub mod peers;
pub mod report;
pub mod rows;
pub mod settings;
pub mod versions;
pub mod workload;
pub mod zipfian;

/// Any failure of an engine or of the harness; a bench has nobody to tell them apart for.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What everything here returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// How a bench of this name ends; says why, if it failed.
pub fn exit_code(bench: &str, result: Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{bench}: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
