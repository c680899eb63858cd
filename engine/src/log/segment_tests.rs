use proptest::prelude::*;

use super::{
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderDefect, SegmentLayout, segment_file_name,
    segment_file_number,
};
use crate::Lsn;

const SEGMENT_BYTES: u64 = 8 * 4_096;

fn layout() -> SegmentLayout {
    SegmentLayout::new(SEGMENT_BYTES).expect("a legal size")
}

#[test]
fn only_sensible_sizes_are_taken() {
    for bytes in [0, 4_096, 8_191, 8_193, 3 << 30, u64::MAX] {
        assert_eq!(SegmentLayout::new(bytes), None, "{bytes}");
    }
    assert!(SegmentLayout::new(8_192).is_some());
    assert!(SegmentLayout::new(64 << 20).is_some());
}

#[test]
fn groups_are_placed_without_straddling() {
    let layout = layout();
    let place = |end: u64, bytes| layout.place(Lsn(end), bytes).map(|lsn| lsn.0);
    assert_eq!(place(4_096, 4_096), Some(4_096));
    assert_eq!(place(4_096, 7 * 4_096), Some(4_096), "exactly the whole segment");
    assert_eq!(place(4_096, 8 * 4_096), None, "no segment holds it");
    assert_eq!(place(7 * 4_096, 4_096), Some(7 * 4_096), "the last block");
    assert_eq!(place(7 * 4_096, 8_192), Some(9 * 4_096), "behind the next header");
    assert_eq!(
        place(8 * 4_096, 4_096),
        Some(9 * 4_096),
        "the end of a full segment"
    );
    assert_eq!(
        layout.candidates(Lsn(7 * 4_096)),
        (Lsn(7 * 4_096), Lsn(9 * 4_096))
    );
    assert_eq!(
        layout.candidates(Lsn(8 * 4_096)),
        (Lsn(9 * 4_096), Lsn(17 * 4_096))
    );
    assert_eq!(
        (
            layout.number(Lsn(8 * 4_096)),
            layout.number_before(Lsn(8 * 4_096))
        ),
        (1, 0)
    );
    assert_eq!(layout.group_bytes_max(), 7 * 4_096);
}

proptest! {
    #[test]
    fn a_place_is_always_one_of_the_candidates(blocks in 1u64..1_000, group_blocks in 1usize..8) {
        let (layout, end) = (layout(), Lsn(blocks * 4_096));
        let lsn = layout.place(end, group_blocks * 4_096).expect("fits");
        let (here, next) = layout.candidates(end);
        prop_assert!(lsn == here || lsn == next);
        prop_assert!(lsn >= end);
        prop_assert!(layout.offset(lsn) >= 4_096, "never over a header");
        let last = Lsn(lsn.0 + group_blocks as u64 * 4_096 - 1);
        prop_assert_eq!(layout.number(lsn), layout.number(last), "never straddling");
    }

    #[test]
    fn arbitrary_headers_never_panic(block in prop::collection::vec(any::<u8>(), 0..80), magic in any::<bool>()) {
        let mut block = block;
        if magic && block.len() > 8 {
            block[..8].copy_from_slice(b"TRINGSEG");
        }
        prop_assert!(SegmentHeader::decode(&block).is_err());
    }
}

#[test]
fn names_and_numbers_belong_together() {
    assert_eq!(segment_file_name(12), "log-00000012.seg");
    assert_eq!(segment_file_number("log-00000012.seg"), Some(12));
    assert_eq!(
        segment_file_number(&segment_file_name(123_456_789_012)),
        Some(123_456_789_012)
    );
    for name in [
        "log-12.seg",
        "log-000000012.seg",
        "log-0000001x.seg",
        "log-.seg",
        "data",
        "log-+0000012.seg",
    ] {
        assert_eq!(segment_file_number(name), None, "{name}");
    }
}

/// The format is frozen: these bytes are what `docs/FORMAT.md` describes.
#[test]
fn golden_header() {
    let header = SegmentHeader {
        log_id: 42,
        number: 7,
        segment_bytes: SEGMENT_BYTES,
    };
    let block = header.encode();
    let expected = [
        &b"TRINGSEG"[..],
        &[1, 0, 0, 0],
        &0xD272_9DC4u32.to_le_bytes(),
        &42u64.to_le_bytes(),
        &7u64.to_le_bytes(),
        &SEGMENT_BYTES.to_le_bytes(),
    ]
    .concat();
    assert_eq!(block[..40], expected);
    assert_eq!(block.len(), SEGMENT_HEADER_BYTES);
    assert_eq!(SegmentHeader::decode(&block), Ok(header));
}

#[test]
fn damaged_headers_are_told_apart() {
    let block = SegmentHeader {
        log_id: 1,
        number: 2,
        segment_bytes: SEGMENT_BYTES,
    }
    .encode();
    for at in 0..40 {
        let mut damaged = block;
        damaged[at] ^= 1;
        let expected = if at < 8 {
            SegmentHeaderDefect::NotASegment
        } else {
            SegmentHeaderDefect::Checksum
        };
        assert_eq!(SegmentHeader::decode(&damaged), Err(expected), "byte {at}");
    }
}
