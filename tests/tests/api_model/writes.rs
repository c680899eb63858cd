//! What changes the database, and the map with it.

use super::*;

impl<O: Fn() -> Db> Run<O> {
    pub(super) fn put(&mut self) {
        let (name, tree, mut map) = self.tree();
        let (key, value) = (self.key(), self.value());
        match self.random.below(4) {
            0 => match tree.insert(&key, &value) {
                Ok(()) => assert!(map.insert(key, value).is_none(), "{}", self.at()),
                Err(Error::KeyExists) => assert!(map.contains_key(&key), "{}", self.at()),
                Err(error) => panic!("{}: {error:?}", self.at()),
            },
            1 => match tree.replace(&key, &value) {
                Ok(()) => assert!(map.insert(key, value).is_some(), "{}", self.at()),
                Err(Error::KeyNotFound) => assert!(!map.contains_key(&key), "{}", self.at()),
                Err(error) => panic!("{}: {error:?}", self.at()),
            },
            _ => {
                tree.put(&key, &value).expect("a put");
                map.insert(key, value);
            }
        }
        self.trees.insert(name, (tree, map));
    }

    pub(super) fn delete(&mut self) {
        let (name, tree, mut map) = self.tree();
        let key = self.key();
        assert_eq!(
            tree.delete(&key).expect("a delete"),
            map.remove(&key).is_some(),
            "{}",
            self.at()
        );
        self.trees.insert(name, (tree, map));
    }

    /// Compare-and-swap and shipped closures, also where large values come and go.
    pub(super) fn condition(&mut self) {
        let (name, tree, mut map) = self.tree();
        let (key, value) = (self.key(), self.value());
        let at = self.at();
        if self.random.below(2) == 0 {
            let guess = match self.random.below(3) {
                0 => None,
                1 => Some(self.value()),
                _ => map.get(&key).cloned(),
            };
            let new = (self.random.below(4) > 0).then_some(value);
            let swapped = tree
                .compare_and_swap(&key, guess.as_deref(), new.as_deref())
                .expect("a swap");
            let held = map.get(&key).cloned();
            if held == guess {
                assert_eq!(swapped, Ok(()), "{at}: a swap with the right guess");
                set(&mut map, &key, new);
            } else {
                let told = swapped.expect_err("a swap with a wrong guess");
                assert_eq!(
                    told.as_deref(),
                    held.as_deref(),
                    "{at}: what a refused swap tells"
                );
            }
        } else {
            let change = move |old: Option<&[u8]>| match old {
                Some(old) if old.len() % 5 == 0 => None,
                Some(old) => Some([&value[..], &old[..old.len() / 2]].concat()),
                None => Some(value.clone()),
            };
            let new = change(map.get(&key).map(Vec::as_slice));
            tree.update(&key, change).expect("an update");
            set(&mut map, &key, new);
        }
        assert_eq!(
            tree.get(&key).expect("a read").as_deref(),
            map.get(&key).map(Vec::as_slice),
            "{at}"
        );
        self.trees.insert(name, (tree, map));
    }

    /// Many requests on their way at once: carried out in the order in which they were sent.
    pub(super) fn pipeline(&mut self) {
        let (name, tree, mut map) = self.tree();
        let at = self.at();
        let mut puts = Vec::new();
        let mut deletes = Vec::new();
        let mut gets = Vec::new();
        for _ in 0..self.random.below(120) {
            let key = self.key();
            match self.random.below(5) {
                0 => {
                    let was_there = map.remove(&key).is_some();
                    deletes.push((tree.send_delete(&key).expect("sent"), was_there));
                }
                1 => {
                    // Owners don't read large values.
                    let expected = map.get(&key).filter(|value| value.len() < 1000).cloned();
                    if map.get(&key).is_none_or(|value| value.len() < 1000) {
                        gets.push((tree.send_get(&key).expect("sent"), expected));
                    }
                }
                2 => {
                    let mut pairs = Map::new();
                    for _ in 0..self.random.below(10) {
                        pairs.insert(self.key(), self.value());
                    }
                    // Pairs of a batch needn't be sorted.
                    puts.push(tree.send_batch(pairs.iter().rev()).expect("sent"));
                    map.append(&mut pairs);
                }
                _ => {
                    let value = self.value();
                    puts.push(tree.send_put(&key, &value).expect("sent"));
                    map.insert(key, value);
                }
            }
        }
        for (ticket, expected) in gets {
            assert_eq!(
                ticket.wait().expect("a read").as_deref(),
                expected.as_deref(),
                "{at}: send_get"
            );
        }
        for (ticket, was_there) in deletes {
            assert_eq!(ticket.wait().expect("a delete"), was_there, "{at}: send_delete");
        }
        puts.into_iter().for_each(|ticket| ticket.wait().expect("a put"));
        self.trees.insert(name, (tree, map));
    }

    pub(super) fn batch(&mut self) {
        let (name, tree, mut map) = self.tree();
        let other = self.trees.keys().next().copied();
        let mut batch = self.client.batch();
        let (mut changed, mut other_changed) = (map.clone(), None);
        for _ in 0..self.random.below(60) {
            let (key, value) = (self.key(), self.value());
            let into_other = other.filter(|_| self.random.below(4) == 0);
            let (tree, map) = match into_other {
                Some(other) => {
                    let (tree, map) = &self.trees[other];
                    (tree, other_changed.get_or_insert_with(|| map.clone()))
                }
                None => (&tree, &mut changed),
            };
            if self.random.below(3) == 0 {
                batch.delete(tree, &key);
                map.remove(&key);
            } else {
                batch.put(tree, &key, &value);
                map.insert(key, value);
            }
        }
        match (self.random.below(10), batch) {
            // Dropped without a commit: nothing happens.
            (0, batch) => drop(batch),
            (_, batch) => match batch.commit() {
                Ok(()) => {
                    map = changed;
                    if let (Some(other), Some(changed)) = (other, other_changed)
                        && let Some((_, map)) = self.trees.get_mut(other)
                    {
                        *map = changed;
                    }
                }
                Err(error) => panic!("{}: {error:?}", self.at()),
            },
        }
        self.trees.insert(name, (tree, map));
    }

    pub(super) fn drop_tree(&mut self) {
        let name = NAMES[self.random.below(NAMES.len() as u64) as usize];
        let at = self.at();
        match self.trees.remove(name) {
            Some((tree, _)) => {
                assert!(
                    matches!(self.client.create_tree(name), Err(Error::TreeExists { .. })),
                    "{at}"
                );
                self.client.drop_tree(name).expect("a tree that is there");
                assert!(
                    matches!(tree.get(b"k"), Err(Error::TreeNotFound { .. })),
                    "{at}: a dropped tree is read"
                );
                assert!(
                    matches!(tree.put(b"k", b"v"), Err(Error::TreeNotFound { .. })),
                    "{at}: and written"
                );
            }
            None => assert!(
                matches!(self.client.drop_tree(name), Err(Error::TreeNotFound { .. })),
                "{at}"
            ),
        }
        assert!(
            matches!(self.client.open_tree(name), Err(Error::TreeNotFound { .. })),
            "{at}"
        );
        let names: Vec<String> = self.trees.keys().map(|&name| name.to_owned()).collect();
        assert_eq!(self.client.tree_names().expect("names"), names, "{at}");
    }
}

fn set(map: &mut Map, key: &[u8], value: Option<Vec<u8>>) {
    match value {
        Some(value) => map.insert(key.to_vec(), value),
        None => map.remove(key),
    };
}
