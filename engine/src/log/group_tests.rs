use proptest::prelude::*;

use super::{
    GROUP_HEADER_BYTES, GroupBuilder, GroupDefect, GroupHeader, GroupStart, RawHeader, encoded_bytes,
    parse_group,
};
use crate::checksum::crc32c;
use crate::log::{LogPosition, Record, RecordWriter};
use crate::{BLOCK_BYTES, Lsn, Seq, ShardId, Stamp, TreeId};

const LOG_ID: u64 = 42;

fn start() -> GroupStart {
    GroupStart {
        lsn: Lsn(12_288),
        position: LogPosition {
            lsn: Lsn(8_192),
            generation: 3,
            previous_crc: 0xABCD,
        },
        durable_to: Lsn(4_096),
    }
}

fn group_of(value: &[u8]) -> GroupBuilder {
    let mut changes = Vec::new();
    RecordWriter(&mut changes).put(TreeId(1), b"key", value);
    let mut builder = GroupBuilder::new(LOG_ID);
    builder.append_batch(Seq(8), ShardId(2), Stamp(99), &changes);
    builder
}

#[test]
fn a_group_says_what_was_put_in() {
    let mut builder = group_of(b"value");
    builder.writer(Seq(6)).checkpoint(Seq(6), Lsn(4_096));
    assert_eq!(builder.encoded_bytes(), BLOCK_BYTES);
    let image = builder.finish(&start());
    let (bytes, next) = (image.bytes.to_vec(), image.next);
    let group = parse_group(&bytes, LOG_ID, Lsn(12_288)).expect("whole");
    let header = group.header;
    assert_eq!((header.first_seq, header.last_seq), (Seq(6), Seq(8)));
    assert_eq!(
        (header.lsn, header.follows, header.durable_to),
        (Lsn(12_288), Lsn(8_192), Lsn(4_096))
    );
    assert_eq!((header.generation, header.previous_crc), (3, 0xABCD));
    assert_eq!(header.check_chain(&start().position), Ok(()));
    assert_eq!(next, header.next());
    assert_eq!(
        next,
        LogPosition {
            lsn: Lsn(16_384),
            generation: 3,
            previous_crc: header.crc
        }
    );
    let records: Vec<_> = group.records().collect::<Result<_, _>>().expect("records");
    assert_eq!(records.len(), 4);
    assert_eq!(
        records[1],
        Record::Put {
            tree: TreeId(1),
            key: b"key",
            value: b"value"
        }
    );
}

#[test]
fn both_ways_to_finish_give_the_same_bytes() {
    for value_bytes in [
        0, 3_000, 3_980, 3_981, 3_982, 3_983, 3_984, 3_985, 3_986, 3_987, 9_000,
    ] {
        let value = vec![7; value_bytes];
        let mut into = group_of(&value);
        let mut target = vec![0xEE; into.encoded_bytes() + 10];
        let next = into.finish_into(&start(), &mut target).expect("enough room");
        let mut own = group_of(&value);
        let image = own.finish(&start());
        assert_eq!((image.bytes, image.next), (&target[..target.len() - 10], next));
        assert!(image.bytes.len().is_multiple_of(BLOCK_BYTES));
        assert_eq!(
            target[target.len() - 10..],
            [0xEE; 10],
            "nothing behind the group is touched"
        );
        assert!(into.is_empty(), "ready for the next group");
    }
}

#[test]
fn a_target_that_is_too_small_changes_nothing() {
    let mut builder = group_of(b"value");
    let mut target = vec![0; BLOCK_BYTES - 1];
    assert_eq!(
        builder.finish_into(&start(), &mut target),
        Err(GroupDefect::Short)
    );
    assert!(!builder.is_empty());
    assert!(target.iter().all(|&byte| byte == 0));
}

#[test]
fn a_cleared_builder_starts_anew() {
    let mut builder = group_of(b"first");
    builder.finish(&start());
    builder.clear();
    assert!(builder.is_empty());
    assert_eq!(builder.record_bytes(), 0);
    builder.append(&[], Seq(20));
    let image = builder.finish(&start());
    let group = parse_group(image.bytes, LOG_ID, start().lsn).expect("whole");
    assert_eq!((group.header.first_seq, group.record_bytes), (Seq(20), &[][..]));
}

