use treering_engine::log::segment::segment_file_name;
use treering_engine::log::{GroupBuilder, GroupStart, LogPosition, RecordWriter};
use treering_engine::{BLOCK_BYTES, Lsn, ShardId, Stamp, TreeId};
use treering_io::{AlignedBuffer, MemoryDirectory, OpenMode};

use super::*;
use crate::error::Error;

const LOG_ID: u64 = 7;
const SEGMENT: u64 = 3;

/// A log that starts in the middle of the segments that the directory shows.
struct Written {
    directory: Arc<dyn Directory>,
    layout: SegmentLayout,
    range: LogRange,
}

impl Written {
    fn new() -> Written {
        let layout = SegmentLayout::new(8 * BLOCK_BYTES as u64).expect("a legal size");
        let start = LogPosition {
            lsn: Lsn(layout.start(SEGMENT).0 + BLOCK_BYTES as u64),
            generation: 1,
            previous_crc: 0,
        };
        let written = Written {
            directory: Arc::new(MemoryDirectory::new()),
            layout,
            range: LogRange {
                after: Seq(10),
                start,
                end: start,
                next: Seq(11),
            },
        };
        written.make(SEGMENT, layout.segment_bytes() as usize);
        written
    }

    fn make(&self, number: u64, bytes: usize) {
        let name = segment_file_name(number);
        let file = self.directory.open(&name, OpenMode::CreateNew).expect("made");
        file.write_at(&AlignedBuffer::zeroed(bytes), 0).expect("written");
    }

    /// Appends a commit group: a batch that puts one key, and a transaction of these changes.
    fn append(&mut self, key: &[u8], changes: &[u8]) {
        let seq = self.range.next;
        let mut builder = GroupBuilder::new(LOG_ID);
        let mut records = Vec::new();
        RecordWriter(&mut records).put(TreeId(1), key, b"v");
        builder.append_batch(seq, ShardId(0), Stamp(seq.0), &records);
        builder
            .writer(seq)
            .transaction(seq, |writer| writer.0.extend_from_slice(changes));
        let end = self.range.end;
        let lsn = self
            .layout
            .place(end.lsn, builder.encoded_bytes())
            .expect("it fits");
        let image = builder.finish(&GroupStart {
            lsn,
            position: end,
            durable_to: end.lsn,
        });
        let name = segment_file_name(self.layout.number(lsn));
        let file = self.directory.open(&name, OpenMode::Existing).expect("there");
        file.write_at(&AlignedBuffer::copy_of(image.bytes), self.layout.offset(lsn))
            .expect("written");
        self.range.end = image.next;
        self.range.next = seq.next();
    }

    /// The keys of each group.
    fn read(&self) -> Result<Vec<(u64, Vec<Vec<u8>>)>> {
        let mut found = Vec::new();
        read_changes(
            &self.directory,
            LOG_ID,
            self.layout,
            &self.range,
            |seq, records| {
                let keys = records.iter().filter_map(Record::change);
                found.push((seq.0, keys.map(|(_, key)| key.to_vec()).collect()));
            },
        )?;
        Ok(found)
    }
}

fn delete(key: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    RecordWriter(&mut records).delete(TreeId(2), key);
    records
}

#[test]
fn only_the_segments_of_the_range_are_looked_at() {
    let mut written = Written::new();
    // On their way from one number to another, and one that is being made.
    written.make(1, BLOCK_BYTES);
    written.make(SEGMENT + 5, 0);
    written.append(b"a", &delete(b"b"));
    written.append(b"c", &[]);
    let expected = vec![
        (11, vec![b"a".to_vec(), b"b".to_vec()]),
        (12, vec![b"c".to_vec()]),
    ];
    assert_eq!(written.read().expect("it is whole"), expected);
    written
        .directory
        .remove(&segment_file_name(SEGMENT))
        .expect("removed");
    assert!(matches!(written.read(), Err(Error::Io { .. })));
}

#[test]
fn a_record_that_makes_no_sense_is_corruption() {
    let mut written = Written::new();
    written.append(b"a", &delete(b"b"));
    let cut = delete(b"key");
    written.append(b"c", &cut[..cut.len() - 1]);
    let error = written.read().expect_err("half a record");
    assert!(
        matches!(&error, Error::Corrupt { file, .. } if *file == segment_file_name(SEGMENT)),
        "{error}"
    );
}
