//! What only a ring does: short transfers of the kernel, refused flags, fixed buffers, its owner's thread.

use std::fs::File as StdFile;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::*;
use crate::{AlignedBuffer, BLOCK_BYTES, Buffer, Directory, File, OpenMode, OsDirectory, RawBuffer};

/// A ring, unless this system refuses it (other tests cover that).
fn ring(capacity: usize) -> Option<UringDevice> {
    UringDevice::open(capacity)
        .inspect_err(|error| eprintln!("io_uring is refused here and not tested: {error}"))
        .ok()
}

/// A file on disk; dropping the first value removes it.
fn scratch() -> (tempfile::TempDir, Arc<dyn File>) {
    let home = tempfile::tempdir().unwrap();
    let file = OsDirectory::open(home.path())
        .unwrap()
        .open("data", OpenMode::CreateNew)
        .unwrap();
    (home, file)
}

fn filled(byte: u8) -> Buffer {
    let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
    buffer.fill(byte);
    Buffer::Owned(buffer)
}

fn run(device: &mut UringDevice, operation: Operation) -> Completion {
    device.submit(operation).unwrap();
    let mut done = Vec::new();
    while done.is_empty() {
        device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
    }
    done.remove(0)
}

/// The reading end of a pipe in place of a file: the kernel transfers what the pipe holds, however little.
#[derive(Debug)]
struct PipeFile {
    end: StdFile,
}

impl File for PipeFile {
    fn name(&self) -> &str {
        "pipe"
    }