#[test]
fn a_group_belongs_to_one_place_in_one_log() {
    let mut builder = group_of(b"value");
    let bytes = builder.finish(&start()).bytes.to_vec();
    let error = |bytes: &[u8], log_id, lsn| parse_group(bytes, log_id, Lsn(lsn)).expect_err("refused");
    assert_eq!(
        error(&bytes, LOG_ID, 16_384),
        GroupDefect::Misplaced { found: Lsn(12_288) }
    );
    assert_eq!(error(&bytes, LOG_ID + 1, 12_288), GroupDefect::ForeignLog);
    assert_eq!(error(&bytes[..100], LOG_ID, 12_288), GroupDefect::Short);
    assert_eq!(error(&bytes[..40], LOG_ID, 12_288), GroupDefect::Short);
    assert_eq!(error(&[0; BLOCK_BYTES], LOG_ID, 12_288), GroupDefect::NoGroup);

    let header = GroupHeader::decode(&bytes, LOG_ID, Lsn(12_288)).expect("whole");
    let position = start().position;
    for other in [
        LogPosition {
            lsn: Lsn(12_288),
            ..position
        },
        LogPosition {
            previous_crc: 1,
            ..position
        },
    ] {
        assert_eq!(header.check_chain(&other), Err(GroupDefect::Chain));
    }
    let later = LogPosition {
        generation: 4,
        ..position
    };
    assert_eq!(
        header.check_chain(&later),
        Err(GroupDefect::Generation { found: 3, least: 4 })
    );
    assert_eq!(
        header.check_chain(&LogPosition {
            generation: 2,
            ..position
        }),
        Ok(())
    );
}

#[test]
fn a_version_that_is_unknown_is_refused() {
    let mut builder = group_of(b"value");
    let mut bytes = builder.finish(&start()).bytes.to_vec();
    bytes[std::mem::offset_of!(RawHeader, version)] = 9;
    let crc = crc32c(&bytes[..GROUP_HEADER_BYTES - 4]);
    bytes[GROUP_HEADER_BYTES - 4..GROUP_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(
        parse_group(&bytes, LOG_ID, Lsn(12_288)).err(),
        Some(GroupDefect::Version { found: 9 })
    );
}

/// The format is frozen: these bytes are what `docs/FORMAT.md` describes.
#[test]
fn golden_header() {
    let mut builder = group_of(b"value");
    let bytes = builder.finish(&start()).bytes;
    let expected = [
        &b"TRLG"[..],
        &[1, 0, 0, 0, 3, 0, 0, 0, 32, 0, 0, 0],
        &12_288u64.to_le_bytes(),
        &8_192u64.to_le_bytes(),
        &4_096u64.to_le_bytes(),
        &8u64.to_le_bytes(),
        &8u64.to_le_bytes(),
        &42u64.to_le_bytes(),
        &0xABCDu32.to_le_bytes(),
        &0xD261_097Fu32.to_le_bytes(),
        &0u32.to_le_bytes(),
        &0x9B80_9189u32.to_le_bytes(),
    ];
    assert_eq!(bytes[..GROUP_HEADER_BYTES], expected.concat());
    assert!(bytes[GROUP_HEADER_BYTES + 32..].iter().all(|&byte| byte == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// No single damaged byte of header or records goes unnoticed.
    #[test]
    fn every_damage_is_noticed(
        value in prop::collection::vec(any::<u8>(), 0..6_000),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let mut builder = group_of(&value);
        let checked = GROUP_HEADER_BYTES + builder.record_bytes();
        prop_assert_eq!(builder.encoded_bytes(), encoded_bytes(builder.record_bytes()));
        let mut bytes = builder.finish(&start()).bytes.to_vec();
        bytes[at.index(checked)] ^= flip;
        prop_assert!(parse_group(&bytes, LOG_ID, Lsn(12_288)).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        if magic && bytes.len() > 4 {
            bytes[..4].copy_from_slice(b"TRLG");
        }
        prop_assert!(parse_group(&bytes, LOG_ID, Lsn(12_288)).is_err());
    }
}
