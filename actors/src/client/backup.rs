//! Hot backup: one version of the database, copied into a database of its own while readers and writers go on.
//!
//! The trees are walked from their roots, children first. Every page is checked as if it were read for use, gets the
//! next page id of the copy, and is written behind the one before: so the copy has no holes, is written from front to
//! back, and a parent is written when its children's new ids are known. Pages that are in memory are copied from there;
//! the others are read past the cache, which belongs to the readers. Blobs are streamed.
//!
//! Memory: a page for each level, [`READS_MAX`] pages under way, and the buffer of a [`WrittenFile`].
//!
//! Readers and writers go first: after a while of copying it sleeps, [`SLEEP_SHARE_WRITING`] times as long if something
//! was written meanwhile, else [`SLEEP_SHARE_QUIET`] times. So a backup takes at most five times as long as it could. The
//! time counts, not the processor's: where others are in the way, or the device is slow, it leaves more to them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use treering_engine::catalog::{Directory as Catalog, TreeState};
use treering_engine::tree::Root;
use treering_engine::{Crc32c, Extent, PageId, PageRef, Seq, Stamp, TreeId, page};
use treering_io::{AlignedBuffer, Directory, File};

use super::blob::corrupt_page;
use super::db::Inner;
use super::restore::write_origin;
use super::written_file::WrittenFile;
use crate::actor::Nanos;
use crate::blob::BlobDescriptor;
use crate::commit::DROPPED_PREFIX;
use crate::error::{Error, Result};
use crate::pager::{PagerMessage, Transfer, TransferKind, TransferReply};
use crate::recovery::{Content, check_empty, create_with, lock, open_or_create, random_id};
use crate::shared::{DATA_FILE, Version, with_guard};

/// How long it copies before it sleeps.
const COPYING_NANOS: Nanos = 1_000_000;
/// How many times as long as it has copied it sleeps while others write. Shorter backups cost writers more, if one follows
/// the other: each holds a version of its own, whose pages can't be used again while they are in the processor's caches.
const SLEEP_SHARE_WRITING: Nanos = 4;
/// The same while nobody writes.
const SLEEP_SHARE_QUIET: Nanos = 1;
/// Longest sleep, however long a read has taken.
const SLEEP_NANOS_MAX: Nanos = 50_000_000;
/// Pages that are read at a time.
const READS_MAX: usize = 64;
/// Most bytes by which the file grows ahead of what is written.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// What a backup holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Backup {
    /// The commit group after which the database was like that.
    pub seq: u64,
    /// Pages copied: nodes, and those of large values.
    pub pages: u64,
}

impl Inner {
    /// Copies a version into a directory of the file system. Leaves nothing there if it can't wait.
    pub(super) fn backup_to(&self, version: &Version, path: &Path) -> Result<Backup> {
        self.runtime.check_wait()?;
        let directory = open_or_create(path)?;
        let _lock = lock(&directory, path)?;
        let names = directory
            .names()
            .map_err(|error| Error::io(format!("listing {}", path.display()), error))?;
        if names.iter().any(|name| name == DATA_FILE) {
            return Err(Error::BackupExists { path: path.into() });
        }
        check_empty(path, &names)?;
        self.backup_into(version, &directory, random_id())
    }

    /// Copies a version into an empty directory; the copy is called `database_id`. It has its name when it is whole.
    pub(crate) fn backup_into(
        &self,
        version: &Version,
        directory: &dyn Directory,
        database_id: [u8; 16],
    ) -> Result<Backup> {
        self.runtime.check_wait()?;
        let settings = &self.runtime.shared.settings;
        // First: a copy that has its name has all.
        write_origin(directory, settings.database_id, version.seq.0)?;
        let mut pages = 0;
        create_with(
            directory,
            settings.page_bytes as u32,
            settings.log_segment_bytes,
            database_id,
            |file| {
                let content = self.copy(version, file)?;
                pages = u64::from(content.pages);
                Ok(content)
            },
        )?;
        Ok(Backup {
            seq: version.seq.0,
            pages,
        })
    }

