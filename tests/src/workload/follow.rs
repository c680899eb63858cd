//! Subscriptions in the workload: what they tell, applied to what was there, gives what is there.

use std::collections::BTreeMap;

use treering::{Error, Event, Subscription};

use super::Run;
use super::life::Hands;
use crate::model::Content;

/// Subscriptions at a time: what one makes the commit actor keep must not reach another that began later.
const FOLLOWERS_MAX: usize = 2;

/// A subscription to all keys of a tree, and what the tree holds after what was told.
pub(super) struct Follower {
    tree: usize,
    subscription: Subscription,
    /// The commit group after which the tree held this.
    seq: u64,
    holds: BTreeMap<Vec<u8>, Content>,
    /// The last commit group that was told.
    told: u64,
    /// Told already, and newer than the last comparison.
    ahead: Option<Event>,
}

impl Run {
    /// Begins to follow a tree, or compares what was told with what is there.
    pub(super) fn follow(&mut self, hands: &mut Hands) -> Result<(), String> {
        if hands.followers.is_empty() || (hands.followers.len() < FOLLOWERS_MAX && self.random.one_in(2)) {
            return self.begin_to_follow(hands);
        }
        let index = self.random.below(hands.followers.len() as u64) as usize;
        let mut follower = hands.followers.swap_remove(index);
        let snapshot = hands.client.snapshot();
        loop {
            let event = match follower.ahead.take() {
                Some(event) => Ok(Some(event)),
                None => follower.subscription.try_next(),
            };
            match event {
                Ok(None) => break,
                Ok(Some(Event::Changed { seq, key, value })) => {
                    if seq < follower.told {
                        return Err(format!("group {seq} is told after {}", follower.told));
                    }
                    follower.told = seq;
                    if seq > snapshot.seq() {
                        follower.ahead = Some(Event::Changed { seq, key, value });
                        break;
                    }
                    if seq <= follower.seq {
                        // Seen by the snapshot that was taken when this began, unless it comes too late.
                        if seq < follower.subscription.first_seq() {
                            return Err(format!("group {seq} is told, which came before"));
                        }
                        continue;
                    }
                    match value {
                        Some(value) => {
                            let content = Content::decode(&value)?;
                            follower.holds.insert(key.to_vec(), content);
                        }
                        None => drop(follower.holds.remove(&*key)),
                    }
                }
                // It was too slow; the next one begins anew.
                Ok(Some(Event::Missed { from, to })) => {
                    return if from <= to && from >= follower.subscription.first_seq() {
                        Ok(())
                    } else {
                        Err(format!("groups {from} to {to} are missed"))
                    };
                }
                Ok(Some(event)) => return Err(format!("{event:?} of a tree that is there")),
                Err(error) => return self.excuse(hands, &error, "a subscription"),
            }
        }
        let Some(picture) = self.picture(hands, Some(&snapshot))? else {
            return Ok(());
        };
        let there = of_tree(&picture, follower.tree);
        if there != follower.holds {
            return Err(format!(
                "tree {} holds {there:?}, a subscription tells {:?}",
                follower.tree, follower.holds
            ));
        }
        follower.seq = follower.seq.max(snapshot.seq());
        hands.followers.push(follower);
        Ok(())
    }

    fn begin_to_follow(&mut self, hands: &mut Hands) -> Result<(), String> {
        let tree = self.random.below(hands.trees.len() as u64) as usize;
        let bytes = self.random.pick(&[2_000, 1 << 20]);
        if let Some((snapshot, shows)) = hands.snapshots.first()
            && self.random.one_in(2)
        {
            // From a known past, as far as the log goes back.
            match hands.trees[tree].subscribe_from(b"", snapshot.seq(), bytes) {
                Ok(subscription) => {
                    hands.followers.push(Follower {
                        tree,
                        subscription,
                        seq: snapshot.seq(),
                        holds: of_tree(shows, tree),
                        told: 0,
                        ahead: None,
                    });
                    return Ok(());
                }
                Err(Error::VersionGone { .. }) => {}
                Err(error) => return self.excuse(hands, &error, "subscribing to the past"),
            }
        }
        let subscription = match hands.trees[tree].subscribe_buffered(b"", bytes) {
            Ok(subscription) => subscription,
            Err(error) => return self.excuse(hands, &error, "subscribing"),
        };
        let snapshot = hands.client.snapshot();
        if let Some(picture) = self.picture(hands, Some(&snapshot))? {
            hands.followers.push(Follower {
                tree,
                subscription,
                seq: snapshot.seq(),
                holds: of_tree(&picture, tree),
                told: 0,
                ahead: None,
            });
        }
        Ok(())
    }
}

fn of_tree(picture: &BTreeMap<crate::model::Place, Content>, tree: usize) -> BTreeMap<Vec<u8>, Content> {
    let places = picture.iter().filter(|((number, _), _)| *number == tree);
    places
        .map(|((_, key), content)| (key.clone(), *content))
        .collect()
}
