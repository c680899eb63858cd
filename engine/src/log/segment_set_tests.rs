use std::collections::BTreeMap;

use super::{SegmentJob, SegmentSet};
use crate::Lsn;
use crate::log::SegmentLayout;

const SEGMENT_BYTES: u64 = 8 * 4_096;

fn layout() -> SegmentLayout {
    SegmentLayout::new(SEGMENT_BYTES).expect("a legal size")
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
fn truncated_segments_are_recycled_and_what_the_next_round_will_not_need_is_removed() {
    let mut set = SegmentSet::new(layout(), 1, Lsn(4_096), Lsn(4_096), &BTreeMap::new());
    jobs(&mut set);
    for number in 1..5 {
        set.advance(Lsn(number * SEGMENT_BYTES + 8_192));
        assert_eq!(jobs(&mut set), [SegmentJob::Create { number: number + 1 }]);
    }
    // A checkpoint: segments 0 to 3 are needed no more, and the next round will need as many.
    set.truncate(Lsn(4 * SEGMENT_BYTES + 8_192));
    assert_eq!(jobs(&mut set), []);
    for number in 5..8 {
        set.advance(Lsn(number * SEGMENT_BYTES + 8_192));
        assert_eq!(
            jobs(&mut set),
            [SegmentJob::Recycle {
                from: number - 5,
                number: number + 1
            }]
        );
    }
    set.truncate(Lsn(7 * SEGMENT_BYTES + 8_192));
    assert_eq!(jobs(&mut set), []);
    assert_eq!(set.ready_numbers().collect::<Vec<_>>(), [7, 8]);
    // Checkpoints come sooner now: fewer are kept.
    set.truncate(Lsn(7 * SEGMENT_BYTES + 12_288));
    assert_eq!(
        jobs(&mut set),
        [3, 4, 5].map(|number| SegmentJob::Remove { number })
    );
    set.advance(Lsn(8 * SEGMENT_BYTES + 8_192));
    assert_eq!(jobs(&mut set), [SegmentJob::Recycle { from: 6, number: 9 }]);
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
