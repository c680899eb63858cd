//! Reading a version: look, and where a page is missing, bring it and look again.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use treering_engine::memory::{FrameId, View};
use treering_engine::page::ValueRef;
use treering_engine::tree::{self, Miss, ReadNodes, Root};
use treering_engine::{PageRef, TreeId};

use super::db::Inner;
use super::node_view::NodeView;
use crate::commit::DROPPED_PREFIX;
use crate::error::{Error, Result};
use crate::shared::{Version, with_guard};
use crate::value::Value;

/// What a lookup found.
pub(super) enum Found {
    Nothing,
    Inline(Value),
    /// A blob's descriptor, and the version that keeps its extents in place.
    Blob(Vec<u8>, Arc<Version>),
}

/// A leaf in a held frame, or bytes of its own.
enum Pinned {
    Nothing,
    Held {
        frame: FrameId,
        start: *const u8,
        length: usize,
    },
    /// A blob, which is read by other means.
    Blob,
}

/// The root of the partition that holds `key`.
pub(super) fn root_of(version: &Version, tree: TreeId, key: &[u8]) -> Result<Root> {
    let state = tree_of(version, tree)?;
    Ok(state.partitions[state.partition_for(key)].root)
}

/// The tree's state in this version.
pub(super) fn tree_of(version: &Version, tree: TreeId) -> Result<&treering_engine::catalog::TreeState> {
    match version.directory.get(tree) {
        Some(state) if !state.name.starts_with(DROPPED_PREFIX) => Ok(state),
        _ => Err(Error::TreeNotFound {
            name: format!("#{}", tree.0),
        }),
    }
}

