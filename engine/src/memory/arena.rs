//! Anonymous memory from the operating system, for frames and for the residency table.
//!
//! A descent misses the cache at nearly every node, and a miss that also has to walk the page tables costs
//! half as much again: hence mappings of our own, aligned to 2 MiB and offered for huge pages, instead of
//! the allocator's. Memory is given by the system when it is first touched, so an arena that is larger
//! than the data costs address space only.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::alloc::{Layout, handle_alloc_error};
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// Huge pages are of this size, and start at multiples of it.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A private, zeroed, writable mapping, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is plain memory that belongs to the process, and the type itself never reads or writes
// it; who accesses it through `start` argues for that access.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `bytes` zeroed bytes; from 2 MiB on, on a 2 MiB boundary and with huge pages asked for.
    pub(super) fn new(bytes: usize) -> io::Result<Mapping> {
        if bytes < HUGE_PAGE_BYTES {
            return Mapping::map(bytes.max(1));
        }
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let bytes = bytes
            .checked_next_multiple_of(HUGE_PAGE_BYTES)
            .ok_or_else(too_large)?;
        let mapped = Mapping::map(bytes.checked_add(HUGE_PAGE_BYTES).ok_or_else(too_large)?)?;
        let aligned = mapped.trim_to_boundary(bytes);
        // A hint: without huge pages everything works, only slower.
        // SAFETY: the range is exactly the mapping, and this advice changes no contents.
        let _ = unsafe {
            madvise(
                aligned.start.as_ptr().cast(),
                aligned.bytes,
                Advice::LinuxHugepage,
            )
        };
        Ok(aligned)
    }

    /// First byte.
    #[inline]
    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes mapped, at least as many as asked for.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn map(bytes: usize) -> io::Result<Mapping> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the system's choice aliases nothing.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, bytes })
    }

    /// Keeps the first `bytes` bytes that start on a huge page boundary and gives back what is around them.
    /// The mapping must be at least a huge page longer than that.
    fn trim_to_boundary(self, bytes: usize) -> Mapping {
        let head = self.start.align_offset(HUGE_PAGE_BYTES);
        let tail = self.bytes - bytes - head;
        // SAFETY: `head + bytes + tail` is the length of the mapping, so both offsets lie inside it or at its end.
        let (start, end) = unsafe { (self.start.add(head), self.start.add(head + bytes)) };
        for (excess, excess_bytes) in [(self.start, head), (end, tail)] {
            if excess_bytes > 0 {
                // Should the system refuse, the excess stays mapped, untouched: no memory is lost by it.
                // SAFETY: the range lies in this mapping, nothing points into it yet, and the part that is
                // kept excludes it.
                let _ = unsafe { munmap(excess.as_ptr().cast(), excess_bytes) };
            }
        }
        std::mem::forget(self);
        Mapping { start, bytes }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `bytes` describe a mapping that this value alone owns, and nobody who borrowed
        // from the value can still be there. A refusal could only leak the mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A mapping as a slice of `T`, all of its elements starting out as zero bytes.
#[derive(Debug)]
pub(super) struct MappedSlice<T> {
    mapping: Mapping,
    length: usize,
    elements: PhantomData<T>,
}

impl<T> MappedSlice<T> {
    /// Maps `length` elements.
    ///
    /// # Safety
    /// All zero bytes must be a valid `T`, and `T` must not need dropping.
    pub(super) unsafe fn zeroed(length: usize) -> io::Result<MappedSlice<T>> {
        const {
            assert!(
                align_of::<T>() <= 4096,
                "mappings are aligned to system pages only"
            )
        }
        let bytes = length
            .checked_mul(size_of::<T>())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(MappedSlice {
            mapping: Mapping::new(bytes)?,
            length,
            elements: PhantomData,
        })
    }
}

impl<T> Deref for MappedSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `length` elements, aligned (checked in `zeroed`), valid since they were
        // zero (promised there), and it is borrowed for as long as the slice is.
        unsafe { std::slice::from_raw_parts(self.mapping.start().cast::<T>(), self.length) }
    }
}

/// Zeroed bytes of a mapping of their own, on huge pages where the system has them: for large buffers that are filled
/// once, where faults for small pages would cost more than the filling.
#[derive(Debug)]
pub struct HugeBytes {
    bytes: MappedSlice<u8>,
}

impl HugeBytes {
    /// Maps `length` bytes. Aborts when memory is exhausted, as `Vec` does.
    ///
    /// # Panics
    ///
    /// When `length` exceeds the address space, as `Vec` does.
    #[must_use]
    pub fn zeroed(length: usize) -> HugeBytes {
        // SAFETY: a zero byte is a `u8`, which needs no dropping.
        match unsafe { MappedSlice::zeroed(length) } {
            Ok(bytes) => HugeBytes { bytes },
            Err(_) => {
                handle_alloc_error(Layout::array::<u8>(length).expect("a length within the address space"))
            }
        }
    }
}

impl Deref for HugeBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for HugeBytes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for the slice's `deref`: the mapping holds `length` bytes; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.mapping.start(), self.bytes.length) }
    }
}
