//! Values that say which write they come from.
//!
//! | offset | bytes | field |
//! |---:|---:|---|
//! | 0 | 8 | record number |
//! | 8 | 8 | version of the record |
//! | 16 | 4 | writer: number of the thread |
//! | 20 | 4 | length of the value in bytes |
//! | 24 | 8 | checksum of the 24 bytes above, as they are |
//! | 32 | | filler, derived from the checksum |
//!
//! Little endian. Every byte after the header is determined by the header, so that any mixture of two values,
//! any shift and any flipped bit is found. Values shorter than a header hold filler alone and can't be
//! verified.

use crate::random::{SplitMix64, mix64};

/// Shortest value that can be verified, in bytes.
pub const HEADER_BYTES: usize = 32;

/// What a value says about its write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The record.
    pub record: u64,
    /// Its version: later writes carry higher ones, see [`crate::verify`].
    pub version: u64,
    /// The thread that wrote it.
    pub writer: u32,
}

/// What is wrong with a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Defect {
    /// Shorter than a header.
    #[error("{bytes} bytes are no value of the generator's")]
    TooShort {
        /// Length found.
        bytes: usize,
    },
    /// The header isn't what was written.
    #[error("the header's checksum is wrong")]
    Header,
    /// Cut off or extended.
    #[error("{found} bytes where {written} were written")]
    Length {
        /// Length found.
        found: usize,
        /// Length in the header.
        written: usize,
    },
    /// The header is right, a byte after it isn't.
    #[error("wrong from byte {offset} on")]
    Filler {
        /// First wrong byte, from a word's beginning.
        offset: usize,
    },
}

/// Fills `value` to its whole length with the value of `stamp`. About a nanosecond for every eight bytes.
pub fn encode(stamp: Stamp, value: &mut [u8]) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    let checksum = checksum(stamp, length);
    let Some((header, filler)) = value.split_at_mut_checked(HEADER_BYTES) else {
        fill(checksum, value);
        return;
    };
    header[0..8].copy_from_slice(&stamp.record.to_le_bytes());
    header[8..16].copy_from_slice(&stamp.version.to_le_bytes());
    header[16..20].copy_from_slice(&stamp.writer.to_le_bytes());
    header[20..24].copy_from_slice(&length.to_le_bytes());
    header[24..32].copy_from_slice(&checksum.to_le_bytes());
    fill(checksum, filler);
}

/// Reads a value and checks every byte of it.
///
/// # Errors
/// The first [`Defect`] found.
pub fn decode(value: &[u8]) -> Result<Stamp, Defect> {
    let Some((header, filler)) = value.split_at_checked(HEADER_BYTES) else {
        return Err(Defect::TooShort { bytes: value.len() });
    };
    let stamp = Stamp {
        record: u64::from_le_bytes(field(header, 0)),
        version: u64::from_le_bytes(field(header, 8)),
        writer: u32::from_le_bytes(field(header, 16)),
    };
    let length = u32::from_le_bytes(field(header, 20));
    let written = u64::from_le_bytes(field(header, 24));
    if checksum(stamp, length) != written {
        return Err(Defect::Header);
    }
    if length as usize != value.len() {
        return Err(Defect::Length {
            found: value.len(),
            written: length as usize,
        });
    }
    let mut expected = SplitMix64::new(written);
    for (number, chunk) in filler.chunks(8).enumerate() {
        if chunk != &expected.next_u64().to_le_bytes()[..chunk.len()] {
            return Err(Defect::Filler {
                offset: HEADER_BYTES + number * 8,
            });
        }
    }
    Ok(stamp)
}

fn field<const N: usize>(header: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|index| header[offset + index])
}

fn checksum(stamp: Stamp, length: u32) -> u64 {
    let sizes = (u64::from(stamp.writer) << 32) | u64::from(length);
    mix64(mix64(mix64(stamp.record ^ 0x7472_6565_7269_6e67) ^ stamp.version) ^ sizes)
}

fn fill(seed: u64, filler: &mut [u8]) {
    let mut source = SplitMix64::new(seed);
    let (words, rest) = filler.as_chunks_mut::<8>();
    for word in words {
        *word = source.next_u64().to_le_bytes();
    }
    let last = source.next_u64().to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        record: 77,
        version: 5,
        writer: 3,
    };

    fn encoded(length: usize) -> Vec<u8> {
        let mut value = vec![0; length];
        encode(STAMP, &mut value);
        value
    }

    #[test]
    fn values_come_back() {
        for length in [32, 33, 39, 40, 41, 150, 1000, 4099] {
            assert_eq!(decode(&encoded(length)), Ok(STAMP), "{length} bytes");
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let value = encoded(75);
        for bit in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn mixtures_and_cuts_are_found() {
        let value = encoded(150);
        let mut other = vec![0; 150];
        encode(Stamp { version: 6, ..STAMP }, &mut other);
        for cut in 1..150 {
            // A cut within a run that both values share by chance is no mixture.
            let mixed = [&value[..cut], &other[cut..]].concat();
            assert!(
                mixed == value || mixed == other || decode(&mixed).is_err(),
                "cut at {cut}"
            );
            assert!(decode(&value[..cut]).is_err());
        }
        assert!(decode(&[value.as_slice(), b"x"].concat()).is_err());
        assert_eq!(decode(b""), Err(Defect::TooShort { bytes: 0 }));
    }

    #[test]
    fn short_values_are_filler() {
        let mut value = [0; 10];
        encode(STAMP, &mut value);
        assert_ne!(value, [0; 10]);
    }
}
