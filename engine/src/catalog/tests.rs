use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{CatalogError, Directory, Partition, TreeState};
use crate::tree::Root;
use crate::{PageId, PageRef, ShardId, TreeId};

fn root(number: u32) -> Root {
    Root {
        reference: PageRef {
            id: PageId(number),
            birth: number,
        },
        height: 1,
        entries: u64::from(number),
    }
}

fn tree(id: u32, name: &str) -> TreeState {
    TreeState::new(TreeId(id), name, root(id + 10), ShardId(0))
}

fn lower(key: &str) -> Arc<[u8]> {
    Arc::from(key.as_bytes())
}

fn partitioned(id: u32, lowers: &[&str]) -> TreeState {
    let partition = |(index, lower): (usize, &&str)| Partition {
        lower: Arc::from(lower.as_bytes()),
        root: root(index as u32 + 2),
        owner: ShardId(index as u16),
        moved: 0,
    };
    let partitions = lowers.iter().enumerate().map(partition).collect();
    TreeState {
        id: TreeId(id),
        name: Arc::from("partitioned"),
        partitions,
    }
}

#[test]
fn keys_find_their_partition() {
    let state = partitioned(1, &["", "g", "ga", "t"]);
    for (key, index) in [
        ("", 0),
        ("f\u{7f}", 0),
        ("g", 1),
        ("g\0", 1),
        ("ga", 2),
        ("s", 2),
        ("zz", 3),
    ] {
        assert_eq!(state.partition_for(key.as_bytes()), index, "{key:?}");
    }
}

#[test]
fn partitions_are_cut_joined_and_given_away() {
    let id = TreeId(1);
    let directory = Directory::new()
        .with_tree(partitioned(1, &["", "g", "t"]))
        .expect("new");
    let lowers = |directory: &Directory| -> Vec<String> {
        let state = directory.get(id).expect("is there");
        let name = |partition: &Partition| String::from_utf8_lossy(&partition.lower).into_owned();
        state.partitions.iter().map(name).collect()
    };
    let partition = |key: &str, number: u32, owner: u16| Partition {
        lower: lower(key),
        root: root(number),
        owner: ShardId(owner),
        moved: 0,
    };
    let cut = directory
        .with_partitions(id, &[lower("g")], &[partition("g", 20, 1), partition("k", 21, 7)])
        .expect("inside");
    assert_eq!(lowers(&cut), ["", "g", "k", "t"]);
    let state = cut.get(id).expect("is there");
    assert_eq!(state.partitions[state.partition_for(b"l")].owner, ShardId(7));
    let joined = cut
        .with_partitions(
            id,
            &[lower("g"), lower("k"), lower("t")],
            &[partition("g", 30, 2)],
        )
        .expect("neighbours");
    assert_eq!(lowers(&joined), ["", "g"]);
    assert_eq!(lowers(&directory), ["", "g", "t"], "the old copy is untouched");

    for (replaced, partitions) in [
        (vec![lower("h")], vec![partition("h", 1, 0)]),
        (vec![lower(""), lower("t")], vec![partition("", 1, 0)]),
        (vec![lower("t"), lower("u")], vec![partition("t", 1, 0)]),
        (vec![], vec![partition("x", 1, 0)]),
    ] {
        let result = directory.with_partitions(id, &replaced, &partitions);
        assert_eq!(
            result.err(),
            Some(CatalogError::UnknownPartition(id)),
            "{replaced:?}"
        );
    }
    for partitions in [
        vec![partition("h", 1, 0)],
        vec![partition("g", 1, 0), partition("t", 1, 0)],
        vec![],
    ] {
        let result = directory.with_partitions(id, &[lower("g")], &partitions);
        assert_eq!(result.err(), Some(CatalogError::Malformed(id)), "{partitions:?}");
    }
}

#[test]
fn malformed_trees_are_refused() {
    let empty = TreeState {
        partitions: Arc::from([]),
        ..tree(1, "a")
    };
    let long = tree(1, &"n".repeat(70_000));
    for state in [
        empty,
        long,
        partitioned(1, &["a"]),
        partitioned(1, &["", "b", "b"]),
    ] {
        assert_eq!(
            Directory::new().with_tree(state).err(),
            Some(CatalogError::Malformed(TreeId(1)))
        );
    }
}

