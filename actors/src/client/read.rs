//! Reading a version: look, and where a page is missing, bring it and look again.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::Arc;

use treering_engine::memory::{FrameId, View};
use treering_engine::page::ValueRef;
use treering_engine::tree::{self, Miss, ReadNodes, Root};
use treering_engine::{PageRef, TreeId};

use super::db::Inner;
use super::held::Held;
use super::node_view::NodeView;
use crate::commit::DROPPED_PREFIX;
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::pager::Kept;
use crate::shared::{Counter, Version, with_guard, with_reader};
use crate::value::Value;

/// Values of up to this length are copied to the stack by [`Inner::get_with`], bytes: what 4 KiB pages hold in their
/// leaves. Copying them under the pin costs less than holding their page, which writes to shared memory twice and keeps
/// the processor from reading on meanwhile.
const STACK_VALUE_BYTES_MAX: usize = 1024;

/// What a lookup found.
pub(super) enum Found {
    Nothing,
    Inline(Value),
    /// A blob's descriptor, and the version that keeps its extents in place.
    Blob(Vec<u8>, Arc<Version>),
}

/// What a look within a pin takes out of it.
pub(super) enum Looked {
    Inline(Value),
    /// A blob's descriptor.
    Blob(Vec<u8>),
}

/// Lookups of many keys in one version, under way.
pub(super) struct Lookups {
    pub values: Vec<Option<Value>>,
    /// Which of the values are blobs, with their descriptors.
    pub blobs: Vec<(usize, Vec<u8>)>,
    /// Those whose pages were not all in memory.
    open: Vec<usize>,
    first_round: bool,
}

impl Lookups {
    pub fn of(keys: usize) -> Lookups {
        Lookups {
            values: vec![None; keys],
            blobs: Vec::new(),
            open: (0..keys).collect(),
            first_round: true,
        }
    }
}

/// A value that is read where it lies.
enum Pinned {
    Nothing,
    /// This many bytes of it were copied.
    Copied(usize),
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
        _ => Err(Error::no_tree(tree)),
    }
}

/// Looks a key up in a version.
pub(super) fn look_up(
    version: &Version,
    view: NodeView<'_>,
    tree: TreeId,
    key: &[u8],
) -> std::result::Result<Result<Option<Looked>>, Miss> {
    let root = match root_of(version, tree, key) {
        Ok(root) => root,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok(tree::get(&view, &root, key)?.map(|value| match value {
        ValueRef::Inline(bytes) => Looked::Inline(bytes.into()),
        ValueRef::Blob(descriptor) => Looked::Blob(descriptor.to_vec()),
    })))
}

