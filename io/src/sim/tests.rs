//! What survives and what doesn't, each fault, and equal runs from equal seeds.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::{
    AlignedBuffer, BLOCK_BYTES, Buffer, Completion, Device, Directory, File, LockError, OpenMode, Operation,
    Wait, os_error_code,
};

const BLOCK: u64 = BLOCK_BYTES as u64;

fn filled(byte: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
    buffer.fill(byte);
    buffer
}

fn read_block(file: &dyn File, number: u64) -> io::Result<AlignedBuffer> {
    let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
    file.read_at(&mut buffer, number * BLOCK)?;
    Ok(buffer)
}

/// The first byte of each sector of a block, checking that sectors are whole.
fn sectors(block: &[u8]) -> Vec<u8> {
    let whole = |sector: &[u8]| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
        sector[0]
    };
    block.chunks(512).map(whole).collect()
}

/// A disk with one durable file of `blocks` durable blocks of byte 1.
fn disk_with_file(seed: u64, blocks: u64) -> (SimDirectory, Arc<dyn File>) {
    let directory = SimDirectory::new(seed);
    let file = directory.open("data", OpenMode::CreateNew).unwrap();
    file.grow(blocks * BLOCK).unwrap();
    for number in 0..blocks {
        file.write_at(&filled(1), number * BLOCK).unwrap();
    }
    file.sync_data().unwrap();
    directory.sync().unwrap();
    (directory, file)
}

fn reopen(directory: &SimDirectory) -> Arc<dyn File> {
    directory.open("data", OpenMode::Existing).unwrap()
}

fn submit(device: &mut SimDevice, operation: Operation) {
    assert!(device.submit(operation).is_ok(), "the device is full");
}

fn write(token: u64, file: &Arc<dyn File>, block: u64, byte: u8, durable: bool) -> Operation {
    Operation::write(
        token,
        Arc::clone(file),
        block * BLOCK,
        Buffer::Owned(filled(byte)),
        durable,
    )
}

fn drain(device: &mut SimDevice) -> Vec<Completion> {
    let mut done = Vec::new();
    while device.in_flight() > 0 {
        device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
    }
    done
}

#[test]
fn synced_bytes_survive_every_cut_and_unsynced_sectors_may_or_may_not() {
    let mut kept = vec![BTreeSet::new(); 8];
    for seed in 0..100 {
        let (directory, file) = disk_with_file(seed, 4);
        file.write_at(&filled(2), 0).unwrap();
        file.write_at(&filled(3), 0).unwrap();
        file.write_at(&filled(8), 2 * BLOCK).unwrap();
        file.write_at_durable(&filled(9), 2 * BLOCK).unwrap();
        directory.power_cut();
        let file = reopen(&directory);
        for (seen, byte) in kept.iter_mut().zip(sectors(&read_block(&*file, 0).unwrap())) {
            seen.insert(byte);
        }
        assert_eq!(sectors(&read_block(&*file, 1).unwrap()), [1; 8]);
        assert_eq!(
            sectors(&read_block(&*file, 2).unwrap()),
            [9; 8],
            "an older write came back"
        );
    }
    let each = BTreeSet::from([1, 2, 3]);
    assert!(
        kept.iter().all(|seen| *seen == each),
        "each content survives in each sector under some seed: {kept:?}"
    );
}

#[test]
fn blocks_tear_and_writes_reorder() {
    let (mut torn, mut reordered) = (false, false);
    for seed in 0..100 {
        let (directory, file) = disk_with_file(seed, 2);
        file.write_at(&filled(2), 0).unwrap();
        file.write_at(&filled(2), BLOCK).unwrap();
        directory.power_cut();
        let file = reopen(&directory);
        let first = sectors(&read_block(&*file, 0).unwrap());
        let second = sectors(&read_block(&*file, 1).unwrap());
        torn |= first.contains(&1) && first.contains(&2);
        reordered |= first.contains(&1) && second.contains(&2);
    }
    assert!(torn && reordered);
}

