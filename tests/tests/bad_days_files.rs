//! Directories and files that are not what they should be.

mod support;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::{child, copy_directory, small, watched};
use treering::{Db, Error};
use treering_engine::Crc32c;

/// Pairs of the sample database; every tenth value is large.
const PAIRS: u32 = 400;

fn value(number: u32) -> Vec<u8> {
    let length = if number.is_multiple_of(10) { 6_000 } else { 100 };
    (0..length).map(|at| (number as usize * 31 + at) as u8).collect()
}

/// A closed database with all pairs in its last checkpoint.
fn sample(path: &Path) {
    let db = small().open(path).expect("an empty directory");
    let tree = db.client().tree("t").expect("a tree");
    for number in 0..PAIRS {
        drop(tree.send_put(number.to_be_bytes(), value(number)).expect("sent"));
    }
    db.close().expect("a clean close");
}

fn check_sample(db: &Db) {
    let tree = db.client().open_tree("t").expect("the tree");
    assert_eq!(tree.len().expect("a length"), u64::from(PAIRS));
    for number in 0..PAIRS {
        assert_eq!(
            tree.get(number.to_be_bytes())
                .expect("a read")
                .expect("the value"),
            value(number)
        );
    }
}

fn patch(path: &Path, offset: u64, change: impl FnOnce(&mut [u8]), length: usize) {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file");
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(offset)).expect("a position");
    file.read_exact(&mut bytes).expect("bytes");
    change(&mut bytes);
    file.seek(SeekFrom::Start(offset)).expect("a position");
    file.write_all(&bytes).expect("a write");
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(path)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    segments
}

/// Runs `spoil` on a copy of the sample, and gives what opening it says.
fn spoiled(sample: &Path, spoil: impl FnOnce(&Path)) -> Result<Db, Error> {
    let copy = sample.with_extension("copy");
    copy_directory(sample, &copy);
    spoil(&copy);
    small().open(&copy)
}

#[test]
fn a_second_opener_is_refused() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let db = small().open(directory.path()).expect("an empty directory");
        assert!(
            matches!(small().open(directory.path()), Err(Error::AlreadyOpen { path }) if path == directory.path())
        );
        db.close().expect("a clean close");

        let mut holder = child("hold", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let mut said = [0; 5];
        holder
            .stdout
            .as_mut()
            .expect("a pipe")
            .read_exact(&mut said)
            .expect("the child opens");
        assert!(matches!(
            small().open(directory.path()),
            Err(Error::AlreadyOpen { .. })
        ));
        holder.kill().expect("SIGKILL");
        holder.wait().expect("its end");
        small()
            .open(directory.path())
            .expect("a dead process holds nothing");
    });
}

#[test]
fn directories_that_are_none_of_ours() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, b"text").expect("a write");
        assert!(matches!(small().open(&file), Err(Error::NotADatabase { .. })));
        assert!(matches!(small().open(file.join("below")), Err(Error::Io { .. })));

        let foreign = directory.path().join("foreign");
        fs::create_dir(&foreign).expect("a directory");
        fs::write(foreign.join("letter.txt"), b"dear").expect("a write");
        assert!(matches!(small().open(&foreign), Err(Error::NotADatabase { .. })));
        assert_eq!(fs::read(foreign.join("letter.txt")).expect("a read"), b"dear");

        let impostor = directory.path().join("impostor");
        fs::create_dir(&impostor).expect("a directory");
        for bytes in [0, 10, 4096, 1 << 20] {
            fs::write(impostor.join("data"), vec![b'x'; bytes]).expect("a write");
            let refused = small().open(&impostor).expect_err("not a database");
            assert!(
                matches!(refused, Error::NotADatabase { .. }),
                "{bytes} bytes: {refused:?}"
            );
            assert_eq!(
                fs::read(impostor.join("data")).expect("a read"),
                vec![b'x'; bytes]
            );
        }
        // Nothing but what an interrupted creation leaves: created anew.
        let interrupted = directory.path().join("interrupted");
        fs::create_dir(&interrupted).expect("a directory");
        fs::write(interrupted.join("data.new"), vec![0; 5000]).expect("a write");
        fs::write(interrupted.join("log-00000000.seg"), vec![0; 100]).expect("a write");
        small()
            .open(&interrupted)
            .expect("a creation that goes on")
            .close()
            .expect("a clean close");
    });
}

#[test]
fn superblocks() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let sample_path = directory.path().join("sample");
        sample(&sample_path);
        let spoil_at = |offsets: &'static [u64]| {
            spoiled(&sample_path, |copy| {
                for &offset in offsets {
                    patch(&copy.join("data"), offset, |bytes| bytes[0] ^= 0x40, 1);
                }
            })
        };
        // One of the two slots is enough, whichever it is and wherever it is hurt.
        for offsets in [
            &[0][..],
            &[13],
            &[70],
            &[1000],
            &[4094],
            &[4096],
            &[4096 + 13],
            &[4096 + 4094],
        ] {
            let db =
                spoil_at(offsets.to_vec().leak()).unwrap_or_else(|error| panic!("{offsets:?}: {error:?}"));
            check_sample(&db);
        }
        // Both damaged, but known for what they are.
        for offsets in [&[70, 4096 + 70][..], &[0, 4096 + 70], &[20, 4096 + 4094]] {
            let refused = spoil_at(offsets.to_vec().leak()).expect_err("no superblock is left");
            assert!(
                matches!(&refused, Error::Corrupt { file, .. } if file == "data"),
                "{offsets:?}: {refused:?}"
            );
        }
        // Nothing left that says what this was.
        let refused = spoil_at(&[0, 4096]).expect_err("no superblock is left");
        assert!(
            matches!(refused, Error::NotADatabase { .. } | Error::Corrupt { .. }),
            "{refused:?}"
        );
        // Repaired by the next opening: both slots are written again.
        let copy = sample_path.with_extension("copy");
        spoil_at(&[4096 + 70])
            .expect("slot A is whole")
            .close()
            .expect("a clean close");
        patch(&copy.join("data"), 70, |bytes| bytes[0] ^= 1, 1);
        check_sample(&small().open(&copy).expect("slot B is whole again"));
    });
}