impl Inner {
    /// Runs `look` on the current version.
    pub(super) fn read_current<R>(
        &self,
        mut look: impl FnMut(&Version, NodeView<'_>) -> std::result::Result<R, Miss>,
    ) -> Result<R> {
        let shared = &self.runtime.shared;
        shared.status.check_read()?;
        let missed = with_reader(&shared.memory, |guard, reader| {
            let version = shared.current.load(guard);
            let view = NodeView::beside(shared.memory.view(guard), &self.runtime);
            // Whoever has to wait counts the version first: unpinned, it could die (rule R3).
            look(version, view)
                .inspect(|_| reader.add_hits(1))
                .map_err(|_| shared.current.hold(guard))
        });
        match missed {
            Ok(found) => Ok(found),
            // A later version may have been counted than was looked at: so the miss is found anew.
            Err(version) => self.read_version_after(&version, true, look),
        }
    }

    /// Runs `look` on a version that the caller has counted.
    pub(super) fn read_version<R>(
        &self,
        version: &Version,
        look: impl FnMut(&Version, NodeView<'_>) -> std::result::Result<R, Miss>,
    ) -> Result<R> {
        self.read_version_after(version, false, look)
    }

    /// `missed`: something was missing before, so that this can't be a hit any more.
    fn read_version_after<R>(
        &self,
        version: &Version,
        mut missed: bool,
        mut look: impl FnMut(&Version, NodeView<'_>) -> std::result::Result<R, Miss>,
    ) -> Result<R> {
        let shared = &self.runtime.shared;
        // Only kept, never looked at: its end gives the holds back.
        let mut _held = Held::new(self);
        loop {
            let looked = with_reader(&shared.memory, |guard, reader| {
                let found = look(
                    version,
                    NodeView::beside(shared.memory.view(guard), &self.runtime),
                )?;
                reader.add_hits(u64::from(!missed));
                Ok(found)
            });
            match looked {
                Ok(found) => return Ok(found),
                Err(Miss(reference)) => {
                    missed = true;
                    // Nothing is held while a page is waited for: many readers that each kept one could hold all
                    // frames, and wait for each other.
                    _held = Held::new(self);
                    _held = Held::of(self, self.runtime.fetch(reference)?);
                }
            }
        }
    }

    /// The caller gives up a version that it kept. If more than `groups` later ones were published meanwhile, the flusher
    /// is told, so that what this one alone reached is free also when nothing else happens.
    pub(super) fn give_up(&self, version: &Arc<Version>, groups: u64) {
        let shared = &self.runtime.shared;
        let newest = with_guard(&shared.memory, |guard| shared.current.load(guard).seq);
        if newest.0 > version.seq.0 + groups {
            let kept = Arc::clone(version) as Kept;
            self.runtime.send_flusher(FlusherMessage::Released { kept });
        }
    }

    /// The current version, counted.
    pub(super) fn hold_current(&self) -> Arc<Version> {
        let shared = &self.runtime.shared;
        with_guard(&shared.memory, |guard| shared.current.hold(guard))
    }

    pub(super) fn find(&self, version: Option<&Arc<Version>>, tree: TreeId, key: &[u8]) -> Result<Found> {
        let look = |version: &Version, view: NodeView<'_>| look_up(version, view, tree, key);
        let found = match version {
            Some(version) => self.read_version(version, look)??,
            None => self.read_current(look)??,
        };
        match (found, version) {
            (None, _) => Ok(Found::Nothing),
            (Some(Looked::Inline(value)), _) => Ok(Found::Inline(value)),
            (Some(Looked::Blob(descriptor)), Some(version)) => {
                Ok(Found::Blob(descriptor, Arc::clone(version)))
            }
            // Nothing keeps the blob in place any more: it is looked for again in a version that is counted.
            (Some(Looked::Blob(_)), None) => self.find(Some(&self.hold_current()), tree, key),
        }
    }

    /// Whether there are more pages than frames: then a write will probably miss some.
    pub(super) fn exceeds_cache(&self) -> bool {
        let shared = &self.runtime.shared;
        let file_pages = shared.counters.get(Counter::FilePages);
        file_pages.saturating_sub(shared.counters.get(Counter::FreePages)) > shared.memory.frames() as u64
    }

    /// Brings the way to a key into memory.
    pub(super) fn bring(&self, tree: TreeId, key: &[u8]) -> Result<()> {
        self.read_current(|version, view| match root_of(version, tree, key) {
            Ok(root) => tree::get(&view, &root, key).map(|_| ()),
            Err(_) => Ok(()),
        })
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

    /// Hands the value to `read`: a copy on the stack, or a long one where it lies, its frame held meanwhile. No epoch
    /// is pinned.
    pub(super) fn get_with<R>(
        &self,
        tree: TreeId,
        key: &[u8],
        read: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R> {
        let memory = &self.runtime.shared.memory;
        let mut copy = [MaybeUninit::<u8>::uninit(); STACK_VALUE_BYTES_MAX];
        let pinned = self.read_current(|version, view| {
            let root = match root_of(version, tree, key) {
                Ok(root) => root,
                Err(error) => return Ok(Err(error)),
            };
            let tracking = TrackingView {
                view: view.view,
                last: Cell::new(None),
            };
            loop {
                let found = tree::get(&tracking, &root, key)?;
                return Ok(Ok(match found {
                    None => Pinned::Nothing,
                    Some(ValueRef::Blob(_)) => Pinned::Blob,
                    Some(ValueRef::Inline(bytes)) if bytes.len() <= STACK_VALUE_BYTES_MAX => {
                        copy[..bytes.len()].write_copy_of_slice(bytes);
                        Pinned::Copied(bytes.len())
                    }
                    Some(ValueRef::Inline(bytes)) => match tracking.last.get() {
                        Some(frame) if memory.hold(frame) => Pinned::Held {
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
            Pinned::Copied(length) => {
                // SAFETY: the look that came to this result has written so many bytes.
                Ok(read(Some(unsafe { copy[..length].assume_init_ref() })))
            }
            Pinned::Held { frame, start, length } => {
                let _held = Held::of(self, frame);
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
        let mut lookups = Lookups::of(keys.len());
        let mut held = Held::new(self);
        loop {
            let missing = self.look_many(version, tree, keys, &mut lookups)?;
            // The frames of the round before have served their purpose; see `read_version` for why they go first.
            drop(std::mem::replace(&mut held, Held::new(self)));
            if missing.is_empty() {
                break;
            }
            let mut failure = None;
            for fetched in self.runtime.fetch_all(&missing) {
                match fetched {
                    Ok(frame) => held.frames.push(frame),
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
        let Lookups {
            mut values, blobs, ..
        } = lookups;
        for (index, descriptor) in blobs {
            values[index] = Some(self.read_blob(&descriptor)?);
        }
        Ok(values)
    }

    /// One round of looking for the keys that are not found yet. Returns the pages that were missing, as many as one
    /// reader may ask for; none if all keys were found.
    pub(super) fn look_many<K: AsRef<[u8]>>(
        &self,
        version: &Version,
        tree: TreeId,
        keys: &[K],
        lookups: &mut Lookups,
    ) -> Result<Vec<PageRef>> {
        let shared = &self.runtime.shared;
        let state = tree_of(version, tree)?;
        let Lookups {
            values,
            blobs,
            open,
            first_round,
        } = lookups;
        let mut missing: Vec<PageRef> = Vec::new();
        let mut again: Vec<usize> = Vec::new();
        // One pin for a bounded number of descents.
        for chunk in open.chunks(64) {
            with_reader(&shared.memory, |guard, reader| {
                let missing_before = missing.len();
                let view = NodeView::beside(shared.memory.view(guard), &self.runtime);
                let is_cut = state.partitions.len() > 1;
                let place = |&index: &usize| {
                    let key = keys[index].as_ref();
                    (if is_cut { state.partition_for(key) } else { 0 }, index, key)
                };
                let mut parts: Vec<(usize, usize, &[u8])> = chunk.iter().map(place).collect();
                if is_cut {
                    parts.sort_unstable_by_key(|(partition, index, _)| (*partition, *index));
                }
                for part in parts.chunk_by(|(partition, ..), (next, ..)| partition == next) {
                    let root = state.partitions[part[0].0].root;
                    let wanted: Vec<&[u8]> = part.iter().map(|(.., key)| *key).collect();
                    let mut found = vec![Ok(None); wanted.len()];
                    tree::get_many(&view, &root, &wanted, &mut found);
                    for (&(_, index, _), found) in part.iter().zip(found) {
                        match found {
                            Ok(None) => {}
                            Ok(Some(ValueRef::Inline(bytes))) => values[index] = Some(bytes.into()),
                            Ok(Some(ValueRef::Blob(descriptor))) => blobs.push((index, descriptor.to_vec())),
                            Err(Miss(reference)) => {
                                again.push(index);
                                missing.push(reference);
                            }
                        }
                    }
                }
                if *first_round {
                    reader.add_hits((chunk.len() - (missing.len() - missing_before)) as u64);
                }
            });
        }
        *first_round = false;
        *open = again;
        missing.sort_unstable_by_key(|reference| reference.id);
        missing.dedup();
        // The rest is found missing again in the next round.
        missing.truncate(shared.settings.fetched_max);
        Ok(missing)
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
