//! A store for tests: a map of pages that watches whether the tree keeps the rules.
//!
//! - A page that was retired while open is gone at once: touching it panics. Frozen ones stay until
//!   [`TestStore::reclaim`] finds no root that reaches them; then their ids are used again.
//! - Frozen pages are hashed when their batch ends, and compared when they are reclaimed or on request.
//! - Lookups may be made to miss, at random, any page at any time.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::{Located, Miss, NodeStore, ReadNodes, Root, check};
use crate::ids::{PageId, PageRef, Seq, Stamp};
use crate::page;

#[derive(Clone)]
struct Page {
    bytes: Vec<u8>,
    /// Of the bytes behind the checksum field, once frozen.
    frozen_crc: Option<u32>,
}

pub(super) struct TestStore {
    page_bytes: usize,
    /// By id.
    pages: Vec<Option<Page>>,
    free: Vec<PageId>,
    stamp: Stamp,
    /// Frozen, retired, not reclaimed.
    retired: BTreeSet<PageId>,
    pub(super) retired_blobs: Vec<Vec<u8>>,
    /// Nodes created since the count was last taken.
    pub(super) created: usize,
    /// Lookups since the count was last taken.
    pub(super) lookups: Cell<usize>,
    /// One lookup in so many misses; 0: none does.
    pub(super) miss_one_in: u64,
    random: Cell<u64>,
}

fn crc(bytes: &[u8]) -> u32 {
    crate::checksum::crc32c(&bytes[4..])
}

impl TestStore {
    pub(super) fn new(page_bytes: usize) -> TestStore {
        TestStore {
            page_bytes,
            pages: vec![None, None],
            free: Vec::new(),
            stamp: Stamp(1),
            retired: BTreeSet::new(),
            retired_blobs: Vec::new(),
            created: 0,
            lookups: Cell::new(0),
            miss_one_in: 0,
            random: Cell::new(0x9E37_79B9_7F4A_7C15),
        }
    }

    fn misses(&self) -> bool {
        if self.miss_one_in == 0 {
            return false;
        }
        let mut random = self.random.get();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.set(random);
        random.is_multiple_of(self.miss_one_in)
    }

    /// Without misses, whatever [`TestStore::miss_one_in`] says.
    pub(super) fn without_misses<R>(&mut self, then: impl FnOnce(&mut TestStore) -> R) -> R {
        let one_in = std::mem::take(&mut self.miss_one_in);
        let result = then(self);
        self.miss_one_in = one_in;
        result
    }

    /// Ends the batch: its nodes are frozen.
    pub(super) fn freeze(&mut self) {
        for page in self
            .pages
            .iter_mut()
            .flatten()
            .filter(|page| page.frozen_crc.is_none())
        {
            page::verify_structure(&page.bytes).expect("a frozen node is well formed");
            page.frozen_crc = Some(crc(&page.bytes));
        }
        self.stamp = Stamp(self.stamp.0 + 1);
    }

    /// Panics if a frozen page has changed.
    pub(super) fn assert_frozen_unchanged(&self) {
        for page in self.pages.iter().flatten() {
            if let Some(frozen) = page.frozen_crc {
                let id = page::reference(&page.bytes).id;
                assert_eq!(
                    frozen,
                    crc(&page.bytes),
                    "page {} changed after its batch ended",
                    id.0
                );
            }
        }
    }

    /// The ids that a root reaches; checks the tree on the way.
    pub(super) fn reachable(&self, root: &Root) -> BTreeSet<PageId> {
        let mut ids = BTreeSet::new();
        check(self, root, |reference, _| {
            ids.insert(reference.id);
        })
        .unwrap_or_else(|error| panic!("{error}"));
        ids
    }

    /// Panics if the tip doesn't consist of exactly what was created and not retired.
    pub(super) fn assert_balanced(&self, tip: &Root) {
        assert_eq!(
            self.unretired(),
            self.reachable(tip),
            "created - retired = reachable"
        );
    }

    /// What was created and not retired.
    pub(super) fn unretired(&self) -> BTreeSet<PageId> {
        let held = self
            .pages
            .iter()
            .flatten()
            .map(|page| page::reference(&page.bytes).id);
        held.filter(|id| !self.retired.contains(id)).collect()
    }

