//! Point lookups.

use super::{Miss, ReadNodes, Root};
use crate::page::ValueRef;
use crate::page::inner::Inner;
use crate::page::leaf::Leaf;
use crate::page::prefetch;

/// Looks a key up. O(height) nodes.
///
/// # Errors
///
/// The first node on the way that isn't in memory.
pub fn get<'s, S: ReadNodes>(store: &'s S, root: &Root, key: &[u8]) -> Result<Option<ValueRef<'s>>, Miss> {
    if root.reference.is_none() {
        return Ok(None);
    }
    let mut reference = root.reference;
    for _ in 1..root.height {
        let inner = Inner::new(store.node(reference)?);
        reference = inner.child(inner.find(key));
    }
    let page = store.node(reference)?;
    prefetch::leaf_top(page);
    let leaf = Leaf::new(page);
    Ok(leaf.find(key).ok().map(|slot| leaf.value(slot)))
}

/// Lookups that go on side by side: enough to hide the memory's latency, few enough for the first-level cache.
const INTERLEAVED: usize = 8;

/// Looks many keys up, eight at a time side by side, so that their cache misses overlap: about a third of the time
/// of as many [`get`]s when the nodes aren't in the processor's caches.
///
/// `out[i]` becomes what `get(keys[i])` would give.
///
/// # Panics
///
/// If `out` is shorter than `keys`.
pub fn get_many<'s, S: ReadNodes>(
    store: &'s S,
    root: &Root,
    keys: &[&[u8]],
    out: &mut [Result<Option<ValueRef<'s>>, Miss>],
) {
    let out = &mut out[..keys.len()];
    if root.reference.is_none() {
        out.fill(Ok(None));
        return;
    }
    for (keys, out) in keys.chunks(INTERLEAVED).zip(out.chunks_mut(INTERLEAVED)) {
        get_group(store, root, keys, out);
    }
}

/// One group in lockstep: each pass does, for every key, what the last pass prefetched for.
fn get_group<'s, S: ReadNodes>(
    store: &'s S,
    root: &Root,
    keys: &[&[u8]],
    out: &mut [Result<Option<ValueRef<'s>>, Miss>],
) {
    let mut references = [root.reference; INTERLEAVED];
    let mut pages: [Option<&'s [u8]>; INTERLEAVED] = [None; INTERLEAVED];
    out.fill(Ok(None));

    for _ in 1..root.height {
        for (lane, result) in out.iter_mut().enumerate().filter(|(_, result)| result.is_ok()) {
            pages[lane] = None;
            match store.node(references[lane]) {
                Ok(page) => {
                    prefetch::inner_top(page);
                    pages[lane] = Some(page);
                }
                Err(miss) => *result = Err(miss),
            }
        }
        for (lane, key) in keys.iter().enumerate() {
            if let Some(page) = pages[lane] {
                let inner = Inner::new(page);
                references[lane] = inner.child(inner.find(key));
                store.prefetch(references[lane]);
            }
        }
    }
    for (lane, result) in out.iter_mut().enumerate() {
        pages[lane] = None;
        if result.is_err() {
            continue;
        }
        match store.node(references[lane]) {
            Ok(page) => {
                prefetch::leaf_top(page);
                pages[lane] = Some(page);
            }
            Err(miss) => *result = Err(miss),
        }
    }
    let mut candidates = [const { None }; INTERLEAVED];
    for (lane, key) in keys.iter().enumerate() {
        let Some(page) = pages[lane] else { continue };
        let leaf = Leaf::new(page);
        if let Some(candidate) = leaf.candidates(key) {
            prefetch::line(page, leaf.slot(candidate.start).offset);
            candidates[lane] = Some(candidate);
        }
    }
    for (lane, key) in keys.iter().enumerate() {
        let (Some(page), Some(candidate)) = (pages[lane], candidates[lane].take()) else {
            continue;
        };
        let leaf = Leaf::new(page);
        out[lane] = Ok(leaf.find_among(candidate, key).ok().map(|slot| leaf.value(slot)));
    }
}
