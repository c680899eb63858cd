use proptest::prelude::*;

use super::{BATCH_FRAME_BYTES, HEAD_BYTES_MAX, LoadedExtents, Record, RecordReader, RecordWriter};
use crate::log::LogDefect;
use crate::tree::Root;
use crate::{Extent, Lsn, PageId, PageRef, Seq, ShardId, Stamp, TreeId};

/// An owned change.
#[derive(Clone, Debug)]
enum Change {
    Put(u32, Vec<u8>, Vec<u8>),
    PutBlob(u32, Vec<u8>, Vec<u8>),
    Delete(u32, Vec<u8>),
    TreeCreate(u32, String),
    TreeDrop(u32),
    TreeLoad(u32, Root, Vec<Extent>, Vec<u8>),
}

/// A load, and its extents as they are stored.
fn tree_load(tree: u32, (height, id, birth, entries): (u8, u32, u32, u64), extents: &[(u32, u16)]) -> Change {
    let root = Root {
        reference: PageRef {
            id: PageId(id),
            birth,
        },
        height,
        entries,
    };
    let extents: Vec<Extent> = extents
        .iter()
        .map(|&(start, pages)| Extent {
            start: PageId(start >> 1),
            pages: pages.into(),
        })
        .collect();
    let stored = extents
        .iter()
        .flat_map(|extent| [extent.start.0, extent.pages])
        .flat_map(u32::to_le_bytes)
        .collect();
    Change::TreeLoad(tree, root, extents, stored)
}

impl Change {
    fn write(&self, writer: &mut RecordWriter<'_>) {
        match self {
            Change::Put(tree, key, value) => writer.put(TreeId(*tree), key, value),
            Change::PutBlob(tree, key, descriptor) => writer.put_blob(TreeId(*tree), key, descriptor),
            Change::Delete(tree, key) => writer.delete(TreeId(*tree), key),
            Change::TreeCreate(tree, name) => writer.tree_create(TreeId(*tree), name),
            Change::TreeDrop(tree) => writer.tree_drop(TreeId(*tree)),
            Change::TreeLoad(tree, root, extents, _) => writer.tree_load(TreeId(*tree), root, extents),
        }
    }

    fn record(&self) -> Record<'_> {
        match self {
            Change::Put(tree, key, value) => Record::Put {
                tree: TreeId(*tree),
                key,
                value,
            },
            Change::PutBlob(tree, key, descriptor) => Record::PutBlob {
                tree: TreeId(*tree),
                key,
                descriptor,
            },
            Change::Delete(tree, key) => Record::Delete {
                tree: TreeId(*tree),
                key,
            },
            Change::TreeCreate(tree, name) => Record::TreeCreate {
                tree: TreeId(*tree),
                name,
            },
            Change::TreeDrop(tree) => Record::TreeDrop { tree: TreeId(*tree) },
            Change::TreeLoad(tree, root, extents, stored) => {
                let stored = LoadedExtents(stored);
                assert!(stored.iter().eq(extents.iter().copied()));
                Record::TreeLoad {
                    tree: TreeId(*tree),
                    root: *root,
                    extents: stored,
                }
            }
        }
    }
}

fn tree() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..200, any::<u32>()]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 100..300)
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (tree(), bytes(), bytes()).prop_map(|(tree, key, value)| Change::Put(tree, key, value)),
        (tree(), bytes(), bytes()).prop_map(|(tree, key, value)| Change::PutBlob(tree, key, value)),
        (tree(), bytes()).prop_map(|(tree, key)| Change::Delete(tree, key)),
        (tree(), ".{0,20}").prop_map(|(tree, name)| Change::TreeCreate(tree, name)),
        tree().prop_map(Change::TreeDrop),
        (
            tree(),
            any::<(u8, u32, u32, u64)>(),
            prop::collection::vec(any::<(u32, u16)>(), 0..5)
        )
            .prop_map(|(tree, root, extents)| tree_load(tree, root, &extents)),
    ]
}

