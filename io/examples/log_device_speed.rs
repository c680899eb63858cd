//! Measures what a log and a data file can expect of a device: commits a second by pwrite + fdatasync and by
//! `RWF_DSYNC` through the ring, and random 4 KiB reads at several depths.
//!
//! `cargo run --release -p treering-io --example log_device_speed -- [directory] [seconds per row]`
//!
//! The directory should lie on the disk in question; a scratch directory inside it is made and removed.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use treering_io::{
    AlignedBuffer, BLOCK_BYTES, BackendChoice, Buffer, Device, Directory, File, OpenMode, Operation,
    OsDirectory, Wait, open_device,
};

const LOG_BYTES: u64 = 64 << 20;
const DATA_BYTES: u64 = 1 << 30;
const BLOCK: u64 = BLOCK_BYTES as u64;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| ".".to_owned());
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let row = Duration::from_secs_f64(seconds);

    let path = std::path::Path::new(&parent).join(format!("log-device-speed-{}", std::process::id()));
    let directory = OsDirectory::create(&path)?;
    let outcome = measure(&directory, row);
    std::fs::remove_dir_all(&path)?;
    outcome
}

fn measure(directory: &OsDirectory, row: Duration) -> Result<(), Box<dyn Error>> {
    let log = directory.open("log", OpenMode::CreateNew)?;
    log.prefill(LOG_BYTES)?;
    println!(
        "direct I/O: {}; 4 KiB blocks; {} s a row\n",
        directory.is_direct(),
        row.as_secs_f64()
    );
    println!("| row | operations a second | mean, µs |\n|---|---:|---:|");

    report("pwrite + fdatasync", 1, blocking_commits(&*log, row, false)?);
    report("pwritev2 RWF_DSYNC", 1, blocking_commits(&*log, row, true)?);
    for choice in [BackendChoice::Uring, BackendChoice::Blocking] {
        for depth in [1, 2, 4] {
            let rate = pipeline(choice, depth, row, |number, buffer| {
                Operation::write(0, Arc::clone(&log), number * BLOCK % LOG_BYTES, buffer, true)
            })?;
            report(&format!("{choice:?} RWF_DSYNC, {depth} in flight"), depth, rate);
        }
    }

    let data = directory.open("data", OpenMode::CreateNew)?;
    data.prefill(DATA_BYTES)?;
    for choice in [BackendChoice::Uring, BackendChoice::Blocking] {
        for depth in [1, 16, 64] {
            let rate = pipeline(choice, depth, row, |number, buffer| {
                let block = scatter(number) % (DATA_BYTES / BLOCK);
                Operation::read(0, Arc::clone(&data), block * BLOCK, buffer)
            })?;
            report(&format!("{choice:?} random read, depth {depth}"), depth, rate);
        }
    }
    Ok(())
}

fn report(what: &str, depth: usize, rate: f64) {
    println!("| {what} | {rate:.0} | {:.0} |", depth as f64 * 1e6 / rate);
}

/// A fixed, well mixed sequence (splitmix64), so that runs read the same blocks.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn blocking_commits(log: &dyn File, row: Duration, flagged: bool) -> Result<f64, Box<dyn Error>> {
    let buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < row {
        let offset = count * BLOCK % LOG_BYTES;
        if flagged {
            log.write_at_durable(&buffer, offset)?;
        } else {
            log.write_at(&buffer, offset)?;
            log.sync_data()?;
        }
        count += 1;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Keeps `depth` operations in flight for the time of one row.
fn pipeline(
    choice: BackendChoice,
    depth: usize,
    row: Duration,
    operation: impl Fn(u64, Buffer) -> Operation,
) -> Result<f64, Box<dyn Error>> {
    let mut device: Box<dyn Device> = open_device(choice, depth)?;
    let mut free: Vec<Buffer> = (0..depth)
        .map(|_| Buffer::Owned(AlignedBuffer::zeroed(BLOCK_BYTES)))
        .collect();
    let mut done = Vec::new();
    let (mut submitted, mut completed) = (0, 0_u64);
    let start = Instant::now();
    while start.elapsed() < row {
        while let Some(buffer) = free.pop() {
            device
                .submit(operation(submitted, buffer))
                .map_err(|_operation| "the device is full")?;
            submitted += 1;
        }
        device.reap(&mut done, Wait::UntilCompletionOrWake(None))?;
        for completion in done.drain(..) {
            completion.result?;
            free.push(completion.buffer);
            completed += 1;
        }
    }
    Ok(completed as f64 / start.elapsed().as_secs_f64())
}