#[test]
fn names_are_unique_and_follow_their_tree() {
    let one = Directory::new().with_tree(tree(1, "a")).expect("new");
    assert_eq!(
        one.with_tree(tree(2, "a")).err(),
        Some(CatalogError::NameTaken(TreeId(1)))
    );
    let renamed = one.with_tree(tree(1, "b")).expect("same tree");
    assert!(renamed.by_name("a").is_none());
    assert_eq!(renamed.by_name("b").map(|state| state.id), Some(TreeId(1)));
    assert_eq!(
        one.by_name("a").map(|state| state.id),
        Some(TreeId(1)),
        "the old copy is untouched"
    );
    let none = renamed.without_tree(TreeId(1)).expect("exists");
    assert!(none.is_empty() && none.by_name("b").is_none());
    assert_eq!(
        none.without_tree(TreeId(1)).err(),
        Some(CatalogError::UnknownTree(TreeId(1)))
    );
}

#[test]
fn a_change_of_roots_shares_everything_else() {
    let mut directory = Directory::new();
    for id in 0..1_000 {
        directory = directory.with_tree(tree(id, &format!("tree {id}"))).expect("new");
    }
    let changed = directory
        .with_roots(&[
            (TreeId(700), lower(""), root(1)),
            (TreeId(701), lower(""), root(2)),
            (TreeId(700), lower(""), root(3)),
        ])
        .expect("all exist");
    let differing: Vec<TreeId> = directory
        .iter()
        .zip(changed.iter())
        .filter(|(old, new)| !Arc::ptr_eq(old, new))
        .map(|(old, _)| old.id)
        .collect();
    assert_eq!(differing, [TreeId(700), TreeId(701)]);
    assert_eq!(
        changed.get(TreeId(700)).map(|state| state.partitions[0].root),
        Some(root(3))
    );
    assert_eq!(
        directory.get(TreeId(700)).map(|state| state.partitions[0].root),
        Some(root(710))
    );
    assert_eq!(
        directory.with_roots(&[(TreeId(5), lower("m"), root(1))]).err(),
        Some(CatalogError::UnknownPartition(TreeId(5)))
    );
    assert_eq!(
        directory.with_roots(&[(TreeId(1_000), lower(""), root(1))]).err(),
        Some(CatalogError::UnknownTree(TreeId(1_000)))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..200, 0u32..200), 1..400)) {
        let mut directory = Directory::new();
        let mut model: BTreeMap<u32, String> = BTreeMap::new();
        for (add, id, name) in steps {
            let name = format!("name {name}");
            if add {
                let taken = model.iter().any(|(&other, known)| other != id && *known == name);
                match directory.with_tree(tree(id, &name)) {
                    Ok(next) => {
                        prop_assert!(!taken);
                        directory = next;
                        model.insert(id, name);
                    }
                    Err(_) => prop_assert!(taken),
                }
            } else {
                match directory.without_tree(TreeId(id)) {
                    Ok(next) => {
                        prop_assert!(model.remove(&id).is_some());
                        directory = next;
                    }
                    Err(_) => prop_assert!(!model.contains_key(&id)),
                }
            }
        }
        let trees: Vec<(u32, &str)> = directory.iter().map(|state| (state.id.0, &*state.name)).collect();
        prop_assert_eq!(&trees, &model.iter().map(|(&id, name)| (id, name.as_str())).collect::<Vec<_>>());
        let mut names: Vec<(&str, TreeId)> =
            trees.iter().map(|&(id, name)| (name, TreeId(id))).collect();
        names.sort_unstable();
        prop_assert_eq!(directory.names().collect::<Vec<_>>(), names);
        let mut walked = Vec::new();
        let mut at = None;
        while let Some(state) = directory.next_after(at) {
            walked.push(state.id.0);
            at = Some(state.id);
        }
        prop_assert_eq!(walked, model.keys().copied().collect::<Vec<_>>());
    }
}
