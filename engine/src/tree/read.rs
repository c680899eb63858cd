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

/// Lookups that go on side by side: enough to hide the memory's latency, few enough for the first-level
/// cache.
const INTERLEAVED: usize = 8;

/// Looks many keys up, eight at a time side by side, so that their cache misses overlap: about a third of
/// the time of as many [`get`]s when the nodes aren't in the processor's caches.
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

/// Brings what writes to these keys will read into the processor's caches, eight keys at a time side by
/// side, and tells which nodes aren't in memory. A worker that does this for some requests before it
/// applies them saves a good part of the time that they would wait for memory one after another; a few
/// dozen keys at once are enough.
pub fn warm<S: ReadNodes>(store: &S, root: &Root, keys: &[&[u8]], missing: &mut Vec<Miss>) {
    if root.reference.is_none() {
        return;
    }
    for keys in keys.chunks(INTERLEAVED) {
        let leaves = leaves_of(store, root, keys);
        for leaf in &leaves[..keys.len()] {
            match leaf {
                // The whole leaf: it will be copied.
                Ok(page) => prefetch::all(page),
                Err(miss) => missing.push(*miss),
            }
        }
    }
}

/// The leaves of a group of keys, their tops on the way to the caches. Goes down in lockstep: each pass
/// does, for every key, what the last pass prefetched for.
fn leaves_of<'s, S: ReadNodes>(
    store: &'s S,
    root: &Root,
    keys: &[&[u8]],
) -> [Result<&'s [u8], Miss>; INTERLEAVED] {
    let mut references = [root.reference; INTERLEAVED];
    let mut pages: [Result<&'s [u8], Miss>; INTERLEAVED] = [Ok(&[]); INTERLEAVED];
    for _ in 1..root.height {
        for (page, reference) in pages
            .iter_mut()
            .zip(references)
            .take(keys.len())
            .filter(|(page, _)| page.is_ok())
        {
            *page = store.node(reference);
            if let Ok(page) = page {
                prefetch::inner_top(page);
            }
        }
        for ((page, reference), key) in pages.iter().zip(&mut references).zip(keys) {
            if let Ok(page) = page {
                let inner = Inner::new(page);
                *reference = inner.child(inner.find(key));
                store.prefetch(*reference);
            }
        }
    }
    for (page, reference) in pages
        .iter_mut()
        .zip(references)
        .take(keys.len())
        .filter(|(page, _)| page.is_ok())
    {
        *page = store.node(reference);
        if let Ok(page) = page {
            prefetch::leaf_top(page);
        }
    }
    pages
}

fn get_group<'s, S: ReadNodes>(
    store: &'s S,
    root: &Root,
    keys: &[&[u8]],
    out: &mut [Result<Option<ValueRef<'s>>, Miss>],
) {
    let pages = leaves_of(store, root, keys);
    let mut candidates = [const { None }; INTERLEAVED];
    for ((page, key), candidate) in pages.iter().zip(keys).zip(&mut candidates) {
        let Ok(page) = page else { continue };
        let leaf = Leaf::new(page);
        *candidate = leaf.candidates(key).filter(|candidates| !candidates.is_empty());
        if let Some(candidates) = candidate {
            prefetch::entry(&leaf, candidates.start);
        }
    }
    for (lane, (key, out)) in keys.iter().zip(out).enumerate() {
        *out = pages[lane].map(|page| {
            let leaf = Leaf::new(page);
            let slot = leaf.find_among(candidates[lane].take()?, key).ok()?;
            Some(leaf.value(slot))
        });
    }
}
