//! The public interface on real files: the first things that a user tries.

mod support;

use support::options;
use treering::{Db, Durability, Error};

#[test]
fn what_was_put_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    {
        let db = options().open(&path).unwrap();
        let tree = db.client().tree("users").unwrap();
        for number in 0..1000u32 {
            tree.with_durability(Durability::Buffered)
                .put(number.to_be_bytes(), format!("value {number}"))
                .unwrap();
        }
        tree.put(b"synced", b"yes").unwrap();
        assert_eq!(tree.get(b"synced").unwrap().unwrap(), b"yes");
        assert_eq!(tree.len().unwrap(), 1001);
        db.close().unwrap();
    }
    let db = options().open(&path).unwrap();
    let tree = db.client().open_tree("users").unwrap();
    assert_eq!(tree.len().unwrap(), 1001);
    for number in 0..1000u32 {
        let value = tree.get(number.to_be_bytes()).unwrap().unwrap();
        assert_eq!(value, format!("value {number}"));
    }
    let keys: Vec<_> = tree
        .range::<&[u8]>(..)
        .unwrap()
        .map(|item| item.unwrap().0)
        .collect();
    assert!(keys.is_sorted());
    assert_eq!(keys.len(), 1001);
    db.close().unwrap();
}

#[test]
fn single_key_operations_answer_as_named() {
    let db = options().open_in_memory().unwrap();
    let tree = db.client().tree("t").unwrap();
    assert!(matches!(tree.replace(b"k", b"1"), Err(Error::KeyNotFound)));
    tree.insert(b"k", b"1").unwrap();
    assert!(matches!(tree.insert(b"k", b"2"), Err(Error::KeyExists)));
    tree.replace(b"k", b"2").unwrap();
    assert_eq!(
        tree.compare_and_swap(b"k", Some(b"1"), Some(b"3")).unwrap(),
        Err(Some(b"2"[..].into()))
    );
    assert_eq!(
        tree.compare_and_swap(b"k", Some(b"2"), Some(b"3")).unwrap(),
        Ok(())
    );
    tree.update(b"k", |old| old.map(|old| [old, b"+"].concat()))
        .unwrap();
    assert_eq!(tree.get(b"k").unwrap().unwrap(), b"3+");
    assert!(matches!(
        tree.update(b"k", |_| panic!("planted")),
        Err(Error::ClosurePanicked)
    ));
    assert!(tree.delete(b"k").unwrap());
    assert!(!tree.delete(b"k").unwrap());
    assert!(matches!(tree.put(b"", b"x"), Err(Error::KeyEmpty)));
    assert!(matches!(
        tree.put([0; 2000], b"x"),
        Err(Error::KeyTooLarge {
            bytes: 2000,
            limit_bytes: 1024
        })
    ));
}

#[test]
fn large_values_survive_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let value: Vec<u8> = (0..3_000_001u32).map(|n| (n * 7) as u8).collect();
    {
        let db = options().open(directory.path()).unwrap();
        let tree = db.client().tree("blobs").unwrap();
        tree.put(b"a", &value).unwrap();
        tree.put(b"b", &value[..2000]).unwrap();
        assert_eq!(tree.get(b"a").unwrap().unwrap(), value);
        std::mem::forget(db.client());
        db.close().unwrap();
    }
    let db = options().open(directory.path()).unwrap();
    let tree = db.client().tree("blobs").unwrap();
    assert_eq!(tree.get(b"a").unwrap().unwrap(), value);
    assert_eq!(tree.get(b"b").unwrap().unwrap(), &value[..2000]);
    tree.update(b"a", |old| old.map(|old| old[1..].to_vec())).unwrap();
    assert_eq!(tree.get(b"a").unwrap().unwrap(), &value[1..]);
}

#[test]
fn a_tree_much_larger_than_the_cache_works() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        options()
            .cache_bytes(1 << 20)
            .durability(Durability::Buffered)
            .open(directory.path())
            .unwrap()
    };
    let key = |number: u32| (number.wrapping_mul(2_654_435_761)).to_be_bytes();
    {
        let db = open();
        let tree = db.client().tree("t").unwrap();
        let mut tickets = Vec::new();
        for number in 0..100_000u32 {
            tickets.push(tree.send_put(key(number), [number as u8; 100]).unwrap());
        }
        for ticket in tickets {
            ticket.wait().unwrap();
        }
        assert_eq!(tree.len().unwrap(), 100_000);
        for number in (0..100_000u32).step_by(7) {
            assert_eq!(tree.get(key(number)).unwrap().unwrap(), [number as u8; 100]);
        }
        db.close().unwrap();
    }
    let db = open();
    let tree = db.client().tree("t").unwrap();
    let mut count = 0;
    tree.scan::<&[u8]>(.., |_, _| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(count, 100_000);
}

#[test]
fn a_second_opener_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(directory.path()).unwrap();
    assert!(matches!(
        Db::open(directory.path()),
        Err(Error::AlreadyOpen { .. })
    ));
    db.close().unwrap();
    Db::open(directory.path()).unwrap();
}