impl Inner {
    /// Runs `look` on the current version.
    pub(super) fn read_current<R>(
        &self,
        mut look: impl FnMut(&Version, NodeView<'_>) -> std::result::Result<R, Miss>,
    ) -> Result<R> {
        let shared = &self.runtime.shared;
        shared.status.check_read()?;
        let missed = with_guard(&shared.memory, |guard| {
            let version = shared.current.load(guard);
            let view = NodeView(shared.memory.view(guard));
            // Whoever has to wait counts the version first: unpinned, it could die (rule R3).
            look(version, view).map_err(|_| shared.current.hold(guard))
        });
        match missed {
            Ok(found) => Ok(found),
            // A later version may have been counted than was looked at: so the miss is found anew.
            Err(version) => self.read_version(&version, look),
        }
    }

    /// Runs `look` on a version that the caller has counted.
    pub(super) fn read_version<R>(
        &self,
        version: &Version,
        mut look: impl FnMut(&Version, NodeView<'_>) -> std::result::Result<R, Miss>,
    ) -> Result<R> {
        let shared = &self.runtime.shared;
        // Only kept, never looked at: its end gives the holds back.
        let mut _held = Held::new(self);
        loop {
            let looked = with_guard(&shared.memory, |guard| {
                look(version, NodeView(shared.memory.view(guard)))
            });
            match looked {
                Ok(found) => return Ok(found),
                Err(Miss(reference)) => {
                    // Nothing is held while a page is waited for: many readers that each kept one could hold all
                    // frames, and wait for each other.
                    _held = Held::new(self);
                    _held = Held::of(self, self.runtime.fetch(reference)?);
                }
            }
        }
    }

    pub(super) fn find(&self, version: Option<&Arc<Version>>, tree: TreeId, key: &[u8]) -> Result<Found> {
        let shared = &self.runtime.shared;
        let look = |version: &Version, view: NodeView<'_>| -> std::result::Result<Result<Found>, Miss> {
            let root = match root_of(version, tree, key) {
                Ok(root) => root,
                Err(error) => return Ok(Err(error)),
            };
            Ok(Ok(match tree::get(&view, &root, key)? {
                None => Found::Nothing,
                Some(ValueRef::Inline(bytes)) => Found::Inline(bytes.into()),
                Some(ValueRef::Blob(descriptor)) => {
                    let version = with_guard(&shared.memory, |guard| shared.current.hold(guard));
                    Found::Blob(descriptor.to_vec(), version)
                }
            }))
        };
        match version {
            Some(version) => {
                let found = self.read_version(version, look)??;
                // The snapshot's own version is what keeps the blob in place.
                Ok(match found {
                    Found::Blob(descriptor, _) => Found::Blob(descriptor, Arc::clone(version)),
                    other => other,
                })
            }
            None => match self.read_current(look)?? {
                // Between look and hold another version may have been published, which needn't reach the blob.
                Found::Blob(..) => {
                    let version = with_guard(&shared.memory, |guard| shared.current.hold(guard));
                    self.find(Some(&version), tree, key)
                }
                other => Ok(other),
            },
        }
    }

    /// Looks a key up and reads its blob, if it is one.
    pub(super) fn get(
        &self,
        version: Option<&Arc<Version>>,
        tree: TreeId,
        key: &[u8],
    ) -> Result<Option<Value>> {
        match self.find(version, tree, key)? {
            Found::Nothing => Ok(None),
            Found::Inline(value) => Ok(Some(value)),
            Found::Blob(descriptor, version) => {
                let value = self.read_blob(&descriptor)?;
                drop(version);
                Ok(Some(value))
            }
        }
    }

    /// Hands the value to `read` where it lies: the frame is held meanwhile, and no epoch is pinned.
    pub(super) fn get_with<R>(
        &self,
        tree: TreeId,
        key: &[u8],
        read: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R> {
        let shared = &self.runtime.shared;
        let pinned = self.read_current(|version, view| {
            let root = match root_of(version, tree, key) {
                Ok(root) => root,
                Err(error) => return Ok(Err(error)),
            };
            let tracking = TrackingView {
                view: view.0,
                last: Cell::new(None),
            };
            loop {
                let found = tree::get(&tracking, &root, key)?;
                return Ok(Ok(match found {
                    None => Pinned::Nothing,
                    Some(ValueRef::Blob(_)) => Pinned::Blob,
                    Some(ValueRef::Inline(bytes)) => match tracking.last.get() {
                        Some(frame) if shared.memory.hold(frame) => Pinned::Held {
                            frame,
                            start: bytes.as_ptr(),
                            length: bytes.len(),
                        },
                        // The page is just leaving memory: look again.
                        _ => continue,
                    },
                }));
            }
        })??;
        match pinned {
            Pinned::Nothing => Ok(read(None)),
            Pinned::Held { frame, start, length } => {
                let _held = Held {
                    inner: self,
                    frames: vec![frame],
                };
                // SAFETY: the bytes lie in a frame that is held until `_held` is dropped, after `read`: a held frame
                // is neither evicted nor, should its page die, given to another page. The page is frozen, since a
                // published root reaches it.
                Ok(read(Some(unsafe { std::slice::from_raw_parts(start, length) })))
            }
            Pinned::Blob => {
                let value = self.get(None, tree, key)?;
                Ok(read(value.as_deref()))
            }
        }
    }

    /// Looks many keys up in one version, eight at a time side by side; all pages that are missing are brought
    /// at once.
    pub(super) fn get_many<K: AsRef<[u8]>>(
        &self,
        version: &Arc<Version>,
        tree: TreeId,
        keys: &[K],
    ) -> Result<Vec<Option<Value>>> {
        let shared = &self.runtime.shared;
        let state = tree_of(version, tree)?;
        let mut values: Vec<Option<Value>> = vec![None; keys.len()];
        let mut open: Vec<usize> = (0..keys.len()).collect();
        let mut blobs: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut held = Held::new(self);
        while !open.is_empty() {
            let mut missing: Vec<PageRef> = Vec::new();
            let mut again: Vec<usize> = Vec::new();
            // One pin for a bounded number of descents.
            for chunk in open.chunks(64) {
                with_guard(&shared.memory, |guard| {
                    let view = NodeView(shared.memory.view(guard));
                    let mut parts: Vec<(usize, &[u8])> =
                        chunk.iter().map(|&index| (index, keys[index].as_ref())).collect();
                    if state.partitions.len() > 1 {
                        parts.sort_by_key(|(_, key)| state.partition_for(key));
                    }
                    for part in parts.chunk_by(|a, b| state.partition_for(a.1) == state.partition_for(b.1)) {
                        let root = state.partitions[state.partition_for(part[0].1)].root;
                        let wanted: Vec<&[u8]> = part.iter().map(|(_, key)| *key).collect();
                        let mut found = vec![Ok(None); wanted.len()];
                        tree::get_many(&view, &root, &wanted, &mut found);
                        for (&(index, _), found) in part.iter().zip(found) {
                            match found {
                                Ok(None) => {}
                                Ok(Some(ValueRef::Inline(bytes))) => values[index] = Some(bytes.into()),
                                Ok(Some(ValueRef::Blob(descriptor))) => {
                                    blobs.push((index, descriptor.to_vec()))
                                }
                                Err(Miss(reference)) => {
                                    again.push(index);
                                    missing.push(reference);
                                }
                            }
                        }
                    }
                });
            }
            missing.sort_unstable_by_key(|reference| reference.id);
            missing.dedup();
            // The rest is found missing again in the next round.
            missing.truncate(shared.settings.fetched_max);
            // The frames of the round before have served their purpose; see `read_version` for why they go first.
            drop(std::mem::replace(&mut held, Held::new(self)));
            let mut brought = Held::new(self);
            let mut failure = None;
            for fetched in self.runtime.fetch_all(&missing) {
                match fetched {
                    Ok(frame) => brought.frames.push(frame),
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            held = brought;
            open = again;
        }
        drop(held);
        for (index, descriptor) in blobs {
            values[index] = Some(self.read_blob(&descriptor)?);
        }
        Ok(values)
    }
}

/// Frames held by a reader, given back when it ends.
pub(super) struct Held<'i> {
    inner: &'i Inner,
    pub frames: Vec<FrameId>,
}

impl<'i> Held<'i> {
    pub fn of(inner: &'i Inner, frame: FrameId) -> Held<'i> {
        Held {
            inner,
            frames: vec![frame],
        }
    }

    pub fn new(inner: &'i Inner) -> Held<'i> {
        Held {
            inner,
            frames: Vec::new(),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.frames.is_empty() {
            let memory = &self.inner.runtime.shared.memory;
            with_guard(memory, |guard| {
                self.frames.iter().for_each(|frame| memory.unhold(*frame, guard));
            });
        }
    }
}

/// Nodes whose frames are held for as long as this lives: they can be read without a pin, and so by user code.
pub(super) struct HeldNodes<'i> {
    memory: &'i treering_engine::memory::Memory,
    frames: RefCell<Vec<FrameId>>,
}

impl<'i> HeldNodes<'i> {
    pub fn new(inner: &'i Inner) -> HeldNodes<'i> {
        HeldNodes {
            memory: &inner.runtime.shared.memory,
            frames: RefCell::new(Vec::new()),
        }
    }
}

impl ReadNodes for HeldNodes<'_> {
    fn node(&self, reference: PageRef) -> std::result::Result<&[u8], Miss> {
        with_guard(self.memory, |guard| {
            let frame = self.memory.lookup(reference.id, guard).ok_or(Miss(reference))?;
            // A hold that fails says that the page is just leaving memory.
            if !self.memory.hold(frame.id) {
                return Err(Miss(reference));
            }
            self.frames.borrow_mut().push(frame.id);
            // SAFETY: the frame is held until `self` is dropped, and the slice borrows `self`: a held frame is neither
            // evicted nor, should its page die, given to another page. The page is frozen: only published roots are
            // read through this.
            Ok(unsafe { std::slice::from_raw_parts(frame.bytes.as_ptr(), frame.bytes.len()) })
        })
    }

    fn prefetch(&self, reference: PageRef) {
        with_guard(self.memory, |guard| {
            self.memory.view(guard).prefetch_word(reference.id)
        });
    }
}

impl Drop for HeldNodes<'_> {
    fn drop(&mut self) {
        with_guard(self.memory, |guard| {
            self.frames
                .get_mut()
                .iter()
                .for_each(|frame| self.memory.unhold(*frame, guard));
        });
    }
}

/// Nodes as a pinned thread sees them, remembering the frame of the last one.
struct TrackingView<'g> {
    view: View<'g>,
    last: Cell<Option<FrameId>>,
}

impl ReadNodes for TrackingView<'_> {
    fn node(&self, reference: PageRef) -> std::result::Result<&[u8], Miss> {
        let frame = self.view.lookup(reference.id).ok_or(Miss(reference))?;
        self.last.set(Some(frame.id));
        Ok(frame.bytes)
    }
}
