//! The nodes that are written anew together, and how full nodes should be.

use super::leaf_sequence::{LeafEdit, LeafSequence};
use super::path::{Neighbour, Path};
use super::sequence::{Measured, Part, Sequence};
use super::{Located, NodeStore};
use crate::page;
use crate::page::inner::{self, CHILD_BYTES, Inner};

/// A node that is filled less than this asks for a merge.
pub(super) fn underfull_bytes(page_bytes: usize) -> usize {
    page_bytes / 3
}

/// Two nodes are merged when this holds them: room for insertions stays.
pub(super) fn merged_bytes_max(page_bytes: usize) -> usize {
    page_bytes / 5 * 4
}

/// Whether losing one child near `index` leaves an inner node too empty. Which of its two separators goes
/// isn't known yet: the longer one is assumed.
pub(super) fn inner_too_empty(inner: &Inner<'_>, index: usize) -> bool {
    let heap_bytes = |index| {
        if index > 0 && index < inner.count {
            inner::heap_bytes(inner.separator(index).suffix_len)
        } else {
            0
        }
    };
    let lost = CHILD_BYTES + heap_bytes(index).max(heap_bytes(index + 1));
    inner.used_bytes() - lost < underfull_bytes(inner.page.len())
}

/// Halves that fit. There always are: an element takes less than half of a node, so what fitted into one
/// node, or two, before an element was added or taken away fits into two.
pub(super) fn cut_in_two<S: Sequence>(measured: &Measured<'_, S>, page_bytes: usize) -> Vec<Part> {
    match measured.cut_in_two(page_bytes) {
        Some(parts) => parts,
        None => unreachable!("elements of allowed size, and no cut"),
    }
}

/// One or two neighbouring nodes that are to be written anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources {
    pub(super) first: Located,
    pub(super) second: Option<Located>,
    /// Index of the first among its parent's children.
    pub(super) at: usize,
    /// Whether the node of the path is the second.
    pub(super) path_is_second: bool,
}

impl Sources {
    pub(super) fn alone(node: Located, at: usize) -> Sources {
        Sources {
            first: node,
            second: None,
            at,
            path_is_second: false,
        }
    }

    /// The node at index `at` of its parent with its neighbour.
    pub(super) fn with(node: Located, at: usize, neighbour: Neighbour) -> Sources {
        match neighbour {
            Neighbour::Left(left) => Sources {
                first: left,
                second: Some(node),
                at: at - 1,
                path_is_second: true,
            },
            Neighbour::Right(right) => Sources {
                first: node,
                second: Some(right),
                at,
                path_is_second: false,
            },
        }
    }

    pub(super) fn pair(&self) -> [Located; 2] {
        [self.first, self.second.unwrap_or(self.first)]
    }

    pub(super) fn count(&self) -> usize {
        1 + usize::from(self.second.is_some())
    }

    /// The entries of these leaves with a change applied.
    pub(super) fn sequence<'s, S: NodeStore>(&self, store: &'s S, edit: LeafEdit<'s>) -> LeafSequence<'s> {
        LeafSequence::new(
            store.bytes(self.first),
            self.second.map(|second| store.bytes(second)),
            edit,
        )
    }

    /// The change as it is in [`Sources::sequence`], given how it is in the path's leaf.
    pub(super) fn edit<'e, S: NodeStore>(&self, store: &S, edit: LeafEdit<'e>) -> LeafEdit<'e> {
        if self.path_is_second {
            edit.shifted(page::count(store.bytes(self.first)))
        } else {
            edit
        }
    }

    pub(super) fn retire<S: NodeStore>(&self, store: &mut S) {
        store.retire(self.first);
        if let Some(second) = self.second {
            store.retire(second);
        }
    }
}

/// Where the parent of the path's node at this depth holds it.
pub(super) fn index_in_parent(path: &Path, depth: usize) -> usize {
    if depth == 0 {
        0
    } else {
        path.step(depth - 1).index()
    }
}