    fn len(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.end.as_raw_fd())
    }

    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, _buffer: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at_durable(&self, _buffer: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn grow(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn prefill(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn short_transfers_are_continued() {
    let Some(mut device) = ring(4) else { return };
    let (reader, mut writer) = io::pipe().unwrap();
    let file = Arc::new(PipeFile {
        end: StdFile::from(std::os::fd::OwnedFd::from(reader)),
    });
    let operation = Operation::read(1, file, 0, Buffer::Owned(AlignedBuffer::zeroed(2048)));
    device.submit(operation).unwrap();
    let mut done = Vec::new();
    for part in 0..4_u8 {
        assert!(done.is_empty(), "complete after {part} of 4 parts");
        io::Write::write_all(&mut writer, &[part; 512]).unwrap();
        // Each wait ends by the pipe's part: the last with the completion, the others by this wake.
        if part < 3 {
            device.waker().wake();
        }
        device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
    }
    let completion = done.pop().unwrap();
    completion.result.unwrap();
    let bytes = completion.buffer.into_owned().unwrap();
    assert!(
        bytes
            .chunks(512)
            .zip(0..4_u8)
            .all(|(chunk, part)| chunk.iter().all(|byte| *byte == part))
    );
}

#[test]
fn a_refused_durable_write_is_repeated_with_a_sync() {
    let (_home, file) = scratch();
    let refusal = || Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    let mut write = InFlight::new(Operation::write(1, Arc::clone(&file), 0, filled(1), true));
    assert_eq!(write.stage, Stage::DurableTransfer);
    assert!(matches!(write.advance(refusal()), Next::Again));
    assert_eq!((write.stage, write.transfer.done()), (Stage::TransferThenSync, 0));
    assert!(matches!(write.advance(Ok(512)), Next::Again));
    assert_eq!(
        (write.stage, write.transfer.done()),
        (Stage::TransferThenSync, 512)
    );
    assert!(matches!(write.advance(Ok(BLOCK_BYTES - 512)), Next::Again));
    assert_eq!(write.stage, Stage::Sync);
    assert!(matches!(
        write.advance(Err(io::ErrorKind::Interrupted.into())),
        Next::Again
    ));
    assert!(matches!(write.advance(Ok(0)), Next::Finished));

    let mut sync = InFlight::new(Operation::sync_data(2, Arc::clone(&file)));
    assert!(matches!(sync.advance(refusal()), Next::Failed(_)));

    // And the whole way through a ring that has been refused before.
    let Some(mut device) = ring(4) else { return };
    device.durable_by_flag = false;
    run(
        &mut device,
        Operation::write(3, Arc::clone(&file), 0, filled(2), true),
    )
    .result
    .unwrap();
    let read = run(&mut device, Operation::read(4, file, 0, filled(0)));
    read.result.unwrap();
    assert!(read.buffer.into_owned().unwrap().iter().all(|byte| *byte == 2));
}

#[test]
fn fixed_buffers_transfer_the_same_bytes() {
    let Some(mut device) = ring(4) else { return };
    let (_home, file) = scratch();
    let mut arena = AlignedBuffer::zeroed(8 * BLOCK_BYTES);
    let start = NonNull::from(&mut arena[0]);
    // SAFETY: `arena` is dropped after `device` (declared before it would be dropped first; see the end).
    let registered = unsafe { device.register_region(start, arena.len()) };
    if !registered {
        eprintln!("fixed buffers are refused here: testing the way without them");
    }
    // SAFETY: `index` is below 8, inside the arena; the arena outlives the operations, and is touched only between
    // them.
    let frame = |index: usize| unsafe {
        Buffer::Borrowed(RawBuffer::new(start.add(index * BLOCK_BYTES), BLOCK_BYTES))
    };
    arena[..BLOCK_BYTES].fill(3);
    run(
        &mut device,
        Operation::write(1, Arc::clone(&file), 0, frame(0), true),
    )
    .result
    .unwrap();
    run(&mut device, Operation::read(2, file, 0, frame(7)))
        .result
        .unwrap();
    assert!(arena[7 * BLOCK_BYTES..].iter().all(|byte| *byte == 3));
    // SAFETY: nothing is registered by a call that is refused.
    assert!(!unsafe { device.register_region(start, 0) } || !registered);
    drop(device);
    drop(arena);
}

#[test]
fn the_table_lets_go_of_files_that_nobody_holds() {
    let Some(mut device) = ring(4) else { return };
    let (reader, writer) = io::pipe().unwrap();
    let file: Arc<dyn File> = Arc::new(PipeFile {
        end: StdFile::from(std::os::fd::OwnedFd::from(writer)),
    });
    // A pipe can't be synced, but the attempt enters it into the table.
    assert!(
        run(&mut device, Operation::sync_data(1, Arc::clone(&file)))
            .result
            .is_err()
    );
    assert_eq!(Arc::strong_count(&file), 1);
    drop(file);
    let limit = Wait::UntilCompletionOrWake(Some(Duration::ZERO));
    device.reap(&mut Vec::new(), limit).unwrap();
    // The reader hears of the last writer's end only when the ring's reference is gone too. The time is no part of
    // what is tested: it only ends a test that has failed.
    let patience = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let mut ends = [rustix::event::PollFd::new(&reader, rustix::event::PollFlags::IN)];
    let ready = rustix::event::poll(&mut ends, Some(&patience)).unwrap();
    assert_eq!(ready, 1, "the ring's table keeps the file open");
    assert!(ends[0].revents().contains(rustix::event::PollFlags::HUP));
}

#[test]
fn dropped_by_another_thread_it_leaks_instead_of_freeing() {
    let Some(device) = ring(4) else { return };
    let (reader, writer) = io::pipe().unwrap();
    let file: Arc<dyn File> = Arc::new(PipeFile {
        end: StdFile::from(std::os::fd::OwnedFd::from(reader)),
    });
    let used = {
        let file = Arc::clone(&file);
        std::thread::spawn(move || {
            let mut device = device;
            device.submit(Operation::read(1, file, 0, filled(0))).unwrap();
            device.kick().unwrap();
            device
        })
    };
    let device = used.join().unwrap();
    let bound_to_thread = device.ring.is_bound();
    drop(writer);
    drop(device);
    if bound_to_thread {
        assert_eq!(
            Arc::strong_count(&file),
            2,
            "the buffer was freed though the kernel may write to it"
        );
    }
}
