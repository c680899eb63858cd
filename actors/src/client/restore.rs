//! Restoring: a full backup, and the incremental ones after it, become a database again.
//!
//! A full backup says in a file beside its data of which database and commit group it is; an incremental one names the
//! group that it follows and the one that it leads to. A chain is checked before anything is written.
//!
//! While a database is being restored a mark in its directory says so, and it can't be opened: an interrupted restore
//! leaves nothing that looks like a database, and is begun anew.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use treering_engine::log::segment::segment_file_number;
use treering_engine::superblock::Superblock;
use treering_engine::{BLOCK_BYTES, crc32c};
use treering_io::{AlignedBuffer, Directory, OpenMode, OsDirectory};

use super::changes::{Item, Reader, Writer};
use super::db::{Client, Db};
use super::diff::{Diff, check_own};
use super::snapshot::Snapshot;
use crate::commit::DROPPED_PREFIX;
use crate::error::{Error, Result};
use crate::options::{Durability, Options};
use crate::recovery::{self, Claimed};
use crate::shared::DATA_FILE;
use crate::ticket::Ticket;

/// Says of what a full backup is one.
pub(crate) const BACKUP_FILE: &str = "backup";
/// Says that a restore is under way.
pub(crate) const RESTORING_FILE: &str = "restoring";
/// The first bytes of [`BACKUP_FILE`].
const MAGIC: [u8; 8] = *b"TRBACKUP";
/// Where its checksum is: it covers what comes before.
const CRC_AT: usize = 32;
/// Bytes copied at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Writes under way, of each kind.
const WRITES_MAX: usize = 256;

/// What an incremental backup holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct IncrementalBackup {
    /// The commit group that it follows.
    pub base_seq: u64,
    /// The commit group after which the database was as it says.
    pub seq: u64,
    /// Keys that differ.
    pub changes: u64,
}

/// Of which database and commit group a full backup is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Origin {
    database_id: [u8; 16],
    seq: u64,
}

/// Writes the file that says of what a full backup is one, durably but for its name.
pub(super) fn write_origin(directory: &dyn Directory, database_id: [u8; 16], seq: u64) -> Result<()> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    block.extend_from_slice(&MAGIC);
    block.extend_from_slice(&database_id);
    block.extend_from_slice(&seq.to_le_bytes());
    let crc = crc32c(&block);
    block.extend_from_slice(&crc.to_le_bytes());
    block.resize(BLOCK_BYTES, 0);
    write_block(directory, BACKUP_FILE, &block).map_err(|error| Error::io("writing a backup's origin", error))
}

fn write_block(directory: &dyn Directory, name: &str, block: &[u8]) -> std::io::Result<()> {
    let file = directory.open_or_create(name)?;
    file.grow(BLOCK_BYTES as u64)?;
    file.write_at(&AlignedBuffer::copy_of(block), 0)?;
    file.sync_data()
}

/// Reads of what a directory is a full backup, and makes sure that it still is.
fn read_origin(directory: &dyn Directory, path: &Path) -> Result<Origin> {
    let not = |reason: &str| Error::NotABackup {
        path: path.into(),
        reason: reason.into(),
    };
    let read = |name: &str| -> Result<AlignedBuffer> {
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        directory
            .open(name, OpenMode::Existing)
            .and_then(|file| file.read_at(&mut block, 0))
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => not(&format!("it has no file {name:?}")),
                std::io::ErrorKind::UnexpectedEof => not(&format!("{name:?} is too short")),
                _ => Error::io(format!("reading {name:?} of a backup"), error),
            })?;
        Ok(block)
    };
    let block = read(BACKUP_FILE)?;
    let mut database_id = [0; 16];
    database_id.copy_from_slice(&block[8..24]);
    let mut seq = [0; 8];
    seq.copy_from_slice(&block[24..32]);
    if block[..8] != MAGIC || block[CRC_AT..CRC_AT + 4] != crc32c(&block[..CRC_AT]).to_le_bytes() {
        return Err(not("its origin is damaged"));
    }
    let origin = Origin {
        database_id,
        seq: u64::from_le_bytes(seq),
    };
    let superblock =
        Superblock::decode(&read(DATA_FILE)?).map_err(|defect| not(&format!("its data: {defect}")))?;
    if superblock.write_number != 1 || superblock.checkpoint_seq.0 != origin.seq {
        return Err(not("it was opened as a database since it was made"));
    }
    Ok(origin)
}