    /// Frees what was retired and isn't reached by a root that is still held.
    pub(super) fn reclaim(&mut self, held: &[Root]) {
        self.assert_frozen_unchanged();
        let reached: BTreeSet<PageId> = held.iter().flat_map(|root| self.reachable(root)).collect();
        let dead: Vec<PageId> = self.retired.difference(&reached).copied().collect();
        for id in dead {
            self.retired.remove(&id);
            self.free(id);
        }
    }

    /// Frees what was retired: no version but the tip is held.
    pub(super) fn discard_retired(&mut self) {
        for id in std::mem::take(&mut self.retired) {
            self.free(id);
        }
    }

    /// The highest id in use.
    pub(super) fn highest(&self) -> PageId {
        let used = self.pages.iter().rposition(Option::is_some);
        PageId(used.unwrap_or(0) as u32)
    }

    /// Frees a page that nothing reaches any more; the lowest free ids are used first from now on.
    pub(super) fn forget(&mut self, id: PageId) {
        self.free(id);
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }

    fn free(&mut self, id: PageId) {
        self.pages[id.0 as usize] = None;
        self.free.push(id);
    }

    fn page(&self, node: Located) -> &Page {
        let page = self.pages[node.frame as usize]
            .as_ref()
            .expect("the node was not freed");
        assert_eq!(
            page::reference(&page.bytes),
            node.reference,
            "the id was not used again"
        );
        page
    }

    fn allocate(&mut self, mut bytes: Vec<u8>) -> Located {
        let id = self.free.pop().unwrap_or_else(|| {
            self.pages.push(None);
            PageId(self.pages.len() as u32 - 1)
        });
        self.created += 1;
        page::set_identity(&mut bytes, id, self.stamp, Seq(self.stamp.0));
        let reference = page::reference(&bytes);
        self.pages[id.0 as usize] = Some(Page {
            bytes,
            frozen_crc: None,
        });
        Located {
            reference,
            frame: id.0,
        }
    }
}

impl ReadNodes for TestStore {
    fn node(&self, reference: PageRef) -> Result<&[u8], Miss> {
        let node = self.locate(reference)?;
        Ok(self.bytes(node))
    }
}

impl NodeStore for TestStore {
    fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn locate(&self, reference: PageRef) -> Result<Located, Miss> {
        self.lookups.set(self.lookups.get() + 1);
        if self.misses() {
            return Err(Miss(reference));
        }
        let node = Located {
            reference,
            frame: reference.id.0,
        };
        self.page(node);
        Ok(node)
    }

    fn bytes(&self, node: Located) -> &[u8] {
        &self.page(node).bytes
    }

    fn bytes_mut(&mut self, node: Located) -> &mut [u8] {
        assert!(self.is_open(node), "only open nodes change");
        &mut self.pages[node.frame as usize]
            .as_mut()
            .expect("just looked at")
            .bytes
    }

    fn rebuild(&mut self, target: Located, sources: [Located; 2]) -> (&mut [u8], [&[u8]; 2]) {
        assert!(self.is_open(target));
        let [a, b] = sources.map(|source| source.frame as usize);
        let pages = self.pages.as_mut_slice();
        let (target, first, second): (_, &Option<Page>, &Option<Page>) = if a == b {
            let [target, both] = pages
                .get_disjoint_mut([target.frame as usize, a])
                .expect("target is no source");
            (target, both, both)
        } else {
            let [target, first, second] = pages
                .get_disjoint_mut([target.frame as usize, a, b])
                .expect("target is no source");
            (target, first, second)
        };
        (
            &mut target.as_mut().expect("open").bytes,
            [first, second].map(|page| page.as_ref().expect("held").bytes.as_slice()),
        )
    }

    fn is_open(&self, node: Located) -> bool {
        page::stamp(&self.page(node).bytes) == self.stamp
    }

    fn create(&mut self) -> Located {
        // Whatever a frame held before must not matter.
        self.allocate(vec![0xA5; self.page_bytes])
    }

    fn copy(&mut self, old: Located) -> Located {
        assert!(!self.is_open(old), "open nodes are changed in place");
        let mut bytes = vec![0xA5; self.page_bytes];
        page::copy_node(&mut bytes, self.bytes(old));
        self.allocate(bytes)
    }

    fn retire(&mut self, node: Located) {
        if self.is_open(node) {
            self.free(node.reference.id);
        } else {
            assert!(self.retired.insert(node.reference.id), "retired once");
        }
    }

    fn retire_blob(&mut self, descriptor: &[u8]) {
        self.retired_blobs.push(descriptor.to_vec());
    }
}
