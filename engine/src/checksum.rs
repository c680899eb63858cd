//! CRC-32C (Castagnoli), the one checksum of every Treering format.
//!
//! It is computed with the processor's instructions where there are any: tens of gigabytes a second on
//! blocks of 4 KiB, so nothing in the formats avoids it.

use crc_fast::{CrcAlgorithm, Digest};

/// The CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// A CRC-32C over bytes that arrive in pieces.
#[derive(Clone, Copy)]
pub struct Crc32c(Digest);

impl Crc32c {
    /// The checksum of nothing yet.
    #[must_use]
    pub fn new() -> Crc32c {
        Crc32c(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all pieces so far; more may follow.
    #[must_use]
    pub fn value(&self) -> u32 {
        // A 32-bit algorithm: the upper half is always zero.
        self.0.finalize() as u32
    }
}

impl Default for Crc32c {
    fn default() -> Crc32c {
        Crc32c::new()
    }
}

impl std::fmt::Debug for Crc32c {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Crc32c").field(&self.value()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Crc32c, crc32c};

    #[test]
    fn matches_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn pieces_give_the_value_of_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).map(|number| (number * 7) as u8).collect();
        for cut in [0, 1, 63, 64, 4096, 9_999] {
            let mut pieces = Crc32c::new();
            pieces.update(&bytes[..cut]);
            pieces.update(&bytes[cut..]);
            assert_eq!(pieces.value(), crc32c(&bytes), "cut at {cut}");
        }
    }
}
