use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::{
    CorruptReason, LogEnd, READ_BYTES, ReadLog, ScanError, ScanStart, SegmentFile, scan, scan_known,
};
use crate::log::{
    GROUP_HEADER_BYTES, GroupBuilder, GroupDefect, GroupStart, LogDefect, LogPosition, SegmentLayout,
    parse_group,
};
use crate::{BLOCK_BYTES, Lsn, Seq, ShardId, Stamp, TreeId};

const LOG_ID: u64 = 0x1234_5678_9ABC_DEF0;
const SECTOR_BYTES: usize = 512;

/// Segment files in memory. Checks that the scan reads as a device wants it.
#[derive(Clone, Default)]
struct Files(BTreeMap<u64, Vec<u8>>);

impl ReadLog for Files {
    type Error = Infallible;

    fn segments(&mut self) -> Result<Vec<SegmentFile>, Infallible> {
        Ok(self
            .0
            .iter()
            .map(|(&number, bytes)| SegmentFile {
                number,
                bytes: bytes.len() as u64,
            })
            .collect())
    }

    fn read(&mut self, number: u64, offset: u64, buffer: &mut [u8]) -> Result<(), Infallible> {
        assert!(buffer.len() <= READ_BYTES && buffer.len().is_multiple_of(BLOCK_BYTES) && !buffer.is_empty());
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64));
        assert_eq!(buffer.as_ptr().addr() % BLOCK_BYTES, 0, "unaligned buffer");
        let file = &self.0[&number][offset as usize..];
        buffer.copy_from_slice(&file[..buffer.len()]);
        Ok(())
    }
}

/// A group as it was written.
#[derive(Clone)]
struct Written {
    lsn: Lsn,
    follows: Lsn,
    durable_to: Lsn,
    bytes: Vec<u8>,
    record_bytes: usize,
    on_disk: bool,
}

/// A log, the device below it, and what must be true of them.
#[derive(Clone)]
struct World {
    layout: SegmentLayout,
    files: Files,
    groups: Vec<Written>,
    start: LogPosition,
    known: LogPosition,
    position: LogPosition,
    durable_to: Lsn,
    next_seq: u64,
}

impl World {
    fn new(segment_blocks: u64) -> World {
        let layout = SegmentLayout::new(segment_blocks * BLOCK_BYTES as u64).expect("a legal size");
        let position = LogPosition {
            lsn: layout.first_lsn(),
            generation: 1,
            previous_crc: 0,
        };
        let mut files = Files::default();
        files.0.insert(0, vec![0; layout.segment_bytes() as usize]);
        World {
            layout,
            files,
            groups: Vec::new(),
            start: position,
            known: position,
            position,
            durable_to: position.lsn,
            next_seq: 1,
        }
    }

    fn from(&self) -> ScanStart {
        ScanStart {
            layout: self.layout,
            log_id: LOG_ID,
            start: self.start,
            known: self.known,
        }
    }

    /// Builds a group; its bytes stay on their way until they are synced or cut off.
    fn append(&mut self, value_bytes: usize) {
        let mut builder = GroupBuilder::new(LOG_ID);
        let seq = Seq(self.next_seq);
        self.next_seq += 1;
        let mut changes = Vec::new();
        let value = vec![self.next_seq as u8; value_bytes];
        crate::log::RecordWriter(&mut changes).put(TreeId(1), &self.next_seq.to_le_bytes(), &value);
        builder.append_batch(seq, ShardId(0), Stamp(seq.0), &changes);
        let lsn = self
            .layout
            .place(self.position.lsn, builder.encoded_bytes())
            .expect("fits");
        let start = GroupStart {
            lsn,
            position: self.position,
            durable_to: self.durable_to,
        };
        let record_bytes = builder.record_bytes();
        let image = builder.finish(&start);
        self.groups.push(Written {
            lsn,
            follows: self.position.lsn,
            durable_to: self.durable_to,
            bytes: image.bytes.to_vec(),
            record_bytes,
            on_disk: false,
        });
        self.position = image.next;
        self.prepare(self.layout.number(lsn));
    }