#[test]
fn a_durable_write_makes_nothing_else_durable() {
    let lost = (0..100).any(|seed| {
        let (directory, file) = disk_with_file(seed, 2);
        file.write_at(&filled(2), 0).unwrap();
        file.write_at_durable(&filled(2), BLOCK).unwrap();
        directory.power_cut();
        sectors(&read_block(&*reopen(&directory), 0).unwrap()).contains(&1)
    });
    assert!(lost);
}

#[test]
fn a_sync_covers_what_completed_before_its_submission() {
    let mut lost = false;
    for seed in 0..100 {
        let (directory, file) = disk_with_file(seed, 3);
        let mut device = SimDevice::new(&directory, 8);
        submit(&mut device, write(1, &file, 0, 2, false));
        assert_eq!(drain(&mut device).len(), 1);
        submit(&mut device, write(2, &file, 1, 2, false));
        submit(&mut device, Operation::sync_data(3, Arc::clone(&file)));
        let order: Vec<u64> = drain(&mut device)
            .iter()
            .map(|completion| completion.token)
            .collect();
        directory.power_cut();
        let file = reopen(&directory);
        assert!(
            sectors(&read_block(&*file, 0).unwrap())
                .iter()
                .all(|byte| *byte == 2)
        );
        // Even a write that completed before the sync did, but after the sync's submission.
        lost |= order == [2, 3] && sectors(&read_block(&*file, 1).unwrap()).contains(&1);
    }
    assert!(lost, "a write in flight beside the sync may be lost");
}

#[test]
fn operations_in_flight_vanish_with_the_power_and_may_land() {
    let mut landed = false;
    for seed in 0..100 {
        let (directory, file) = disk_with_file(seed, 1);
        let mut device = SimDevice::new(&directory, 8);
        submit(&mut device, write(1, &file, 0, 2, true));
        directory.power_cut();
        assert_eq!(device.in_flight(), 0);
        assert!(drain(&mut device).is_empty());
        assert_eq!(directory.next_due_nanos(), None);
        submit(&mut device, write(2, &file, 0, 3, true));
        let dead = drain(&mut device).pop().unwrap().result.unwrap_err();
        assert_eq!(dead.kind(), ErrorKind::NotConnected);
        assert_eq!(file.len().unwrap_err().kind(), ErrorKind::NotConnected);
        let content = sectors(&read_block(&*reopen(&directory), 0).unwrap());
        assert!(!content.contains(&3));
        landed |= content.contains(&2);
    }
    assert!(landed);
}

#[test]
fn a_killed_process_loses_no_completed_write() {
    let mut landed = BTreeSet::new();
    for seed in 0..50 {
        let (directory, file) = disk_with_file(seed, 2);
        let lock = directory.lock().unwrap();
        assert!(matches!(directory.lock(), Err(LockError::Held { .. })));
        let mut device = SimDevice::new(&directory, 8);
        submit(&mut device, write(1, &file, 0, 2, false));
        file.write_at(&filled(2), BLOCK).unwrap();
        directory.kill_process();
        let _taken_over = directory.lock().unwrap();
        drop(lock);
        assert!(
            matches!(directory.lock(), Err(LockError::Held { .. })),
            "the dead owner's guard freed it"
        );
        let file = reopen(&directory);
        assert!(
            sectors(&read_block(&*file, 1).unwrap())
                .iter()
                .all(|byte| *byte == 2)
        );
        landed.insert(sectors(&read_block(&*file, 0).unwrap()));
    }
    assert_eq!(landed, BTreeSet::from([vec![1; 8], vec![2; 8]]));
}

#[test]
fn names_survive_after_the_directorys_sync() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let (directory, _file) = disk_with_file(seed, 1);
        directory.open("old", OpenMode::CreateNew).unwrap();
        directory.sync().unwrap();
        directory.open("new", OpenMode::CreateNew).unwrap();
        directory.rename("old", "renamed").unwrap();
        directory.power_cut();
        let names = directory.names().unwrap();
        assert!(names.contains(&"data".to_owned()));
        assert!(
            names.contains(&"old".to_owned()) != names.contains(&"renamed".to_owned()),
            "{names:?}"
        );
        outcomes.insert(names);
    }
    assert_eq!(
        outcomes.len(),
        4,
        "each change is kept or lost by itself: {outcomes:?}"
    );
}

