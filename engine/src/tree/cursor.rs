//! A place in a tree, for ordered scans in either direction.

use std::ops::{Bound, ControlFlow};

use super::{Miss, ReadNodes, Root};
use crate::ids::PageRef;
use crate::page::ValueRef;

/// A scan over one version of a tree.
#[derive(Debug, Clone)]
pub struct Cursor {}

impl Cursor {
    /// A scan over ascending keys.
    #[must_use]
    pub fn ascending(_root: Root, _lower: Bound<&[u8]>, _upper: Bound<&[u8]>) -> Cursor {
        unimplemented!()
    }

    /// A scan over descending keys.
    #[must_use]
    pub fn descending(_root: Root, _lower: Bound<&[u8]>, _upper: Bound<&[u8]>) -> Cursor {
        unimplemented!()
    }

    /// Hands out the entries of the next leaf, in order, until `visit` breaks (that entry counts as seen). Returns
    /// whether there may be more; after a miss the cursor is where it was.
    pub fn next_run<S: ReadNodes>(
        &mut self,
        _store: &S,
        _visit: impl FnMut(&[u8], ValueRef<'_>) -> ControlFlow<()>,
    ) -> Result<bool, Miss> {
        unimplemented!()
    }

    /// Appends up to `count` references of the leaves that come next, for read-ahead.
    pub fn upcoming<S: ReadNodes>(&self, _store: &S, _count: usize, _leaves: &mut Vec<PageRef>) {
        unimplemented!()
    }
}
