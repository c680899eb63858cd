//! One life of a database: opening, comparing, working, and the end.

use std::collections::BTreeMap;

use treering::sim::{self, SimOptions};
use treering::{Client, Db, Error, Snapshot, Tree};

use super::Run;
use super::answers::Outstanding;
use super::follow::Follower;
use crate::model::{Content, Need, Place};
use crate::seeds::replayed_bytes;

/// Name of a tree of the workload.
pub(super) fn tree_name(tree: usize) -> String {
    format!("tree {tree}")
}

/// The tree that comes and goes.
pub(super) const PASSING: &str = "passing";

/// About how many actions of the disk opening takes.
const OPENING_ACTIONS: u64 = 60;

/// What is known of the tree that comes and goes. Its operations are Sync and waited for, so at most the last one is
/// in doubt.
#[derive(Clone, Debug, Default)]
pub(super) struct Passing {
    /// Its content, if it is there.
    pub now: Option<BTreeMap<Vec<u8>, Content>>,
    /// What it may be instead, once an answer stayed out.
    pub perhaps: Option<Option<BTreeMap<Vec<u8>, Content>>>,
}

/// What is known of a named snapshot.
#[derive(Clone, Debug)]
pub(super) struct Named {
    /// What it shows; `None`: its creation wasn't answered, so nobody has seen it.
    pub shows: Option<BTreeMap<Place, Content>>,
    /// Whether it must be there: its creation was acknowledged, and no attempt was made to drop it.
    pub certain: bool,
}

/// What a life has at hand.
pub(super) struct Hands {
    pub db: Db,
    pub client: Client,
    pub trees: Vec<Tree>,
    pub outstanding: Vec<Outstanding>,
    /// Snapshots with what they showed first.
    pub snapshots: Vec<(Snapshot, BTreeMap<Place, Content>)>,
    /// One that is held from the beginning to the end, over every checkpoint, move and compaction.
    pub throughout: Option<(Snapshot, BTreeMap<Place, Content>)>,
    /// Subscriptions.
    pub followers: Vec<Follower>,
}