    fn copy(&self, version: &Version, file: &dyn File) -> Result<Content> {
        let mut copier = Copier {
            inner: self,
            output: Output::new(file, self.runtime.shared.settings.page_bytes),
            next_stamp: 1,
            pace: Pace {
                began: self.runtime.now(),
                seen: version.seq,
            },
        };
        let mut catalog = Catalog::new();
        let mut next_tree = TreeId(1);
        for tree in version.directory.iter() {
            next_tree = next_tree.max(TreeId(tree.id.0 + 1));
            if tree.name.starts_with(DROPPED_PREFIX) {
                continue;
            }
            let mut partitions = tree.partitions.to_vec();
            for partition in &mut partitions {
                partition.root.reference = copier.root(&partition.root)?;
            }
            let copied = TreeState {
                partitions: partitions.into(),
                ..(**tree).clone()
            };
            catalog = catalog
                .with_tree(copied)
                .map_err(|error| Error::io("copying the catalog", std::io::Error::other(error)))?;
        }
        copier.output.flush()?;
        Ok(Content {
            catalog,
            seq: version.seq,
            next_stamp: Stamp(copier.next_stamp),
            next_tree,
            pages: copier.output.next - PageId::FIRST.0,
        })
    }

    /// Copies of pages of a version that the caller holds, verified. Those in memory are taken from there: they may not
    /// be on disk yet. Only written pages leave memory, so what isn't there can be read.
    fn copies(&self, references: &[PageRef]) -> Result<Vec<Box<[u8]>>> {
        let memory = &self.runtime.shared.memory;
        let page_bytes = self.runtime.shared.settings.page_bytes;
        let mut pages: Vec<Option<Box<[u8]>>> = with_guard(memory, |guard| {
            let found = |reference: &PageRef| Some(memory.lookup(reference.id, guard)?.bytes.into());
            references.iter().map(found).collect()
        });
        let mut under_way = Vec::new();
        for (index, reference) in references.iter().enumerate() {
            if pages[index].is_none() {
                let (sender, receiver) = oneshot::channel();
                self.runtime.send_pager(PagerMessage::Transfer(Transfer {
                    kind: TransferKind::Read,
                    offset: u64::from(reference.id.0) * page_bytes as u64,
                    buffer: Some(AlignedBuffer::zeroed(page_bytes)),
                    reply: TransferReply::Client(sender.into()),
                }));
                under_way.push((index, receiver));
            }
        }
        for (index, receiver) in under_way {
            let (result, buffer) = self.runtime.wait(receiver, None).ok_or(Error::Closed)?;
            result.map_err(|error| Error::io("reading a page for a backup", error))?;
            let buffer = buffer.ok_or(Error::Closed)?;
            let reference = references[index];
            page::verify(&buffer[..page_bytes], reference)
                .map_err(|defect| corrupt_page(self, reference.id, &defect.to_string()))?;
            pages[index] = Some(buffer[..page_bytes].into());
        }
        Ok(pages.into_iter().flatten().collect())
    }
}

/// A copy under way.
struct Copier<'c> {
    inner: &'c Inner,
    output: Output<'c>,
    /// Higher than the stamps of all pages copied.
    next_stamp: u64,
    pace: Pace,
}

/// When a copy sleeps.
struct Pace {
    /// When it last went on copying.
    began: Nanos,
    /// The newest commit group then.
    seen: Seq,
}

impl Pace {
    /// Sleeps, if it has copied for a while.
    fn keep(&mut self, inner: &Inner) {
        let runtime = &inner.runtime;
        let copied = runtime.now().saturating_sub(self.began);
        if copied >= COPYING_NANOS {
            let shared = &runtime.shared;
            let newest = with_guard(&shared.memory, |guard| shared.current.load(guard).seq);
            let share = if newest == self.seen {
                SLEEP_SHARE_QUIET
            } else {
                SLEEP_SHARE_WRITING
            };
            self.seen = newest;
            let (_never_used, receiver) = oneshot::channel::<()>();
            let sleep = Duration::from_nanos(copied.saturating_mul(share).min(SLEEP_NANOS_MAX));
            // Always a timeout: nobody answers.
            let _ = runtime.wait_timeout(&receiver, sleep);
            self.began = runtime.now();
        }
    }
}