#[test]
fn lengths_follow_their_contracts() {
    let (mut shrunk, mut came_back) = (false, false);
    for seed in 0..50 {
        let (directory, file) = disk_with_file(seed, 4);
        file.truncate(BLOCK).unwrap();
        let fork = directory.fork(seed + 1000);
        fork.power_cut();
        let forked = reopen(&fork);
        shrunk |= forked.len().unwrap() == BLOCK;
        came_back |= forked.len().unwrap() == 4 * BLOCK;
        file.grow(3 * BLOCK).unwrap();
        directory.power_cut();
        let file = reopen(&directory);
        assert_eq!(file.len().unwrap(), 3 * BLOCK);
        assert!(read_block(&*file, 0).unwrap().iter().all(|byte| *byte == 1));
        assert!(
            read_block(&*file, 2).unwrap().iter().all(|byte| *byte == 0),
            "truncated bytes came back"
        );
    }
    assert!(shrunk && came_back);
    let (directory, file) = disk_with_file(0, 4);
    file.write_at(&filled(5), 0).unwrap();
    file.prefill(2 * BLOCK).unwrap();
    directory.power_cut();
    let file = reopen(&directory);
    assert!(read_block(&*file, 1).unwrap().iter().all(|byte| *byte == 0));
    assert!(read_block(&*file, 2).unwrap().iter().all(|byte| *byte == 1));
}

#[test]
fn write_errors_land_whole_in_part_or_not() {
    let (directory, file) = disk_with_file(7, 1);
    directory.fail_next(FaultKind::WriteErrorNotLanded, "data");
    let error = file.write_at(&filled(2), 0).unwrap_err();
    assert_eq!(os_error_code(&error), Some(libc::EIO));
    assert!(error.to_string().contains("\"data\" at byte 0"), "{error}");
    assert_eq!(sectors(&read_block(&*file, 0).unwrap()), [1; 8]);

    directory.fail_next(FaultKind::WriteErrorLanded, "da");
    file.write_at_durable(&filled(3), 0).unwrap_err();
    assert_eq!(sectors(&read_block(&*file, 0).unwrap()), [3; 8]);

    let torn = (0..20).any(|_| {
        directory.fail_next(FaultKind::WriteErrorTorn, "");
        file.write_at(&filled(4), 0).unwrap_err();
        let content = sectors(&read_block(&*file, 0).unwrap());
        file.write_at(&filled(3), 0).unwrap();
        content.contains(&3) && content.contains(&4)
    });
    assert!(torn);
    assert_eq!(directory.faults_waiting(), 0);
}

#[test]
fn a_failed_sync_is_not_repaired_by_the_next() {
    let mut lost = false;
    for seed in 0..50 {
        let (directory, file) = disk_with_file(seed, 1);
        file.write_at(&filled(2), 0).unwrap();
        directory.fail_next(FaultKind::SyncErrorLost, "data");
        assert_eq!(os_error_code(&file.sync_data().unwrap_err()), Some(libc::EIO));
        file.sync_data().unwrap();
        lost |= sectors(&read_block(&*file, 0).unwrap()).contains(&1);
    }
    assert!(lost);
    let (directory, file) = disk_with_file(1, 1);
    file.write_at(&filled(2), 0).unwrap();
    directory.fail_next(FaultKind::SyncErrorKept, "data");
    file.sync_data().unwrap_err();
    directory.power_cut();
    assert_eq!(sectors(&read_block(&*reopen(&directory), 0).unwrap()), [2; 8]);
    directory.fail_next(FaultKind::SyncErrorKept, ".");
    directory.open("new", OpenMode::CreateNew).unwrap();
    directory.sync().unwrap_err();
    directory.power_cut();
    assert_eq!(directory.names().unwrap(), ["data", "new"]);

    let lost = (0..20).filter(|seed| {
        let (directory, _file) = disk_with_file(*seed, 1);
        directory.open("new", OpenMode::CreateNew).unwrap();
        directory.fail_next(FaultKind::SyncErrorLost, ".");
        directory.sync().unwrap_err();
        directory.sync().unwrap();
        directory.names().unwrap() == ["data"]
    });
    assert!((1..20).contains(&lost.count()));
}

