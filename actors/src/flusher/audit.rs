//! Whether every page of the file has exactly one owner (invariant 4).

use std::collections::BTreeSet;
use std::sync::Arc;

use treering_engine::{Extent, PageId};

use super::state::Flusher;
use crate::shared::Version;

impl Flusher {
    /// Compares the space map with what was found by walking: `reachable` from the current version, `named` from any
    /// named snapshot, `in_hand` of the shards; and its length with that of the file. To be called at rest, with no
    /// snapshot in use. O(pages of the file).
    ///
    /// # Errors
    /// The first page with no owner or more than one, in words.
    pub fn audit(
        &self,
        reachable: &BTreeSet<PageId>,
        named: &BTreeSet<PageId>,
        in_hand: &BTreeSet<PageId>,
        file_bytes: u64,
    ) -> Result<(), String> {
        let pages = self.space.file_pages();
        if u64::from(pages) * self.shared.settings.page_bytes as u64 > file_bytes {
            return Err(format!(
                "the space map has {pages} pages, the file {file_bytes} bytes"
            ));
        }
        let mut waiting = BTreeSet::new();
        for (seq, retired) in self.waiting.iter() {
            for id in retired.extent.ids() {
                if !waiting.insert(id) {
                    return Err(format!("page {} waits twice, here for version {}", id.0, seq.0));
                }
            }
        }
        let image: BTreeSet<PageId> = self
            .superblock
            .image_extents
            .iter()
            .flat_map(|extent| extent.ids())
            .collect();
        for page in PageId::FIRST.0..self.space.file_pages() {
            let id = PageId(page);
            let owners = [
                ("free", self.space.is_available(Extent::single(id))),
                ("reachable", reachable.contains(&id)),
                ("waiting", waiting.contains(&id)),
                ("the checkpoint image's", image.contains(&id)),
                ("in a shard's hand", in_hand.contains(&id)),
                ("dying", self.dying.contains(&id)),
            ];
            let owned: Vec<&str> = owners
                .iter()
                .filter(|(_, owns)| *owns)
                .map(|(name, _)| *name)
                .collect();
            if owned.len() != 1 {
                return Err(format!("page {page} is {owned:?}, not exactly one of them"));
            }
            if named.contains(&id) && !matches!(owned[0], "reachable" | "waiting") {
                return Err(format!(
                    "page {page} is {owned:?}, but a named snapshot reaches it"
                ));
            }
            if self.space.is_reachable(Extent::single(id)) != reachable.contains(&id) {
                return Err(format!(
                    "page {page}: the space map is wrong about whether it is reachable"
                ));
            }
        }
        let dirty = reachable.iter().filter(|id| self.is_dirty(**id)).count() as u64;
        if dirty != self.dirty_pages_newest {
            let counted = self.dirty_pages_newest;
            return Err(format!(
                "{dirty} pages of the newest version are changed, {counted} were counted"
            ));
        }
        Ok(())
    }

    /// The versions of the named snapshots.
    pub fn named_versions(&self) -> Vec<Arc<Version>> {
        self.named.values().map(Arc::clone).collect()
    }
}
