//! One suite that every pair of directory and device passes.

use std::io::ErrorKind;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use treering_io::{
    AlignedBuffer, BLOCK_BYTES, BlockingDevice, Buffer, Completion, Device, Directory, File, FileError,
    InlineDevice, LockError, MemoryDirectory, OpenMode, Operation, OsDirectory, RawBuffer, SimDevice,
    SimDirectory, UringDevice, Wait,
};

const CAPACITY: usize = 8;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// A block whose bytes tell its number.
fn block(number: u64) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
    for (index, bytes) in buffer.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&(number * 1000 + index as u64).to_le_bytes());
    }
    buffer
}

fn reap_all(device: &mut dyn Device) -> Vec<Completion> {
    let mut done = Vec::new();
    while device.in_flight() > 0 {
        device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
    }
    done.sort_by_key(|completion| completion.token);
    done
}

fn run_one(device: &mut dyn Device, operation: Operation) -> Completion {
    device.submit(operation).unwrap();
    reap_all(device).pop().unwrap()
}

fn names_the_file(error: &std::io::Error, name: &str) {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<FileError>());
    assert!(
        inner.is_some_and(|inner| inner.file().ends_with(name)),
        "no file in: {error}"
    );
    assert!(error.to_string().contains(name), "{error}");
}

fn directory_suite(directory: &dyn Directory) {
    assert_eq!(directory.names().unwrap(), Vec::<String>::new());
    let error = directory.open("data", OpenMode::Existing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    names_the_file(&error, "data");
    let file = directory.open("data", OpenMode::CreateNew).unwrap();
    assert_eq!(file.name(), "data");
    assert!(file.is_empty().unwrap());
    let error = directory.open("data", OpenMode::CreateNew).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    for name in ["", ".", "..", "a/b", "../data"] {
        assert_eq!(
            directory.open(name, OpenMode::CreateNew).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            directory.rename("data", name).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
    directory.open("b", OpenMode::CreateNew).unwrap();
    directory.open("a", OpenMode::CreateNew).unwrap();
    assert_eq!(directory.names().unwrap(), ["a", "b", "data"]);

    file.write_at(&block(1), 0).unwrap();
    directory.rename("data", "a").unwrap();
    directory.remove("b").unwrap();
    directory.sync().unwrap();
    assert_eq!(directory.names().unwrap(), ["a"]);
    assert_eq!(directory.remove("b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        directory.rename("b", "c").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let mut read = AlignedBuffer::zeroed(BLOCK_BYTES);
    directory
        .open("a", OpenMode::Existing)
        .unwrap()
        .read_at(&mut read, 0)
        .unwrap();
    assert_eq!(read[..], block(1)[..]);

    let lock = directory.lock().unwrap();
    match directory.lock().unwrap_err() {
        LockError::Held { holder, .. } => assert_eq!(holder, Some(std::process::id())),
        LockError::Io(error) => panic!("{error}"),
    }
    drop(lock);
    drop(directory.lock().unwrap());
}

fn file_suite(directory: &dyn Directory) {
    let file = directory.open("file", OpenMode::CreateNew).unwrap();
    let mut read = AlignedBuffer::zeroed(BLOCK_BYTES);
    file.grow(8 * BLOCK).unwrap();
    assert_eq!(file.len().unwrap(), 8 * BLOCK);
    file.grow(BLOCK).unwrap();
    assert_eq!(file.len().unwrap(), 8 * BLOCK);
    file.read_at(&mut read, 3 * BLOCK).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));

    file.write_at(&block(2), 2 * BLOCK).unwrap();
    file.write_at_durable(&block(9), 9 * BLOCK).unwrap();
    file.sync_data().unwrap();
    assert_eq!(file.len().unwrap(), 10 * BLOCK);
    for number in [2, 9] {
        file.read_at(&mut read, number * BLOCK).unwrap();
        assert_eq!(read[..], block(number)[..]);
    }
    let error = file.read_at(&mut read, 10 * BLOCK).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    names_the_file(&error, "file");
    let mut two = AlignedBuffer::zeroed(2 * BLOCK_BYTES);
    assert_eq!(
        file.read_at(&mut two, 9 * BLOCK).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );

    file.truncate(2 * BLOCK).unwrap();
    assert_eq!(
        file.truncate(3 * BLOCK).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    file.grow(4 * BLOCK).unwrap();
    file.read_at(&mut read, 2 * BLOCK).unwrap();
    assert!(read.iter().all(|byte| *byte == 0), "truncated bytes came back");

    file.write_at(&block(3), 3 * BLOCK).unwrap();
    file.write_at(&block(0), 0).unwrap();
    file.prefill(2 * BLOCK).unwrap();
    assert_eq!(file.len().unwrap(), 4 * BLOCK);
    file.read_at(&mut read, 0).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
    file.read_at(&mut read, 3 * BLOCK).unwrap();
    assert_eq!(read[..], block(3)[..]);
    let large = (3 << 20) + BLOCK;
    file.prefill(large).unwrap();
    assert_eq!(file.len().unwrap(), large);
    file.read_at(&mut read, 3 * BLOCK).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
    assert_eq!(
        file.prefill(BLOCK + 512).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

fn device_suite(directory: &dyn Directory, device: &mut dyn Device) {
    assert_eq!(device.capacity(), CAPACITY);
    let file = directory.open("device", OpenMode::CreateNew).unwrap();
    file.grow(64 * BLOCK).unwrap();

    // Writes, full device, then the same blocks read back.
    for round in 0..4 {
        let numbers = round * CAPACITY as u64..(round + 1) * CAPACITY as u64;
        for number in numbers.clone() {
            let buffer = Buffer::Owned(block(number));
            let durable = number % 2 == 0;
            let operation = Operation::write(number, Arc::clone(&file), number * BLOCK, buffer, durable);
            device.submit(operation).unwrap();
        }
        let refused = device
            .submit(Operation::sync_data(77, Arc::clone(&file)))
            .unwrap_err();
        assert_eq!(refused.token, 77);
        device.kick().unwrap();
        assert_eq!(device.in_flight(), CAPACITY);
        let done = reap_all(device);
        assert!(done.iter().map(|completion| completion.token).eq(numbers));
        for completion in done {
            completion.result.unwrap();
            assert_eq!(
                completion.buffer.into_owned().unwrap()[..],
                block(completion.token)[..]
            );
        }
    }
    run_one(device, Operation::sync_data(1, Arc::clone(&file)))
        .result
        .unwrap();
    for number in 0..32 {
        let buffer = Buffer::Owned(AlignedBuffer::zeroed(BLOCK_BYTES));
        let completion = run_one(
            device,
            Operation::read(number, Arc::clone(&file), number * BLOCK, buffer),
        );
        completion.result.unwrap();
        assert_eq!(completion.buffer.into_owned().unwrap()[..], block(number)[..]);
    }

    // Memory of somebody else.
    let mut frame = AlignedBuffer::zeroed(BLOCK_BYTES);
    // SAFETY: `frame` outlives the operation and isn't touched until its completion is reaped.
    let raw = unsafe { RawBuffer::new(NonNull::from(&mut frame[0]), BLOCK_BYTES) };
    let completion = run_one(
        device,
        Operation::read(5, Arc::clone(&file), 5 * BLOCK, Buffer::Borrowed(raw)),
    );
    completion.result.unwrap();
    assert_eq!(frame[..], block(5)[..]);

    // Errors.
    let end = file.len().unwrap();
    for (offset, blocks) in [(end, 1), (end - BLOCK, 2)] {
        let buffer = Buffer::Owned(AlignedBuffer::zeroed(blocks * BLOCK_BYTES));
        let completion = run_one(device, Operation::read(6, Arc::clone(&file), offset, buffer));
        let error = completion.result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        names_the_file(&error, "device");
        assert_eq!(completion.buffer.len(), blocks * BLOCK_BYTES);
    }

    // Waiting: for nothing, for a wake that comes before the wait, for one that comes during it.
    let mut done = Vec::new();
    device.reap(&mut done, Wait::No).unwrap();
    device
        .reap(
            &mut done,
            Wait::UntilCompletionOrWake(Some(Duration::from_millis(1))),
        )
        .unwrap();
    device.waker().wake();
    device.reap(&mut done, Wait::No).unwrap();
    device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
    let waker = device.waker();
    let thread = std::thread::spawn(move || waker.wake());
    device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
    thread.join().unwrap();
    assert!(done.is_empty());
    device.waker().wake();
    run_one(device, Operation::sync_data(8, Arc::clone(&file)))
        .result
        .unwrap();

    // Files come and go; more of them than any table has entries.
    let mut files: Vec<Arc<dyn File>> = Vec::new();
    for number in 0..100 {
        let name = format!("many-{number}");
        let file = directory.open(&name, OpenMode::CreateNew).unwrap();
        let buffer = Buffer::Owned(block(number));
        run_one(
            device,
            Operation::write(number, Arc::clone(&file), 0, buffer, false),
        )
        .result
        .unwrap();
        if number % 2 == 0 {
            files.push(file);
        }
        directory.remove(&name).unwrap();
    }
    for (index, file) in files.iter().enumerate() {
        let buffer = Buffer::Owned(AlignedBuffer::zeroed(BLOCK_BYTES));
        let completion = run_one(device, Operation::read(0, Arc::clone(file), 0, buffer));
        completion.result.unwrap();
        assert_eq!(
            completion.buffer.into_owned().unwrap()[..],
            block(2 * index as u64)[..]
        );
    }
}

/// Dropping with operations in flight waits for them.
fn drop_suite(directory: &dyn Directory, mut device: Box<dyn Device>) {
    let file = directory.open("dropped", OpenMode::CreateNew).unwrap();
    for number in 0..CAPACITY as u64 {
        let buffer = Buffer::Owned(block(number));
        device
            .submit(Operation::write(
                number,
                Arc::clone(&file),
                number * BLOCK,
                buffer,
                true,
            ))
            .unwrap();
    }
    drop(device);
    assert_eq!(Arc::strong_count(&file), 1);
    let mut read = AlignedBuffer::zeroed(BLOCK_BYTES);
    for number in 0..CAPACITY as u64 {
        file.read_at(&mut read, number * BLOCK).unwrap();
        assert_eq!(read[..], block(number)[..]);
    }
}

fn devices() -> Vec<Box<dyn Device>> {
    let mut devices: Vec<Box<dyn Device>> = vec![
        Box::new(BlockingDevice::open(CAPACITY).unwrap()),
        Box::new(InlineDevice::new(CAPACITY)),
    ];
    match UringDevice::open(CAPACITY) {
        Ok(device) => devices.push(Box::new(device)),
        Err(error) => eprintln!("io_uring is refused here and not tested: {error}"),
    }
    devices
}

fn every_suite(mut directory: impl FnMut() -> Box<dyn Directory>) {
    directory_suite(&*directory());
    file_suite(&*directory());
    for mut device in devices() {
        device_suite(&*directory(), &mut *device);
    }
    for device in devices() {
        drop_suite(&*directory(), device);
    }
}

#[test]
fn operating_system() {
    let mut homes = Vec::new();
    every_suite(|| {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let directory = OsDirectory::open(home.path()).unwrap();
        homes.push(home);
        Box::new(directory)
    });
}

#[test]
fn memory() {
    every_suite(|| Box::new(MemoryDirectory::new()));
}

#[test]
fn simulated() {
    every_suite(|| Box::new(SimDirectory::new(2)));
    let directory = SimDirectory::new(3);
    device_suite(&directory, &mut SimDevice::new(&directory, CAPACITY));
    drop_suite(&directory, Box::new(SimDevice::new(&directory, CAPACITY)));
}