#[test]
fn silent_faults_lie() {
    let (directory, file) = disk_with_file(3, 4);
    directory.fail_next(FaultKind::LostWrite, "data");
    file.write_at_durable(&filled(2), 0).unwrap();
    assert_eq!(sectors(&read_block(&*file, 0).unwrap()), [1; 8]);

    directory.fail_next(FaultKind::MisdirectedWrite, "data");
    file.write_at_durable(&filled(3), 0).unwrap();
    let hit: Vec<u64> = (0..4)
        .filter(|number| read_block(&*file, *number).unwrap().iter().all(|byte| *byte == 3))
        .collect();
    assert!(hit.len() == 1 && hit[0] != 0, "{hit:?}");

    file.write_at(&filled(6), 0).unwrap();
    directory.fail_next(FaultKind::StaleRead, "data");
    assert_eq!(sectors(&read_block(&*file, 0).unwrap()), [1; 8]);
    assert_eq!(sectors(&read_block(&*file, 0).unwrap()), [6; 8]);

    file.sync_data().unwrap();
    directory.fail_next(FaultKind::BitRot, "data");
    let rotten = read_block(&*file, 0).unwrap();
    let flipped: u32 = rotten.iter().map(|byte| (byte ^ 6).count_ones()).sum();
    assert_eq!(flipped, 1);
    assert_eq!(read_block(&*file, 0).unwrap()[..], rotten[..], "rot stays");
    directory.flip_bit("data", 100, 3).unwrap();
    assert_ne!(read_block(&*file, 0).unwrap()[100], rotten[100]);
    assert_eq!(
        directory.flip_bit("data", 4 * BLOCK, 0).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
}

#[test]
fn space_runs_out_without_a_trace() {
    let options = SimOptions {
        capacity_bytes: Some(4 * BLOCK),
        ..SimOptions::new(1)
    };
    let directory = SimDirectory::with_options(options);
    let file = directory.open("data", OpenMode::CreateNew).unwrap();
    file.grow(3 * BLOCK).unwrap();
    for full in [
        file.grow(5 * BLOCK),
        file.prefill(5 * BLOCK),
        file.write_at(&filled(1), 4 * BLOCK),
    ] {
        assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 3 * BLOCK);
    }
    file.write_at(&filled(1), 3 * BLOCK).unwrap();
    let other = directory.open("other", OpenMode::CreateNew).unwrap();
    assert_eq!(other.grow(BLOCK).unwrap_err().kind(), ErrorKind::StorageFull);
    directory.remove("data").unwrap();
    other.grow(BLOCK).unwrap();
    directory.set_capacity(None);
    directory.fail_next(FaultKind::NoSpace, "other");
    assert_eq!(other.grow(2 * BLOCK).unwrap_err().kind(), ErrorKind::StorageFull);
    other.grow(2 * BLOCK).unwrap();
}

#[test]
fn misuse_is_reported() {
    let (directory, file) = disk_with_file(1, 1);
    let buffer = filled(0);
    assert_eq!(
        file.write_at(&buffer[..100], 0).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        file.write_at(&buffer[..512], 100).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        file.write_at(&buffer[1..513], 0).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );

    let mut frame = filled(2);
    // SAFETY: `frame` outlives the operation; that it is changed meanwhile is what is tested, by this same thread.
    let raw = unsafe { crate::RawBuffer::new(std::ptr::NonNull::from(&mut frame[0]), BLOCK_BYTES) };
    let mut device = SimDevice::new(&directory, 1);
    submit(
        &mut device,
        Operation::write(1, Arc::clone(&file), 0, Buffer::Borrowed(raw), false),
    );
    frame[7] = 3;
    let error = drain(&mut device).pop().unwrap().result.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("changed while the write was in flight"),
        "{error}"
    );
    assert_eq!(directory.counters().changed_buffers, 1);
}

