//! Memory that a device reads into or writes from.
//!
//! A buffer belongs to the device from submission until completion: the kernel may touch it at any moment in
//! between. [`AlignedBuffer`] moves the memory itself into the operation; [`RawBuffer`] points into memory
//! that somebody else keeps (a frame of the page cache) and moves the duty to keep it to whoever made it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::BLOCK_BYTES;

/// Stands in for the address of a buffer without bytes.
const ALIGNMENT: NonZeroUsize = NonZeroUsize::new(BLOCK_BYTES).expect("not zero");

/// A zeroed heap buffer whose address is a multiple of [`BLOCK_BYTES`], as direct I/O asks.
///
/// The length is free; direct I/O asks for multiples of the device's sector (512 bytes, or 4096).
pub struct AlignedBuffer {
    start: NonNull<u8>,
    len: usize,
    /// Bytes that were allocated, all of them initialised; at least `len`.
    capacity: usize,
}

impl AlignedBuffer {
    /// A buffer of `len` zero bytes.
    ///
    /// # Panics
    ///
    /// When `len` exceeds the address space, as `Vec` does. Aborts when memory is exhausted.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        if len == 0 {
            return Self {
                start: NonNull::without_provenance(ALIGNMENT),
                len,
                capacity: len,
            };
        }
        // SAFETY: the layout's size is `len`, which is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        match NonNull::new(memory) {
            Some(start) => Self {
                start,
                len,
                capacity: len,
            },
            None => handle_alloc_error(layout),
        }
    }

    /// A buffer that holds a copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// From now on the buffer is its first `len` bytes, which hold what they held before: so one buffer serves
    /// transfers of different lengths, without being allocated and zeroed for each.
    ///
    /// # Panics
    ///
    /// If it was made with fewer bytes.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "longer than what was allocated");
        self.len = len;
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, BLOCK_BYTES).expect("buffer length exceeds the address space")
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` was allocated with at least `len` initialised bytes (or is dangling and aligned with
        // `len` 0), lives as long as `self`, and only `deref_mut`, which needs `&mut self`, writes to it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated in `zeroed` with this same layout, and dropped only once.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
        }
    }
}

// SAFETY: the buffer owns its memory and hands out access by the borrow rules only, as `Box<[u8]>` does.
unsafe impl Send for AlignedBuffer {}
// SAFETY: see above; `&AlignedBuffer` gives only `&[u8]`.
unsafe impl Sync for AlignedBuffer {}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Memory that somebody else keeps valid until the completion that carries this value comes back.
#[derive(Debug)]
pub struct RawBuffer {
    start: NonNull<u8>,
    len: usize,
}

impl RawBuffer {
    /// Points at `len` bytes from `start` on.
    ///
    /// # Safety
    ///
    /// For as long as the value is part of an [`Operation`](crate::Operation) that isn't completed:
    ///
    /// - the bytes stay allocated and initialised;
    /// - while a read is in flight, nobody else reads or writes them;
    /// - while a write is in flight, nobody writes them (others may read).
    ///
    /// A device that is dropped by its owning thread completes everything first, so dropping it there ends
    /// the duty too; dropped by any other thread it may not, and then the memory must outlive the process's
    /// use of that file.
    #[must_use]
    pub unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address that the buffer was made from.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
}

// SAFETY: the value is an address; the contract of `RawBuffer::new` makes the memory usable by whichever
// thread performs the operation, and excludes conflicting access meanwhile.
unsafe impl Send for RawBuffer {}

/// What an [`Operation`](crate::Operation) reads into or writes from.
#[derive(Debug)]
pub enum Buffer {
    /// Memory that moves with the operation.
    Owned(AlignedBuffer),
    /// Memory that somebody else keeps, see [`RawBuffer::new`].
    Borrowed(RawBuffer),
    /// No memory: a sync needs none.
    None,
}

impl Buffer {
    /// Length in bytes, zero for [`Buffer::None`].
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Owned(buffer) => buffer.len,
            Self::Borrowed(buffer) => buffer.len,
            Self::None => 0,
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The owned memory, if it is owned.
    #[must_use]
    pub fn into_owned(self) -> Option<AlignedBuffer> {
        match self {
            Self::Owned(buffer) => Some(buffer),
            Self::Borrowed(_) | Self::None => None,
        }
    }

    /// Address of the first byte, dangling when there are none. Valid while `self` is.
    pub(crate) fn start(&mut self) -> *mut u8 {
        match self {
            Self::Owned(buffer) => buffer.start.as_ptr(),
            Self::Borrowed(buffer) => buffer.start.as_ptr(),
            Self::None => NonNull::dangling().as_ptr(),
        }
    }

    /// The bytes, to write them to a file.
    ///
    /// # Safety
    ///
    /// The buffer is part of a write that is being executed, so that [`RawBuffer::new`]'s contract holds.
    pub(crate) unsafe fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(buffer) => buffer,
            // SAFETY: by `RawBuffer::new` the bytes are allocated, initialised and not written by anybody
            // while the write, which our caller is executing, lasts.
            Self::Borrowed(raw) => unsafe { std::slice::from_raw_parts(raw.start.as_ptr(), raw.len) },
            Self::None => &[],
        }
    }

    /// The bytes, to read a file into them.
    ///
    /// # Safety
    ///
    /// The buffer is part of a read that is being executed, so that [`RawBuffer::new`]'s contract holds.
    pub(crate) unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::Owned(buffer) => buffer,
            // SAFETY: by `RawBuffer::new` the bytes are allocated, initialised and not touched by anybody
            // else while the read, which our caller is executing, lasts.
            Self::Borrowed(raw) => unsafe { std::slice::from_raw_parts_mut(raw.start.as_ptr(), raw.len) },
            Self::None => &mut [],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_zeroed_and_writable() {
        for len in [0, 512, 4096, 65536 + 512] {
            let mut buffer = AlignedBuffer::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % BLOCK_BYTES, 0);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(7);
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_shorter_length_keeps_the_bytes() {
        let mut buffer = AlignedBuffer::copy_of(b"0123456789");
        buffer.set_len(4);
        assert_eq!(&buffer[..], b"0123");
        buffer.set_len(10);
        assert_eq!(&buffer[..], b"0123456789");
        buffer.set_len(0);
        assert!(buffer.is_empty());
    }

    #[test]
    #[should_panic(expected = "longer than what was allocated")]
    fn a_buffer_cant_outgrow_its_memory() {
        AlignedBuffer::zeroed(512).set_len(513);
    }

    #[test]
    fn raw_buffer_shows_the_memory_it_was_made_from() {
        let mut memory = AlignedBuffer::copy_of(b"before");
        // SAFETY: `memory` outlives the buffer and is not touched until it is gone.
        let raw = unsafe { RawBuffer::new(NonNull::from(&mut memory[0]), 6) };
        let mut buffer = Buffer::Borrowed(raw);
        // SAFETY: stands in for a read that is being executed.
        unsafe { buffer.as_mut_slice() }.copy_from_slice(b"after!");
        assert_eq!(buffer.len(), 6);
        drop(buffer);
        assert_eq!(&memory[..], b"after!");
    }
}
