use proptest::prelude::*;

use super::{
    ChooseError, FORMAT_VERSION, IMAGE_EXTENTS_MAX, RawSuperblock, Slot, Superblock, SuperblockDefect,
    choose, slot_b_offsets,
};
use crate::checksum::crc32c;
use crate::log::LogPosition;
use crate::{BLOCK_BYTES, Extent, Lsn, PageId, Seq, Stamp, TreeId};

fn superblock(write_number: u64) -> Superblock {
    Superblock {
        page_bytes: 8_192,
        database_id: *b"0123456789abcdef",
        write_number,
        checkpoint_seq: Seq(77),
        log_start: LogPosition {
            lsn: Lsn(8_192),
            generation: 2,
            previous_crc: 0xAAAA,
        },
        log_known: LogPosition {
            lsn: Lsn(40_960),
            generation: 3,
            previous_crc: 0xBBBB,
        },
        next_stamp: Stamp(1_000),
        segment_bytes: 1 << 20,
        file_pages: 500,
        next_tree: TreeId(9),
        clean: true,
        image_extents: vec![
            Extent {
                start: PageId(10),
                pages: 2,
            },
            Extent {
                start: PageId(490),
                pages: 10,
            },
        ],
        image_bytes: 90_000,
        image_crc: 0xCCCC,
    }
}

/// Changes bytes and makes the checksum fit again.
fn forged(change: impl FnOnce(&mut [u8; BLOCK_BYTES])) -> [u8; BLOCK_BYTES] {
    let mut block = superblock(1).encode();
    change(&mut block);
    let crc = crc32c(&block[..BLOCK_BYTES - 4]);
    block[BLOCK_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    block
}

#[test]
fn what_is_written_is_read() {
    let mut superblock = superblock(5);
    assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock.clone()));
    superblock.image_extents = (0..IMAGE_EXTENTS_MAX as u32)
        .map(|index| Extent {
            start: PageId(2 + index * 2),
            pages: 1,
        })
        .collect();
    superblock.clean = false;
    assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock.clone()));
    superblock.image_extents.clear();
    superblock.image_bytes = 0;
    assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
}

#[test]
fn the_block_may_be_longer_but_not_shorter() {
    let mut bytes = superblock(1).encode().to_vec();
    bytes.resize(8_192, 0xEE);
    assert!(Superblock::decode(&bytes).is_ok());
    assert_eq!(
        Superblock::decode(&bytes[..BLOCK_BYTES - 1]),
        Err(SuperblockDefect::NotTreering)
    );
}

#[test]
fn damage_newer_formats_and_foreign_files_are_told_apart() {
    let block = superblock(1).encode();
    for at in 0..BLOCK_BYTES {
        let mut damaged = block;
        damaged[at] ^= 0x40;
        let expected = if at < 8 {
            SuperblockDefect::NotTreering
        } else {
            SuperblockDefect::Checksum
        };
        assert_eq!(Superblock::decode(&damaged), Err(expected), "byte {at}");
    }
    let newer = forged(|block| block[8] = 3);
    assert_eq!(
        Superblock::decode(&newer),
        Err(SuperblockDefect::UnsupportedFormat {
            found: 3,
            supported: FORMAT_VERSION
        })
    );
}

#[test]
fn contradictions_are_refused() {
    let refused = |change: fn(&mut Superblock)| {
        let mut superblock = superblock(1);
        change(&mut superblock);
        assert!(matches!(
            superblock.validate(),
            Err(SuperblockDefect::Malformed(_))
        ));
        if superblock.image_extents.len() <= IMAGE_EXTENTS_MAX {
            assert_eq!(
                Superblock::decode(&superblock.encode()),
                Err(superblock.validate().expect_err("above"))
            );
        }
    };
    refused(|superblock| superblock.page_bytes = 4_097);
    refused(|superblock| superblock.page_bytes = 2_048);
    refused(|superblock| superblock.page_bytes = 131_072);
    refused(|superblock| superblock.segment_bytes = 5_000);
    refused(|superblock| superblock.file_pages = 1);
    refused(|superblock| superblock.log_start.lsn = Lsn(8_193));
    refused(|superblock| superblock.log_start.lsn = Lsn(0));
    refused(|superblock| superblock.log_known.lsn = Lsn(4_096));
    refused(|superblock| superblock.log_known.generation = 1);
    refused(|superblock| superblock.log_known.lsn = superblock.log_start.lsn);
    refused(|superblock| superblock.image_extents[0].start = PageId(1));
    refused(|superblock| superblock.image_extents[1].pages = u32::MAX);
    refused(|superblock| superblock.image_extents[1].pages = 0);
    refused(|superblock| superblock.image_bytes = 12 * 8_192 + 1);
    refused(|superblock| superblock.image_extents = vec![Extent::single(PageId(5)); IMAGE_EXTENTS_MAX + 1]);
}