#[test]
fn time_is_virtual_and_orders_completions() {
    let (directory, file) = disk_with_file(5, 8);
    let mut device = SimDevice::new(&directory, 8);
    for number in 0..8 {
        submit(&mut device, write(number, &file, number, 2, false));
    }
    assert!(device.submit(write(9, &file, 0, 2, false)).is_err());
    let mut done = Vec::new();
    device.reap(&mut done, Wait::No).unwrap();
    assert!(done.is_empty(), "nothing completes while no time passes");
    let due_nanos = directory.next_due_nanos().unwrap();
    directory.advance(due_nanos - directory.now_nanos() - 1);
    device.reap(&mut done, Wait::No).unwrap();
    assert!(done.is_empty());
    device
        .reap(
            &mut done,
            Wait::UntilCompletionOrWake(Some(Duration::from_nanos(1))),
        )
        .unwrap();
    assert_eq!(done.len(), 1);
    assert_eq!(directory.now_nanos(), due_nanos);
    device.waker().wake();
    device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
    assert_eq!(done.len(), 1, "a wake ends the wait");
    done.append(&mut drain(&mut device));
    let order: Vec<u64> = done.iter().map(|completion| completion.token).collect();
    assert_ne!(order, [0, 1, 2, 3, 4, 5, 6, 7], "operations overtake each other");
}

/// A run with everything in it.
fn busy_run(seed: u64, work: u64) -> (u64, SimCounters) {
    let mut random = random::Random::new(work);
    let (directory, mut file) = disk_with_file(seed, 16);
    let rates = FaultRates::none()
        .with(FaultKind::ReadError, 20_000)
        .with(FaultKind::WriteErrorTorn, 20_000)
        .with(FaultKind::SyncErrorLost, 20_000)
        .with(FaultKind::BitRot, 20_000)
        .with(FaultKind::MisdirectedWrite, 20_000);
    directory.set_faults("data", rates);
    let mut device = SimDevice::new(&directory, 4);
    let mut done = Vec::new();
    for token in 0..400 {
        let block = random.below(16);
        let operation = match random.below(8) {
            0 => Operation::sync_data(token, Arc::clone(&file)),
            1..4 => Operation::read(token, Arc::clone(&file), block * BLOCK, Buffer::Owned(filled(0))),
            durable => write(token, &file, block, random.below(256) as u8, durable == 4),
        };
        if device.submit(operation).is_err() {
            device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
        }
        if random.below(50) == 0 {
            directory.power_cut();
            file = reopen(&directory);
        }
    }
    (directory.trace_hash(), directory.counters())
}

#[test]
fn equal_seeds_give_equal_runs() {
    let (hash, counters) = busy_run(1, 1);
    assert_eq!(busy_run(1, 1), (hash, counters));
    assert_ne!(busy_run(2, 1).0, hash, "the disk's seed matters");
    assert_ne!(busy_run(1, 2).0, hash, "the work matters");
    assert!(
        counters.faults > 0 && counters.power_cuts > 0 && counters.syncs > 0,
        "{counters:?}"
    );
}

#[test]
fn rates_follow_the_longest_prefix() {
    let (directory, file) = disk_with_file(1, 1);
    let log = directory.open("log-1", OpenMode::CreateNew).unwrap();
    log.grow(BLOCK).unwrap();
    directory.set_faults("", FaultRates::none().with(FaultKind::ReadError, 1_000_000));
    directory.set_faults("log-", FaultRates::none());
    assert!(read_block(&*file, 0).is_err());
    assert!(read_block(&*log, 0).is_ok());
    directory.rename("log-1", "other").unwrap();
    assert!(read_block(&*log, 0).is_err(), "the new name counts");
    directory.clear_faults();
    assert!(read_block(&*file, 0).is_ok());
}

#[test]
fn a_fork_has_its_own_future() {
    let (directory, file) = disk_with_file(1, 1);
    let fork = directory.fork(2);
    file.write_at(&filled(2), 0).unwrap();
    fork.power_cut();
    assert_eq!(sectors(&read_block(&*reopen(&fork), 0).unwrap()), [1; 8]);
    assert_eq!(sectors(&read_block(&*file, 0).unwrap()), [2; 8]);
}