    /// Makes sure that a segment exists: out of one that replay needs no more, as it is, if there is one.
    fn prepare(&mut self, number: u64) {
        if !self.files.0.contains_key(&number) {
            let oldest = *self.files.0.keys().next().expect("never empty");
            let recycled = if oldest < self.layout.number_before(self.start.lsn) {
                self.files.0.remove(&oldest)
            } else {
                None
            };
            let bytes = recycled.unwrap_or_else(|| vec![0; self.layout.segment_bytes() as usize]);
            self.files.0.insert(number, bytes);
        }
    }

    fn place(&mut self, lsn: Lsn) -> &mut [u8] {
        let offset = self.layout.offset(lsn) as usize;
        &mut self.files.0.get_mut(&self.layout.number(lsn)).expect("prepared")[offset..]
    }

    fn land(&mut self, index: usize) {
        let Written { lsn, bytes, .. } = self.groups[index].clone();
        self.place(lsn)[..bytes.len()].copy_from_slice(&bytes);
        self.groups[index].on_disk = true;
    }

    /// The device has everything, and the writer knows it.
    fn sync(&mut self) {
        for index in 0..self.groups.len() {
            if !self.groups[index].on_disk {
                self.land(index);
            }
        }
        self.durable_to = self.position.lsn;
    }

    /// Of each group on its way, each sector lands or is lost.
    fn cut_power(&mut self, mut seed: u64) {
        for index in 0..self.groups.len() {
            if self.groups[index].on_disk {
                continue;
            }
            let Written {
                lsn,
                bytes,
                record_bytes,
                ..
            } = self.groups[index].clone();
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Some groups land whole, some not at all, some in part.
            let mode = seed >> 62;
            for (sector, content) in bytes.chunks(SECTOR_BYTES).enumerate() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if mode == 0 || (mode == 1 && seed >> 63 == 0) {
                    self.place(lsn)[sector * SECTOR_BYTES..][..content.len()].copy_from_slice(content);
                }
            }
            // What the padding holds doesn't matter.
            let checked = GROUP_HEADER_BYTES + record_bytes;
            let whole = self.place(lsn)[..checked] == bytes[..checked];
            self.groups[index].on_disk = whole;
        }
    }

    /// Recovery as the design has it: find the end, raise the generation, make that known. `late` lets a
    /// write of the dead process land afterwards.
    fn recover(&mut self, late: bool) -> Result<(), TestCaseError> {
        let kept = self.groups.iter().take_while(|group| group.on_disk).count();
        self.expect_end(kept)?;
        let end = self.scan().1.expect("just done");
        self.position = LogPosition {
            generation: end.position.generation + 1,
            ..end.position
        };
        self.known = self.position;
        if self.start.lsn == self.known.lsn {
            self.start = self.known;
        }
        self.durable_to = self.position.lsn;
        if late && kept < self.groups.len() {
            self.land(kept);
        }
        self.groups.truncate(kept);
        Ok(())
    }

    /// A checkpoint of what is durable: replay starts later, older groups are forgotten.
    fn checkpoint(&mut self) {
        self.sync();
        (self.start, self.known) = (self.position, self.position);
        self.groups.clear();
    }

    fn expect_end(&self, kept: usize) -> Result<(), TestCaseError> {
        let (seen, end) = self.scan();
        let end = end.map_err(|error| TestCaseError::fail(format!("{error}")))?;
        prop_assert_eq!(seen.len(), kept, "groups");
        for (group, seen) in self.groups.iter().zip(&seen) {
            let records = &group.bytes[GROUP_HEADER_BYTES..][..group.record_bytes];
            prop_assert_eq!((group.lsn, records), (seen.0, &seen.1[..]));
        }
        let lsn = self
            .groups
            .get(kept)
            .map_or(self.position.lsn, |group| group.follows);
        prop_assert_eq!(end.position.lsn, lsn);
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn scan(&self) -> (Vec<(Lsn, Vec<u8>)>, Result<LogEnd, ScanError<Infallible>>) {
        let mut seen = Vec::new();
        let result = scan(&mut self.files.clone(), &self.from(), |group| {
            for record in group.records() {
                record?;
            }
            seen.push((group.header.lsn, group.record_bytes.to_vec()));
            Ok(())
        });
        (seen, result)
    }

    /// Damages group `index`, which is on disk, in its header or records.
    fn damage(&mut self, index: usize, at: usize, flip: u8) {
        let group = self.groups[index].clone();
        let at = at % (GROUP_HEADER_BYTES + group.record_bytes);
        self.place(group.lsn)[at] ^= flip.max(1);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { value_bytes: usize },
    Sync,
    Crash { seed: u64, late: bool },
    Checkpoint,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0usize..14_000).prop_map(|value_bytes| Step::Append { value_bytes }),
        2 => Just(Step::Sync),
        2 => (any::<u64>(), any::<bool>()).prop_map(|(seed, late)| Step::Crash { seed, late }),
        1 => Just(Step::Checkpoint),
    ];
    prop::collection::vec(step, 1..60)
}

