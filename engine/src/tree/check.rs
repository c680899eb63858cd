//! Looks at every node of a tree and at everything that must hold between them.

use std::collections::BTreeSet;

use super::{Miss, ReadNodes, Root};
use crate::ids::{PageId, PageRef};
use crate::page::inner::Inner;
use crate::page::leaf::Leaf;
use crate::page::{self, PageDefect};

/// What a tree consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Number of leaves.
    pub leaves: u64,
    /// Number of inner nodes.
    pub inner_nodes: u64,
    /// Number of keys.
    pub entries: u64,
    /// Bytes in use in leaves, headers included; the rest of `leaves` pages is free.
    pub leaf_bytes_used: u64,
    /// Bytes in use in inner nodes.
    pub inner_bytes_used: u64,
    /// Number of blob descriptors.
    pub blobs: u64,
}

/// Why a tree isn't one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckError {
    /// A node isn't in memory: bring it and check again.
    #[error("page {} is not in memory", .0.0.id.0)]
    Miss(Miss),
    /// A node isn't one.
    #[error("page {}: {defect}", reference.id.0)]
    Node {
        /// The node.
        reference: PageRef,
        /// What is wrong with it.
        defect: PageDefect,
    },
    /// A node calls itself another than its parent does.
    #[error("page {} is not the one its parent means", .0.id.0)]
    Identity(PageRef),
    /// A key or separator lies outside what the parents' separators allow.
    #[error("page {}: a key lies outside the node's range", .0.id.0)]
    Range(PageRef),
    /// A node is at another level than its parent's.
    #[error("page {} is at the wrong level", .0.id.0)]
    Level(PageRef),
    /// Two parents, or one twice, refer to a node.
    #[error("page {} is referred to twice", .0.id.0)]
    Shared(PageRef),
    /// The root's count isn't that of the keys.
    #[error("tree counts {counted} keys and has {found}")]
    Entries {
        /// What the root says.
        counted: u64,
        /// What there is.
        found: u64,
    },
}

impl From<Miss> for CheckError {
    fn from(miss: Miss) -> CheckError {
        CheckError::Miss(miss)
    }
}

/// Checks a whole tree: O(nodes) time, 4 bytes of memory a node. `visit` sees every node, parents before
/// children, in key order.
///
/// # Errors
///
/// The first thing found wrong.
pub fn check<S: ReadNodes>(
    store: &S,
    root: &Root,
    visit: impl FnMut(PageRef, &[u8]),
) -> Result<Summary, CheckError> {
    let summary = check_part(store, root, visit)?;
    if summary.entries != root.entries {
        return Err(CheckError::Entries {
            counted: root.entries,
            found: summary.entries,
        });
    }
    Ok(summary)
}

/// As [`check`], for a part of a tree that was cut: its count of keys says nothing by itself.
///
/// # Errors
///
/// The first thing found wrong.
pub fn check_part<S: ReadNodes>(
    store: &S,
    root: &Root,
    visit: impl FnMut(PageRef, &[u8]),
) -> Result<Summary, CheckError> {
    let mut walk = Walk {
        store,
        visit,
        seen: BTreeSet::new(),
        summary: Summary::default(),
    };
    if root.reference.is_none() {
        if root.height > 0 {
            return Err(CheckError::Level(root.reference));
        }
    } else {
        let level = root
            .height
            .checked_sub(1)
            .ok_or(CheckError::Level(root.reference))?;
        walk.node(root.reference, level, None, None)?;
    }
    Ok(walk.summary)
}

struct Walk<'s, S, V> {
    store: &'s S,
    visit: V,
    seen: BTreeSet<PageId>,
    summary: Summary,
}

impl<S: ReadNodes, V: FnMut(PageRef, &[u8])> Walk<'_, S, V> {
    /// A node whose keys are at least `lower` and below `upper`.
    fn node(
        &mut self,
        reference: PageRef,
        level: u8,
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
    ) -> Result<(), CheckError> {
        let page = self.store.node(reference)?;
        page::verify_structure(page).map_err(|defect| CheckError::Node { reference, defect })?;
        if page::reference(page) != reference {
            return Err(CheckError::Identity(reference));
        }
        if page::level(page) != level {
            return Err(CheckError::Level(reference));
        }
        if !self.seen.insert(reference.id) {
            return Err(CheckError::Shared(reference));
        }
        (self.visit)(reference, page);
        if level == 0 {
            return self.leaf(reference, &Leaf::new(page), lower, upper);
        }
        let inner = Inner::new(page);
        self.summary.inner_nodes += 1;
        self.summary.inner_bytes_used += inner.used_bytes() as u64;
        let mut separators = vec![Vec::new()];
        for index in 1..inner.count {
            let mut separator = Vec::new();
            inner.separator(index).copy_to(&mut separator);
            within(reference, &separator, lower, upper)?;
            separators.push(separator);
        }
        for index in 0..inner.count {
            let lower = if index == 0 {
                lower
            } else {
                Some(separators[index].as_slice())
            };
            let upper = separators
                .get(index + 1)
                .map_or(upper, |separator| Some(separator.as_slice()));
            self.node(inner.child(index), level - 1, lower, upper)?;
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        reference: PageRef,
        leaf: &Leaf<'_>,
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
    ) -> Result<(), CheckError> {
        self.summary.leaves += 1;
        self.summary.entries += leaf.count as u64;
        self.summary.leaf_bytes_used += leaf.used_bytes() as u64;
        self.summary.blobs += page::blobs(leaf.page).count() as u64;
        let mut key = Vec::new();
        for slot in [0, leaf.count - 1] {
            leaf.key(slot).copy_to(&mut key);
            within(reference, &key, lower, upper)?;
        }
        Ok(())
    }
}

fn within(
    reference: PageRef,
    key: &[u8],
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
) -> Result<(), CheckError> {
    let holds = lower.is_none_or(|lower| lower <= key) && upper.is_none_or(|upper| key < upper);
    if holds {
        Ok(())
    } else {
        Err(CheckError::Range(reference))
    }
}
