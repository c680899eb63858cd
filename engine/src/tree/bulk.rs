//! Builds a tree from ascending entries, bottom up: every node is written once, filled as wished.
//!
//! Each level keeps the content of its last two nodes in memory: the one that is complete and the one that
//! grows. A complete node is written when its successor is complete too. So the last two nodes of a level
//! can share their content at the end, and none is left nearly empty.

use std::marker::PhantomData;
use std::ops::Range;

use super::sequence::{InnerKind, LeafKind, Lengths, Measured, NodeKind, Sequence, Size};
use super::{NewNodes, Root};
use crate::ids::PageRef;
use crate::page::inner_edit::InnerWriter;
use crate::page::key::{self, KeyParts};
use crate::page::leaf_edit::LeafWriter;
use crate::page::{ValueRef, max_inline_value_bytes, max_key_bytes};

/// A key isn't greater than the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("keys must come in ascending order, each once")]
pub struct NotAscending;

/// A tree that grows at its right end. Memory: two nodes' content a level.
#[derive(Debug)]
pub struct BulkBuilder {
    /// Nodes are filled up to here, bytes.
    limit_bytes: usize,
    page_bytes: usize,
    /// From the leaves upwards.
    levels: Vec<Level>,
    last_key: Vec<u8>,
    entries: u64,
}

#[derive(Debug, Default)]
struct Level {
    /// Complete, not written.
    complete: Option<Group>,
    growing: Group,
}

/// The content of a node to be.
#[derive(Clone, Debug, Default)]
struct Group {
    /// What lies between this node and the one to its left; empty for the first.
    separator: Vec<u8>,
    elements: Vec<Element>,
    /// Keys and values of the elements.
    bytes: Vec<u8>,
    /// What a node with these elements takes.
    size: Size,
}

#[derive(Clone, Debug)]
struct Element {
    key: Range<usize>,
    payload: Payload,
}

#[derive(Clone, Debug)]
enum Payload {
    Inline(Range<usize>),
    Blob(Range<usize>),
    Child(PageRef),
}

impl BulkBuilder {
    /// An empty tree with pages of this size, to be filled up to `fill_percent`, 50 to 100. Less than 100
    /// leaves room for insertions to come.
    #[must_use]
    pub fn new(page_bytes: usize, fill_percent: u8) -> BulkBuilder {
        let limit_bytes = page_bytes * usize::from(fill_percent.clamp(50, 100)) / 100;
        BulkBuilder {
            limit_bytes,
            page_bytes,
            levels: vec![Level::default()],
            last_key: Vec::new(),
            entries: 0,
        }
    }

    /// The most nodes that the next [`BulkBuilder::push`] or [`BulkBuilder::finish`] creates: on every
    /// level the two that are kept, and those that the two new children from below complete; then a root.
    #[must_use]
    pub fn reserve(&self) -> usize {
        4 * self.levels.len() + 2
    }

