use std::sync::Arc;

use proptest::prelude::*;

use super::{Image, ImageDecoder, ImageDefect, ImageEncoder, ImageSnapshot, ImageSummary};
use crate::catalog::{Directory, Partition, TreeState};
use crate::checksum::crc32c;
use crate::space::SpaceMap;
use crate::tree::{HEIGHT_MAX, Root};
use crate::{Extent, PageId, PageRef, Retired, Seq, ShardId, TreeId};

const FILE_PAGES: u32 = 100_000;

fn root(id: u32, entries: u64) -> Root {
    Root {
        reference: PageRef {
            id: PageId(id),
            birth: id * 3,
        },
        height: 2,
        entries,
    }
}

fn tree(id: u32, name: &str, lowers: &[Vec<u8>]) -> TreeState {
    let rest = lowers.iter().enumerate().map(|(index, lower)| Partition {
        lower: Arc::from(&lower[..]),
        root: root(index as u32 + 50, u64::from(id) << 33),
        owner: ShardId(index as u16),
        moved: 0,
    });
    let first = Partition {
        lower: Arc::from([]),
        root: Root::default(),
        owner: ShardId(0),
        moved: 0,
    };
    TreeState {
        id: TreeId(id),
        name: Arc::from(name),
        partitions: [first].into_iter().chain(rest).collect(),
    }
}

/// A tree of which a path through it could not be kept.
#[test]
fn a_root_that_is_too_high_is_refused() {
    let mut tree = tree(1, "high", &[vec![1]]);
    for (height, is_refused) in [(HEIGHT_MAX, false), (HEIGHT_MAX + 1, true), (255, true)] {
        let mut partitions = tree.partitions.to_vec();
        partitions[1].root.height = height as u8;
        tree.partitions = partitions.into();
        let directory = Directory::new().with_tree(tree.clone()).expect("new");
        let (bytes, summary) = encode(&directory, &space(), 4096);
        let refused = decode(&bytes, summary, 4096).is_err();
        assert_eq!(refused, is_refused, "height {height}");
    }
}

fn directory() -> Directory {
    let trees = [
        tree(3, "users", &[]),
        tree(
            7,
            "orders",
            &[b"g".to_vec(), b"h\xFF".to_vec(), vec![b'm'; 16_384]],
        ),
        tree(u32::MAX - 1, "", &[vec![1]]),
    ];
    trees.into_iter().fold(Directory::new(), |directory, tree| {
        directory.with_tree(tree).expect("new")
    })
}

fn space() -> SpaceMap {
    let mut map = SpaceMap::new(FILE_PAGES);
    for (start, pages) in [(2, 1), (100, 5), (32_768, 32_768), (99_999, 1)] {
        let extent = Extent {
            start: PageId(start),
            pages,
        };
        map.reserve(extent).expect("available");
        map.mark_reachable(extent).expect("allocated");
    }
    map
}

fn kept(start: u32, pages: u32, born: u64) -> Retired {
    Retired {
        extent: Extent {
            start: PageId(start),
            pages,
        },
        born: Seq(born),
    }
}

fn snapshots() -> Vec<ImageSnapshot> {
    let snapshot = |name: &str, seq, directory, kept| ImageSnapshot {
        name: Arc::from(name),
        seq: Seq(seq),
        directory,
        kept,
    };
    vec![
        snapshot("first", 5, Directory::new(), vec![kept(3, 1, 5), kept(10, 90, 4)]),
        snapshot("second", 9, directory(), Vec::new()),
        snapshot("again", 9, directory(), Vec::new()),
        snapshot("last", 1 << 40, directory(), vec![kept(70_000, 2, 9)]),
    ]
}

fn encode(directory: &Directory, space: &SpaceMap, piece_bytes: usize) -> (Vec<u8>, ImageSummary) {
    encode_with(directory, Vec::new(), space, piece_bytes)
}

fn encode_with(
    directory: &Directory,
    snapshots: Vec<ImageSnapshot>,
    space: &SpaceMap,
    piece_bytes: usize,
) -> (Vec<u8>, ImageSummary) {
    let mut encoder = ImageEncoder::new(directory.clone(), snapshots, space);
    let expected = encoder.encoded_bytes(space);
    let mut bytes = Vec::new();
    let mut piece = vec![0; piece_bytes];
    loop {
        let filled = encoder.fill(space, &mut piece);
        bytes.extend_from_slice(&piece[..filled]);
        if filled < piece_bytes {
            break;
        }
        assert!(encoder.summary().is_none() || bytes.len() as u64 == expected);
    }
    let summary = encoder.summary().expect("at the end");
    assert_eq!((summary.bytes, bytes.len() as u64), (expected, expected));
    assert_eq!(summary.crc, crc32c(&bytes));
    (bytes, summary)
}

