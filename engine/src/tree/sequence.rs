//! The content that nodes are about to get, before it is written: where it may be cut so that every part
//! fits.
//!
//! A sequence reads one or two existing nodes as if they were one, with a change applied. Splitting,
//! merging and evening out are all the same then: choose cuts, write each part to a new node.

use std::ops::Range;

use crate::page::inner::{self, CHILD_BYTES, INNER_HEADER_BYTES};
use crate::page::key::{self, KeyParts};
use crate::page::layout::{self, padded};
use crate::page::leaf::ENTRY_BYTES;

/// What the bytes of a node depend on.
pub(super) trait NodeKind {
    /// What a node of this kind takes before its prefix, bytes.
    const HEADER_BYTES: usize;
    /// What an element takes besides key bytes and payload.
    const ELEMENT_BYTES: usize;
    /// Whether the first element of a node has no key of its own (children of inner nodes).
    const FIRST_KEYLESS: bool;

    /// Heap bytes of a key that has so many bytes behind the prefix.
    fn key_bytes(suffix_len: usize) -> usize;
}

/// Nodes of entries.
pub(super) struct LeafKind;

impl NodeKind for LeafKind {
    const HEADER_BYTES: usize = layout::HEADER_BYTES;
    const ELEMENT_BYTES: usize = ENTRY_BYTES;
    const FIRST_KEYLESS: bool = false;

    fn key_bytes(suffix_len: usize) -> usize {
        key::rest_len(suffix_len)
    }
}

/// Nodes of children.
pub(super) struct InnerKind;

impl NodeKind for InnerKind {
    const HEADER_BYTES: usize = INNER_HEADER_BYTES;
    const ELEMENT_BYTES: usize = CHILD_BYTES;
    const FIRST_KEYLESS: bool = true;

    fn key_bytes(suffix_len: usize) -> usize {
        inner::heap_bytes(suffix_len)
    }
}

/// Elements in key order, each a key with a payload.
pub(super) trait Sequence {
    /// The kind of the nodes that will hold it.
    type Kind: NodeKind;

    fn len(&self) -> usize;
    fn key(&self, index: usize) -> KeyParts<'_>;
    fn lengths(&self, index: usize) -> Lengths;
    /// The prefix length of the node that an element comes from: with it, the node's elements are known to
    /// fit.
    fn kept_prefix_len(&self, index: usize) -> usize;
}

/// Lengths of an element's key and payload, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) key: usize,
    pub(super) payload: usize,
}

/// A range of a sequence that fits into a node, with the prefix length with which it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) range: Range<usize>,
    pub(super) prefix_len: usize,
}

fn common_prefix_len<S: Sequence>(sequence: &S, range: &Range<usize>) -> usize {
    let first = range.start + usize::from(S::Kind::FIRST_KEYLESS);
    if first >= range.end {
        return 0;
    }
    sequence
        .key(first)
        .common_prefix_len(&sequence.key(range.end - 1))
}

/// Bytes of one element that has a key.
fn element_bytes<S: Sequence>(lengths: Lengths, prefix_len: usize) -> usize {
    S::Kind::ELEMENT_BYTES + S::Kind::key_bytes(lengths.key.saturating_sub(prefix_len)) + lengths.payload
}

/// A sequence whose elements' lengths are at hand: cuts are chosen by trying.
#[derive(Debug)]
pub(super) struct Measured<'s, S> {
    sequence: &'s S,
    lengths: Vec<Lengths>,
}

