//! Incremental backups: what changed between two snapshots, as a file that can be applied to a copy of the older one.
//!
//! The file is a stream of items behind a header that is written last: a file whose header is right is complete.
//!
//! | item | bytes |
//! |---|---|
//! | the tree of this name is gone | 1, length of the name u16, name |
//! | what follows is about the tree of this name, which may be new | 2, length u16, name |
//! | a key holds this value | 3, length of the key u16, length of the value u32, key, value |
//! | a key is gone | 4, length u16, key |
//! | the end | 5 |
//!
//! Trees that are gone come first. The stream's checksum is looked at before any of it is believed.

use std::sync::Arc;

use treering_engine::{BLOCK_BYTES, Crc32c, crc32c};
use treering_io::{AlignedBuffer, Directory, File, OpenMode};

use super::Change;
use super::written_file::WrittenFile;
use crate::error::{Error, Result};

/// Name of the file in the directory of an incremental backup.
pub(crate) const CHANGES_FILE: &str = "changes";
/// Its name until it is complete.
const UNFINISHED_FILE: &str = "changes.new";
/// The first bytes of the file.
const MAGIC: [u8; 8] = *b"TRCHANGE";
/// The version of the format.
const VERSION: u32 = 1;
/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 20;
/// Most bytes by which the file grows ahead of what is written.
const GROWTH_BYTES_MAX: u64 = 16 << 20;
/// Where the header's checksum is: it covers what comes before.
const HEADER_CRC_AT: usize = 60;

const GONE_TREE: u8 = 1;
const TREE: u8 = 2;
const PUT: u8 = 3;
const DELETE: u8 = 4;
const END: u8 = 5;

/// What the header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// The database that the changes are of.
    pub database_id: [u8; 16],
    /// The commit group that they follow.
    pub base_seq: u64,
    /// The commit group after which all of them are there.
    pub seq: u64,
    bytes: u64,
    crc: u32,
}

