//! What looks at the database, and compares it with the map.

use super::*;

impl<O: Fn() -> Db> Run<O> {
    pub(super) fn read(&mut self) {
        let (name, tree, map) = self.tree();
        let at = self.at();
        let keys: Vec<Vec<u8>> = (0..1 + self.random.below(40)).map(|_| self.key()).collect();
        let many = tree.get_many(&keys).expect("a read");
        for (key, found) in keys.iter().zip(many) {
            let expected = map.get(key).map(Vec::as_slice);
            assert_eq!(found.as_deref(), expected, "{at}: get_many");
            assert_eq!(tree.get(key).expect("a read").as_deref(), expected, "{at}: get");
            assert_eq!(
                tree.contains(key).expect("a read"),
                expected.is_some(),
                "{at}: contains"
            );
            let same = tree.get_with(key, |value| value == expected).expect("a read");
            assert!(same, "{at}: get_with");
        }
        let owned = |entry: Option<(treering::Value, treering::Value)>| {
            entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
        };
        let of_map =
            |entry: Option<(&Vec<u8>, &Vec<u8>)>| entry.map(|(key, value)| (key.clone(), value.clone()));
        assert_eq!(
            owned(tree.first().expect("a read")),
            of_map(map.first_key_value()),
            "{at}: first"
        );
        assert_eq!(
            owned(tree.last().expect("a read")),
            of_map(map.last_key_value()),
            "{at}: last"
        );
        assert_eq!(tree.len().expect("a read"), map.len() as u64, "{at}: len");
        assert_eq!(tree.is_empty().expect("a read"), map.is_empty(), "{at}: is_empty");
        self.trees.insert(name, (tree, map));
    }

    pub(super) fn range(&mut self) {
        let (name, tree, map) = self.tree();
        let at = self.at();
        if self.random.below(4) == 0 {
            let mut prefix = self.key();
            prefix.truncate(self.random.below(6) as usize);
            let found = tree.prefix(&prefix).expect("a range").map(pair);
            let expected = map.iter().filter(|(key, _)| key.starts_with(&prefix)).map(clone);
            assert!(found.eq(expected), "{at}: prefix {prefix:?}");
        }
        let (mut lower, mut upper) = (self.bound(), self.bound());
        if is_backward(&lower, &upper) {
            // The map refuses such bounds; a tree has nothing between them.
            assert!(
                tree.range((lower.clone(), upper.clone()))
                    .expect("a range")
                    .next()
                    .is_none(),
                "{at}: backward"
            );
            std::mem::swap(&mut lower, &mut upper);
            if is_backward(&lower, &upper) {
                upper = Bound::Unbounded;
            }
        }
        let mut expected = map.range((lower.clone(), upper.clone()));
        let mut found = tree.range((lower.clone(), upper.clone())).expect("a range");
        let style = self.random.below(4);
        // Now and then a range is left in the middle.
        let mut left = if self.random.below(5) == 0 {
            1 + self.random.below(20)
        } else {
            u64::MAX
        };
        loop {
            let back = match style {
                0 => false,
                1 => true,
                _ => self.random.below(2) == 0,
            };
            let (found, expected) = match back {
                true => (found.next_back(), expected.next_back()),
                false => (found.next(), expected.next()),
            };
            assert_eq!(
                found.map(pair),
                expected.map(clone),
                "{at}: range, back: {back}, {lower:?} to {upper:?}"
            );
            left -= 1;
            if expected.is_none() || left == 0 {
                break;
            }
        }
        let mut rest = Vec::new();
        found
            .scan(|key, value| {
                rest.push((key.to_vec(), value.to_vec()));
                std::ops::ControlFlow::Continue(())
            })
            .expect("a scan");
        assert!(
            rest.into_iter().eq(expected.map(clone)),
            "{at}: scan of what a range has left"
        );
        let mut visited = Vec::new();
        let limit = self.random.below(map.len() as u64 + 2) as usize;
        tree.scan((lower.clone(), upper.clone()), |key, value| {
            visited.push((key.to_vec(), value.to_vec()));
            if visited.len() >= limit {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        })
        .expect("a scan");
        let expected = map.range((lower, upper)).map(clone).take(limit.max(1));
        assert!(visited.into_iter().eq(expected), "{at}: scan");
        self.trees.insert(name, (tree, map));
    }

    pub(super) fn snapshot(&mut self) {
        if self.snapshots.len() >= 3 {
            self.snapshots.swap_remove(self.random.below(3) as usize);
        }
        let trees = self.trees.values().cloned().collect();
        self.snapshots.push((self.client.snapshot(), trees));
    }

    pub(super) fn check_snapshot(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let chosen = self.random.below(self.snapshots.len() as u64) as usize;
        let keys: Vec<Vec<u8>> = (0..10).map(|_| self.key()).collect();
        let (snapshot, trees) = &self.snapshots[chosen];
        for (tree, map) in trees {
            check(snapshot, tree, map, &self.at());
            for key in &keys {
                let found = snapshot.get(tree, key).expect("a read");
                assert_eq!(
                    found.as_deref(),
                    map.get(key).map(Vec::as_slice),
                    "{}: snapshot",
                    self.at()
                );
            }
        }
    }

    pub(super) fn check_all(&self) {
        let snapshot = self.client.snapshot();
        for (tree, map) in self.trees.values() {
            check(&snapshot, tree, map, &self.at());
        }
    }
}

/// Compares a whole tree, in both directions.
fn check(snapshot: &Snapshot, tree: &Tree, map: &Map, at: &str) {
    let forward = snapshot.range::<&[u8]>(tree, ..).expect("a range").map(pair);
    assert!(forward.eq(map.iter().map(clone)), "{at}: {} forward", tree.name());
    let backward = snapshot
        .range::<&[u8]>(tree, ..)
        .expect("a range")
        .rev()
        .map(pair);
    assert!(
        backward.eq(map.iter().rev().map(clone)),
        "{at}: {} backward",
        tree.name()
    );
    assert_eq!(
        snapshot.len(tree).expect("a length"),
        map.len() as u64,
        "{at}: length of {}",
        tree.name()
    );
}

fn pair(item: treering::Result<(treering::Value, treering::Value)>) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = item.expect("an entry");
    (key.to_vec(), value.to_vec())
}

fn clone((key, value): (&Vec<u8>, &Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    (key.clone(), value.clone())
}

/// Whether a map would panic over these bounds.
fn is_backward(lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Excluded(lower), Bound::Excluded(upper)) => lower >= upper,
        (
            Bound::Included(lower) | Bound::Excluded(lower),
            Bound::Included(upper) | Bound::Excluded(upper),
        ) => lower > upper,
    }
}
