//! What must hold of a whole database at rest: every tree is one, and every page has one owner (invariant 4).

use std::collections::{BTreeMap, BTreeSet};

use treering_engine::memory::FrameId;
use treering_engine::tree::{self, Miss, ReadNodes};
use treering_engine::{PageId, PageRef, page};

use crate::blob::blob_extents;
use crate::client::Db;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::shared::{Version, unhold, with_guard};

/// Copies of the pages of a tree: a tree may be larger than the cache.
#[derive(Default)]
struct Copies(BTreeMap<PageId, Box<[u8]>>);

impl ReadNodes for Copies {
    fn node(&self, reference: PageRef) -> std::result::Result<&[u8], Miss> {
        self.0
            .get(&reference.id)
            .map(|page| &**page)
            .ok_or(Miss(reference))
    }
}

/// Lets the database come to rest and checks all of it. Nobody may hold a snapshot or range.
///
/// # Errors
/// What is wrong, in words; or a failure to read.
pub fn check(db: &Db) -> std::result::Result<(), String> {
    let runtime = &db.inner.runtime;
    super::settle(db);
    if let Some(cause) = runtime.shared.status.cause() {
        return Err(format!("poisoned: {cause}"));
    }
    let version = with_guard(&runtime.shared.memory, |guard| runtime.shared.current.hold(guard));
    let reachable = reached(runtime, &version)?;
    let mut named = BTreeSet::new();
    let snapshots = runtime.flusher.with(|flusher| flusher.named_versions());
    for snapshot in snapshots.iter().flatten() {
        named.append(&mut reached(runtime, snapshot)?);
    }
    drop((version, snapshots));
    super::settle(db);
    let in_hand: BTreeSet<PageId> = runtime
        .shards
        .iter()
        .filter_map(|seat| seat.with(|shard| shard.ids_in_hand().collect::<Vec<_>>()))
        .flatten()
        .collect();
    let file_bytes = runtime.data.len().map_err(|error| error.to_string())?;
    let audit = runtime
        .flusher
        .with(|flusher| flusher.audit(&reachable, &named, &in_hand, file_bytes));
    audit.unwrap_or_else(|| Err(Error::Closed.to_string()))
}

/// Checks all trees of a version. Returns their pages, blobs included.
fn reached(runtime: &Runtime, version: &Version) -> std::result::Result<BTreeSet<PageId>, String> {
    let mut reachable = BTreeSet::new();
    for state in version.directory.iter() {
        let mut entries = 0;
        for partition in state.partitions.iter() {
            let mut copies = Copies::default();
            copy(runtime, partition.root.reference, &mut copies).map_err(|error| error.to_string())?;
            let mut twice = None;
            let mut owned = |id: PageId| {
                if !reachable.insert(id) {
                    twice = Some(id);
                }
            };
            let checked = tree::check_part(&copies, &partition.root, |reference, bytes| {
                owned(reference.id);
                for descriptor in page::blobs(bytes) {
                    blob_extents(descriptor).for_each(|retired| retired.extent.ids().for_each(&mut owned));
                }
            });
            entries += checked
                .map_err(|error| format!("tree {:?} of version {}: {error}", state.name, version.seq.0))?
                .entries;
            if let Some(id) = twice {
                return Err(format!("tree {:?}: page {} is reached twice", state.name, id.0));
            }
        }
        let counted = state.entries();
        if entries != counted {
            return Err(format!(
                "tree {:?} counts {counted} keys and has {entries}",
                state.name
            ));
        }
    }
    Ok(reachable)
}

fn copy(runtime: &Runtime, root: PageRef, copies: &mut Copies) -> Result<()> {
    let mut open = vec![root];
    while let Some(reference) = open.pop() {
        if reference.is_none() {
            continue;
        }
        let bytes = copy_page(runtime, reference)?;
        open.extend(page::children(&bytes));
        if copies.0.insert(reference.id, bytes).is_some() {
            return Err(Error::Corrupt {
                file: crate::shared::DATA_FILE.into(),
                offset: 0,
                page: Some(reference.id.0),
                reason: "two parents refer to it".into(),
            });
        }
    }
    Ok(())
}

fn copy_page(runtime: &Runtime, reference: PageRef) -> Result<Box<[u8]>> {
    let memory = &runtime.shared.memory;
    let look = || -> Option<Box<[u8]>> {
        with_guard(memory, |guard| {
            Some(memory.lookup(reference.id, guard)?.bytes.into())
        })
    };
    loop {
        if let Some(bytes) = look() {
            return Ok(bytes);
        }
        let frame: FrameId = runtime.fetch(reference)?;
        let bytes = look();
        unhold(memory, frame);
        if let Some(bytes) = bytes {
            return Ok(bytes);
        }
    }
}