#[derive(Clone, Debug)]
enum Item {
    Batch(u64, u16, u64, Vec<Change>),
    Transaction(u64, Vec<Change>),
    Checkpoint(u64, u64),
}

fn item() -> impl Strategy<Value = Item> {
    let changes = || prop::collection::vec(change(), 0..6);
    prop_oneof![
        (any::<u64>(), any::<u16>(), any::<u64>(), changes())
            .prop_map(|(seq, shard, stamp, changes)| Item::Batch(seq, shard, stamp, changes)),
        (any::<u64>(), changes()).prop_map(|(seq, changes)| Item::Transaction(seq, changes)),
        (any::<u64>(), any::<u64>()).prop_map(|(seq, lsn)| Item::Checkpoint(seq, lsn)),
    ]
}

fn write(items: &[Item]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = RecordWriter(&mut bytes);
    for item in items {
        match item {
            Item::Batch(seq, shard, stamp, changes) => {
                writer.batch_begin(Seq(*seq), ShardId(*shard), Stamp(*stamp));
                changes.iter().for_each(|change| change.write(&mut writer));
                writer.batch_end();
            }
            Item::Transaction(seq, changes) => {
                writer.transaction(Seq(*seq), |writer| {
                    changes.iter().for_each(|change| change.write(writer))
                });
            }
            Item::Checkpoint(seq, lsn) => writer.checkpoint(Seq(*seq), Lsn(*lsn)),
        }
    }
    bytes
}

