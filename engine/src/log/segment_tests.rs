use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderDefect, SegmentJob, SegmentLayout, SegmentSet,
    segment_file_name, segment_file_number,
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

fn jobs(set: &mut SegmentSet) -> Vec<SegmentJob> {
    std::iter::from_fn(|| {
        let job = set.next_job()?;
        assert_eq!(set.next_job(), None, "one at a time");
        assert_eq!(set.job_done(), Some(job));
        Some(job)
    })
    .collect()
}

fn found(files: &[(u64, bool)]) -> BTreeMap<u64, bool> {
    files.iter().copied().collect()
}

#[test]
fn a_new_log_creates_the_current_segment_and_those_ahead() {
    let mut set = SegmentSet::new(layout(), 2, Lsn(4_096), Lsn(4_096), &BTreeMap::new());
    assert!(!set.is_ready(0));
    let create = |number| SegmentJob::Create { number };
    assert_eq!(jobs(&mut set), [create(0), create(1), create(2)]);
    assert!(set.is_ready(0) && set.is_ready(2));
    assert_eq!(set.file_bytes(), 3 * SEGMENT_BYTES);
}

#[test]
fn truncated_segments_are_recycled_and_the_rest_is_removed() {
    let mut set = SegmentSet::new(layout(), 1, Lsn(4_096), Lsn(4_096), &BTreeMap::new());
    jobs(&mut set);
    set.advance(Lsn(4 * SEGMENT_BYTES + 4_096));
    assert_eq!(
        jobs(&mut set),
        [2, 3, 4, 5].map(|number| SegmentJob::Create { number })[2..].to_vec()
    );
    // Segments 0, 1 hold log; 4 and 5 are ready. A checkpoint at the end of segment 4's first block:
    set.truncate(Lsn(4 * SEGMENT_BYTES + 8_192));
    set.advance(Lsn(5 * SEGMENT_BYTES + 8_192));
    assert_eq!(
        jobs(&mut set),
        [
            SegmentJob::Recycle { from: 0, number: 6 },
            SegmentJob::Remove { number: 1 }
        ]
    );
    assert_eq!(set.ready_numbers().collect::<Vec<_>>(), [4, 5, 6]);
}

#[test]
fn a_segment_whose_last_byte_is_before_the_start_is_kept_at_the_boundary() {
    let mut set = SegmentSet::new(
        layout(),
        0,
        Lsn(4_096),
        Lsn(2 * SEGMENT_BYTES + 8_192),
        &found(&[(0, true), (1, true), (2, true)]),
    );
    set.truncate(Lsn(2 * SEGMENT_BYTES));
    assert!(
        set.is_ready(1),
        "recovery asks for the segment of the last byte before the start"
    );
    assert!(!set.is_ready(0));
}

#[test]
fn half_prepared_files_are_removed_before_anything_else() {
    let files = found(&[(0, true), (3, true), (4, false), (5, true), (6, false)]);
    let start = Lsn(3 * SEGMENT_BYTES + 4_096);
    let mut set = SegmentSet::new(layout(), 2, start, start, &files);
    assert_eq!(
        jobs(&mut set),
        [
            SegmentJob::Remove { number: 4 },
            SegmentJob::Remove { number: 6 },
            SegmentJob::Recycle { from: 0, number: 4 },
        ]
    );
    assert_eq!(set.ready_numbers().collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn a_damaged_header_of_a_segment_that_holds_log_is_not_a_reason_to_remove_it() {
    let set = SegmentSet::new(
        layout(),
        0,
        Lsn(4_096),
        Lsn(SEGMENT_BYTES + 8_192),
        &found(&[(0, false), (1, false)]),
    );
    assert!(set.is_ready(0) && set.is_ready(1));
}

#[test]
fn a_failed_job_is_proposed_again_without_what_it_may_have_moved() {
    let start = Lsn(3 * SEGMENT_BYTES + 4_096);
    let mut set = SegmentSet::new(layout(), 1, start, start, &found(&[(0, true), (3, true)]));
    assert_eq!(set.next_job(), Some(SegmentJob::Recycle { from: 0, number: 4 }));
    set.job_failed();
    assert_eq!(set.next_job(), Some(SegmentJob::Create { number: 4 }));
    set.job_failed();
    assert_eq!(jobs(&mut set), [SegmentJob::Create { number: 4 }]);
}
