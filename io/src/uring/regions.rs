//! Memory registered with the ring as fixed buffers: the kernel maps its pages once, not at every operation.

use std::ptr::NonNull;

use super::ring::Ring;

/// The most bytes of one fixed buffer that the kernel takes.
const PIECE_BYTES: usize = 1 << 30;

/// The most fixed buffers of one ring.
const PIECES_MAX: usize = 1 << 14;

/// Consecutive pieces of one region, each a fixed buffer.
#[derive(Debug, Default)]
pub(super) struct Regions {
    start: usize,
    len: usize,
}

impl Regions {
    /// Registers the region; only one per ring. Returns whether the kernel took it.
    ///
    /// # Safety
    ///
    /// The memory stays allocated until the ring is dropped.
    pub(super) unsafe fn register(&mut self, ring: &Ring, start: NonNull<u8>, len: usize) -> bool {
        if self.len > 0 || len == 0 || len.div_ceil(PIECE_BYTES) > PIECES_MAX {
            return false;
        }
        let pieces: Vec<libc::iovec> = (0..len)
            .step_by(PIECE_BYTES)
            .map(|offset| libc::iovec {
                iov_base: start.as_ptr().wrapping_add(offset).cast(),
                iov_len: PIECE_BYTES.min(len - offset),
            })
            .collect();
        // SAFETY: the pieces cover exactly the caller's region, which stays allocated as long as the ring.
        match unsafe { ring.submitter().register_buffers(&pieces) } {
            Ok(()) => {
                (self.start, self.len) = (start.as_ptr() as usize, len);
                true
            }
            Err(error) => {
                tracing::debug!(%error, bytes = len, "io_uring without fixed buffers");
                false
            }
        }
    }

    /// The fixed buffer that holds all of `start..start + len`, if one does.
    pub(super) fn index_of(&self, start: *const u8, len: usize) -> Option<u16> {
        let offset = (start as usize).checked_sub(self.start)?;
        if len == 0 || offset >= self.len || self.len - offset < len {
            return None;
        }
        let (first, last) = (offset / PIECE_BYTES, (offset + len - 1) / PIECE_BYTES);
        (first == last).then_some(first as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_one_piece_is_fixed() {
        let regions = Regions {
            start: 0x10_0000,
            len: 2 * PIECE_BYTES,
        };
        let at = |offset: usize| std::ptr::without_provenance::<u8>(0x10_0000 + offset);
        assert_eq!(regions.index_of(at(0), 4096), Some(0));
        assert_eq!(regions.index_of(at(PIECE_BYTES - 4096), 4096), Some(0));
        assert_eq!(regions.index_of(at(PIECE_BYTES - 4096), 8192), None);
        assert_eq!(regions.index_of(at(PIECE_BYTES), 4096), Some(1));
        assert_eq!(regions.index_of(at(2 * PIECE_BYTES - 4096), 8192), None);
        assert_eq!(regions.index_of(std::ptr::without_provenance(4096), 4096), None);
        assert_eq!(Regions::default().index_of(at(0), 4096), None);
    }
}