/// One item of the stream.
pub(crate) enum Item<'i> {
    GoneTree(&'i str),
    Tree(&'i str),
    Put(&'i [u8], &'i [u8]),
    Delete(&'i [u8]),
}

fn failed(error: std::io::Error) -> Error {
    Error::io("writing an incremental backup", error)
}

fn corrupt(offset: u64, reason: &str) -> Error {
    Error::Corrupt {
        file: CHANGES_FILE.into(),
        offset,
        page: None,
        reason: reason.into(),
    }
}

/// Writes the file.
pub(crate) struct Writer<'w> {
    directory: &'w dyn Directory,
    file: WrittenFile<Arc<dyn File>>,
    crc: Crc32c,
}

impl<'w> Writer<'w> {
    /// Begins the file in a directory that has none.
    pub fn new(directory: &'w dyn Directory) -> Result<Writer<'w>> {
        let file = directory.open_or_create(UNFINISHED_FILE).map_err(failed)?;
        file.truncate(0).map_err(failed)?;
        Ok(Writer {
            directory,
            file: WrittenFile::new(file, BLOCK_BYTES as u64, GROWTH_BYTES_MAX),
            crc: Crc32c::new(),
        })
    }

    pub fn gone_tree(&mut self, name: &str) -> Result<()> {
        self.named(GONE_TREE, name)
    }

    pub fn tree(&mut self, name: &str) -> Result<()> {
        self.named(TREE, name)
    }

    pub fn change(&mut self, change: &Change) -> Result<()> {
        // Keys have at most 16 KiB, values 1 GiB.
        let key_bytes = (change.key.len() as u16).to_le_bytes();
        match &change.new {
            Some(value) => {
                self.push(&[PUT])?;
                self.push(&key_bytes)?;
                self.push(&(value.len() as u32).to_le_bytes())?;
                self.push(&change.key)?;
                self.push(value)
            }
            None => {
                self.push(&[DELETE])?;
                self.push(&key_bytes)?;
                self.push(&change.key)
            }
        }
    }

    /// Makes the file complete and durable, under its name.
    pub fn finish(mut self, database_id: [u8; 16], base_seq: u64, seq: u64) -> Result<()> {
        self.push(&[END])?;
        let bytes = self.file.end() - BLOCK_BYTES as u64;
        self.file.flush().map_err(failed)?;
        let file = self.file.file();
        file.truncate(self.file.end()).map_err(failed)?;
        let mut header = Vec::with_capacity(BLOCK_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&self.crc.value().to_le_bytes());
        header.extend_from_slice(&database_id);
        header.extend_from_slice(&base_seq.to_le_bytes());
        header.extend_from_slice(&seq.to_le_bytes());
        header.extend_from_slice(&bytes.to_le_bytes());
        header.resize(HEADER_CRC_AT, 0);
        let crc = crc32c(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        header.resize(BLOCK_BYTES, 0);
        file.write_at(&AlignedBuffer::copy_of(&header), 0)
            .and_then(|()| file.sync_data())
            .and_then(|()| self.directory.rename(UNFINISHED_FILE, CHANGES_FILE))
            .and_then(|()| self.directory.sync())
            .map_err(failed)
    }

    fn named(&mut self, kind: u8, name: &str) -> Result<()> {
        self.push(&[kind])?;
        // Names have at most 1024 bytes.
        self.push(&(name.len() as u16).to_le_bytes())?;
        self.push(name.as_bytes())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        self.file.push(bytes).map_err(failed)
    }
}

/// Reads the file.
pub(crate) struct Reader {
    file: Arc<dyn File>,
    pub header: Header,
}

impl Reader {
    /// Opens the file, and checks all of it.
    pub fn open(directory: &dyn Directory) -> Result<Reader> {
        let file = directory
            .open(CHANGES_FILE, OpenMode::Existing)
            .map_err(|error| Error::io("opening an incremental backup", error))?;
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        let short = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => corrupt(0, "the file is too short"),
            _ => Error::io("reading an incremental backup", error),
        };
        file.read_at(&mut block, 0).map_err(short)?;
        let header = decode_header(&block)?;
        let reader = Reader { file, header };
        let mut crc = Crc32c::new();
        reader.pieces(|piece| {
            crc.update(piece);
            Ok(())
        })?;
        if crc.value() != header.crc {
            return Err(corrupt(BLOCK_BYTES as u64, "the checksum is wrong"));
        }
        Ok(reader)
    }

    /// Hands out all items, in order.
    pub fn items(&self, mut visit: impl FnMut(Item<'_>) -> Result<()>) -> Result<()> {
        let mut pending: Vec<u8> = Vec::new();
        let mut offset = BLOCK_BYTES as u64;
        let mut ended = false;
        self.pieces(|piece| {
            pending.extend_from_slice(piece);
            let mut rest = &pending[..];
            while !ended {
                let Some((item, used)) = decode_item(rest, offset)? else {
                    break;
                };
                match item {
                    Some(item) => visit(item)?,
                    None => ended = true,
                }
                rest = &rest[used..];
                offset += used as u64;
            }
            let used = pending.len() - rest.len();
            pending.drain(..used);
            Ok(())
        })?;
        if ended {
            Ok(())
        } else {
            Err(corrupt(offset, "the changes have no end"))
        }
    }

    fn pieces(&self, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = AlignedBuffer::zeroed(BUFFER_BYTES);
        let mut done = 0;
        while done < self.header.bytes {
            let piece = (self.header.bytes - done).min(BUFFER_BYTES as u64) as usize;
            let offset = BLOCK_BYTES as u64 + done;
            let whole = piece.next_multiple_of(BLOCK_BYTES);
            self.file
                .read_at(&mut buffer[..whole], offset)
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => corrupt(offset, "the file ends here"),
                    _ => Error::io("reading an incremental backup", error),
                })?;
            visit(&buffer[..piece])?;
            done += piece as u64;
        }
        Ok(())
    }
}

fn decode_header(block: &[u8]) -> Result<Header> {
    if block[..8] != MAGIC {
        return Err(corrupt(0, "this is no incremental backup"));
    }
    let u32_at = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if crc32c(&block[..HEADER_CRC_AT]) != u32_at(HEADER_CRC_AT) {
        return Err(corrupt(0, "the header's checksum is wrong"));
    }
    if u32_at(8) != VERSION {
        return Err(Error::UnsupportedFormat {
            found: u32_at(8),
            supported: VERSION,
        });
    }
    let mut database_id = [0; 16];
    database_id.copy_from_slice(&block[16..32]);
    Ok(Header {
        database_id,
        base_seq: u64_at(32),
        seq: u64_at(40),
        bytes: u64_at(48),
        crc: u32_at(12),
    })
}

/// The first item of `bytes` (`None` within: the end) and its length; `None` if it is not complete.
fn decode_item(bytes: &[u8], offset: u64) -> Result<Option<(Option<Item<'_>>, usize)>> {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if kind == END {
        return Ok(Some((None, 1)));
    }
    if !(GONE_TREE..=DELETE).contains(&kind) {
        return Err(corrupt(offset, "an unknown kind of change"));
    }
    let Some((first, rest)) = rest.split_first_chunk::<2>() else {
        return Ok(None);
    };
    let first = usize::from(u16::from_le_bytes(*first));
    let (value_bytes, rest, head) = if kind == PUT {
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        (u32::from_le_bytes(*length) as usize, rest, 7)
    } else {
        (0, rest, 3)
    };
    let Some((key, rest)) = rest.split_at_checked(first) else {
        return Ok(None);
    };
    let Some(value) = rest.get(..value_bytes) else {
        return Ok(None);
    };
    let item = match kind {
        PUT => Item::Put(key, value),
        DELETE => Item::Delete(key),
        _ => {
            let name = std::str::from_utf8(key).map_err(|_| corrupt(offset, "a tree's name is not UTF-8"))?;
            if kind == TREE {
                Item::Tree(name)
            } else {
                Item::GoneTree(name)
            }
        }
    };
    Ok(Some((Some(item), head + first + value_bytes)))
}