impl Snapshot {
    /// Writes what changed since another snapshot into a directory, as one file in proportion to what differs, durably.
    /// [`Options::restore`] applies it to a backup of that other one. For backups that go on from each other, `base` has
    /// to be a named snapshot, or what it says may be taken back by a crash, and become another history.
    ///
    /// # Errors
    /// [`Error::ForeignSnapshot`], [`Error::BackupExists`], [`Error::AlreadyOpen`] while another one is being written into
    /// that directory, [`Error::Corrupt`], [`Error::OutOfSpace`], [`Error::Io`], [`Error::Closed`].
    pub fn backup_since(&self, base: &Snapshot, directory: impl AsRef<Path>) -> Result<IncrementalBackup> {
        self.inner.runtime.check_wait()?;
        self.inner.runtime.shared.status.check_read()?;
        check_own(&self.inner, &base.inner)?;
        let path = directory.as_ref();
        let directory = recovery::open_or_create(path)?;
        let _lock = recovery::lock(&directory, path)?;
        let names = directory
            .names()
            .map_err(|error| Error::io(format!("listing {}", path.display()), error))?;
        if names.iter().any(|name| name == super::changes::CHANGES_FILE) {
            return Err(Error::BackupExists { path: path.into() });
        }
        self.write_changes(base, &directory)
    }

    pub(crate) fn write_changes(
        &self,
        base: &Snapshot,
        directory: &dyn Directory,
    ) -> Result<IncrementalBackup> {
        check_own(&self.inner, &base.inner)?;
        let mut writer = Writer::new(directory)?;
        let gone = base.version.directory.iter();
        let there = |tree| {
            let state = self.version.directory.get(tree);
            state.is_some_and(|state| !state.name.starts_with(DROPPED_PREFIX))
        };
        for tree in gone.filter(|tree| !tree.name.starts_with(DROPPED_PREFIX)) {
            if !there(tree.id) {
                writer.gone_tree(&tree.name)?;
            }
        }
        let mut changes = 0;
        for tree in self.version.directory.iter().filter(|tree| there(tree.id)) {
            writer.tree(&tree.name)?;
            let diff = Diff::new(
                Arc::clone(&self.inner),
                Arc::clone(&base.version),
                Arc::clone(&self.version),
                tree.id,
            )?;
            for change in diff {
                writer.change(&change?)?;
                changes += 1;
            }
        }
        let (base_seq, seq) = (base.seq(), self.seq());
        writer.finish(self.inner.runtime.shared.settings.database_id, base_seq, seq)?;
        Ok(IncrementalBackup {
            base_seq,
            seq,
            changes,
        })
    }
}

impl Db {
    /// Writes what changed since a named snapshot was taken: [`Snapshot::backup_since`] of the present state.
    ///
    /// # Errors
    /// [`Error::SnapshotNotFound`], and as [`Snapshot::backup_since`].
    pub fn backup_since(&self, named: &str, directory: impl AsRef<Path>) -> Result<IncrementalBackup> {
        let base = self.named_snapshot(named)?;
        self.client().snapshot().backup_since(&base, directory)
    }
}

impl Options {
    /// Makes a database in `directory`, which must be empty or not exist, from a full backup
    /// ([`Db::backup`], [`Snapshot::backup`]) and the incremental ones that follow it, in order, and opens it with these
    /// options. The backups are only read; the full one must not have been opened as a database.
    ///
    /// A restore that was interrupted leaves a directory that can't be opened; restoring to it again begins anew.
    ///
    /// # Errors
    /// [`Error::NotABackup`] if one of them isn't, or they don't follow each other; [`Error::BackupExists`] if the
    /// directory holds a database; [`Error::Corrupt`]; and as [`Options::open`].
    pub fn restore<P: AsRef<Path>>(
        self,
        backup: impl AsRef<Path>,
        incremental: &[P],
        directory: impl AsRef<Path>,
    ) -> Result<Db> {
        self.validate()?;
        let (backup, path) = (backup.as_ref(), directory.as_ref());
        let open = |path: &Path| {
            OsDirectory::open(path).map_err(|error| Error::io(format!("opening {}", path.display()), error))
        };
        let full = open(backup)?;
        let increments = incremental
            .iter()
            .map(|path| Ok((path.as_ref(), open(path.as_ref())?)))
            .collect::<Result<Vec<_>>>()?;
        let increments = increments
            .iter()
            .map(|(path, directory)| (*path, directory as &dyn Directory));
        let chain = Chain::check(&full, backup, increments)?;
        let claimed = recovery::claim(path)?;
        chain.restore(claimed, path, |claimed| Db::open_restored(claimed, path, &self))
    }
}

/// A full backup and what follows it, each from where the one before ends.
pub(crate) struct Chain<'c> {
    full: &'c dyn Directory,
    increments: Vec<Reader>,
}