impl<'s, S: Sequence> Measured<'s, S> {
    pub(super) fn new(sequence: &'s S) -> Measured<'s, S> {
        Measured {
            sequence,
            lengths: (0..sequence.len()).map(|index| sequence.lengths(index)).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// The range as a part for a node of `limit_bytes`, if it fits. The longest prefix is best for
    /// searches, but with few short keys it may cost more than it saves.
    pub(super) fn part(&self, range: Range<usize>, limit_bytes: usize) -> Option<Part> {
        if range.is_empty() {
            return None;
        }
        let common = common_prefix_len(self.sequence, &range);
        let kept = self.sequence.kept_prefix_len(range.start);
        [common, common.min(kept), 0]
            .into_iter()
            .find(|&prefix_len| self.node_bytes(&range, prefix_len) <= limit_bytes)
            .map(|prefix_len| Part { range, prefix_len })
    }

    /// Everything as one part, if it fits.
    pub(super) fn whole(&self, limit_bytes: usize) -> Option<Part> {
        self.part(0..self.len(), limit_bytes)
    }

    /// The parts on both sides of a cut, if they fit.
    pub(super) fn cut_at(&self, cut: usize, limit_bytes: usize) -> Option<Vec<Part>> {
        if cut > self.len() {
            return None;
        }
        Some(vec![
            self.part(0..cut, limit_bytes)?,
            self.part(cut..self.len(), limit_bytes)?,
        ])
    }

    /// The parts on both sides of the cut, nearest to an index, that makes them fit.
    pub(super) fn cut_near(&self, wanted: usize, limit_bytes: usize) -> Option<Vec<Part>> {
        (0..=self.len()).find_map(|distance| {
            [wanted.checked_sub(distance), wanted.checked_add(distance)]
                .into_iter()
                .flatten()
                .find_map(|cut| self.cut_at(cut, limit_bytes))
        })
    }

    /// Halves, as nearly by bytes as they fit. `None` if there is no cut at all, which can't be for a node
    /// that overflowed by one element of allowed size.
    pub(super) fn cut_in_two(&self, limit_bytes: usize) -> Option<Vec<Part>> {
        let [middle] = self.indexes_at_shares([(1, 2)]);
        self.cut_near(middle, limit_bytes)
    }

    /// Thirds by bytes, if all of them fit.
    pub(super) fn cut_in_three(&self, limit_bytes: usize) -> Option<Vec<Part>> {
        let [low, high] = self.indexes_at_shares([(1, 3), (2, 3)]);
        [0..low, low..high, high..self.len()]
            .into_iter()
            .map(|range| self.part(range, limit_bytes))
            .collect()
    }

    /// Bytes of a node that holds a range.
    fn node_bytes(&self, range: &Range<usize>, prefix_len: usize) -> usize {
        let keyed = range.start + usize::from(S::Kind::FIRST_KEYLESS)..range.end;
        let keyless: usize = self.lengths[range.start..keyed.start]
            .iter()
            .map(|first| first.payload)
            .sum();
        let elements: usize = self.lengths[keyed.clone()]
            .iter()
            .map(|lengths| element_bytes::<S>(*lengths, prefix_len))
            .sum();
        S::Kind::HEADER_BYTES
            + padded(prefix_len)
            + (range.len() - keyed.len()) * S::Kind::ELEMENT_BYTES
            + keyless
            + elements
    }

    /// The indexes before which these shares, ascending fractions, of all bytes lie.
    fn indexes_at_shares<const COUNT: usize>(&self, shares: [(usize, usize); COUNT]) -> [usize; COUNT] {
        let prefix_len = common_prefix_len(self.sequence, &(0..self.len()));
        let total: usize = self
            .lengths
            .iter()
            .map(|lengths| element_bytes::<S>(*lengths, prefix_len))
            .sum();
        let (mut index, mut before) = (0, 0);
        shares.map(|(numerator, denominator)| {
            let wanted = total * numerator / denominator;
            while let Some(lengths) = self.lengths.get(index) {
                let this = element_bytes::<S>(*lengths, prefix_len);
                if before + this / 2 >= wanted {
                    break;
                }
                before += this;
                index += 1;
            }
            index
        })
    }
}

/// What a node that grows at its end takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Size {
    prefix_len: usize,
    pub(super) bytes: usize,
}

impl Size {
    /// The size when the last element of a sequence has joined those that this is the size of. O(1), unless
    /// the common prefix gets shorter.
    pub(super) fn with_last_of<S: Sequence>(self, sequence: &S) -> Size {
        let all = 0..sequence.len();
        let last = all.end - 1;
        let prefix_len = common_prefix_len(sequence, &all);
        let bytes = if last <= usize::from(S::Kind::FIRST_KEYLESS) || prefix_len != self.prefix_len {
            Measured::new(sequence).node_bytes(&all, prefix_len)
        } else {
            self.bytes + element_bytes::<S>(sequence.lengths(last), prefix_len)
        };
        Size { prefix_len, bytes }
    }
}
