//! The nodes from the root down to a leaf, as one write holds them.

use super::{Located, Miss, NodeStore, Root};
use crate::ids::PageRef;
use crate::page::inner::Inner;
use crate::page::{inner_edit, prefetch};

/// More levels than a tree can have: a node splits only when it is full, so there are at least three
/// children to a node on the way up, and ids have 32 bits.
pub const HEIGHT_MAX: usize = 32;

/// A node beside one of the path, under the same parent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Neighbour {
    Left(Located),
    Right(Located),
}

impl Neighbour {
    pub(super) fn node(self) -> Located {
        match self {
            Neighbour::Left(node) | Neighbour::Right(node) => node,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) node: Located,
    /// Which child the path goes on with; unused for the leaf.
    pub(super) index: u32,
}

impl Step {
    const NOWHERE: Step = Step {
        node: Located {
            reference: PageRef::NONE,
            frame: 0,
        },
        index: 0,
    };

    pub(super) fn index(self) -> usize {
        self.index as usize
    }
}

/// Steps from the root (0) to the leaf (`leaf_depth`).
#[derive(Debug)]
pub(super) struct Path {
    steps: [Step; HEIGHT_MAX],
    leaf_depth: usize,
}

impl Path {
    /// Walks from the root to the leaf whose range holds the key. The tree isn't empty.
    pub(super) fn descend<S: NodeStore>(store: &S, root: &Root, key: &[u8]) -> Result<Path, Miss> {
        let path = Path::down_to(store, root, key, usize::from(root.height) - 1)?;
        prefetch::leaf_top(store.bytes(path.leaf()));
        Ok(path)
    }

    /// Walks towards the key as far as the node at `depth`. The tree isn't empty, and has that many levels. Only the
    /// levels down to it may be looked at.
    #[inline]
    pub(super) fn down_to<S: NodeStore>(
        store: &S,
        root: &Root,
        key: &[u8],
        depth: usize,
    ) -> Result<Path, Miss> {
        let mut steps = [Step::NOWHERE; HEIGHT_MAX];
        let mut reference = root.reference;
        for step in &mut steps[..depth] {
            let node = store.locate(reference)?;
            let inner = Inner::new(store.bytes(node));
            let index = inner.find(key);
            *step = Step {
                node,
                index: index as u32,
            };
            reference = inner.child(index);
        }
        steps[depth].node = store.locate(reference)?;
        Ok(Path {
            steps,
            leaf_depth: depth,
        })
    }

    /// Lowest key to the right of what the node at a depth holds; `None` if it is the last of its level.
    pub(super) fn upper_bound<S: NodeStore>(&self, store: &S, depth: usize) -> Option<Vec<u8>> {
        self.steps[..depth].iter().rev().find_map(|step| {
            let inner = Inner::new(store.bytes(step.node));
            let index = step.index() + 1;
            (index < inner.count).then(|| {
                let mut key = Vec::new();
                inner.separator(index).copy_to(&mut key);
                key
            })
        })
    }

    /// The leaf to the right, if it has the same parent.
    pub(super) fn next_leaf<S: NodeStore>(&self, store: &S) -> Option<PageRef> {
        let parent = self.steps[self.leaf_depth.checked_sub(1)?];
        let inner = Inner::new(store.bytes(parent.node));
        let index = parent.index() + 1;
        (index < inner.count).then(|| inner.child(index))
    }

    /// Walks along the right (or left) edge, above the node at `depth`, which is given; the tree isn't empty. Only the
    /// levels above it may be looked at.
    pub(super) fn along_edge<S: NodeStore>(
        store: &S,
        root: &Root,
        depth: usize,
        right: bool,
    ) -> Result<(Path, PageRef), Miss> {
        let mut steps = [Step::NOWHERE; HEIGHT_MAX];
        let mut reference = root.reference;
        for step in &mut steps[..depth] {
            let node = store.locate(reference)?;
            let inner = Inner::new(store.bytes(node));
            let index = if right { inner.count - 1 } else { 0 };
            *step = Step {
                node,
                index: index as u32,
            };
            reference = inner.child(index);
        }
        let path = Path {
            steps,
            leaf_depth: depth,
        };
        Ok((path, reference))
    }

    pub(super) fn leaf_depth(&self) -> usize {
        self.leaf_depth
    }

    pub(super) fn step(&self, depth: usize) -> Step {
        self.steps[depth]
    }

    pub(super) fn leaf(&self) -> Located {
        self.steps[self.leaf_depth].node
    }

    /// Makes the node at a depth, and so all above it, open: copies what is frozen. Gives the node.
    pub(super) fn open<S: NodeStore>(&mut self, store: &mut S, root: &mut Root, depth: usize) -> Located {
        // Ancestors of an open node are open, so the copies end at the first.
        let mut top = depth;
        while !store.is_open(self.steps[top].node) {
            let old = self.steps[top].node;
            let new = store.copy(old);
            store.retire(old);
            self.steps[top].node = new;
            if top == 0 {
                root.reference = new.reference;
                break;
            }
            top -= 1;
        }
        for above in top..depth {
            let child = self.steps[above + 1].node.reference;
            let step = self.steps[above];
            inner_edit::set_child(store.bytes_mut(step.node), step.index(), child);
        }
        self.steps[depth].node
    }

    /// The neighbours, left and right, of the node at a depth, as far as they exist and are in memory; and
    /// what to bring if one exists but none is.
    pub(super) fn neighbours<S: NodeStore>(&self, store: &S, depth: usize) -> Neighbours {
        let mut neighbours = Neighbours {
            left: None,
            right: None,
            miss: None,
        };
        if depth == 0 {
            return neighbours;
        }
        let parent = self.steps[depth - 1];
        let inner = Inner::new(store.bytes(parent.node));
        if parent.index() > 0 {
            match store.locate(inner.child(parent.index() - 1)) {
                Ok(node) => neighbours.left = Some(node),
                Err(miss) => neighbours.miss = Some(miss),
            }
        }
        if parent.index() + 1 < inner.count {
            match store.locate(inner.child(parent.index() + 1)) {
                Ok(node) => neighbours.right = Some(node),
                Err(miss) => neighbours.miss = neighbours.miss.or(Some(miss)),
            }
        }
        neighbours
    }
}

/// What [`Path::neighbours`] found.
#[derive(Debug)]
pub(super) struct Neighbours {
    pub(super) left: Option<Located>,
    pub(super) right: Option<Located>,
    miss: Option<Miss>,
}

impl Neighbours {
    /// The neighbour with the lowest measure; `None` if there is none at all.
    pub(super) fn required(&self, measure: impl Fn(Located) -> usize) -> Result<Option<Neighbour>, Miss> {
        match (self.best(measure), self.miss) {
            (None, Some(miss)) => Err(miss),
            (best, _) => Ok(best),
        }
    }

    /// The neighbour in memory with the lowest measure.
    pub(super) fn best(&self, measure: impl Fn(Located) -> usize) -> Option<Neighbour> {
        match (self.left, self.right) {
            (Some(left), Some(right)) if measure(right) < measure(left) => Some(Neighbour::Right(right)),
            (Some(left), _) => Some(Neighbour::Left(left)),
            (None, Some(right)) => Some(Neighbour::Right(right)),
            (None, None) => None,
        }
    }
}