/// Reads everything there is, transactions included.
fn read_all(reader: RecordReader<'_>) -> Result<usize, LogDefect> {
    let mut count = 0;
    for record in reader {
        count += 1;
        if let Record::Transaction { changes, .. } = record? {
            count += read_all(changes)?;
        }
    }
    Ok(count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read(items in prop::collection::vec(item(), 0..5)) {
        let bytes = write(&items);
        let mut reader = RecordReader::new(&bytes);
        let mut next = || reader.next().expect("a record").expect("no defect");
        for item in &items {
            match item {
                Item::Batch(seq, shard, stamp, changes) => {
                    let (seq, shard, stamp) = (Seq(*seq), ShardId(*shard), Stamp(*stamp));
                    prop_assert_eq!(next(), Record::BatchBegin { seq, shard, stamp });
                    for change in changes {
                        prop_assert_eq!(next(), change.record());
                    }
                    prop_assert_eq!(next(), Record::BatchEnd);
                }
                Item::Transaction(seq, changes) => {
                    let Record::Transaction { seq: found, changes: reader } = next() else {
                        return Err(TestCaseError::fail("a transaction"));
                    };
                    prop_assert_eq!(found, Seq(*seq));
                    let read: Result<Vec<_>, _> = reader.collect();
                    let expected = changes.iter().map(Change::record).collect::<Vec<_>>();
                    prop_assert_eq!(read, Ok(expected));
                }
                Item::Checkpoint(seq, lsn) => {
                    prop_assert_eq!(next(), Record::Checkpoint { seq: Seq(*seq), lsn: Lsn(*lsn) });
                }
            }
        }
        prop_assert!(reader.next().is_none());
    }

    #[test]
    fn a_cut_is_noticed_unless_it_falls_between_items(
        items in prop::collection::vec(item(), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = write(&items);
        let cut = cut.index(bytes.len());
        let boundary = (0..items.len()).any(|count| write(&items[..count]).len() == cut);
        prop_assert_eq!(read_all(RecordReader::new(&bytes[..cut])).is_ok(), boundary);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in prop::collection::vec(prop_oneof![0u8..12, any::<u8>()], 0..400),
        items in prop::collection::vec(item(), 0..3),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let _ = read_all(RecordReader::new(&bytes));
        let mut written = write(&items);
        written.append(&mut bytes);
        if !written.is_empty() {
            let at = at.index(written.len());
            written[at] = byte;
        }
        let _ = read_all(RecordReader::new(&written));
    }
}

fn first_defect(bytes: &[u8]) -> Option<LogDefect> {
    read_all(RecordReader::new(bytes)).err()
}

#[test]
fn the_grammar_is_checked() {
    let defect = |bytes: &[u8]| first_defect(bytes).map(|defect| (defect.offset, defect.reason));
    let mut bytes = Vec::new();
    RecordWriter(&mut bytes).delete(TreeId(1), b"k");
    assert_eq!(defect(&bytes), Some((0, "a change outside of any batch")));

    bytes.clear();
    RecordWriter(&mut bytes).batch_begin(Seq(1), ShardId(0), Stamp(1));
    let begin = bytes.len();
    assert_eq!(defect(&bytes), Some((begin, "a batch without an end")));
    RecordWriter(&mut bytes).checkpoint(Seq(1), Lsn(4096));
    assert_eq!(defect(&bytes), Some((begin, "a batch without an end")));

    bytes.clear();
    RecordWriter(&mut bytes).batch_end();
    assert_eq!(defect(&bytes), Some((0, "the end of a batch that was not begun")));

    bytes.clear();
    RecordWriter(&mut bytes).transaction(Seq(1), |writer| writer.batch_end());
    assert_eq!(
        defect(&bytes),
        Some((0, "a transaction that holds more than changes"))
    );

    assert_eq!(defect(&[0]), Some((0, "an unknown kind of record")));
    let huge_number = [
        &[1; BATCH_FRAME_BYTES - 1][..],
        &[3, 0xFF, 0xFF, 0xFF, 0xFF, 0x10],
    ]
    .concat();
    assert_eq!(
        defect(&huge_number),
        Some((BATCH_FRAME_BYTES - 1, "a number beyond 32 bits"))
    );
}

#[test]
fn nothing_is_read_behind_a_defect() {
    let mut bytes = vec![77];
    RecordWriter(&mut bytes).checkpoint(Seq(1), Lsn(4096));
    let mut reader = RecordReader::new(&bytes);
    assert!(reader.next().is_some_and(|record| record.is_err()));
    assert!(reader.next().is_none());
}

/// The format is frozen: these bytes are what `docs/FORMAT.md` describes.
#[test]
fn golden_bytes() {
    let mut bytes = Vec::new();
    let mut writer = RecordWriter(&mut bytes);
    writer.batch_begin(Seq(0x0102), ShardId(3), Stamp(0x0405));
    writer.put(TreeId(300), b"key", b"value");
    writer.put_blob(TreeId(1), b"k", b"where");
    writer.delete(TreeId(2), b"gone");
    writer.tree_create(TreeId(5), "users");
    writer.tree_drop(TreeId(4));
    writer.batch_end();
    writer.transaction(Seq(7), |writer| writer.delete(TreeId(1), b"x"));
    writer.checkpoint(Seq(8), Lsn(0x1000));
    let expected = [
        &[1, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 5, 4, 0, 0, 0, 0, 0, 0][..],
        &[3, 0xAC, 0x02, 3, 5],
        b"keyvalue",
        &[4, 1, 1, 5],
        b"kwhere",
        &[5, 2, 4],
        b"gone",
        &[6, 5, 5],
        b"users",
        &[7, 4, 2],
        &[8, 7, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5, 1, 1, b'x'],
        &[9, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn a_put_costs_no_more_than_stated() {
    let mut bytes = Vec::new();
    RecordWriter(&mut bytes).put(TreeId(u32::MAX), &[0; 24], &[0; 150]);
    assert!(bytes.len() <= HEAD_BYTES_MAX + 174);
    bytes.clear();
    RecordWriter(&mut bytes).put(TreeId(1), &[0; 24], &[0; 100]);
    assert_eq!(bytes.len(), 4 + 124);
}
