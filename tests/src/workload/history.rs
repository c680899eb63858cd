//! Past versions and differences in the workload: what is retained can be had, and what differs is what differs.

use std::collections::BTreeMap;

use treering::{Error, Retention};

use super::Run;
use super::life::Hands;
use crate::model::{Content, Place};

/// A key with what it holds in the older and in the newer snapshot.
type Difference = (Place, (Option<Content>, Option<Content>));

impl Run {
    /// Asks for the version of a snapshot again, by its number.
    pub(super) fn time_travel(&mut self, hands: &mut Hands) -> Result<(), String> {
        if hands.snapshots.is_empty() {
            return Ok(());
        }
        let chosen = self.random.below(hands.snapshots.len() as u64) as usize;
        let (snapshot, first) = &hands.snapshots[chosen];
        let seq = snapshot.seq();
        let newest = hands.client.snapshot().seq();
        let must = match self.profile.retention {
            Retention::Versions(count) => newest - seq < count,
            _ => newest == seq,
        };
        match hands.client.snapshot_at(seq) {
            Ok(past) if past.seq() > seq => Err(format!("version {seq} is {}", past.seq())),
            Ok(past) => {
                let Some(found) = self.picture(hands, Some(&past))? else {
                    return Ok(());
                };
                if past.seq() == seq && found != *first {
                    return Err(format!("version {seq} was another one before"));
                }
                if must && past.seq() != seq {
                    return Err(format!("version {} is in the place of {seq}", past.seq()));
                }
                Ok(())
            }
            Err(Error::VersionGone { .. }) if !must => Ok(()),
            Err(error) => self.excuse(hands, &error, "time travel"),
        }
    }

    /// Compares two snapshots with each other, in either direction.
    pub(super) fn diff(&mut self, hands: &mut Hands) -> Result<(), String> {
        let count = hands.snapshots.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let (older, old) = &hands.snapshots[self.random.below(count) as usize];
        let (newer, new) = &hands.snapshots[self.random.below(count) as usize];
        let mut expected: Vec<Difference> = differences(old, new);
        for (number, tree) in hands.trees.iter().enumerate() {
            let diff = match hands.client.diff(older, newer, tree) {
                Ok(diff) => diff,
                Err(error) => return self.excuse(hands, &error, "a diff"),
            };
            for change in diff {
                let change = match change {
                    Ok(change) => change,
                    Err(error) => return self.excuse(hands, &error, "a diff"),
                };
                let decode =
                    |value: Option<treering::Value>| value.map(|value| Content::decode(&value)).transpose();
                let found = (
                    (number, change.key.to_vec()),
                    (decode(change.old)?, decode(change.new)?),
                );
                if expected.is_empty() || expected.remove(0) != found {
                    return Err(format!("a diff has {found:?}, or lacks something before it"));
                }
            }
        }
        match expected.first() {
            Some(missing) => Err(format!("a diff lacks {missing:?}")),
            None => Ok(()),
        }
    }
}

/// In the order of trees and keys.
fn differences(old: &BTreeMap<Place, Content>, new: &BTreeMap<Place, Content>) -> Vec<Difference> {
    let places: std::collections::BTreeSet<&Place> = old.keys().chain(new.keys()).collect();
    places
        .into_iter()
        .map(|place| (place.clone(), (old.get(place).copied(), new.get(place).copied())))
        .filter(|(_, (old, new))| old != new)
        .collect()
}
