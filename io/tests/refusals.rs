//! Systems that refuse something: io_uring, direct I/O, flags, space reservation.

mod support;

use std::sync::Arc;

use support::seccomp::{Refusal, with_refusals};
use support::warnings;
use treering_io::{
    AlignedBuffer, BLOCK_BYTES, BackendChoice, Buffer, DeviceKind, Directory, OpenMode, Operation,
    OsDirectory, Wait, open_device, os_error_code,
};

const BLOCK: u64 = BLOCK_BYTES as u64;

fn home() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn refuse(call: libc::c_long, code: libc::c_int) -> Refusal {
    Refusal {
        call,
        only_if: None,
        code,
    }
}

/// Writes and reads one block through whatever device `Auto` gives.
fn round_trip(home: &tempfile::TempDir) -> DeviceKind {
    let directory = OsDirectory::open(home.path()).unwrap();
    let file = directory.open("data", OpenMode::CreateNew).unwrap();
    let mut device = open_device(BackendChoice::Auto, 4).unwrap();
    let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
    block.fill(7);
    let mut done = Vec::new();
    device
        .submit(Operation::write(
            1,
            Arc::clone(&file),
            0,
            Buffer::Owned(block),
            true,
        ))
        .unwrap();
    device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
    done.pop().unwrap().result.unwrap();
    let buffer = Buffer::Owned(AlignedBuffer::zeroed(BLOCK_BYTES));
    device.submit(Operation::read(2, file, 0, buffer)).unwrap();
    device.reap(&mut done, Wait::UntilCompletionOrWake(None)).unwrap();
    let completion = done.pop().unwrap();
    completion.result.unwrap();
    assert!(
        completion
            .buffer
            .into_owned()
            .unwrap()
            .iter()
            .all(|byte| *byte == 7)
    );
    device.kind()
}

#[test]
fn a_refused_ring_becomes_a_pool_of_threads_and_a_warning() {
    for code in [libc::EPERM, libc::ENOSYS, libc::ENOMEM] {
        let home = home();
        let (kind, warnings) = with_refusals(&[refuse(libc::SYS_io_uring_setup, code)], move || {
            let error = open_device(BackendChoice::Uring, 4).map(drop).unwrap_err();
            assert_eq!(os_error_code(&error), Some(code));
            warnings::collect(|| round_trip(&home))
        });
        assert_eq!(kind, DeviceKind::Blocking);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("io_uring is not available"), "{warnings:?}");
    }
}

#[test]
fn a_ring_works_without_registrations() {
    // Fixed files and enabling are registrations; without them the ring is slower, not gone.
    let home = home();
    let (kind, warnings) = with_refusals(&[refuse(libc::SYS_io_uring_register, libc::EINVAL)], move || {
        warnings::collect(|| round_trip(&home))
    });
    let refused_anyway = open_device(BackendChoice::Uring, 1).is_err();
    assert_eq!(
        kind,
        if refused_anyway {
            DeviceKind::Blocking
        } else {
            DeviceKind::Uring
        }
    );
    assert_eq!(warnings.len(), usize::from(refused_anyway), "{warnings:?}");
}

#[test]
fn refused_direct_io_becomes_buffered_and_one_warning() {
    let direct = Refusal {
        call: libc::SYS_openat,
        only_if: Some((2, libc::O_DIRECT as u32)),
        code: libc::EINVAL,
    };
    let home = home();
    let ((), warnings) = with_refusals(&[direct], move || {
        warnings::collect(|| {
            let directory = OsDirectory::open(home.path()).unwrap();
            assert!(directory.is_direct());
            let file = directory.open("a", OpenMode::CreateNew).unwrap();
            directory.open("b", OpenMode::CreateNew).unwrap();
            assert!(!directory.is_direct());
            // Only buffered files take unaligned transfers.
            file.write_at(b"unaligned", 3).unwrap();
            let mut read = [0; 9];
            file.read_at(&mut read, 3).unwrap();
            assert_eq!(&read, b"unaligned");
        })
    });
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("refuses direct I/O"), "{warnings:?}");
}

#[test]
fn durable_writes_and_growth_do_without_newer_calls() {
    let refusals = [
        refuse(libc::SYS_pwritev2, libc::EOPNOTSUPP),
        refuse(libc::SYS_fallocate, libc::EOPNOTSUPP),
    ];
    let home = home();
    with_refusals(&refusals, move || {
        let directory = OsDirectory::open(home.path()).unwrap();
        let file = directory.open("data", OpenMode::CreateNew).unwrap();
        file.grow(4 * BLOCK).unwrap();
        file.prefill(2 * BLOCK).unwrap();
        assert_eq!(file.len().unwrap(), 4 * BLOCK);
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        block.fill(5);
        file.write_at_durable(&block, BLOCK).unwrap();
        let mut read = AlignedBuffer::zeroed(BLOCK_BYTES);
        file.read_at(&mut read, BLOCK).unwrap();
        assert_eq!(read[..], block[..]);
    });
}

#[test]
fn errors_of_calls_name_the_file() {
    let refusals = [
        refuse(libc::SYS_fsync, libc::EIO),
        refuse(libc::SYS_fdatasync, libc::EIO),
        refuse(libc::SYS_pread64, libc::EIO),
        refuse(libc::SYS_fallocate, libc::ENOSPC),
        refuse(libc::SYS_rename, libc::EROFS),
        refuse(libc::SYS_unlink, libc::EROFS),
    ];
    let home = home();
    with_refusals(&refusals, move || {
        let directory = OsDirectory::open(home.path()).unwrap();
        let file = directory.open("data", OpenMode::CreateNew).unwrap();
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        file.write_at(&block, 0).unwrap();
        let path = home.path().join("data").display().to_string();
        let expect = |error: std::io::Error, code: libc::c_int, start: &str| {
            assert_eq!(os_error_code(&error), Some(code), "{error}");
            assert!(error.to_string().starts_with(start), "{error} instead of {start}");
        };
        expect(
            file.sync_data().unwrap_err(),
            libc::EIO,
            &format!("cannot sync {path:?}: "),
        );
        let read = file.read_at(&mut block, 0).unwrap_err();
        expect(read, libc::EIO, &format!("cannot read {path:?} at byte 0: "));
        let grow = file.grow(2 * BLOCK).unwrap_err();
        assert_eq!(grow.kind(), std::io::ErrorKind::StorageFull);
        expect(
            grow,
            libc::ENOSPC,
            &format!("cannot grow {path:?} at byte 8192: "),
        );
        assert_eq!(file.len().unwrap(), BLOCK);
        expect(
            directory.rename("data", "b").unwrap_err(),
            libc::EROFS,
            &format!("cannot rename {path:?}: "),
        );
        expect(
            directory.remove("data").unwrap_err(),
            libc::EROFS,
            &format!("cannot remove {path:?}: "),
        );
        expect(directory.sync().unwrap_err(), libc::EIO, "cannot sync directory ");
    });
}
