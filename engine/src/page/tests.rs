//! Pages as bytes: what verification finds, and that nothing which passed it leads out of bounds.

use proptest::prelude::*;

use super::inner::Inner;
use super::inner_edit::InnerWriter;
use super::key::KeyParts;
use super::layout::{self, HEADER_BYTES, KIND_AT};
use super::leaf::Leaf;
use super::leaf_edit::{self, LeafWriter};
use super::*;
use crate::ids::{PageId, Seq, Stamp};

const PAGE_BYTES: usize = 512;
const REFERENCE: PageRef = PageRef {
    id: PageId(77),
    birth: 5,
};
const STAMP: Stamp = Stamp((9 << 32) | 5);

fn leaf_page(prefix: &[u8], entries: &[(&[u8], ValueRef<'_>)]) -> Vec<u8> {
    let mut page = vec![0xEE; PAGE_BYTES];
    set_identity(&mut page, REFERENCE.id, STAMP, Seq(3));
    let mut writer = LeafWriter::new(&mut page, prefix, entries.len());
    for (key, value) in entries {
        writer.push(KeyParts::whole(key), *value, &mut Vec::new());
    }
    writer.finish();
    seal(&mut page);
    page
}

fn sample_leaf() -> Vec<u8> {
    leaf_page(
        b"ap",
        &[
            (b"ap", ValueRef::Inline(b"one")),
            (b"apple", ValueRef::Blob(b"where it is")),
            (b"applesauce", ValueRef::Inline(b"")),
            (b"apply", ValueRef::Inline(b"three")),
        ],
    )
}

fn sample_inner() -> Vec<u8> {
    let mut page = vec![0xEE; PAGE_BYTES];
    set_identity(&mut page, REFERENCE.id, STAMP, Seq(3));
    let mut writer = InnerWriter::new(&mut page, 1, b"k", 8);
    for number in 0..8u32 {
        let separator = format!("k{number:03}{}", "x".repeat(number as usize));
        let child = PageRef {
            id: PageId(10 + number),
            birth: number,
        };
        writer.push(
            Some(KeyParts::whole(separator.as_bytes())),
            child,
            &mut Vec::new(),
        );
    }
    writer.finish();
    seal(&mut page);
    page
}

#[test]
fn header_fields_lie_where_the_table_says() {
    let page = sample_leaf();
    assert_eq!(page[4..8], 77u32.to_le_bytes());
    assert_eq!(page[8..16], STAMP.0.to_le_bytes());
    assert_eq!(page[16..24], 3u64.to_le_bytes());
    assert_eq!(page[24..30], [1, 0, 4, 0, 2, 0]);
    assert_eq!(page[48..52], *b"ap\0\0");
    // The second head is "ple" padded, as a number in little endian.
    assert_eq!(page[56..60], [0, b'e', b'l', b'p']);
    assert_eq!(
        (reference(&page), born(&page), stamp(&page)),
        (REFERENCE, Seq(3), STAMP)
    );
    assert_eq!((level(&page), count(&page)), (0, 4));
}

#[test]
fn sound_pages_pass() {
    assert_eq!(verify(&sample_leaf(), REFERENCE), Ok(()));
    assert_eq!(verify(&sample_inner(), REFERENCE), Ok(()));
}

#[test]
fn each_kind_of_damage_is_told_apart() {
    let page = sample_leaf();
    for offset in [0, 5, 30, 47, 100, PAGE_BYTES - 1] {
        let mut torn = page.clone();
        torn[offset] ^= 4;
        assert_eq!(
            verify(&torn, REFERENCE),
            Err(PageDefect::Checksum),
            "offset {offset}"
        );
    }
    let other_id = PageRef {
        id: PageId(78),
        ..REFERENCE
    };
    assert_eq!(
        verify(&page, other_id),
        Err(PageDefect::WrongId { found: PageId(77) })
    );
    let other_birth = PageRef {
        birth: 6,
        ..REFERENCE
    };
    assert_eq!(
        verify(&page, other_birth),
        Err(PageDefect::WrongBirth { found: 5 })
    );
    let mut unknown = page.clone();
    unknown[KIND_AT] = 3;
    seal(&mut unknown);
    assert_eq!(verify(&unknown, REFERENCE), Err(PageDefect::UnknownKind));
    assert_eq!(
        verify(&page[..100], REFERENCE),
        Err(PageDefect::Malformed("page size"))
    );
    assert_eq!(verify(&[], REFERENCE), Err(PageDefect::Malformed("page size")));
}

#[test]
fn keys_out_of_order_are_malformed() {
    let apart = leaf_page(
        b"",
        &[(b"b", ValueRef::Inline(b"")), (b"a", ValueRef::Inline(b""))],
    );
    assert_eq!(
        verify(&apart, REFERENCE),
        Err(PageDefect::Malformed("order of keys"))
    );
    let twice = leaf_page(
        b"",
        &[
            (b"abcdef", ValueRef::Inline(b"")),
            (b"abcdef", ValueRef::Inline(b"")),
        ],
    );
    assert_eq!(
        verify(&twice, REFERENCE),
        Err(PageDefect::Malformed("order of keys"))
    );
}

#[test]
fn zeros_at_the_end_of_a_key_count() {
    let keys: [&[u8]; 6] = [b"a", b"a\0", b"a\0\0", b"a\0\0\0", b"a\0\0\0\0", b"a\0\0\0\0\0"];
    let entries: Vec<_> = keys.iter().map(|key| (*key, ValueRef::Inline(key))).collect();
    let page = leaf_page(b"", &entries);
    assert_eq!(verify(&page, REFERENCE), Ok(()));
    for (slot, key) in keys.iter().enumerate() {
        assert_eq!(Leaf::new(&page).find(key), Ok(slot));
    }
    assert_eq!(Leaf::new(&page).find(b"a\0\0\0\0\0\0"), Err(6));
    assert_eq!(Leaf::new(&page).find(b""), Err(0));
}

#[test]
fn two_entries_or_three_children_of_the_largest_size_fit() {
    let mut page_bytes = crate::ids::PAGE_BYTES_MIN;
    while page_bytes <= crate::ids::PAGE_BYTES_MAX {
        let (key, value) = (max_key_bytes(page_bytes), max_inline_value_bytes(page_bytes));
        let entry = leaf::ENTRY_BYTES + key::rest_len(key) + value;
        assert!(2 * entry + HEADER_BYTES + 8 <= page_bytes, "{page_bytes}");
        let children = 3 * inner::CHILD_BYTES + 2 * inner::heap_bytes(key);
        assert!(children + inner::INNER_HEADER_BYTES <= page_bytes, "{page_bytes}");
        page_bytes *= 2;
    }
}

#[test]
fn children_and_blobs_come_in_key_order() {
    let ids: Vec<u32> = children(&sample_inner()).map(|child| child.id.0).collect();
    assert_eq!(ids, (10..18).collect::<Vec<u32>>());
    assert_eq!(blobs(&sample_inner()).count(), 0);
    assert_eq!(blobs(&sample_leaf()).collect::<Vec<_>>(), [b"where it is"]);
    assert_eq!(children(&sample_leaf()).count(), 0);
}

#[test]
fn an_inner_node_finds_the_child_whose_range_holds_the_key() {
    let page = sample_inner();
    let inner = Inner::new(&page);
    assert_eq!(inner.find(b""), 0);
    assert_eq!(inner.find(b"k"), 0);
    assert_eq!(inner.find(b"k001"), 0);
    assert_eq!(inner.find(b"k001x"), 1);
    assert_eq!(inner.find(b"k003xxx"), 3);
    assert_eq!(inner.find(b"k003xx~"), 3);
    assert_eq!(inner.find(b"k003xx"), 2);
    assert_eq!(inner.find(b"z"), 7);
}

/// Everything that is ever done with a page that came from disk.
fn use_page(page: &[u8], key: &[u8]) {
    children(page).for_each(drop);
    blobs(page).for_each(drop);
    if page[KIND_AT] == layout::KIND_INNER {
        let inner = Inner::new(page);
        assert!(inner.find(key) < inner.count);
        assert!(inner.used_bytes() <= page.len());
        return;
    }
    let mut page = page.to_vec();
    let leaf = Leaf::new(&page);
    assert!(leaf.used_bytes() <= page.len());
    let mut whole = Vec::new();
    for slot in 0..leaf.count {
        leaf.key(slot).copy_to(&mut whole);
        assert_eq!(leaf.find(&whole), Ok(slot));
    }
    match leaf.find(key) {
        Ok(slot) => leaf_edit::remove(&mut page, slot),
        Err(slot) if !key.is_empty() && leaf_edit::can_insert(&leaf, key, 3) => {
            leaf_edit::insert(&mut page, slot, key, ValueRef::Inline(b"new"));
        }
        Err(_) => return,
    }
    if count(&page) > 0 {
        assert_eq!(verify_structure(&page), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// A checksum may be right by chance, or by malice: structure alone must keep everything in bounds.
    #[test]
    fn damaged_pages_are_refused_or_harmless(
        inner in any::<bool>(),
        damage in prop::collection::vec((0..160usize, any::<u8>()), 1..4),
        key in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'p'), Just(b'k'), any::<u8>()], 0..12),
    ) {
        let mut page = if inner { sample_inner() } else { sample_leaf() };
        for (offset, byte) in damage {
            page[24 + offset] = byte;
        }
        seal(&mut page);
        if verify(&page, REFERENCE).is_ok() {
            use_page(&page, &key);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_harmless(
        bytes in prop::collection::vec(any::<u8>(), PAGE_BYTES),
        kind in 0..3u8,
    ) {
        let mut page = bytes;
        page[KIND_AT] = kind;
        if verify_structure(&page).is_ok() {
            use_page(&page, b"key");
        }
    }
}
