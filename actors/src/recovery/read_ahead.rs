//! The log's files, read ahead of the scan.
//!
//! The scan reads the log from beginning to end and works on what it has read, half of the time each. So while it works,
//! other threads (rayon) read what comes next, a few pieces at a time, also beyond the end of a segment. Where there are
//! no other threads, in the simulator, the same pieces are read at once.
//!
//! A piece that can't be read is forgotten: whoever needs it reads it again and reports what happened. Reads of single
//! blocks (first blocks of segments to come) and of what wasn't read ahead go straight to the file.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use treering_engine::BLOCK_BYTES;
use treering_engine::log::{READ_BYTES, ReadLog, SegmentFile};
use treering_io::{AlignedBuffer, File};

/// Most pieces, of up to [`READ_BYTES`], that are read and not used yet.
const PIECES_MAX: usize = 4;

/// Who reads ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Readers {
    /// Rayon's threads.
    Background,
    /// Whoever asks, at once: so equal seeds give equal reads.
    Inline,
    /// Nobody: the log of a running database is read, whose threads have other things to do.
    Nobody,
}

/// The log's files, for a scan.
pub(super) struct Reader<'l> {
    files: &'l BTreeMap<u64, Arc<dyn File>>,
    /// Bytes of each that can be read in whole blocks.
    lengths: BTreeMap<u64, u64>,
    readers: Readers,
    /// What is read ahead, each behind the one before.
    pieces: VecDeque<Piece>,
    spare: Vec<AlignedBuffer>,
}

/// A stretch of a segment file.
struct Piece {
    number: u64,
    offset: u64,
    bytes: usize,
    content: Content,
}

enum Content {
    UnderWay {
        read: Read,
        receiver: oneshot::Receiver<Option<AlignedBuffer>>,
    },
    Read(AlignedBuffer),
}

/// A read that is done once, by whoever comes to it first: one of rayon's threads, or who waits for it. (Bad run: all of
/// rayon's threads wait here themselves, or for somebody who does, since they open databases, and nobody reads.)
#[derive(Clone)]
struct Read(Arc<Mutex<Option<Job>>>);

type Job = Box<dyn FnOnce() + Send>;

impl Read {
    fn new(read: impl FnOnce() + Send + 'static) -> Read {
        Read(Arc::new(Mutex::new(Some(Box::new(read)))))
    }

    fn run(&self) {
        let read = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(read) = read {
            read();
        }
    }
}

impl<'l> Reader<'l> {
    pub fn new(files: &'l BTreeMap<u64, Arc<dyn File>>, readers: Readers) -> Reader<'l> {
        Reader {
            files,
            lengths: BTreeMap::new(),
            readers,
            pieces: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Copies what was read ahead from this byte on, waiting for it if need be. Gives how much that was; pieces before it
    /// aren't needed any more.
    fn copy_ahead(&mut self, number: u64, offset: u64, buffer: &mut [u8]) -> usize {
        while let Some(mut piece) = self.pieces.pop_front() {
            let within = offset.wrapping_sub(piece.offset);
            if piece.number != number || within >= piece.bytes as u64 {
                self.spare.extend(piece.wait());
                continue;
            }
            let Some(content) = piece.wait() else {
                return 0;
            };
            let found = &content[within as usize..piece.bytes];
            let bytes = found.len().min(buffer.len());
            buffer[..bytes].copy_from_slice(&found[..bytes]);
            piece.content = Content::Read(content);
            self.pieces.push_front(piece);
            return bytes;
        }
        0
    }

    /// Begins to read what comes behind this byte and isn't read ahead yet.
    fn read_on(&mut self, number: u64, offset: u64) {
        let behind = |piece: &Piece| (piece.number, piece.offset + piece.bytes as u64);
        let (mut number, mut offset) = self.pieces.back().map_or((number, offset), behind);
        while self.readers != Readers::Nobody && self.pieces.len() < PIECES_MAX {
            let Some(&length) = self.lengths.get(&number) else {
                return;
            };
            if offset >= length {
                (number, offset) = (number + 1, 0);
                continue;
            }
            let Some(file) = self.files.get(&number) else {
                return;
            };
            let bytes = (length - offset).min(READ_BYTES as u64) as usize;
            let buffer = self
                .spare
                .pop()
                .unwrap_or_else(|| AlignedBuffer::zeroed(READ_BYTES));
            let (sender, receiver) = oneshot::channel();
            let file = Arc::clone(file);
            let read = Read::new(move || {
                let mut buffer = buffer;
                let result = file.read_at(&mut buffer[..bytes], offset);
                // Nobody may want it any more.
                let _ = sender.send(result.is_ok().then_some(buffer));
            });
            match self.readers {
                Readers::Background => {
                    let read = read.clone();
                    rayon::spawn(move || read.run());
                }
                Readers::Inline | Readers::Nobody => read.run(),
            }
            self.pieces.push_back(Piece {
                number,
                offset,
                bytes,
                content: Content::UnderWay { read, receiver },
            });
            offset += bytes as u64;
        }
    }
}

impl Piece {
    /// Its bytes; `None` if they couldn't be read.
    fn wait(&mut self) -> Option<AlignedBuffer> {
        let nothing = Content::Read(AlignedBuffer::zeroed(0));
        match std::mem::replace(&mut self.content, nothing) {
            Content::UnderWay { read, receiver } => {
                read.run();
                receiver.recv().ok().flatten()
            }
            Content::Read(buffer) => Some(buffer),
        }
    }
}

impl ReadLog for Reader<'_> {
    type Error = io::Error;

    fn segments(&mut self) -> io::Result<Vec<SegmentFile>> {
        let mut segments = Vec::new();
        for (&number, file) in self.files {
            let bytes = file.len()?;
            self.lengths.insert(number, bytes - bytes % BLOCK_BYTES as u64);
            segments.push(SegmentFile { number, bytes });
        }
        Ok(segments)
    }

    fn read(&mut self, number: u64, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Some(file) = self.files.get(&number) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        if buffer.len() <= BLOCK_BYTES {
            return file.read_at(buffer, offset);
        }
        let mut done = 0;
        while done < buffer.len() {
            let copied = self.copy_ahead(number, offset + done as u64, &mut buffer[done..]);
            if copied == 0 {
                file.read_at(&mut buffer[done..], offset + done as u64)?;
                break;
            }
            done += copied;
        }
        self.read_on(number, offset + buffer.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
#[path = "read_ahead_tests.rs"]
mod tests;