    /// Adds an entry behind all others.
    ///
    /// # Errors
    ///
    /// [`NotAscending`], and nothing changed.
    ///
    /// # Panics
    ///
    /// As [`super::put`], on keys and values that are too long.
    pub fn push<S: NewNodes>(
        &mut self,
        store: &mut S,
        key: &[u8],
        value: ValueRef<'_>,
    ) -> Result<(), NotAscending> {
        assert!(
            (1..=max_key_bytes(self.page_bytes)).contains(&key.len()),
            "key length"
        );
        assert!(
            value.bytes().len() <= max_inline_value_bytes(self.page_bytes),
            "value length"
        );
        if self.entries > 0 && key <= self.last_key.as_slice() {
            return Err(NotAscending);
        }
        let growing = &mut self.levels[0].growing;
        growing.push_value(key, value);
        growing.size = growing.size.with_last_of(&LeafGroup::new(growing));
        if growing.elements.len() > 1 && growing.size.bytes > self.limit_bytes {
            let separator = key::separator(&self.last_key, key).to_vec();
            self.complete(store, 0, separator);
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.entries += 1;
        Ok(())
    }

    /// Writes what is left; gives the tree.
    pub fn finish<S: NewNodes>(mut self, store: &mut S) -> Root {
        if self.entries == 0 {
            return Root::default();
        }
        let mut level = 0;
        loop {
            let Level { complete, growing } = std::mem::take(&mut self.levels[level]);
            let only = complete.is_none() && level + 1 == self.levels.len();
            let groups = self.last_groups(level, complete, growing);
            if let ([group], true) = (groups.as_slice(), only) {
                // The topmost node. An inner one has two children and more: it was begun for the second.
                let reference = write(store, level, group);
                return Root {
                    reference,
                    height: level as u8 + 1,
                    entries: self.entries,
                };
            }
            for group in groups {
                self.write_below(store, level, group);
            }
            level += 1;
        }
    }

    /// The last element of a level's growing node was too much for it: the node is complete without it, the
    /// element begins the next one.
    fn complete<S: NewNodes>(&mut self, store: &mut S, level: usize, separator: Vec<u8>) {
        let Level { complete, growing } = &mut self.levels[level];
        let mut next = growing.split_off(growing.elements.len() - 1, separator);
        next.size = if level == 0 {
            Size::default().with_last_of(&LeafGroup::new(&next))
        } else {
            Size::default().with_last_of(&InnerGroup::new(&next))
        };
        let full = std::mem::replace(growing, next);
        if let Some(before) = complete.replace(full) {
            self.write_below(store, level, before);
        }
    }

    /// Writes a node and makes it a child of the level above.
    fn write_below<S: NewNodes>(&mut self, store: &mut S, level: usize, group: Group) {
        let child = write(store, level, &group);
        if level + 1 == self.levels.len() {
            self.levels.push(Level::default());
        }
        let parents = &mut self.levels[level + 1].growing;
        if parents.elements.is_empty() {
            parents.separator.clone_from(&group.separator);
        }
        parents.push_child(&group.separator, child);
        parents.size = parents.size.with_last_of(&InnerGroup::new(parents));
        // Two children fit into any page; nodes with fewer would make the tree grow for ever.
        if parents.elements.len() > 2 && parents.size.bytes > self.limit_bytes {
            self.complete(store, level + 1, group.separator);
        }
    }

    /// The end of a level: its last two nodes as one, if that fits, or with as much in the one as in the
    /// other, if the last would be less than half full.
    fn last_groups(&self, level: usize, complete: Option<Group>, growing: Group) -> Vec<Group> {
        let Some(mut first) = complete else {
            return vec![growing];
        };
        let full = first.elements.len();
        let separator = growing.separator.clone();
        first.append(&growing);
        let (whole, halves) = if level == 0 {
            let sequence = LeafGroup::new(&first);
            let measured = Measured::new(&sequence);
            (
                measured.whole(self.limit_bytes),
                measured.cut_in_two(self.page_bytes),
            )
        } else {
            let sequence = InnerGroup::new(&first);
            let measured = Measured::new(&sequence);
            (
                measured.whole(self.limit_bytes),
                measured.cut_in_two(self.page_bytes),
            )
        };
        if whole.is_some() {
            return vec![first];
        }
        let half = halves.and_then(|halves| halves.first().map(|left| left.range.end));
        let (cut, separator) = match half {
            Some(half) if half < full => (half, first.separator_at(level, half)),
            _ => (full, separator),
        };
        let last = first.split_off(cut, separator);
        vec![first, last]
    }
}

impl Group {
    fn push_bytes(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn push_value(&mut self, key: &[u8], value: ValueRef<'_>) {
        let key = self.push_bytes(key);
        let payload = match value {
            ValueRef::Inline(bytes) => Payload::Inline(self.push_bytes(bytes)),
            ValueRef::Blob(bytes) => Payload::Blob(self.push_bytes(bytes)),
        };
        self.elements.push(Element { key, payload });
    }

    fn push_child(&mut self, separator: &[u8], child: PageRef) {
        let key = self.push_bytes(separator);
        self.elements.push(Element {
            key,
            payload: Payload::Child(child),
        });
    }

    fn append(&mut self, other: &Group) {
        for index in 0..other.elements.len() {
            self.push_from(other, index);
        }
    }

    fn push_from(&mut self, other: &Group, index: usize) {
        match other.elements[index].payload {
            Payload::Child(child) => self.push_child(other.key_of(index), child),
            Payload::Inline(_) | Payload::Blob(_) => {
                self.push_value(other.key_of(index), other.value_of(index))
            }
        }
    }

    /// Takes the elements from `cut` on away, as a group of their own.
    fn split_off(&mut self, cut: usize, separator: Vec<u8>) -> Group {
        let mut next = Group {
            separator,
            ..Group::default()
        };
        for index in cut..self.elements.len() {
            next.push_from(self, index);
        }
        self.elements.truncate(cut);
        next
    }

    fn key_of(&self, index: usize) -> &[u8] {
        &self.bytes[self.elements[index].key.clone()]
    }

    fn value_of(&self, index: usize) -> ValueRef<'_> {
        match &self.elements[index].payload {
            Payload::Inline(range) => ValueRef::Inline(&self.bytes[range.clone()]),
            Payload::Blob(range) => ValueRef::Blob(&self.bytes[range.clone()]),
            Payload::Child(_) => ValueRef::Inline(&[]),
        }
    }