/// The file may grow for the image, after its map was frozen: refusing that would lose the database.
#[test]
fn the_image_may_lie_behind_the_pages_that_its_map_covers() {
    let superblock = Superblock {
        file_pages: 400,
        ..superblock(1)
    };
    assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
}

#[test]
fn more_extents_than_fit_are_refused() {
    let offset = std::mem::offset_of!(RawSuperblock, image_extent_count);
    for count in [IMAGE_EXTENTS_MAX as u32 + 1, u32::MAX] {
        let block = forged(|block| block[offset..offset + 4].copy_from_slice(&count.to_le_bytes()));
        assert_eq!(
            Superblock::decode(&block),
            Err(SuperblockDefect::Malformed("too many image extents"))
        );
    }
}

#[test]
fn the_newest_whole_slot_is_chosen() {
    let (old, new) = (superblock(4), superblock(5));
    let damaged = || Err(SuperblockDefect::Checksum);
    let foreign = || Err(SuperblockDefect::NotTreering);
    let newer = || {
        Err(SuperblockDefect::UnsupportedFormat {
            found: 9,
            supported: 1,
        })
    };
    assert_eq!(
        choose(Ok(old.clone()), Ok(new.clone())),
        Ok((Slot::B, new.clone()))
    );
    assert_eq!(
        choose(Ok(new.clone()), Ok(old.clone())),
        Ok((Slot::A, new.clone()))
    );
    assert_eq!(
        choose(Ok(new.clone()), Ok(new.clone())),
        Ok((Slot::A, new.clone()))
    );
    assert_eq!(choose(damaged(), Ok(old.clone())), Ok((Slot::B, old.clone())));
    assert_eq!(choose(Ok(old.clone()), foreign()), Ok((Slot::A, old.clone())));
    assert_eq!(choose(foreign(), foreign()), Err(ChooseError::NotADatabase));
    for pair in [
        (damaged(), foreign()),
        (foreign(), damaged()),
        (damaged(), damaged()),
    ] {
        assert!(matches!(choose(pair.0, pair.1), Err(ChooseError::Corrupt { .. })));
    }
    let unsupported = Err(ChooseError::UnsupportedFormat {
        found: 9,
        supported: 1,
    });
    assert_eq!(choose(Ok(old.clone()), newer()), unsupported);
    assert_eq!(choose(newer(), Ok(old)), unsupported);
    assert_eq!(choose(newer(), damaged()), unsupported);
}

#[test]
fn slot_b_can_be_found_without_slot_a() {
    assert_eq!(
        slot_b_offsets().collect::<Vec<_>>(),
        [4_096, 8_192, 16_384, 32_768, 65_536]
    );
}

/// The format is frozen: these bytes are what `docs/FORMAT.md` describes.
#[test]
fn golden_bytes() {
    let block = superblock(6).encode();
    let expected = [
        &b"TREERING"[..],
        &2u32.to_le_bytes(),
        &8_192u32.to_le_bytes(),
        b"0123456789abcdef",
        &6u64.to_le_bytes(),
        &77u64.to_le_bytes(),
        &8_192u64.to_le_bytes(),
        &2u32.to_le_bytes(),
        &0xAAAAu32.to_le_bytes(),
        &40_960u64.to_le_bytes(),
        &3u32.to_le_bytes(),
        &0xBBBBu32.to_le_bytes(),
        &1_000u64.to_le_bytes(),
        &(1u64 << 20).to_le_bytes(),
        &500u32.to_le_bytes(),
        &9u32.to_le_bytes(),
        &1u32.to_le_bytes(),
        &0xCCCCu32.to_le_bytes(),
        &90_000u64.to_le_bytes(),
        &2u32.to_le_bytes(),
        &10u32.to_le_bytes(),
        &2u32.to_le_bytes(),
        &490u32.to_le_bytes(),
        &10u32.to_le_bytes(),
    ]
    .concat();
    assert_eq!(block[..expected.len()], expected);
    assert!(
        block[expected.len()..BLOCK_BYTES - 4]
            .iter()
            .all(|&byte| byte == 0)
    );
    assert_eq!(
        block[BLOCK_BYTES - 4..],
        crc32c(&block[..BLOCK_BYTES - 4]).to_le_bytes()
    );
    assert_eq!(superblock(6).log_id(), u64::from_le_bytes(*b"01234567"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_contents_with_a_right_checksum_are_read_or_refused(
        changes in prop::collection::vec((8usize..700, any::<u8>()), 0..12),
    ) {
        let block = forged(|block| changes.iter().for_each(|&(at, byte)| block[at] = byte));
        if let Ok(superblock) = Superblock::decode(&block) {
            prop_assert_eq!(superblock.validate(), Ok(()));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..5_000)) {
        prop_assert!(Superblock::decode(&bytes).is_err());
    }
}
