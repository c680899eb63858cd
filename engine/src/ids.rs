//! The small types that everything else is spelled in.
//!
//! All of them are new-typed integers, so that a page id can't be passed where a sequence number is
//! meant. Their little-endian encodings are part of the file format (see `docs/FORMAT.md`).

/// The address of a page in the data file: byte offset = id × page size.
///
/// 32 bits address 16 TiB of 4 KiB pages. Ids 0 and 1 are the superblock slots, never nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PageId(pub u32);

impl PageId {
    /// The first id that may be given to a node: what lies before it is the superblock slots.
    pub const FIRST: PageId = PageId(2);
    /// No page. Id 0 is a superblock, so no node can have it.
    pub const NONE: PageId = PageId(0);
}

/// A reference to a page as its parent holds it: where it is, and which use of that place is meant.
///
/// `birth` is the low half of the batch stamp that the page was created under. A page read from disk
/// whose own stamp differs was lost, stale or misdirected on its way (rule R6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PageRef {
    /// Where the page is.
    pub id: PageId,
    /// Low 32 bits of the [`Stamp`] of the batch that created it.
    pub birth: u32,
}

impl PageRef {
    /// The empty tree's root.
    pub const NONE: PageRef = PageRef {
        id: PageId::NONE,
        birth: 0,
    };

    /// Whether this refers to no page at all.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.id == PageId::NONE
    }
}

/// Number of a commit group: versions are published in its order, one by one, without gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The sequence number after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// Log sequence number: a byte position in the endless log. Groups start at multiples of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

/// Identifies an open batch; a node whose header carries the stamp of the batch that is still open may
/// be changed in place, all other nodes are frozen. Never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// What references to pages of this batch carry.
    #[must_use]
    pub fn birth(self) -> u32 {
        self.0 as u32
    }
}

/// Number of a tree, given once, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TreeId(pub u32);

/// Index of a shard worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ShardId(pub u16);

/// A run of consecutive pages, as blobs and the space map deal in them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Extent {
    /// First page of the run.
    pub start: PageId,
    /// Number of pages, at least 1.
    pub pages: u32,
}

impl Extent {
    /// A run of one page.
    #[must_use]
    pub fn single(id: PageId) -> Extent {
        Extent { start: id, pages: 1 }
    }

    /// Whether the run holds this page.
    #[must_use]
    pub fn contains(self, id: PageId) -> bool {
        id >= self.start && id.0 - self.start.0 < self.pages
    }

    /// The ids of the run, ascending.
    pub fn ids(self) -> impl Iterator<Item = PageId> {
        (self.start.0..self.start.0 + self.pages).map(PageId)
    }
}

/// A run that a batch replaced: reusable as soon as no live version lies in `[born, retired)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retired {
    /// The pages.
    pub extent: Extent,
    /// First group that may have shown them (rule R4: never later than the truth).
    pub born: Seq,
}

/// Bytes of the smallest page the code can handle; databases use 4096 and more, tests use this.
pub const PAGE_BYTES_MIN: usize = 512;
/// Bytes of the largest page.
pub const PAGE_BYTES_MAX: usize = 65_536;
/// Log groups and superblocks are written in units of this many bytes.
pub const BLOCK_BYTES: usize = 4096;
