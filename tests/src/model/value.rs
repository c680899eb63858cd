//! Values that tell who wrote them.

/// A value: which write made it, and how long it is. Its bytes follow from that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    /// The write that made it.
    pub id: u64,
    /// Its length in bytes; at least [`Content::BYTES_MIN`].
    pub bytes: u32,
}

impl Content {
    /// Shortest value.
    pub const BYTES_MIN: u32 = 12;

    /// The value itself: id, length, and a pattern that starts elsewhere for every id.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.bytes as usize);
        value.extend_from_slice(&self.id.to_le_bytes());
        value.extend_from_slice(&self.bytes.to_le_bytes());
        let start = self.id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        value.extend((12..self.bytes).map(|at| (start >> (at % 8 * 8)) as u8 ^ (at / 8) as u8));
        value
    }

    /// What a value says about itself.
    ///
    /// # Errors
    /// If its bytes are not what its write wrote.
    pub fn decode(value: &[u8]) -> Result<Content, String> {
        let wrong = || {
            format!(
                "{} bytes that nobody wrote: {:?}",
                value.len(),
                &value[..value.len().min(24)]
            )
        };
        let (id, rest) = value.split_first_chunk::<8>().ok_or_else(wrong)?;
        let (bytes, _) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
        let content = Content {
            id: u64::from_le_bytes(*id),
            bytes: u32::from_le_bytes(*bytes),
        };
        if content.bytes as usize != value.len() || content.encode() != value {
            return Err(wrong());
        }
        Ok(content)
    }
}
