//! Money moves between accounts on different shards, by eight threads at once, while another thread adds up all accounts
//! in a snapshot every millisecond: the sum never moves. The working process is killed (`kill -9`) again and again, the
//! database reopened, and added up once more.
//!
//! `cargo run --release -p treering --example transfer [directory]`; `TRANSFER_SECONDS` (10) says how long. Ends with 1
//! as soon as the sum has moved.

#![expect(
    clippy::disallowed_methods,
    reason = "it has threads, a clock and files of its own"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use treering::{Client, Db, Options, Snapshot, Tree};

const SHARDS: usize = 4;
const THREADS: u64 = 8;
const ACCOUNTS: u64 = 64;
const BALANCE: i64 = 1_000;
const TOTAL: i64 = BALANCE * ACCOUNTS as i64 * SHARDS as i64;
/// Times that the working process is started; all but the last are killed.
const ROUNDS: u32 = 4;
/// Set for the working process: where the database is.
pub const WORKER: &str = "TRANSFER_WORKER";

/// What ends the example early, in words.
type Result<T> = std::result::Result<T, String>;

fn words(error: treering::Error) -> String {
    error.to_string()
}

fn main() -> ExitCode {
    if let Some(path) = std::env::var_os(WORKER) {
        return report(work(Path::new(&path), seconds()));
    }
    let path = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("treering-transfer"), PathBuf::from);
    let itself = std::env::current_exe().map_err(|error| error.to_string());
    report(itself.and_then(|itself| run(&path, seconds(), || Command::new(&itself))))
}

fn seconds() -> f64 {
    let asked = std::env::var("TRANSFER_SECONDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(10.0)
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Has processes work for so long, kills them, and adds up what they leave. `worker` starts the program that calls
/// [`work`] when it finds [`WORKER`] in its environment.
///
/// # Errors
/// If the sum has moved, or something can't be done at all.
pub fn run(path: &Path, seconds: f64, worker: impl Fn() -> Command) -> Result<()> {
    let _ = std::fs::remove_dir_all(path);
    let share = seconds / f64::from(ROUNDS);
    for round in 1..=ROUNDS {
        let mut command = worker();
        let is_last = round == ROUNDS;
        // Those that are killed would go on for longer.
        let lasts = if is_last { share } else { 10.0 * share };
        command
            .env(WORKER, path)
            .env("TRANSFER_SECONDS", lasts.to_string());
        let mut child = command.spawn().map_err(|error| format!("starting: {error}"))?;
        if !is_last {
            std::thread::sleep(Duration::from_secs_f64(share));
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_none() {
                child.kill().map_err(|error| format!("killing: {error}"))?;
            }
            let status = child.wait().map_err(|error| error.to_string())?;
            if status.code().is_some() {
                return Err(format!("round {round}: the worker ended by itself, {status}"));
            }
        } else {
            let status = child.wait().map_err(|error| error.to_string())?;
            if !status.success() {
                return Err(format!("round {round}: {status}"));
            }
        }
        let (db, trees) = open(path)?;
        let moved = sum(&db.client().snapshot(), &trees)?;
        println!("round {round}: {moved} transfers so far, the sum is {TOTAL}");
        db.close().map_err(words)?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<(Db, Vec<Tree>)> {
    let options = Options::new().cache_bytes(64 << 20).shards(SHARDS);
    let db = options.open(path).map_err(words)?;
    let client = db.client();
    let trees: treering::Result<Vec<Tree>> = (0..SHARDS)
        .map(|number| client.tree(&format!("accounts {number}")))
        .collect();
    let trees = trees.map_err(words)?;
    client
        .transact(|tx| {
            if tx.range(&trees[0], ..)?.next().is_some() {
                return Ok(());
            }
            for tree in &trees {
                (0..ACCOUNTS)
                    .try_for_each(|account| tx.put(tree, account.to_be_bytes(), encode(BALANCE, 0)))?;
            }
            Ok(())
        })
        .map_err(words)?;
    Ok((db, trees))
}

/// Moves money and adds it up for so long.
///
/// # Errors
/// If the sum has moved, or the database fails.
pub fn work(path: &Path, seconds: f64) -> Result<()> {
    let (db, trees) = open(path)?;
    let client = db.client();
    let done = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let result = std::thread::scope(|scope| {
        let movers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (client, trees, done) = (&client, &trees, &done);
                scope.spawn(move || {
                    let mut state = thread + 1;
                    while !done.load(Ordering::Relaxed) {
                        transfer(client, trees, &mut state)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let mut result = Ok(());
        while result.is_ok() && Instant::now() < until {
            result = sum(&client.snapshot(), &trees).map(drop);
            std::thread::sleep(Duration::from_millis(1));
        }
        done.store(true, Ordering::Relaxed);
        for mover in movers {
            let moved: treering::Result<()> = mover.join().map_err(|_| "a thread panicked".to_owned())?;
            result = result.and(moved.map_err(words));
        }
        result
    });
    result.and(db.close().map_err(words))
}

/// Moves some money from one account to another one on another shard.
fn transfer(client: &Client, trees: &[Tree], state: &mut u64) -> treering::Result<()> {
    let mut below = |limit: u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 33) % limit
    };
    let from = below(SHARDS as u64) as usize;
    let to = (from + 1 + below(SHARDS as u64 - 1) as usize) % SHARDS;
    let (payer, payee) = (below(ACCOUNTS).to_be_bytes(), below(ACCOUNTS).to_be_bytes());
    let amount = below(100) as i64;
    client.transact(|tx| {
        for (tree, account, change) in [(&trees[from], payer, -amount), (&trees[to], payee, amount)] {
            let (balance, moved) = tx.get(tree, account)?.as_deref().map_or((0, 0), decode);
            tx.put(tree, account, encode(balance + change, moved + 1))?;
        }
        Ok(())
    })
}

/// Adds everything up; tells how many transfers there were.
fn sum(snapshot: &Snapshot, trees: &[Tree]) -> Result<u64> {
    let (mut sum, mut moved) = (0, 0);
    for tree in trees {
        for item in snapshot.range(tree, ..).map_err(words)? {
            let (balance, times) = decode(&item.map_err(words)?.1);
            sum += balance;
            moved += times;
        }
    }
    if sum != TOTAL || moved % 2 != 0 {
        return Err(format!(
            "version {}: {moved} ends of transfers, and the sum is {sum}, not {TOTAL}",
            snapshot.seq()
        ));
    }
    Ok(moved / 2)
}

/// An account: its balance, and how many transfers it took part in.
fn encode(balance: i64, moved: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&balance.to_le_bytes());
    value[8..].copy_from_slice(&moved.to_le_bytes());
    value
}

fn decode(value: &[u8]) -> (i64, u64) {
    let part = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&value[at..at + 8]);
        bytes
    };
    (i64::from_le_bytes(part(0)), u64::from_le_bytes(part(8)))
}
