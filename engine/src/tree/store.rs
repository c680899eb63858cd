//! What the tree asks of the place where its nodes live.
//!
//! The tree knows page references and page bytes, nothing about frames, residency, epochs or disks.
//! Readers bring a [`ReadNodes`], the worker that owns a tree brings a [`NodeStore`]; tests bring a map.
//!
//! Guarantees that the tree relies on:
//!
//! - Bytes that a store hands out belong to a node that passed [`crate::page::verify`] or was built by this
//!   crate. The tree reads them without checking again.
//! - A node that isn't open is frozen: it never changes.
//! - What was [located](NodeStore::locate) stays readable, at the same place, until the operation that
//!   located it returns, even if the page is evicted meanwhile. A worker is pinned for that long.

use crate::ids::PageRef;

/// A page that an operation needs isn't in memory. Nothing was changed; bring the page and try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Miss(pub PageRef);

/// A node that was found in memory, as one operation of a worker holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located {
    /// Which node.
    pub reference: PageRef,
    /// Where the store keeps it; only the store that gave this number can read it.
    pub frame: u32,
}

/// Read access to immutable nodes, for as long as a borrow of this view lasts (an epoch pin).
pub trait ReadNodes {
    /// The bytes of a verified node.
    ///
    /// # Errors
    ///
    /// [`Miss`], if the node isn't in memory.
    fn node(&self, reference: PageRef) -> Result<&[u8], Miss>;

    /// Says that [`ReadNodes::node`] will soon be called for this reference. A hint: it may fetch the cache
    /// line that tells where the page is, it must not block or do I/O.
    fn prefetch(&self, _reference: PageRef) {}
}

/// Where new nodes can be built, whole, one after the other: all that [`crate::tree::BulkBuilder`] asks for.
///
/// Room for [`crate::tree::BulkBuilder::reserve`] nodes is guaranteed by the caller, so this can't fail.
pub trait NewNodes {
    /// A new node under a fresh id. Its header holds id, stamp and born; its other bytes are unspecified.
    fn new_node(&mut self) -> (PageRef, &mut [u8]);
}

impl<S: NodeStore> NewNodes for S {
    fn new_node(&mut self) -> (PageRef, &mut [u8]) {
        let node = self.create();
        (node.reference, self.bytes_mut(node))
    }
}

/// The nodes that one worker reads, creates and replaces.
///
/// Room for [`crate::tree::reserve_for`] creations is guaranteed by the caller before every operation (rule
/// R11), so [`NodeStore::create`] and [`NodeStore::copy`] can't fail.
pub trait NodeStore: ReadNodes {
    /// Size of every node, bytes.
    fn page_bytes(&self) -> usize;

    /// Finds a node in memory, for the rest of this operation.
    ///
    /// # Errors
    ///
    /// [`Miss`], if it isn't there.
    fn locate(&self, reference: PageRef) -> Result<Located, Miss>;

    /// The bytes of a node that this operation located or created.
    fn bytes(&self, node: Located) -> &[u8];

    /// The bytes of an open node.
    fn bytes_mut(&mut self, node: Located) -> &mut [u8];

    /// An open node to be filled from two others (which may be the same node, but not the target).
    fn rebuild(&mut self, target: Located, sources: [Located; 2]) -> (&mut [u8], [&[u8]; 2]);

    /// Whether the node was created under the open batch, so that it may be changed in place.
    fn is_open(&self, node: Located) -> bool;

    /// A new open node under a fresh id. Its header holds id, stamp and born; its other bytes are
    /// unspecified.
    fn create(&mut self) -> Located;

    /// A copy of a node ([`crate::page::copy_node`]) under a fresh id, with id, stamp and born of its own.
    /// Doesn't retire the old one.
    fn copy(&mut self, old: Located) -> Located;

    /// The node is no longer part of the tip tree. An open one is free at once.
    fn retire(&mut self, node: Located);

    /// A value that was stored as a blob was overwritten or deleted.
    fn retire_blob(&mut self, descriptor: &[u8]);
}