impl Run {
    /// One life: open, compare, work, end.
    pub(super) fn live(&mut self, life: u32) -> Result<(), String> {
        let cut_after = (!self.random.one_in(3)).then(|| self.random.below(self.profile.steps));
        for (prefix, rates) in self.setting.faults.iter().chain(&self.setting.lies) {
            self.disk.set_faults(prefix, *rates);
        }
        self.disk.set_capacity(self.setting.capacity_bytes);
        let Some(mut hands) = self.open(cut_after)? else {
            return Ok(());
        };
        let mut result = match self.compare(&mut hands) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.leave(hands);
                return Ok(());
            }
            Err(error) => Err(error),
        };
        if life == 0 && result.is_ok() && !sim::is_cut(&hands.db) {
            result = self.load(&mut hands);
        }
        if result.is_ok() && self.random.one_in(2) {
            result = self.hold_throughout(&mut hands);
        }
        let mut operations = self.profile.operations;
        while operations > 0 && result.is_ok() && !sim::is_cut(&hands.db) {
            operations -= 1;
            result = self.operate(&mut hands);
        }
        if result.is_ok() {
            result = self.look_at_held(&hands);
        }
        if result.is_err() {
            // Nothing is written behind a failure, so that the disk can be looked at.
            self.leave(hands);
            return result;
        }
        self.end(hands)
    }

    /// After the last life: everything is read once more, and closed.
    pub(super) fn last_look(&mut self) -> Result<(), String> {
        let Some(mut hands) = self.open(None)? else {
            return Ok(());
        };
        if !self.compare(&mut hands)? || self.setting.silent {
            sim::crash(hands.db);
            return Ok(());
        }
        // Whatever happened before: it takes requests again.
        for _ in 0..3 {
            self.operate(&mut hands)?;
        }
        self.settle_tickets(&mut hands)?;
        hands.snapshots.clear();
        hands.throughout = None;
        hands.followers.clear();
        sim::check(&hands.db)?;
        let Hands { db, .. } = hands;
        db.close().map_err(|error| format!("closing at the end: {error}"))
    }

    /// Opens the database. `None`: the power was cut meanwhile, or the disk's faults are the reason.
    fn open(&mut self, cut_after: Option<u64>) -> Result<Option<Hands>, String> {
        let mut options = self.profile.options();
        if self.random.one_in(4) {
            // Whose ranges are those of shards that are gone?
            options = options.shards(1 + self.random.below(self.profile.shards as u64) as usize);
        }
        let seed = self.random.word();
        let simulation = SimOptions {
            seed,
            power_cut_after_steps: cut_after,
            planted: self.setting.planted,
            mailbox_requests: self.profile.mailbox_requests,
            replayed_bytes: replayed_bytes(seed),
        };
        let cuts = self.disk.counters().power_cuts;
        let faults = self.disk.counters().faults;
        // Creation, and recovery until its actors run, are no steps of the simulation: the disk ends them.
        if cut_after.is_some() && self.random.one_in(4) {
            self.disk.cut_power_after(self.random.below(OPENING_ACTIONS));
        }
        let opened = sim::open(&self.disk, &options, simulation);
        let was_cut = self.disk.restore_power();
        let db = match opened {
            Ok(db) if was_cut => {
                sim::crash(db);
                return Ok(None);
            }
            Ok(db) => db,
            Err(_) if self.disk.counters().power_cuts > cuts => return Ok(None),
            Err(error) => {
                // What has failed stays as it is until the power returns.
                self.disk.power_cut();
                self.outcome.refused += 1;
                let excused = self.disk.counters().faults > faults
                    || self.setting.silent
                    || matches!(error, Error::OutOfSpace { .. }) && self.setting.capacity_bytes.is_some();
                return if excused {
                    Ok(None)
                } else {
                    Err(format!("opening: {error}"))
                };
            }
        };
        self.outcome.replayed += db.stats().records_replayed;
        let client = db.client();
        let mut hands = Hands {
            client,
            trees: Vec::new(),
            outstanding: Vec::new(),
            snapshots: Vec::new(),
            throughout: None,
            followers: Vec::new(),
            db,
        };
        self.created.resize(self.profile.trees, false);
        for tree in 0..self.profile.trees {
            let opened = if self.created[tree] {
                hands.client.open_tree(&tree_name(tree))
            } else {
                hands.client.tree(&tree_name(tree))
            };
            match opened {
                Ok(opened) => {
                    self.created[tree] = true;
                    hands.trees.push(opened);
                }
                Err(error) => {
                    self.excuse(&hands, &error, "opening a tree")?;
                    self.leave(hands);
                    return Ok(None);
                }
            }
        }
        Ok(Some(hands))
    }

    /// Compares what was recovered with the model, and checks trees and space. False: something hindered it.
    fn compare(&mut self, hands: &mut Hands) -> Result<bool, String> {
        if !self.has_faults()
            && let Err(error) = sim::check(&hands.db)
            && !sim::is_cut(&hands.db)
        {
            return Err(format!("after recovery: {error}"));
        }
        if !self.compare_named(hands)? {
            return Ok(false);
        }
        let Some(found) = self.picture(hands, None)? else {
            return Ok(false);
        };
        let need = self.need();
        self.model
            .recover(&found, need)
            .map_err(|error| format!("recovered: {error}"))?;
        self.compare_passing(hands)
    }

    fn compare_passing(&mut self, hands: &Hands) -> Result<bool, String> {
        let found = match hands.client.open_tree(PASSING) {
            Ok(tree) => match read_tree(&tree) {
                Ok(found) => Some(found?),
                Err(error) => {
                    return self
                        .excuse(hands, &error, "reading the passing tree")
                        .map(|()| false);
                }
            },
            Err(Error::TreeNotFound { .. }) => None,
            Err(error) => {
                return self
                    .excuse(hands, &error, "opening the passing tree")
                    .map(|()| false);
            }
        };
        let possible = found == self.passing.now || self.passing.perhaps.as_ref() == Some(&found);
        if !possible && !self.setting.silent {
            return Err(format!("the passing tree is {found:?}, not {:?}", self.passing));
        }
        self.passing = Passing {
            now: found,
            perhaps: None,
        };
        Ok(true)
    }

    /// Writes many keys in batches, so that the cache is too small from the beginning.
    fn load(&mut self, hands: &mut Hands) -> Result<(), String> {
        let mut loaded = 0;
        while loaded < self.profile.loaded && !sim::is_cut(&hands.db) {
            let pairs = 8.min(self.profile.loaded - loaded);
            loaded += pairs;
            self.send_batch(hands, pairs)?;
            self.settle_tickets(hands)?;
        }
        Ok(())
    }

    /// The end of a life: cleanly or not.
    fn end(&mut self, mut hands: Hands) -> Result<(), String> {
        if sim::is_cut(&hands.db) || !self.random.one_in(4) {
            self.leave(hands);
            return Ok(());
        }
        if !self.random.one_in(3) {
            self.settle_tickets(&mut hands)?;
        }
        self.note_stats(&hands);
        let Hands {
            db,
            client,
            trees,
            outstanding,
            snapshots,
            throughout,
            followers,
        } = hands;
        drop((client, trees, snapshots, throughout, followers));
        let other = db.clone();
        match db.close() {
            // Closing carries everything out, tickets that nobody has waited for included.
            Ok(()) => {
                outstanding
                    .into_iter()
                    .try_for_each(|ticket| self.take_answer(ticket, &other))?;
                let now = self.model.tick();
                self.model.flushed(now);
                self.disk.kill_process();
            }
            Err(error) => {
                let cut = sim::is_cut(&other);
                sim::crash(other);
                if !cut && !self.has_faults() {
                    return Err(format!("closing: {error}"));
                }
            }
        }
        Ok(())
    }

    /// Ends a life by a power cut, at the latest now.
    fn leave(&mut self, hands: Hands) {
        self.note_stats(&hands);
        let Hands {
            db,
            client,
            trees,
            outstanding,
            snapshots,
            throughout,
            followers,
        } = hands;
        sim::crash(db);
        drop((client, trees, outstanding, snapshots, throughout, followers));
    }

    fn note_stats(&mut self, hands: &Hands) {
        let stats = hands.db.stats();
        self.outcome.steps += sim::steps(&hands.db);
        self.outcome.evictions += stats.evictions;
        self.outcome.checkpoints += stats.checkpoints;
        self.outcome.moves += stats.partition_moves;
        self.outcome.joins += stats.partition_joins;
    }

    /// Everything that the workload's trees hold, now or in a snapshot. `None`: the power was cut meanwhile, or a fault
    /// hindered it.
    pub(super) fn picture(
        &mut self,
        hands: &Hands,
        snapshot: Option<&Snapshot>,
    ) -> Result<Option<BTreeMap<Place, Content>>, String> {
        let own;
        let snapshot = match snapshot {
            Some(snapshot) => snapshot,
            None => {
                own = hands.client.snapshot();
                &own
            }
        };
        let mut found = BTreeMap::new();
        for (number, tree) in hands.trees.iter().enumerate() {
            let range = match snapshot.range::<&[u8]>(tree, ..) {
                Ok(range) => range,
                Err(error) => return self.excuse(hands, &error, "a scan").map(|()| None),
            };
            let mut counted = 0;
            let mut last: Option<Vec<u8>> = None;
            for item in range {
                let (key, value) = match item {
                    Ok(item) => item,
                    Err(error) => return self.excuse(hands, &error, "a scan").map(|()| None),
                };
                counted += 1;
                if last.as_ref().is_some_and(|last| **last >= *key) {
                    return Err(format!("a scan gives {key:?} after {last:?}"));
                }
                last = Some(key.to_vec());
                found.insert((number, key.to_vec()), Content::decode(&value)?);
            }
            let length = snapshot.len(tree).map_err(|error| error.to_string())?;
            if length != counted {
                return Err(format!("tree {number} has {length} keys, a scan finds {counted}"));
            }
        }
        Ok(Some(found))
    }

    /// Takes the snapshot that is held to the end.
    fn hold_throughout(&mut self, hands: &mut Hands) -> Result<(), String> {
        let snapshot = hands.client.snapshot();
        if let Some(found) = self.picture(hands, Some(&snapshot))? {
            self.check_picture(&found)?;
            hands.throughout = Some((snapshot, found));
        }
        Ok(())
    }

    /// What is held shows what it has always shown.
    pub(super) fn look_at_held(&mut self, hands: &Hands) -> Result<(), String> {
        let Some((snapshot, first)) = &hands.throughout else {
            return Ok(());
        };
        match self.picture(hands, Some(snapshot))? {
            Some(found) if found != *first => Err("the snapshot that is held throughout has changed".into()),
            _ => Ok(()),
        }
    }

    /// Checks a picture of now.
    pub(super) fn check_picture(&mut self, found: &BTreeMap<Place, Content>) -> Result<(), String> {
        self.model
            .check_cut(found, Need::Published)
            .map_err(|error| format!("a snapshot: {error}"))
    }

    /// An error is right only after a power cut, or because of faults.
    pub(super) fn excuse(&mut self, hands: &Hands, error: &Error, what: &str) -> Result<(), String> {
        if sim::is_cut(&hands.db) {
            return Ok(());
        }
        if self.has_faults() {
            self.outcome.refused += 1;
            return Ok(());
        }
        Err(format!("{what}: {error}"))
    }
}

/// All entries of a small tree.
pub(super) fn read_tree(tree: &Tree) -> Result<Result<BTreeMap<Vec<u8>, Content>, String>, Error> {
    let mut found = BTreeMap::new();
    for item in tree.range::<&[u8]>(..)? {
        let (key, value) = item?;
        match Content::decode(&value) {
            Ok(content) => found.insert(key.to_vec(), content),
            Err(error) => return Ok(Err(error)),
        };
    }
    Ok(Ok(found))
}
