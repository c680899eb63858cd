//! `docs/FORMAT.md` says what the code does: the tables of fixed structures in it are read and compared.

use std::collections::BTreeMap;
use std::mem::offset_of;

use crate::BLOCK_BYTES;
use crate::image::{RawImageHeader, RawKept, RawPartition, RawSnapshot, RawTree};
use crate::log::group::RawHeader;
use crate::log::record;
use crate::log::segment::RawSegmentHeader;
use crate::page;
use crate::superblock::{RawPosition, RawSuperblock};

const DOCUMENT: &str = include_str!("../../docs/FORMAT.md");

/// Field, offset, bytes.
type Field = (&'static str, usize, usize);

/// The fields of a structure as the compiler lays them out.
macro_rules! fields {
    ($raw:ident { $($field:ident),* $(,)? }) => {{
        // Names every field, so that a new one can't be forgotten here.
        fn field_bytes(raw: &$raw) -> Vec<usize> {
            let $raw { $($field),* } = raw;
            vec![$(size_of_val($field)),*]
        }
        let zero = <$raw as zerocopy::FromZeros>::new_zeroed();
        let names = [$((stringify!($field), offset_of!($raw, $field))),*];
        names
            .into_iter()
            .zip(field_bytes(&zero))
            .map(|((name, offset), bytes)| (name, offset, bytes))
            .collect::<Vec<Field>>()
    }};
}

/// The rows of the table behind the comment that names it: offset, bytes, field.
fn table(name: &str) -> Vec<(usize, usize, &'static str)> {
    let marker = format!("<!-- struct: {name} -->\n");
    let (_, rest) = DOCUMENT
        .split_once(&marker)
        .unwrap_or_else(|| panic!("no table {name:?}"));
    rest.lines()
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (
                cells[1].parse().expect("an offset"),
                cells[2].parse().expect("a length"),
                cells[3],
            )
        })
        .collect()
}

fn compare(name: &str, fields: &[Field]) {
    let rows = table(name);
    let mut expected_offset = 0;
    for &(offset, bytes, _) in &rows {
        assert_eq!(
            offset, expected_offset,
            "{name}: the table has a gap or an overlap"
        );
        expected_offset = offset + bytes;
    }
    let documented: BTreeMap<&str, (usize, usize)> = rows
        .iter()
        .filter(|(.., field)| !field.is_empty())
        .map(|&(offset, bytes, field)| (field, (offset, bytes)))
        .collect();
    let actual: BTreeMap<&str, (usize, usize)> = fields
        .iter()
        .map(|&(field, offset, bytes)| (field, (offset, bytes)))
        .collect();
    assert_eq!(documented, actual, "{name}");
}

#[test]
fn the_superblock() {
    compare(
        "superblock",
        &fields!(RawSuperblock {
            magic,
            format_version,
            page_bytes,
            database_id,
            write_number,
            checkpoint_seq,
            log_start,
            log_known,
            next_stamp,
            segment_bytes,
            file_pages,
            next_tree,
            flags,
            image_crc,
            image_bytes,
            image_extent_count,
            image_extents,
        }),
    );
    let last = *table("superblock").last().expect("rows");
    assert_eq!((last.0, last.1), (BLOCK_BYTES - 4, 4), "the checksum");
    compare(
        "position",
        &fields!(RawPosition {
            lsn,
            generation,
            previous_crc
        }),
    );
}

#[test]
fn the_checkpoint_image() {
    compare(
        "image",
        &fields!(RawImageHeader {
            magic,
            version,
            tree_count,
            reachable_pages,
            file_pages,
            snapshot_count
        }),
    );
    compare(
        "tree",
        &fields!(RawTree {
            id,
            partition_count,
            name_bytes
        }),
    );
    compare(
        "partition",
        &fields!(RawPartition {
            entries,
            root_id,
            root_birth,
            owner,
            lower_bytes,
            height
        }),
    );
    compare(
        "snapshot",
        &fields!(RawSnapshot {
            seq,
            kept_count,
            tree_count,
            name_bytes
        }),
    );
    compare("kept", &fields!(RawKept { born, start, pages }));
}

#[test]
fn the_log() {
    compare(
        "segment",
        &fields!(RawSegmentHeader {
            magic,
            version,
            header_crc,
            log_id,
            number,
            segment_bytes
        }),
    );
    compare(
        "group",
        &fields!(RawHeader {
            magic,
            version,
            flags,
            generation,
            record_bytes,
            lsn,
            follows,
            durable_to,
            first_seq,
            last_seq,
            log_id,
            previous_crc,
            records_crc,
            reserved,
            header_crc,
        }),
    );
}

#[test]
fn the_node_header() {
    let layout = [
        ("crc", page::layout::CRC_AT, 4),
        ("id", page::layout::ID_AT, 4),
        ("stamp", page::layout::STAMP_AT, 8),
        ("born", page::layout::BORN_AT, 8),
        ("kind", page::layout::KIND_AT, 1),
        ("level", page::layout::LEVEL_AT, 1),
        ("count", page::layout::COUNT_AT, 2),
        ("prefix_len", page::layout::PREFIX_LEN_AT, 2),
    ];
    compare("node", &layout);
}

#[test]
fn the_kinds_of_records() {
    let kinds = [
        ("BatchBegin", record::KIND_BATCH_BEGIN),
        ("BatchEnd", record::KIND_BATCH_END),
        ("Put", record::KIND_PUT),
        ("PutBlob", record::KIND_PUT_BLOB),
        ("Delete", record::KIND_DELETE),
        ("TreeCreate", record::KIND_TREE_CREATE),
        ("TreeDrop", record::KIND_TREE_DROP),
        ("Transaction", record::KIND_TRANSACTION),
        ("Checkpoint", record::KIND_CHECKPOINT),
        ("TreeLoad", record::KIND_TREE_LOAD),
    ];
    let (_, rest) = DOCUMENT
        .split_once("| kind | record | fields |\n")
        .expect("the table of records");
    let rows: Vec<(&str, u8)> = rest
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[2], cells[1].parse().expect("a kind"))
        })
        .collect();
    assert_eq!(rows, kinds);
}
