//! Values and keys as they are handed to users.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// Bytes read from a tree: owned, immutable, cheap to clone and to send.
///
/// It doesn't count against `cache_bytes` and stays readable after the database is closed. Keys and values of a
/// range share one copy of their leaf, which lives as long as the last of them: to keep few of many for long,
/// copy them with [`to_vec`](slice::to_vec).
#[derive(Clone)]
pub struct Value {
    bytes: Arc<[u8]>,
    start: u32,
    length: u32,
}

impl Value {
    /// A part of shared bytes. Values end at 1 GiB, leaves at 64 KiB: 32 bits suffice.
    pub(crate) fn part(bytes: &Arc<[u8]>, start: usize, length: usize) -> Value {
        debug_assert!(start + length <= bytes.len());
        Value {
            bytes: Arc::clone(bytes),
            start: start as u32,
            length: length as u32,
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.start as usize + self.length as usize]
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Of more than 4 GiB the first 4 GiB less a byte are kept: too much for any tree, and refused by all.
impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Value {
        Value {
            start: 0,
            length: length(bytes.len()),
            bytes: Arc::from(bytes),
        }
    }
}

/// Of more than 4 GiB the first 4 GiB less a byte are kept: too much for any tree, and refused by all.
impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        Value {
            start: 0,
            length: length(bytes.len()),
            bytes: Arc::from(bytes),
        }
    }
}

/// (Bad run: the length of five bytes more than 4 GiB is taken for five, and these are written.)
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Value) -> std::cmp::Ordering {
        self[..].cmp(&other[..])
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = String::from_utf8_lossy(&self[..self.len().min(32)]);
        write!(f, "Value({} bytes: {head:?})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_looks_shorter_than_what_a_tree_takes_if_it_is_longer() {
        for bytes in [1 << 32, (1 << 32) + 5, usize::MAX] {
            assert!(u64::from(length(bytes)) > crate::client::VALUE_BYTES_MAX);
        }
        assert_eq!([0, 5, u32::MAX as usize].map(length), [0, 5, u32::MAX]);
    }
}