impl<'c> Chain<'c> {
    /// Reads all of the incremental backups.
    pub fn check<'i>(
        full: &'c dyn Directory,
        path: &Path,
        increments: impl Iterator<Item = (&'i Path, &'i dyn Directory)>,
    ) -> Result<Chain<'c>> {
        let origin = read_origin(full, path)?;
        let mut seq = origin.seq;
        let mut readers = Vec::new();
        for (path, directory) in increments {
            let reader = Reader::open(directory)?;
            let header = &reader.header;
            if header.database_id != origin.database_id || header.base_seq != seq {
                return Err(Error::NotABackup {
                    path: path.into(),
                    reason: format!(
                        "it doesn't follow commit group {seq} of the database that was backed up"
                    ),
                });
            }
            seq = header.seq;
            readers.push(reader);
        }
        Ok(Chain {
            full,
            increments: readers,
        })
    }

    /// Makes the database; `open` opens what was copied.
    pub fn restore(
        &self,
        claimed: Claimed,
        path: &Path,
        open: impl FnOnce(Claimed) -> Result<Db>,
    ) -> Result<Db> {
        let target = Arc::clone(&claimed.directory);
        copy_backup(self.full, &*target, path)?;
        let db = open(claimed)?;
        for reader in &self.increments {
            apply(&db.client(), reader)?;
        }
        db.checkpoint()?;
        target
            .remove(RESTORING_FILE)
            .and_then(|()| target.sync())
            .map_err(|error| Error::io("ending a restore", error))?;
        Ok(db)
    }
}

/// Copies the files of a full backup, with the mark that this is not all yet.
fn copy_backup(source: &dyn Directory, target: &dyn Directory, path: &Path) -> Result<()> {
    let failed = |error| Error::io("restoring a backup", error);
    let names = target.names().map_err(failed)?;
    let is_part = |name: &str| name == DATA_FILE || segment_file_number(name).is_some();
    if !names.iter().any(|name| name == RESTORING_FILE) {
        if names.iter().any(|name| name == DATA_FILE) {
            return Err(Error::BackupExists { path: path.into() });
        }
        recovery::check_empty(path, &names)?;
    }
    write_block(target, RESTORING_FILE, &[0; BLOCK_BYTES]).map_err(failed)?;
    target.sync().map_err(failed)?;
    for name in names.iter().filter(|name| is_part(name)) {
        target.remove(name).map_err(failed)?;
    }
    target.sync().map_err(failed)?;
    for name in source.names().map_err(failed)? {
        if is_part(&name) {
            copy_file(source, target, &name).map_err(failed)?;
        }
    }
    target.sync().map_err(failed)
}

fn copy_file(source: &dyn Directory, target: &dyn Directory, name: &str) -> std::io::Result<()> {
    let from = source.open(name, OpenMode::Existing)?;
    let to = target.open(name, OpenMode::CreateNew)?;
    // Data and segments are whole blocks.
    let length = from.len()? / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    to.grow(length)?;
    let mut buffer = AlignedBuffer::zeroed(PIECE_BYTES);
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(PIECE_BYTES as u64) as usize;
        from.read_at(&mut buffer[..piece], done)?;
        to.write_at(&buffer[..piece], done)?;
        done += piece as u64;
    }
    to.sync_data()
}

/// Applies an incremental backup to the copy of what it follows.
fn apply(client: &Client, reader: &Reader) -> Result<()> {
    let mut tree = None;
    let mut puts: VecDeque<Ticket<()>> = VecDeque::new();
    let mut deletes: VecDeque<Ticket<bool>> = VecDeque::new();
    let unknown = || Error::NotABackup {
        path: super::changes::CHANGES_FILE.into(),
        reason: "a change of no tree".into(),
    };
    reader.items(|item| {
        match item {
            Item::GoneTree(name) => client.drop_tree(name)?,
            Item::Tree(name) => tree = Some(client.tree(name)?.with_durability(Durability::Buffered)),
            Item::Put(key, value) => {
                puts.push_back(tree.as_ref().ok_or_else(unknown)?.send_put(key, value)?);
            }
            Item::Delete(key) => {
                deletes.push_back(tree.as_ref().ok_or_else(unknown)?.send_delete(key)?);
            }
        }
        if puts.len() > WRITES_MAX
            && let Some(oldest) = puts.pop_front()
        {
            oldest.wait()?;
        }
        if deletes.len() > WRITES_MAX
            && let Some(oldest) = deletes.pop_front()
        {
            oldest.wait()?;
        }
        Ok(())
    })?;
    puts.into_iter().try_for_each(Ticket::wait)?;
    deletes.into_iter().try_for_each(|ticket| ticket.wait().map(drop))
}

#[cfg(test)]
mod tests {
    use treering_io::MemoryDirectory;

    use super::*;

    #[test]
    fn the_origin_of_a_backup_is_what_the_format_says() {
        let directory = MemoryDirectory::new();
        write_origin(&directory, *b"0123456789abcdef", 7).unwrap();
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        let file = directory.open(BACKUP_FILE, OpenMode::Existing).unwrap();
        file.read_at(&mut block, 0).unwrap();
        let expected = b"TRBACKUP0123456789abcdef\x07\0\0\0\0\0\0\0";
        assert_eq!(block[..CRC_AT], expected[..]);
        assert_eq!(block[CRC_AT..][..4], crc32c(expected).to_le_bytes());
        assert!(block[CRC_AT + 4..].iter().all(|byte| *byte == 0));
    }
}