    fn separator_at(&self, level: usize, cut: usize) -> Vec<u8> {
        if level == 0 {
            key::separator(self.key_of(cut - 1), self.key_of(cut)).to_vec()
        } else {
            self.key_of(cut).to_vec()
        }
    }
}

fn write<S: NewNodes>(store: &mut S, level: usize, group: &Group) -> PageRef {
    let (reference, page) = store.new_node();
    let mut scratch = Vec::new();
    if level == 0 {
        let sequence = LeafGroup::new(group);
        let prefix_len = Measured::new(&sequence)
            .whole(page.len())
            .map_or(0, |part| part.prefix_len);
        let mut writer = LeafWriter::new(page, &group.key_of(0)[..prefix_len], group.elements.len());
        for index in 0..group.elements.len() {
            writer.push(
                KeyParts::whole(group.key_of(index)),
                group.value_of(index),
                &mut scratch,
            );
        }
        writer.finish();
    } else {
        let sequence = InnerGroup::new(group);
        let prefix_len = Measured::new(&sequence)
            .whole(page.len())
            .map_or(0, |part| part.prefix_len);
        let prefix = if prefix_len > 0 {
            &group.key_of(1)[..prefix_len]
        } else {
            &[]
        };
        let mut writer = InnerWriter::new(page, level as u8, prefix, group.elements.len());
        for (index, element) in group.elements.iter().enumerate() {
            if let Payload::Child(child) = element.payload {
                writer.push(Some(KeyParts::whole(group.key_of(index))), child, &mut scratch);
            }
        }
        writer.finish();
    }
    reference
}

/// A group as what nodes of one kind will hold.
struct GroupOf<'a, K>(&'a Group, PhantomData<K>);

type LeafGroup<'a> = GroupOf<'a, LeafKind>;
type InnerGroup<'a> = GroupOf<'a, InnerKind>;

impl<'a, K> GroupOf<'a, K> {
    fn new(group: &'a Group) -> Self {
        GroupOf(group, PhantomData)
    }
}

impl<K: NodeKind> Sequence for GroupOf<'_, K> {
    type Kind = K;

    fn len(&self) -> usize {
        self.0.elements.len()
    }

    fn key(&self, index: usize) -> KeyParts<'_> {
        KeyParts::whole(self.0.key_of(index))
    }

    fn lengths(&self, index: usize) -> Lengths {
        Lengths {
            key: self.0.key_of(index).len(),
            payload: self.0.value_of(index).bytes().len(),
        }
    }

    fn kept_prefix_len(&self, _index: usize) -> usize {
        0
    }
}