fn decode(bytes: &[u8], summary: ImageSummary, piece_bytes: usize) -> Result<Image, ImageDefect> {
    let mut decoder = ImageDecoder::new(FILE_PAGES);
    for piece in bytes.chunks(piece_bytes) {
        decoder.push(piece)?;
    }
    decoder.finish(summary.bytes, summary.crc)
}

fn trees(directory: &Directory) -> Vec<TreeState> {
    directory.iter().map(|tree| (**tree).clone()).collect()
}

#[test]
fn pieces_of_any_size_give_the_same_image() {
    let (directory, space) = (directory(), space());
    let (whole, summary) = encode(&directory, &space, 1 << 20);
    for piece_bytes in [1, 7, 512, 4_096, 100_000] {
        assert_eq!(encode(&directory, &space, piece_bytes), (whole.clone(), summary));
        let image = decode(&whole, summary, piece_bytes).expect("whole");
        let (read, map) = (image.directory, image.space);
        assert_eq!(trees(&read), trees(&directory));
        let runs = |map: &SpaceMap| map.reachable_runs().collect::<Vec<_>>();
        assert_eq!(runs(&map), runs(&space));
        assert_eq!(
            map.allocated_pages(),
            map.reachable_pages(),
            "everything else is free"
        );
    }
}

#[test]
fn an_empty_database_has_an_image() {
    for file_pages in [2, 3, 40_000] {
        let space = SpaceMap::new(file_pages);
        let (bytes, summary) = encode(&Directory::new(), &space, 4_096);
        let mut decoder = ImageDecoder::new(file_pages);
        decoder.push(&bytes).expect("an image");
        let Image {
            directory,
            space: map,
            snapshots,
        } = decoder.finish(summary.bytes, summary.crc).expect("whole");
        assert!(directory.is_empty() && snapshots.is_empty());
        assert_eq!((map.file_pages(), map.reachable_pages()), (file_pages, 0));
    }
}

#[test]
fn the_file_may_have_grown_since_the_map_was_frozen() {
    let (bytes, summary) = encode(&directory(), &space(), 4_096);
    let mut decoder = ImageDecoder::new(FILE_PAGES + 50_000);
    decoder.push(&bytes).expect("an image");
    let map = decoder.finish(summary.bytes, summary.crc).expect("whole").space;
    assert_eq!(map.file_pages(), FILE_PAGES + 50_000);
    assert_eq!(
        map.reachable_runs().collect::<Vec<_>>(),
        space().reachable_runs().collect::<Vec<_>>()
    );
}

#[test]
fn named_snapshots_are_read_with_what_they_keep() {
    let (directory, space) = (directory(), space());
    let (whole, summary) = encode_with(&directory, snapshots(), &space, 1 << 20);
    for piece_bytes in [1, 13, 4_096] {
        assert_eq!(
            encode_with(&directory, snapshots(), &space, piece_bytes),
            (whole.clone(), summary)
        );
        let image = decode(&whole, summary, piece_bytes).expect("whole");
        assert_eq!(trees(&image.directory), trees(&directory));
        assert_eq!(image.snapshots.len(), 4);
        for (read, written) in image.snapshots.iter().zip(snapshots()) {
            assert_eq!(
                (&read.name, read.seq, &read.kept),
                (&written.name, written.seq, &written.kept)
            );
            assert_eq!(trees(&read.directory), trees(&written.directory));
        }
        let kept = 1 + 90 + 2;
        assert_eq!(
            image.space.allocated_pages(),
            image.space.reachable_pages() + kept,
            "what is kept is neither free nor reachable"
        );
        assert!(!image.space.is_available(Extent::single(PageId(99))));
    }
}