#[test]
fn newer_formats_and_wrong_page_sizes() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let sample_path = directory.path().join("sample");
        sample(&sample_path);
        let newer = |block: &mut [u8]| {
            block[8..12].copy_from_slice(&7_u32.to_le_bytes());
            let mut crc = Crc32c::new();
            crc.update(&block[..4092]);
            block[4092..].copy_from_slice(&crc.value().to_le_bytes());
        };
        for offsets in [&[0][..], &[4096], &[0, 4096]] {
            let refused = spoiled(&sample_path, |copy| {
                offsets
                    .iter()
                    .for_each(|&offset| patch(&copy.join("data"), offset, newer, 4096));
            });
            let refused = refused.expect_err("a newer format");
            assert!(
                matches!(
                    refused,
                    Error::UnsupportedFormat {
                        found: 7,
                        supported: 2
                    }
                ),
                "{refused:?}"
            );
        }
        for bytes in [8192, 65536] {
            let refused = small()
                .page_size(bytes)
                .cache_bytes(64 << 20)
                .open(&sample_path)
                .expect_err("another size");
            assert!(
                matches!(
                    refused,
                    Error::InvalidOption {
                        option: "page_size",
                        ..
                    }
                ),
                "{refused:?}"
            );
        }
        check_sample(
            &small()
                .page_size(4096)
                .open(&sample_path)
                .expect("the right size"),
        );
    });
}

#[test]
fn files_that_are_cut_or_gone() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let sample_path = directory.path().join("sample");
        sample(&sample_path);
        let length = fs::metadata(sample_path.join("data")).expect("a file").len();
        let cut = |path: &Path, bytes: u64| {
            let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
            file.set_len(bytes).expect("a cut");
        };
        let mut corrupt = 0;
        for bytes in [
            0,
            100,
            4096,
            8192,
            12_288,
            100_000,
            length / 4,
            length / 2,
            length * 3 / 4,
            length - 4096,
        ] {
            match spoiled(&sample_path, |copy| cut(&copy.join("data"), bytes)) {
                // Beyond the cut was nothing in use.
                Ok(db) => check_sample(&db),
                Err(Error::Corrupt { .. }) => corrupt += 1,
                Err(Error::NotADatabase { .. }) => assert!(bytes < 4096),
                Err(error) => panic!("cut to {bytes}: {error:?}"),
            }
        }
        assert!(corrupt >= 3, "no cut was noticed");
        let refused = spoiled(&sample_path, |copy| {
            fs::remove_file(copy.join("data")).expect("a removal")
        });
        assert!(matches!(refused, Err(Error::NotADatabase { .. })), "{refused:?}");
        check_sample(&small().open(&sample_path).expect("the original is whole"));
    });
}

#[test]
fn log_segments_that_are_cut_or_gone() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let live = directory.path().join("live");
        let crashed = directory.path().join("crashed");
        // Enough log for several segments, and no checkpoint.
        let options = || small().cache_bytes(8 << 20).checkpoint_log_bytes(64 << 20);
        let db = options().open(&live).expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        for number in 0..120_u32 {
            tree.put(number.to_be_bytes(), [3; 900]).expect("a put");
        }
        copy_directory(&live, &crashed);
        db.close().expect("a clean close");
        let count = segments(&crashed).len();
        assert!(count >= 4, "{count} segments");
        let mut corrupt = 0;
        for index in 0..count {
            for cut in [None, Some(0), Some(5000), Some(65_535)] {
                let copy = directory.path().join("copy");
                copy_directory(&crashed, &copy);
                let segment = &segments(&copy)[index];
                match cut {
                    None => fs::remove_file(segment).expect("a removal"),
                    Some(bytes) => fs::OpenOptions::new()
                        .write(true)
                        .open(segment)
                        .and_then(|file| file.set_len(bytes))
                        .expect("a cut"),
                }
                match options().open(&copy) {
                    // A segment without a durable group: prepared ahead.
                    Ok(db) => {
                        let tree = db.client().open_tree("t").expect("the tree");
                        let length = tree.len().expect("a length");
                        // Nothing tells a last group that is gone from one that was never written.
                        assert!(
                            length >= 119,
                            "segment {index} cut to {cut:?} lost writes silently: {length}"
                        );
                    }
                    Err(Error::Corrupt { .. }) => corrupt += 1,
                    Err(error) => panic!("segment {index} cut to {cut:?}: {error:?}"),
                }
            }
        }
        assert!(corrupt >= 4, "no cut was noticed");
    });
}
