//! The children of one or two neighbouring inner nodes with some of them replaced.

use super::sequence::{InnerKind, Lengths, Part, Sequence};
use crate::ids::PageRef;
use crate::page::inner::Inner;
use crate::page::inner_edit::InnerWriter;
use crate::page::key::KeyParts;

/// The most nodes that a change puts in the place of others.
pub(super) const SPLICE_MAX: usize = 3;

/// Some neighbouring children of a node are replaced by others. The first of the new ones takes over the
/// separator of the first old one.
#[derive(Clone, Debug, Default)]
pub(super) struct Splice {
    /// Index of the first child that goes.
    pub(super) at: usize,
    /// How many go.
    pub(super) removed: usize,
    children: [PageRef; SPLICE_MAX],
    separators: [Vec<u8>; SPLICE_MAX],
    count: usize,
}

impl Splice {
    pub(super) fn new(at: usize, removed: usize) -> Splice {
        Splice {
            at,
            removed,
            ..Splice::default()
        }
    }

    /// Adds a new child; the separator is what it has to its left, empty for the first.
    pub(super) fn push(&mut self, separator: Vec<u8>, child: PageRef) {
        debug_assert_eq!(separator.is_empty(), self.count == 0);
        self.separators[self.count] = separator;
        self.children[self.count] = child;
        self.count += 1;
    }

    /// The new children.
    pub(super) fn children(&self) -> &[PageRef] {
        &self.children[..self.count]
    }

    /// What new child `index` has to its left.
    pub(super) fn separator(&self, index: usize) -> &[u8] {
        &self.separators[index]
    }
}

#[derive(Debug)]
pub(super) struct InnerSequence<'a> {
    first: Inner<'a>,
    /// A right neighbour and what separates it from the first.
    second: Option<(Inner<'a>, &'a [u8])>,
    splice: &'a Splice,
    /// Where the splice begins in the sequence.
    at: usize,
}

impl<'a> InnerSequence<'a> {
    pub(super) fn new(
        first: &'a [u8],
        second: Option<(&'a [u8], &'a [u8])>,
        splice: &'a Splice,
        splice_in_second: bool,
    ) -> InnerSequence<'a> {
        let first = Inner::new(first);
        let at = if splice_in_second {
            first.count + splice.at
        } else {
            splice.at
        };
        InnerSequence {
            first,
            second: second.map(|(page, separator)| (Inner::new(page), separator)),
            splice,
            at,
        }
    }

    fn old_count(&self) -> usize {
        self.first.count + self.second.map_or(0, |(second, _)| second.count)
    }

    fn old_child(&self, index: usize) -> PageRef {
        match self.second {
            Some((second, _)) if index >= self.first.count => second.child(index - self.first.count),
            _ => self.first.child(index),
        }
    }

    fn old_separator(&self, index: usize) -> KeyParts<'a> {
        match self.second {
            Some((_, separator)) if index == self.first.count => KeyParts::whole(separator),
            Some((second, _)) if index > self.first.count => second.separator(index - self.first.count),
            _ if index == 0 => KeyParts::whole(&[]),
            _ => self.first.separator(index),
        }
    }

    fn child(&self, index: usize) -> PageRef {
        let new = self.splice.children();
        if index < self.at {
            self.old_child(index)
        } else if index < self.at + new.len() {
            new[index - self.at]
        } else {
            self.old_child(index + self.splice.removed - new.len())
        }
    }

    fn parts(&self, index: usize) -> KeyParts<'a> {
        let new_count = self.splice.children().len();
        if index <= self.at && (index < self.at || new_count > 0) {
            self.old_separator(index)
        } else if index < self.at + new_count {
            KeyParts::whole(self.splice.separator(index - self.at))
        } else {
            self.old_separator(index + self.splice.removed - new_count)
        }
    }

    /// Writes a part to a page.
    pub(super) fn write(&self, page: &mut [u8], level: u8, part: &Part) {
        let Part { range, prefix_len } = part.clone();
        let mut key = Vec::new();
        if prefix_len > 0 {
            self.parts(range.start + 1).copy_to(&mut key);
        }
        let mut writer = InnerWriter::new(page, level, &key[..prefix_len], range.len());
        for index in range.clone() {
            let separator = (index > range.start).then(|| self.parts(index));
            writer.push(separator, self.child(index), &mut key);
        }
        writer.finish();
    }

    /// What separates the parts on both sides of a cut: it moves up.
    pub(super) fn separator(&self, cut: usize) -> Vec<u8> {
        let mut key = Vec::new();
        self.parts(cut).copy_to(&mut key);
        key
    }
}

impl Sequence for InnerSequence<'_> {
    type Kind = InnerKind;

    fn len(&self) -> usize {
        self.old_count() + self.splice.children().len() - self.splice.removed
    }

    fn key(&self, index: usize) -> KeyParts<'_> {
        self.parts(index)
    }

    fn lengths(&self, index: usize) -> Lengths {
        Lengths {
            key: self.parts(index).len(),
            payload: 0,
        }
    }

    fn kept_prefix_len(&self, index: usize) -> usize {
        match self.second {
            Some((second, _)) if index > self.at.max(self.first.count) => second.prefix_len,
            _ => self.first.prefix_len,
        }
    }
}
