//! Reading records, and checking that they follow the grammar of [`record`](super::record).

use super::Record;
use super::record::{
    KIND_BATCH_BEGIN, KIND_BATCH_END, KIND_CHECKPOINT, KIND_DELETE, KIND_PUT, KIND_PUT_BLOB,
    KIND_TRANSACTION, KIND_TREE_CREATE, KIND_TREE_DROP, KIND_TREE_LOAD, LOAD_EXTENT_BYTES, LoadedExtents,
    VARINT_BYTES_MAX,
};
use crate::tree::Root;
use crate::{Lsn, PageId, PageRef, Seq, ShardId, Stamp, TreeId};

/// Bytes that are not records, and where. The group's checksum was right, so whoever wrote it was wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason} at byte {offset} of the records")]
pub struct LogDefect {
    /// Byte position within the records (of the group, or of the transaction).
    pub offset: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Outside,
    InBatch,
    InTransaction,
    /// A defect was reported, or the end was reached.
    Done,
}

/// Reads the records of a group, or the changes of a transaction, one after the other. After a defect it
/// gives nothing more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordReader<'a> {
    bytes: &'a [u8],
    offset: usize,
    place: Place,
}

impl<'a> RecordReader<'a> {
    /// Reads the records of a group.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> RecordReader<'a> {
        RecordReader {
            bytes,
            offset: 0,
            place: Place::Outside,
        }
    }

    /// Reads changes that are in no batch yet, or in none any more, to their end.
    #[must_use]
    pub fn changes(bytes: &'a [u8]) -> RecordReader<'a> {
        RecordReader {
            bytes,
            offset: 0,
            place: Place::InTransaction,
        }
    }

    /// Goes on within a batch, at the byte where an earlier reader of the same bytes stopped.
    #[must_use]
    pub fn resume(bytes: &'a [u8], offset: usize) -> RecordReader<'a> {
        RecordReader {
            bytes,
            offset,
            place: Place::InBatch,
        }
    }

    /// The byte behind the last record that was read.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    fn read(&mut self) -> Result<Record<'a>, &'static str> {
        let kind = self.array::<1>()?[0];
        let is_change = (KIND_PUT..=KIND_TREE_DROP).contains(&kind) || kind == KIND_TREE_LOAD;
        match self.place {
            Place::Outside if is_change => return Err("a change outside of any batch"),
            Place::InTransaction if !is_change => return Err("a transaction that holds more than changes"),
            Place::InBatch if !is_change && kind != KIND_BATCH_END => return Err("a batch without an end"),
            _ => {}
        }
        match kind {
            KIND_BATCH_BEGIN => {
                self.place = Place::InBatch;
                Ok(Record::BatchBegin {
                    seq: Seq(self.u64()?),
                    shard: ShardId(u16::from_le_bytes(self.array()?)),
                    stamp: Stamp(self.u64()?),
                })
            }
            KIND_BATCH_END if self.place == Place::InBatch => {
                self.place = Place::Outside;
                Ok(Record::BatchEnd)
            }
            KIND_BATCH_END => Err("the end of a batch that was not begun"),
            KIND_PUT => {
                let (tree, [key, value]) = self.lengths_then_bytes()?;
                Ok(Record::Put { tree, key, value })
            }
            KIND_PUT_BLOB => {
                let (tree, [key, descriptor]) = self.lengths_then_bytes()?;
                Ok(Record::PutBlob {
                    tree,
                    key,
                    descriptor,
                })
            }
            KIND_DELETE => {
                let (tree, [key]) = self.lengths_then_bytes()?;
                Ok(Record::Delete { tree, key })
            }
            KIND_TREE_CREATE => {
                let (tree, [name]) = self.lengths_then_bytes()?;
                let name = std::str::from_utf8(name).map_err(|_| "a tree name that is not UTF-8")?;
                Ok(Record::TreeCreate { tree, name })
            }
            KIND_TREE_DROP => Ok(Record::TreeDrop {
                tree: TreeId(self.varint()?),
            }),
            KIND_TREE_LOAD => self.tree_load(),
            KIND_TRANSACTION => {
                let seq = Seq(self.u64()?);
                let length = u32::from_le_bytes(self.array()?) as usize;
                let changes = RecordReader::changes(self.take(length)?);
                Ok(Record::Transaction { seq, changes })
            }
            KIND_CHECKPOINT => Ok(Record::Checkpoint {
                seq: Seq(self.u64()?),
                lsn: Lsn(self.u64()?),
            }),
            _ => Err("an unknown kind of record"),
        }
    }

    fn tree_load(&mut self) -> Result<Record<'a>, &'static str> {
        let tree = TreeId(self.varint()?);
        let height = self.array::<1>()?[0];
        let id = PageId(u32::from_le_bytes(self.array()?));
        let birth = u32::from_le_bytes(self.array()?);
        let entries = self.u64()?;
        let count = u32::from_le_bytes(self.array()?) as usize;
        let bytes = count
            .checked_mul(LOAD_EXTENT_BYTES)
            .ok_or("a record that ends behind the end")?;
        let extents = LoadedExtents(self.take(bytes)?);
        if extents
            .iter()
            .any(|extent| extent.start.0.checked_add(extent.pages).is_none())
        {
            return Err("an extent beyond the largest page id");
        }
        let root = Root {
            reference: PageRef { id, birth },
            height,
            entries,
        };
        Ok(Record::TreeLoad { tree, root, extents })
    }

    /// Tree id, then the lengths of `N` byte strings, then the strings.
    #[inline]
    fn lengths_then_bytes<const N: usize>(&mut self) -> Result<(TreeId, [&'a [u8]; N]), &'static str> {
        let tree = TreeId(self.varint()?);
        let mut lengths = [0; N];
        for length in &mut lengths {
            *length = self.varint()? as usize;
        }
        let mut strings = [&[][..]; N];
        for (string, length) in strings.iter_mut().zip(lengths) {
            *string = self.take(length)?;
        }
        Ok((tree, strings))
    }

    #[inline]
    fn varint(&mut self) -> Result<u32, &'static str> {
        let mut value = 0u64;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.array::<1>()?[0];
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| "a number beyond 32 bits");
            }
        }
        Err("a number beyond 32 bits")
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let rest = &self.bytes[self.offset..];
        let taken = rest.get(..length).ok_or("a record that ends behind the end")?;
        self.offset += length;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let rest = &self.bytes[self.offset..];
        let taken = rest
            .first_chunk::<N>()
            .ok_or("a record that ends behind the end")?;
        self.offset += N;
        Ok(*taken)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

impl<'a> Iterator for RecordReader<'a> {
    type Item = Result<Record<'a>, LogDefect>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        if self.place == Place::Done {
            return None;
        }
        let result = if offset < self.bytes.len() {
            self.read()
        } else if self.place == Place::InBatch {
            Err("a batch without an end")
        } else {
            self.place = Place::Done;
            return None;
        };
        if result.is_err() {
            self.place = Place::Done;
        }
        Some(result.map_err(|reason| LogDefect { offset, reason }))
    }
}
