//! One bit of one file turned over: what is read is right, or there is a typed error. Never a wrong value, never a
//! panic.

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use support::{Random, copy_directory, from_environment, small, watched};
use treering::{Db, Error, Options};

const PAIRS: u32 = 700;

fn value(number: u32) -> Vec<u8> {
    let length = if number.is_multiple_of(50) { 9_000 } else { 60 };
    (0..length).map(|at| (number as usize * 131 + at) as u8).collect()
}

fn flip(path: &Path, offset: u64, bit: u64) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, offset).expect("a byte");
}

/// Reads everything in all ways; tells whether damage was met.
fn read_all(db: &Db) -> bool {
    let mut met = false;
    let mut note = |error: Error| match error {
        Error::Corrupt { file, reason, .. } => {
            assert!(file == "data" && !reason.is_empty());
            met = true;
        }
        error => panic!("{error:?}"),
    };
    let tree = match db.client().open_tree("t") {
        Ok(tree) => tree,
        Err(error) => panic!("{error:?}"),
    };
    for number in 0..PAIRS {
        match tree.get(number.to_be_bytes()) {
            Ok(found) => assert_eq!(found.expect("an acknowledged write"), value(number), "{number}"),
            Err(error) => note(error),
        }
    }
    for back in [false, true] {
        let mut range = tree.range::<&[u8]>(..).expect("a range");
        let mut numbers: Box<dyn Iterator<Item = u32>> = if back {
            Box::new((0..PAIRS).rev())
        } else {
            Box::new(0..PAIRS)
        };
        loop {
            let item = if back { range.next_back() } else { range.next() };
            match item {
                None => {
                    assert!(met || numbers.next().is_none(), "a range that is too short");
                    break;
                }
                Some(Ok((key, found))) => {
                    let number = numbers.next().expect("an entry that nobody wrote");
                    assert_eq!(
                        (key.to_vec(), found.to_vec()),
                        (number.to_be_bytes().to_vec(), value(number))
                    );
                }
                Some(Err(error)) => {
                    let Error::Corrupt { .. } = error else {
                        panic!("{error:?}")
                    };
                    met = true;
                    // A large value that is damaged is one bad item; a damaged page ends the range.
                    numbers.next();
                }
            }
        }
    }
    met
}

#[test]
fn in_the_data_file() {
    watched(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let (whole, copy) = (directory.path().join("whole"), directory.path().join("copy"));
        let db = small().open(&whole).expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        for number in 0..PAIRS {
            drop(tree.send_put(number.to_be_bytes(), value(number)).expect("sent"));
        }
        db.close().expect("a clean close");
        let data = fs::read(whole.join("data")).expect("a file");
        let is_used = |page: &u64| {
            data[*page as usize * 4096..][..4096]
                .iter()
                .any(|byte| *byte != 0)
        };
        let used: Vec<u64> = (0..data.len() as u64 / 4096).filter(is_used).collect();
        let mut random = Random(from_environment("TREERING_FLIP_SEED", 11));
        let flips = from_environment("TREERING_FLIPS", 64);
        let (mut refused, mut met) = (0, 0);
        for index in 0..flips {
            // All over the file, and each region of a page: header, slots, the middle, the end.
            let within = [0, 5, 9, 17, 24, 26, 40, 300, 2_000, 4_000, 4_095][index as usize % 11];
            let page = used[index as usize * used.len() / flips as usize];
            copy_directory(&whole, &copy);
            flip(&copy.join("data"), page * 4096 + within, random.below(8));
            match small().open(&copy) {
                Ok(db) => {
                    met += u64::from(read_all(&db));
                    // What can be read goes on being read; a close must not panic either.
                    let _ = db.close();
                }
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("page {page}, byte {within}: {error:?}"),
            }
        }
        assert!(
            met >= flips / 10,
            "only {met} of {flips} flips were met, {refused} refused"
        );
        // The checkpoint image: its extents stand in the superblock.
        let mut superblock = [0; 4096];
        let file = fs::File::open(whole.join("data")).expect("a file");
        file.read_exact_at(&mut superblock, 0).expect("a superblock");
        let word = |at: usize| {
            u64::from(u32::from_le_bytes(
                superblock[at..at + 4].try_into().expect("four bytes"),
            ))
        };
        let (image, bytes) = (word(124) * 4096, word(112));
        for offset in (0..bytes).step_by((bytes as usize / 12).max(1)) {
            copy_directory(&whole, &copy);
            flip(&copy.join("data"), image + offset, random.below(8));
            let refused = small().open(&copy).map(|_| ()).expect_err("a damaged image");
            assert!(
                matches!(refused, Error::Corrupt { .. }),
                "image byte {offset}: {refused:?}"
            );
        }
    });
}

#[test]
fn in_the_log() {
    watched(|| {
        const WRITES: u32 = 60;
        let directory = tempfile::tempdir().expect("a directory");
        let (live, crashed) = (directory.path().join("live"), directory.path().join("crashed"));
        let copy = directory.path().join("copy");
        let options = || -> Options { small().cache_bytes(2 << 20).checkpoint_log_bytes(64 << 20) };
        let db = options().open(&live).expect("an empty directory");
        let tree = db.client().tree("t").expect("a tree");
        for number in 0..WRITES {
            tree.put(number.to_be_bytes(), value(number + 1)).expect("a put");
        }
        copy_directory(&live, &crashed);
        db.close().expect("a clean close");
        let mut random = Random(5);
        let mut corrupt = 0;
        let mut files: Vec<_> = fs::read_dir(&crashed)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| name.to_string_lossy().ends_with(".seg"))
            .collect();
        files.sort();
        let flips = from_environment("TREERING_FLIPS", 64);
        for index in 0..flips {
            // Each group is one block here: each region of its header, its records, and the zeros behind them.
            let within =
                [0, 5, 9, 14, 17, 25, 33, 41, 57, 65, 69, 77, 82, 100, 150, 4_000][index as usize % 16];
            let block = index * (u64::from(WRITES) + 8) / flips;
            let file = &files[(block / 16) as usize % files.len()];
            copy_directory(&crashed, &copy);
            flip(&copy.join(file), block % 16 * 4096 + within, random.below(8));
            match options().open(&copy) {
                Ok(db) => {
                    // The very last group's damage is a torn tail; any other's isn't.
                    let tree = match db.client().open_tree("t") {
                        Ok(tree) => tree,
                        Err(error) => panic!("block {block}, byte {within}: {error:?}"),
                    };
                    let length = tree.len().expect("a length");
                    let whole = u64::from(WRITES);
                    assert!(
                        (whole - 1..=whole).contains(&length),
                        "block {block}, byte {within}: {length} writes"
                    );
                    for number in 0..length as u32 {
                        let found = tree.get(number.to_be_bytes()).expect("a read");
                        assert_eq!(found.expect("an acknowledged write"), value(number + 1));
                    }
                }
                Err(Error::Corrupt { file, .. }) => {
                    assert!(file.ends_with(".seg"), "{file}");
                    corrupt += 1;
                }
                Err(error) => panic!("block {block}, byte {within}: {error:?}"),
            }
        }
        assert!(
            corrupt >= flips / 4,
            "only {corrupt} of {flips} flips were noticed"
        );
    });
}