fn run(world: &mut World, steps: &[Step]) -> Result<(), TestCaseError> {
    for step in steps {
        match *step {
            Step::Append { value_bytes } => world.append(value_bytes),
            Step::Sync => world.sync(),
            Step::Checkpoint => world.checkpoint(),
            Step::Crash { seed, late } => {
                world.cut_power(seed);
                world.recover(late)?;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the crashes tear, lose and let land late: each recovery finds exactly the groups up to the
    /// first that is not whole, and never calls a legal log corrupt.
    #[test]
    fn every_crash_leaves_a_prefix(segment_blocks in 5u64..12, steps in steps()) {
        run(&mut World::new(segment_blocks), &steps)?;
    }

    /// A damaged group that was known to be durable, by the superblock or by a later group, is corruption;
    /// any other one ends the log.
    #[test]
    fn damage_is_corruption_exactly_if_it_was_known_to_be_durable(
        segment_blocks in 5u64..12,
        steps in steps(),
        more in 1usize..8,
        sync_every in 1usize..4,
        victim in any::<usize>(),
        at in any::<usize>(),
        flip in any::<u8>(),
    ) {
        let mut world = World::new(segment_blocks);
        run(&mut world, &steps)?;
        for index in 0..more {
            world.append(index * 1_000);
            if index % sync_every == 0 {
                world.sync();
            }
        }
        world.sync();
        let victim = victim % world.groups.len();
        world.damage(victim, at, flip);
        let end = world.groups[victim].follows;
        let known = world.known.lsn > end || world.groups[victim + 1..].iter().any(|group| group.durable_to > end);
        let (seen, result) = world.scan();
        // Where the victim had left out the rest of a segment, a write of a dead process may have landed
        // there: it is taken for the log until it turns out that nothing known follows it.
        let may_stray = world.groups[victim].lsn != end;
        prop_assert!(seen.len() == victim || (may_stray && result.is_err()));
        match result {
            Ok(found) => {
                prop_assert!(!known, "corruption was cut off");
                prop_assert_eq!(found.position.lsn, end);
            }
            Err(ScanError::Corrupt { lsn, number, offset, .. }) => {
                prop_assert!(known, "a torn tail was called corruption");
                prop_assert!(lsn == end || (may_stray && lsn > end));
                prop_assert_eq!((number, offset), (world.layout.number(lsn), world.layout.offset(lsn)));
            }
            Err(ScanError::Read { .. }) => prop_assert!(false, "reading never fails here"),
        }
    }

    /// Any bytes in the segment files: an end, or an error, never a panic.
    #[test]
    fn arbitrary_files_never_panic(
        blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6),
        steps in steps(),
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 0..8),
        cut in any::<usize>(),
    ) {
        let mut world = World::new(6);
        run(&mut world, &steps)?;
        world.sync();
        for (number, block) in blocks.into_iter().enumerate() {
            world.files.0.entry(number as u64 + 3).or_insert(block);
        }
        for (at, byte) in damage {
            let count = world.files.0.len();
            let file = world.files.0.values_mut().nth(at % count).expect("in range");
            let length = file.len();
            if length > 0 {
                file[at / count % length] = byte;
            }
        }
        if let Some(mut file) = world.files.0.last_entry() {
            let length = file.get().len();
            file.get_mut().truncate(cut % (length + 1));
        }
        let _ = world.scan();
    }
}

fn three_groups() -> World {
    let mut world = World::new(64);
    for _ in 0..3 {
        world.append(5_000);
        world.sync();
    }
    world
}

fn corrupt_reason(world: &World) -> Option<(Lsn, CorruptReason)> {
    match world.scan().1 {
        Err(ScanError::Corrupt { lsn, reason, .. }) => Some((lsn, reason)),
        _ => None,
    }
}

#[test]
fn an_empty_log_ends_where_it_starts() {
    let world = World::new(8);
    let (seen, end) = world.scan();
    let end = end.expect("legal");
    assert!(seen.is_empty());
    assert_eq!((end.position, end.last_seq, end.groups), (world.start, None, 0));
}

#[test]
fn the_end_tells_what_was_found() {
    let world = three_groups();
    let end = world.scan().1.expect("whole");
    assert_eq!((end.groups, end.last_seq), (3, Some(Seq(3))));
    assert_eq!(end.bytes, 3 * 8_192);
    assert_eq!(end.position, world.position);
    assert_eq!(end.found, GroupDefect::NoGroup);
}

#[test]
fn damage_before_a_group_that_knows_better_names_the_place() {
    let mut world = three_groups();
    world.damage(1, 100, 1);
    let expected = CorruptReason::Damaged {
        found: GroupDefect::RecordsChecksum,
        durable_to: world.groups[1].lsn.max(world.groups[2].lsn),
    };
    assert_eq!(corrupt_reason(&world), Some((world.groups[1].lsn, expected)));
}

#[test]
fn damage_to_the_last_group_ends_the_log_unless_the_superblock_knows_it() {
    let mut world = three_groups();
    world.damage(2, 5, 1);
    assert_eq!(world.scan().1.expect("looks torn").groups, 2);
    world.known = world.position;
    let expected = CorruptReason::EndsEarly {
        found: GroupDefect::HeaderChecksum,
        known: world.known.lsn,
    };
    assert_eq!(corrupt_reason(&world), Some((world.groups[2].lsn, expected)));
}

#[test]
fn another_log_than_the_superblock_names_is_refused() {
    let mut world = three_groups();
    world.known = LogPosition {
        previous_crc: 77,
        ..world.position
    };
    assert_eq!(
        corrupt_reason(&world),
        Some((world.position.lsn, CorruptReason::NotTheLog))
    );
    // A known position inside of a group can't be reached either.
    let inside = Lsn(world.groups[1].lsn.0 + BLOCK_BYTES as u64);
    world.known = LogPosition {
        lsn: inside,
        ..world.position
    };
    assert_eq!(corrupt_reason(&world), Some((inside, CorruptReason::NotTheLog)));
}

#[test]
fn missing_and_truncated_segments_are_corruption() {
    let mut world = three_groups();
    let file = world.files.0.remove(&0).expect("the first segment");
    assert_eq!(
        corrupt_reason(&world),
        Some((Lsn(0), CorruptReason::SegmentMissing))
    );
    let expected = world.layout.segment_bytes();
    // Cut off behind the second group: what is left looks like a log that simply ends there.
    let bytes = world.layout.offset(world.groups[2].lsn);
    world.files.0.insert(0, file[..bytes as usize].to_vec());
    let reason = CorruptReason::SegmentShort { bytes, expected };
    assert_eq!(corrupt_reason(&world), Some((world.groups[2].lsn, reason)));
}

/// What is left looks like a log that ends with its segment, before segments that were prepared and never used.
#[test]
fn a_missing_segment_shows_by_those_prepared_behind_it() {
    let mut world = three_groups();
    let prepared = vec![0; world.layout.segment_bytes() as usize];
    let end = world.scan().1.expect("a whole log").position;
    for number in 1..4 {
        world.files.0.insert(number, prepared.clone());
    }
    assert_eq!(
        world.scan().1.expect("prepared segments are no log").position,
        end
    );
    for missing in 1..3 {
        let mut world = world.clone();
        world.files.0.remove(&missing);
        assert_eq!(
            corrupt_reason(&world),
            Some((world.layout.start(missing), CorruptReason::SegmentMissing))
        );
    }
    // The last ones may have been made or not: nobody can tell.
    world.files.0.remove(&3);
    assert_eq!(world.scan().1.expect("fewer prepared segments").position, end);
}

#[test]
fn records_that_make_no_sense_are_corruption_at_their_group() {
    let mut world = World::new(8);
    world.append(10);
    let mut builder = GroupBuilder::new(LOG_ID);
    builder.append(&[99], Seq(7));
    let start = GroupStart {
        lsn: world.position.lsn,
        position: world.position,
        durable_to: world.durable_to,
    };
    let bytes = builder.finish(&start).bytes.to_vec();
    world.sync();
    world.place(start.lsn)[..bytes.len()].copy_from_slice(&bytes);
    let reason = CorruptReason::Records(LogDefect {
        offset: 0,
        reason: "an unknown kind of record",
    });
    assert_eq!(corrupt_reason(&world), Some((start.lsn, reason)));
}

#[test]
fn groups_larger_than_one_read_are_read_in_pieces() {
    let mut world = World::new(1_024);
    for value_bytes in [10, 2_500_000, 10, 1_048_576 - 200, 3_000_000, 10] {
        world.append(value_bytes);
    }
    world.sync();
    let (seen, end) = world.scan();
    assert_eq!(end.expect("whole").groups, 6);
    assert_eq!(seen[4].1.len(), world.groups[4].record_bytes);
    assert_eq!(
        world.layout.number(world.groups[4].lsn),
        1,
        "it did not fit into the first segment"
    );
}

/// Rule R16's legal case: many buffered groups behind the last sync, one of them lost.
#[test]
fn a_hole_among_buffered_groups_is_legal() {
    let mut world = World::new(64);
    world.append(100);
    world.sync();
    for _ in 0..40 {
        world.append(100);
    }
    for index in (1..41).filter(|&index| index != 20) {
        world.land(index);
    }
    let end = world.scan().1.expect("legal");
    assert_eq!((end.groups, end.position.lsn), (20, world.groups[20].lsn));
}

/// What the superblock says was cut off may not speak any more, whatever it knew when it was written.
#[test]
fn groups_of_a_history_that_was_cut_off_have_no_say() {
    let mut world = three_groups();
    world.damage(1, 100, 1);
    assert!(corrupt_reason(&world).is_some(), "the third group knew better");
    let (lsn, bytes) = (world.groups[0].lsn, world.groups[0].bytes.clone());
    let end = parse_group(&bytes, LOG_ID, lsn).expect("whole").header.next();
    (world.start, world.known) = (end, LogPosition { generation: 2, ..end });
    let end = world.scan().1.expect("the third group is of an older generation");
    assert_eq!((end.groups, end.position.generation), (0, 2));
}

#[test]
fn a_log_that_is_written_to_is_read_up_to_what_is_known_of_it() {
    let mut world = three_groups();
    let known = world.groups[2].lsn;
    world.known = world.position;
    // Two groups more: when the reader looks, the first is not there yet; when it looks on, the second one is.
    for _ in 0..2 {
        world.append(5_000);
        world.sync();
    }
    world.damage(3, 100, 1);
    let mut seen = Vec::new();
    let read = |world: &World, seen: &mut Vec<Lsn>| {
        seen.clear();
        scan_known(&mut world.files.clone(), &world.from(), |group| {
            seen.push(group.header.lsn);
            Ok(())
        })
    };
    read(&world, &mut seen).expect("nothing that is known is damaged");
    assert_eq!((seen.len(), seen.last()), (3, Some(&known)));
    assert!(
        matches!(corrupt_reason(&world), Some((_, CorruptReason::Damaged { .. }))),
        "and a scan for the end can't be used here"
    );
    world.damage(1, 100, 1);
    let reason = CorruptReason::EndsEarly {
        found: GroupDefect::RecordsChecksum,
        known: world.known.lsn,
    };
    let error = read(&world, &mut seen).expect_err("damaged");
    assert!(
        matches!(error, ScanError::Corrupt { lsn, reason: found, .. } if lsn == world.groups[1].lsn && found == reason)
    );
    assert_eq!(seen.len(), 1);
}
