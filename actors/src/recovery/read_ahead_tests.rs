use treering_io::{Directory, MemoryDirectory, OpenMode};

use super::*;

const SEGMENT_BYTES: usize = 3 * READ_BYTES + 2 * BLOCK_BYTES;

/// Segments 5, 6 and 8; every block names its file and itself.
fn files() -> BTreeMap<u64, Arc<dyn File>> {
    let directory = MemoryDirectory::new();
    [5, 6, 8]
        .into_iter()
        .map(|number| {
            let file = directory
                .open(&format!("segment {number}"), OpenMode::CreateNew)
                .expect("a new file");
            file.write_at(&content(number), 0).expect("memory");
            (number, file)
        })
        .collect()
}

fn content(number: u64) -> Vec<u8> {
    (0..SEGMENT_BYTES)
        .map(|byte| (number as usize * 31 + byte / 512 * 7 + byte % 3) as u8)
        .collect()
}

fn check(reader: &mut Reader<'_>, number: u64, offset: usize, bytes: usize) {
    let mut buffer = AlignedBuffer::zeroed(bytes);
    reader
        .read(number, offset as u64, &mut buffer)
        .expect("it is there");
    assert!(
        buffer[..] == content(number)[offset..offset + bytes],
        "{bytes} bytes of segment {number} at {offset}"
    );
}

#[test]
fn what_is_read_is_what_the_files_hold_in_whatever_order() {
    let files = files();
    for readers in [Readers::Inline, Readers::Background, Readers::Nobody] {
        let mut reader = Reader::new(&files, readers);
        reader.segments().expect("lengths");
        // As a scan does: whole pieces, shorter ones where something is kept, across the end of a segment.
        check(&mut reader, 5, BLOCK_BYTES, READ_BYTES);
        check(&mut reader, 6, 0, BLOCK_BYTES);
        check(
            &mut reader,
            5,
            BLOCK_BYTES + READ_BYTES,
            READ_BYTES - 3 * BLOCK_BYTES,
        );
        check(
            &mut reader,
            5,
            2 * READ_BYTES - 2 * BLOCK_BYTES,
            READ_BYTES + 4 * BLOCK_BYTES,
        );
        check(&mut reader, 6, BLOCK_BYTES, 2 * READ_BYTES);
        // Back, and to a segment that doesn't follow.
        check(&mut reader, 5, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES);
        check(&mut reader, 8, READ_BYTES, 2 * READ_BYTES);
        check(&mut reader, 8, 0, SEGMENT_BYTES);
        let mut buffer = AlignedBuffer::zeroed(2 * BLOCK_BYTES);
        assert!(
            reader.read(7, 0, &mut buffer).is_err(),
            "there is no such segment"
        );
        let end = (SEGMENT_BYTES - BLOCK_BYTES) as u64;
        assert!(reader.read(8, end, &mut buffer).is_err(), "the file ends there");
    }
}

#[test]
fn a_few_pieces_are_read_ahead_and_used() {
    let files = files();
    let mut reader = Reader::new(&files, Readers::Inline);
    reader.segments().expect("lengths");
    check(&mut reader, 5, 0, READ_BYTES);
    let ahead = |reader: &Reader<'_>| -> Vec<(u64, u64, usize)> {
        let piece = |piece: &Piece| (piece.number, piece.offset, piece.bytes);
        reader.pieces.iter().map(piece).collect()
    };
    let piece = READ_BYTES as u64;
    assert_eq!(
        ahead(&reader),
        [
            (5, piece, READ_BYTES),
            (5, 2 * piece, READ_BYTES),
            (5, 3 * piece, 2 * BLOCK_BYTES),
            (6, 0, READ_BYTES),
        ]
    );
    // What a file holds by now is not what was read ahead of it: so it can be told which of them is given.
    files[&5].write_at(&content(8), 0).expect("memory");
    check(&mut reader, 5, READ_BYTES, READ_BYTES);
    assert_eq!(ahead(&reader).len(), PIECES_MAX);
    assert_eq!(
        ahead(&reader)[0],
        (5, piece, READ_BYTES),
        "until it is known that nobody goes back"
    );
    // Segment 7 is missing: what comes behind isn't guessed.
    check(&mut reader, 6, 2 * READ_BYTES, READ_BYTES);
    assert_eq!(ahead(&reader), [(6, 3 * piece, 2 * BLOCK_BYTES)]);
}
