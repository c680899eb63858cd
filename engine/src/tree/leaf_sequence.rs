//! The entries of one or two neighbouring leaves with one change applied.

use super::sequence::{LeafKind, Lengths, Part, Sequence};
use crate::page::ValueRef;
use crate::page::key::{self, KeyParts};
use crate::page::leaf::Leaf;
use crate::page::leaf_edit::LeafWriter;

/// A change to the entries of a sequence.
#[derive(Clone, Copy, Debug)]
pub(super) enum LeafEdit<'a> {
    Insert {
        at: usize,
        key: &'a [u8],
        value: ValueRef<'a>,
    },
    Replace {
        at: usize,
        value: ValueRef<'a>,
    },
    Remove {
        at: usize,
    },
}

impl LeafEdit<'_> {
    /// The same change when `count` entries are put before the node that it was meant for.
    pub(super) fn shifted(mut self, count: usize) -> Self {
        match &mut self {
            LeafEdit::Insert { at, .. } | LeafEdit::Replace { at, .. } | LeafEdit::Remove { at } => {
                *at += count
            }
        }
        self
    }
}

#[derive(Debug)]
pub(super) struct LeafSequence<'a> {
    first: Leaf<'a>,
    second: Option<Leaf<'a>>,
    edit: LeafEdit<'a>,
}

enum Element<'a> {
    Old(Leaf<'a>, usize),
    Replaced(Leaf<'a>, usize, ValueRef<'a>),
    New(&'a [u8], ValueRef<'a>),
}

impl<'a> LeafSequence<'a> {
    pub(super) fn new(first: &'a [u8], second: Option<&'a [u8]>, edit: LeafEdit<'a>) -> LeafSequence<'a> {
        LeafSequence {
            first: Leaf::new(first),
            second: second.map(Leaf::new),
            edit,
        }
    }

    fn old(&self, index: usize) -> (Leaf<'a>, usize) {
        match self.second {
            Some(second) if index >= self.first.count => (second, index - self.first.count),
            _ => (self.first, index),
        }
    }

    fn element(&self, index: usize) -> Element<'a> {
        let old_index = match self.edit {
            LeafEdit::Insert { at, key, value } if index == at => return Element::New(key, value),
            LeafEdit::Replace { at, value } if index == at => {
                let (leaf, slot) = self.old(index);
                return Element::Replaced(leaf, slot, value);
            }
            LeafEdit::Insert { at, .. } if index > at => index - 1,
            LeafEdit::Remove { at } if index >= at => index + 1,
            _ => index,
        };
        let (leaf, slot) = self.old(old_index);
        Element::Old(leaf, slot)
    }

    fn parts(&self, index: usize) -> KeyParts<'a> {
        match self.element(index) {
            Element::Old(leaf, slot) | Element::Replaced(leaf, slot, _) => leaf.key(slot),
            Element::New(key, _) => KeyParts::whole(key),
        }
    }

    /// Writes a part to a page.
    pub(super) fn write(&self, page: &mut [u8], part: &Part) {
        let mut key = Vec::new();
        self.parts(part.range.start).copy_to(&mut key);
        let mut writer = LeafWriter::new(page, &key[..part.prefix_len], part.range.len());
        for index in part.range.clone() {
            match self.element(index) {
                Element::Old(leaf, slot) if leaf.prefix_len == part.prefix_len => {
                    writer.push_entry(&leaf, slot)
                }
                Element::Old(leaf, slot) => writer.push(leaf.key(slot), leaf.value(slot), &mut key),
                Element::Replaced(leaf, slot, value) => writer.push(leaf.key(slot), value, &mut key),
                Element::New(new_key, value) => writer.push(KeyParts::whole(new_key), value, &mut key),
            }
        }
        writer.finish();
    }

    /// What separates the parts on both sides of a cut.
    pub(super) fn separator(&self, cut: usize) -> Vec<u8> {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        self.parts(cut - 1).copy_to(&mut left);
        self.parts(cut).copy_to(&mut right);
        key::separator(&left, &right).to_vec()
    }
}

impl Sequence for LeafSequence<'_> {
    type Kind = LeafKind;

    fn len(&self) -> usize {
        let old = self.first.count + self.second.map_or(0, |second| second.count);
        match self.edit {
            LeafEdit::Insert { .. } => old + 1,
            LeafEdit::Replace { .. } => old,
            LeafEdit::Remove { .. } => old - 1,
        }
    }

    fn key(&self, index: usize) -> KeyParts<'_> {
        self.parts(index)
    }

    fn lengths(&self, index: usize) -> Lengths {
        let (leaf, slot, new_value) = match self.element(index) {
            Element::Old(leaf, slot) => (leaf, slot, None),
            Element::Replaced(leaf, slot, value) => (leaf, slot, Some(value)),
            Element::New(key, value) => {
                return Lengths {
                    key: key.len(),
                    payload: value.bytes().len(),
                };
            }
        };
        let slot = leaf.slot(slot);
        let payload = new_value.map_or(slot.value_len(), |value| value.bytes().len());
        Lengths {
            key: leaf.prefix_len + slot.suffix_len,
            payload,
        }
    }

    fn kept_prefix_len(&self, index: usize) -> usize {
        self.parts(index).prefix.len()
    }
}
