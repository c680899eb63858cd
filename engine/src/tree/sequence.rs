//! The content that nodes are about to get, before it is written: where it may be cut so that every part fits.
//!
//! A sequence reads one or two existing nodes as if they were one, with a change applied. Splitting, merging and
//! evening out are all the same then: choose cuts, write each range to a new node.

use std::ops::Range;

use crate::page::key::KeyParts;
use crate::page::layout::padded;

/// Elements in key order, each a key with a payload.
pub(super) trait Sequence {
    /// What a node of this kind takes before its prefix, bytes.
    const HEADER_BYTES: usize;
    /// What an element takes besides key bytes and payload.
    const ELEMENT_BYTES: usize;
    /// Whether the first element of a node has no key of its own (children of inner nodes).
    const FIRST_KEYLESS: bool;

    /// Heap bytes of a key that has so many bytes behind the prefix.
    fn key_bytes(suffix_len: usize) -> usize;
    fn len(&self) -> usize;
    fn key(&self, index: usize) -> KeyParts<'_>;
    fn payload_len(&self, index: usize) -> usize;
    /// A prefix length that is known to have worked.
    fn kept_prefix_len(&self) -> usize;
}

fn keyed<S: Sequence>(range: &Range<usize>) -> Range<usize> {
    range.start + usize::from(S::FIRST_KEYLESS)..range.end
}

fn common_prefix_len<S: Sequence>(sequence: &S, range: &Range<usize>) -> usize {
    let keyed = keyed::<S>(range);
    if keyed.is_empty() {
        return 0;
    }
    sequence
        .key(keyed.start)
        .common_prefix_len(&sequence.key(keyed.end - 1))
}

/// Bytes of one element in a node with this prefix length.
fn element_bytes<S: Sequence>(sequence: &S, index: usize, prefix_len: usize, keyless: bool) -> usize {
    let key_bytes = if keyless {
        0
    } else {
        S::key_bytes(sequence.key(index).len().saturating_sub(prefix_len))
    };
    S::ELEMENT_BYTES + key_bytes + sequence.payload_len(index)
}

/// Bytes of a node that holds a range.
fn node_bytes<S: Sequence>(sequence: &S, range: &Range<usize>, prefix_len: usize) -> usize {
    let elements: usize = range
        .clone()
        .map(|index| {
            element_bytes(
                sequence,
                index,
                prefix_len,
                S::FIRST_KEYLESS && index == range.start,
            )
        })
        .sum();
    S::HEADER_BYTES + padded(prefix_len) + elements
}

/// The prefix length with which a range fits into a node of `limit_bytes`, if there is one. The longest is best for
/// searches, but with few short keys it may cost more than it saves.
pub(super) fn fitting_prefix<S: Sequence>(
    sequence: &S,
    range: &Range<usize>,
    limit_bytes: usize,
) -> Option<usize> {
    let common = common_prefix_len(sequence, range);
    [common, common.min(sequence.kept_prefix_len()), 0]
        .into_iter()
        .find(|&prefix_len| node_bytes(sequence, range, prefix_len) <= limit_bytes)
}

/// Whether a range fits into a node of `limit_bytes`.
pub(super) fn fits<S: Sequence>(sequence: &S, range: &Range<usize>, limit_bytes: usize) -> bool {
    fitting_prefix(sequence, range, limit_bytes).is_some()
}

/// What a node that grows at its end takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Size {
    prefix_len: usize,
    pub(super) bytes: usize,
}

impl Size {
    /// The size when the last element of a sequence has joined those that this is the size of. O(1), unless the
    /// common prefix gets shorter.
    pub(super) fn with_last_of<S: Sequence>(self, sequence: &S) -> Size {
        let all = 0..sequence.len();
        let last = all.end - 1;
        let first_keyed = usize::from(S::FIRST_KEYLESS);
        let prefix_len = common_prefix_len(sequence, &all);
        let bytes = if last <= first_keyed || prefix_len != self.prefix_len {
            node_bytes(sequence, &all, prefix_len)
        } else {
            self.bytes + element_bytes(sequence, last, prefix_len, false)
        };
        Size { prefix_len, bytes }
    }
}

/// The index before which `numerator / denominator` of all bytes lie.
fn index_at_share<S: Sequence>(sequence: &S, numerator: usize, denominator: usize) -> usize {
    let prefix_len = common_prefix_len(sequence, &(0..sequence.len()));
    let bytes = |index| element_bytes(sequence, index, prefix_len, S::FIRST_KEYLESS && index == 0);
    let total: usize = (0..sequence.len()).map(bytes).sum();
    let wanted = total * numerator / denominator;
    let mut before = 0;
    for index in 0..sequence.len() {
        let this = bytes(index);
        if before + this / 2 >= wanted {
            return index;
        }
        before += this;
    }
    sequence.len()
}

/// The cut nearest to the middle, by bytes, whose two parts fit. `None` if there is none, which can't be for a node
/// that overflowed by one element of allowed size.
pub(super) fn cut_in_two<S: Sequence>(sequence: &S, limit_bytes: usize) -> Option<usize> {
    cut_near(sequence, index_at_share(sequence, 1, 2), limit_bytes)
}

/// The cut nearest to an index whose two parts fit.
pub(super) fn cut_near<S: Sequence>(sequence: &S, wanted: usize, limit_bytes: usize) -> Option<usize> {
    let len = sequence.len();
    let valid = |cut: usize| {
        (1..len).contains(&cut)
            && fits(sequence, &(0..cut), limit_bytes)
            && fits(sequence, &(cut..len), limit_bytes)
    };
    (0..=len).find_map(|distance| {
        [wanted.checked_sub(distance), wanted.checked_add(distance)]
            .into_iter()
            .flatten()
            .find(|&cut| valid(cut))
    })
}

/// Two cuts that leave about a third of the bytes in each part, if all parts fit.
pub(super) fn cut_in_three<S: Sequence>(sequence: &S, limit_bytes: usize) -> Option<[usize; 2]> {
    let (low, high) = (index_at_share(sequence, 1, 3), index_at_share(sequence, 2, 3));
    let parts = [0..low, low..high, high..sequence.len()];
    parts
        .iter()
        .all(|part| !part.is_empty() && fits(sequence, part, limit_bytes))
        .then_some([low, high])
}
