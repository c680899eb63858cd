//! Keys as nodes hold them: a shared prefix, a four-byte head, the rest.

use std::cmp::Ordering;

use super::layout::HEAD_BYTES;

/// Where a key lies relative to all the keys of a node.
pub(crate) enum Position<'k> {
    /// Before all of them.
    Before,
    /// It shares the prefix; this is what follows.
    Within(&'k [u8]),
    /// Behind all of them.
    Behind,
}

/// Compares a key with the prefix of a node.
#[inline]
pub(crate) fn position<'k>(key: &'k [u8], prefix: &[u8]) -> Position<'k> {
    match key.split_at_checked(prefix.len()) {
        Some((start, suffix)) if equal(start, prefix) => Position::Within(suffix),
        _ => outside(key, prefix),
    }
}

#[cold]
fn outside<'k>(key: &[u8], prefix: &[u8]) -> Position<'k> {
    if key < prefix {
        Position::Before
    } else {
        Position::Behind
    }
}

/// Whether slices of equal length are equal. Prefixes are mostly so short that calling `memcmp` costs more than it does;
/// and where they are empty and lie nowhere, as those of keys that aren't in a node, a masked load of no byte from an
/// address that isn't mapped costs the processor a hundred nanoseconds.
#[inline]
fn equal(a: &[u8], b: &[u8]) -> bool {
    let ((words_a, bytes_a), (words_b, bytes_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    words_a
        .iter()
        .zip(words_b)
        .all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b))
        && bytes_a.iter().zip(bytes_b).all(|(a, b)| a == b)
}

/// The first four bytes, padded with zeros, as a number in key order.
#[inline]
pub(crate) fn head(suffix: &[u8]) -> u32 {
    match suffix.first_chunk::<HEAD_BYTES>() {
        Some(bytes) => u32::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; HEAD_BYTES];
            bytes[..suffix.len()].copy_from_slice(suffix);
            u32::from_be_bytes(bytes)
        }
    }
}

/// What follows the head.
#[inline]
pub(crate) fn rest(suffix: &[u8]) -> &[u8] {
    suffix.get(HEAD_BYTES..).unwrap_or_default()
}

/// How many bytes of a suffix of this length aren't in its head.
#[inline]
pub(crate) const fn rest_len(suffix_len: usize) -> usize {
    suffix_len.saturating_sub(HEAD_BYTES)
}

/// Orders two suffixes whose heads are equal. Lengths decide last: they tell zeros from padding.
#[inline]
pub(crate) fn compare_rest(rest_a: &[u8], len_a: usize, rest_b: &[u8], len_b: usize) -> Ordering {
    rest_a.cmp(rest_b).then(len_a.cmp(&len_b))
}

/// One key of a node, in parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyParts<'a> {
    pub(crate) prefix: &'a [u8],
    pub(crate) head: u32,
    /// Bytes behind the prefix.
    pub(crate) suffix_len: usize,
    pub(crate) rest: &'a [u8],
}

impl<'a> KeyParts<'a> {
    /// A whole key that isn't in a node.
    pub(crate) fn whole(key: &'a [u8]) -> KeyParts<'a> {
        KeyParts {
            prefix: &[],
            head: head(key),
            suffix_len: key.len(),
            rest: rest(key),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.prefix.len() + self.suffix_len
    }

    /// Puts the key together.
    pub(crate) fn copy_to(&self, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.prefix);
        self.append_suffix_to(key);
    }

    /// Length of the longest prefix that two keys share.
    pub(crate) fn common_prefix_len(&self, other: &KeyParts<'_>) -> usize {
        if self.head != other.head
            && self.prefix.len() == other.prefix.len()
            && equal(self.prefix, other.prefix)
        {
            let equal_bytes = (self.head ^ other.head).leading_zeros() as usize / 8;
            return self.prefix.len() + equal_bytes.min(self.suffix_len).min(other.suffix_len);
        }
        self.bytes()
            .zip(other.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        let head = self.head.to_be_bytes().into_iter().take(self.suffix_len);
        self.prefix
            .iter()
            .copied()
            .chain(head)
            .chain(self.rest.iter().copied())
    }

    /// Appends what lies behind the prefix.
    #[inline]
    pub(crate) fn append_suffix_to(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(&self.head.to_be_bytes()[..self.suffix_len.min(HEAD_BYTES)]);
        key.extend_from_slice(self.rest);
    }
}

/// Length of the longest common prefix.
pub(crate) fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The shortest key that is greater than `left` and not greater than `right`, given `left < right`.
pub(crate) fn separator<'k>(left: &[u8], right: &'k [u8]) -> &'k [u8] {
    debug_assert!(left < right);
    &right[..right.len().min(common_prefix_len(left, right) + 1)]
}