#[cfg(test)]
mod tests {
    use treering_io::MemoryDirectory;

    use super::*;
    use crate::value::Value;

    fn change(key: &[u8], new: Option<&[u8]>) -> Change {
        Change {
            key: Value::from(key),
            old: None,
            new: new.map(Value::from),
        }
    }

    #[test]
    fn the_file_is_what_the_format_says() {
        let directory = MemoryDirectory::new();
        let mut writer = Writer::new(&directory).unwrap();
        writer.gone_tree("gone").unwrap();
        writer.tree("t").unwrap();
        writer.change(&change(b"key", Some(b"value"))).unwrap();
        writer.change(&change(b"old", None)).unwrap();
        writer.finish(*b"0123456789abcdef", 7, 9).unwrap();
        let stream = b"\x01\x04\0gone\x02\x01\0t\x03\x03\0\x05\0\0\0keyvalue\x04\x03\0old\x05";
        let file = directory.open(CHANGES_FILE, OpenMode::Existing).unwrap();
        assert_eq!(file.len().unwrap(), 2 * BLOCK_BYTES as u64);
        let mut found = AlignedBuffer::zeroed(2 * BLOCK_BYTES);
        file.read_at(&mut found, 0).unwrap();
        let header = [
            &b"TRCHANGE\x01\0\0\0"[..],
            &crc32c(stream).to_le_bytes(),
            b"0123456789abcdef\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0",
            &(stream.len() as u64).to_le_bytes(),
            &[0; 4],
        ]
        .concat();
        assert_eq!(found[..HEADER_CRC_AT], header);
        assert_eq!(found[HEADER_CRC_AT..][..4], crc32c(&header).to_le_bytes());
        assert_eq!(found[BLOCK_BYTES..][..stream.len()], stream[..]);
        assert!(found[BLOCK_BYTES + stream.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn items_longer_than_a_piece_come_back_whole() {
        let directory = MemoryDirectory::new();
        let mut writer = Writer::new(&directory).unwrap();
        writer.tree("t").unwrap();
        let long = vec![7; 3 * BUFFER_BYTES + 17];
        for key in [b"a", b"b"] {
            writer.change(&change(key, Some(&long))).unwrap();
        }
        writer.finish([0; 16], 0, 1).unwrap();
        let mut puts = 0;
        let reader = Reader::open(&directory).unwrap();
        let visited = reader.items(|item| {
            if let Item::Put(_, value) = item {
                assert!(value == long);
                puts += 1;
            }
            Ok(())
        });
        visited.unwrap();
        assert_eq!(puts, 2);
    }
}