impl Copier<'_> {
    fn root(&mut self, root: &Root) -> Result<PageRef> {
        if root.reference.is_none() {
            return Ok(root.reference);
        }
        self.nodes(&[root.reference])?
            .pop()
            .ok_or_else(|| corrupt_page(self.inner, root.reference.id, "it was not copied"))
    }

    /// Copies nodes of one level with everything below, at most [`READS_MAX`] of them. Returns their places in the copy.
    fn nodes(&mut self, references: &[PageRef]) -> Result<Vec<PageRef>> {
        self.pace.keep(self.inner);
        let mut copied = Vec::with_capacity(references.len());
        for mut node in self.inner.copies(references)? {
            let children: Vec<PageRef> = page::children(&node).collect();
            let mut index = 0;
            for some in children.chunks(self.fan_out(&node)) {
                for child in self.nodes(some)? {
                    page::set_child(&mut node, index, child);
                    index += 1;
                }
            }
            let mut failure = Ok(());
            page::blobs_mut(&mut node, |descriptor| {
                if failure.is_ok() {
                    failure = self.blob(descriptor);
                }
            });
            failure?;
            self.next_stamp = self.next_stamp.max(page::stamp(&node).0 + 1);
            page::set_id(&mut node, PageId(self.output.next));
            page::seal(&mut node);
            copied.push(page::reference(&node));
            self.output.push(&node)?;
            self.output.end_page()?;
        }
        Ok(copied)
    }

    /// How many children of a node are read at a time: many leaves, but few inner nodes, of which each has many itself.
    fn fan_out(&self, node: &[u8]) -> usize {
        if page::level(node) <= 1 { READS_MAX } else { 1 }
    }

    /// Copies a blob, and says in its descriptor where it is.
    fn blob(&mut self, descriptor: &mut [u8]) -> Result<()> {
        let blob = BlobDescriptor::decode(descriptor);
        let Some(mut blob) = blob.filter(|blob| blob.extents.iter().all(|extent| extent.pages > 0)) else {
            return Err(corrupt_page(
                self.inner,
                PageId::NONE,
                "a leaf holds a malformed blob descriptor",
            ));
        };
        let first = self.output.next;
        let mut crc = Crc32c::new();
        let mut left = blob.bytes as usize;
        let (inner, output, pace) = (self.inner, &mut self.output, &mut self.pace);
        inner.stream_blob(&blob, &mut |bytes| {
            pace.keep(inner);
            let value = &bytes[..left.min(bytes.len())];
            left -= value.len();
            crc.update(value);
            output.push(value)
        })?;
        if left > 0 || crc.value() != blob.crc {
            let place = blob.extents.first().map_or(PageId::NONE, |extent| extent.start);
            return Err(corrupt_page(self.inner, place, "a blob's checksum is wrong"));
        }
        output.end_page()?;
        let mut next = first;
        for extent in &mut blob.extents {
            *extent = Extent {
                start: PageId(next),
                pages: extent.pages,
            };
            next += extent.pages;
        }
        // Extents may be longer than the value that they hold.
        output.skip_to(next)?;
        descriptor.copy_from_slice(&blob.encode());
        Ok(())
    }
}

/// A file that is written from front to back, in pages.
struct Output<'f> {
    file: WrittenFile<&'f dyn File>,
    page_bytes: usize,
    /// The next page id.
    next: u32,
}

fn failed(error: std::io::Error) -> Error {
    Error::io("writing a backup", error)
}

impl<'f> Output<'f> {
    fn new(file: &'f dyn File, page_bytes: usize) -> Output<'f> {
        let start = u64::from(PageId::FIRST.0) * page_bytes as u64;
        Output {
            file: WrittenFile::new(file, start, GROWTH_BYTES_MAX),
            page_bytes,
            next: PageId::FIRST.0,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.push(bytes).map_err(failed)
    }

    /// Fills the last page with zeros, and counts all pages since the last call.
    fn end_page(&mut self) -> Result<()> {
        let end = self.file.end();
        let zeros = end.next_multiple_of(self.page_bytes as u64) - end;
        self.push(&vec![0; zeros as usize])?;
        let pages = self.file.end() / self.page_bytes as u64;
        self.next = u32::try_from(pages).map_err(|_| Error::OutOfSpace {
            what: "the copy has more pages than ids can name".into(),
        })?;
        Ok(())
    }

    /// Leaves pages of zeros up to this one.
    fn skip_to(&mut self, page: u32) -> Result<()> {
        while self.next < page {
            self.push(&vec![0; self.page_bytes])?;
            self.end_page()?;
        }
        Ok(())
    }

    /// Writes what is still in the buffer.
    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(failed)
    }
}

/// Everything that a backup has in common with its source, for callers that hold the version.
pub(super) fn hold(inner: &Inner) -> Arc<Version> {
    let shared = &inner.runtime.shared;
    with_guard(&shared.memory, |guard| shared.current.hold(guard))
}