#[test]
fn snapshots_that_contradict_themselves_are_refused() {
    let (directory, space) = (directory(), space());
    let refused = |change: fn(&mut Vec<ImageSnapshot>)| {
        let mut snapshots = snapshots();
        change(&mut snapshots);
        let (bytes, summary) = encode_with(&directory, snapshots, &space, 4_096);
        match decode(&bytes, summary, 4_096) {
            Err(ImageDefect::Malformed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(|list| list.swap(0, 1)).contains("order"));
    assert!(refused(|list| list[1].name = Arc::from("first")).contains("name"));
    assert!(refused(|list| list[1].name = Arc::from("")).contains("name"));
    assert!(refused(|list| list[0].kept.push(kept(100, 1, 1))).contains("not its own"));
    assert!(refused(|list| list[3].kept.push(kept(3, 1, 1))).contains("not its own"));
    assert!(refused(|list| list[0].kept.push(kept(99_999, 2, 1))).contains("outside"));
    assert!(refused(|list| list[0].kept.push(kept(40_000, 0, 1))).contains("outside"));
    assert!(refused(|list| list[0].kept[0].born = Seq(6)).contains("younger"));
}

#[test]
fn changes_while_it_is_written_are_not_in_it() {
    let (directory, mut space) = (directory(), space());
    let (expected, _) = encode(&directory, &space, 4_096);
    space.freeze();
    let mut encoder = ImageEncoder::new(directory, Vec::new(), &space);
    let mut bytes = vec![0; expected.len()];
    for (round, piece) in bytes.chunks_mut(64).enumerate() {
        let extent = Extent {
            start: PageId(200 + round as u32 * 90),
            pages: 70,
        };
        if space.reserve(extent).is_ok() {
            space.mark_reachable(extent).expect("allocated");
        }
        assert_eq!(encoder.fill(&space, piece), piece.len());
    }
    assert_eq!(encoder.fill(&space, &mut [0; 10]), 0);
    assert!(encoder.summary().is_some());
    assert_eq!(bytes, expected);
}

#[test]
fn what_is_wrong_is_named() {
    let (bytes, summary) = encode(&directory(), &space(), 4_096);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        decode(&bytes, summary, 4_096).expect_err("refused")
    };
    assert_eq!(with(|bytes| bytes[0] = b'X'), ImageDefect::NotAnImage);
    assert_eq!(with(|bytes| bytes[8] = 1), ImageDefect::Version { found: 1 });
    assert_eq!(with(|bytes| bytes.push(0)), ImageDefect::Length);
    assert_eq!(with(|bytes| bytes.truncate(60)), ImageDefect::Length);
    assert_eq!(
        with(|bytes| bytes[26] = 2),
        ImageDefect::Malformed("the map is of a larger file")
    );
    assert_eq!(with(|bytes| bytes[50] ^= 1), ImageDefect::Checksum);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        names in prop::collection::btree_map(any::<u32>(), ("[a-z]{0,12}", prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..9), 0..4)), 0..80),
        runs in prop::collection::vec((2u32..FILE_PAGES, 1u32..3_000), 0..40),
        piece_bytes in 1usize..9_000,
    ) {
        let mut directory = Directory::new();
        for (id, (name, lowers)) in names {
            let lowers: Vec<Vec<u8>> = lowers.into_iter().collect();
            if let Ok(next) = directory.with_tree(tree(id, &name, &lowers)) {
                directory = next;
            }
        }
        let mut space = SpaceMap::new(FILE_PAGES);
        for (start, pages) in runs {
            let extent = Extent { start: PageId(start), pages };
            if space.reserve(extent).is_ok() {
                prop_assert_eq!(space.mark_reachable(extent), Ok(()));
            }
        }
        let (bytes, summary) = encode(&directory, &space, piece_bytes);
        let image = decode(&bytes, summary, piece_bytes).expect("whole");
        let (read, map) = (image.directory, image.space);
        prop_assert_eq!(trees(&read), trees(&directory));
        prop_assert_eq!(read.names().collect::<Vec<_>>(), directory.names().collect::<Vec<_>>());
        prop_assert_eq!(map.reachable_runs().collect::<Vec<_>>(), space.reachable_runs().collect::<Vec<_>>());
    }

    #[test]
    fn damaged_images_are_refused_without_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        piece_bytes in 1usize..5_000,
    ) {
        let (mut bytes, summary) = encode_with(&directory(), snapshots(), &space(), 4_096);
        let before = bytes.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(decode(&bytes, summary, piece_bytes).is_ok(), bytes == before);
        // A right checksum over nonsense is the decoder's own matter.
        let _ = decode(&bytes, ImageSummary { bytes: bytes.len() as u64, crc: crc32c(&bytes) }, piece_bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), start in 0usize..33) {
        let (whole, _) = encode_with(&directory(), snapshots(), &space(), 4_096);
        let start = start.min(bytes.len());
        bytes[..start].copy_from_slice(&whole[..start]);
        let summary = ImageSummary { bytes: bytes.len() as u64, crc: crc32c(&bytes) };
        let _ = decode(&bytes, summary, 100);
    }
}
