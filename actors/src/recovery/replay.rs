//! Applying the log after the checkpoint, through the shards that own its keys.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use treering_engine::log::{Group, LogDefect};
use treering_engine::memory::{Class, FrameId};
use treering_engine::{ShardId, TreeId};

use super::gather::{Gatherer, TreeLoad};
use super::log::{Log, Scanned};
use super::open::SLICE_BYTES_MIN;
use crate::commit::{CommitMessage, DROPPED_PREFIX};
use crate::error::{Error, Result};
use crate::flusher::FlusherMessage;
use crate::options::Durability;
use crate::runtime::Runtime;
use crate::shard::{Action, LoadedTree, ReplayPart, Request};
use crate::shared::{Counter, with_guard};
use crate::ticket::{Reply, ticket};

/// Applies everything after the checkpoint.
pub(super) fn replay(runtime: &Arc<Runtime>, log: &Log, scanned: Scanned) -> Result<()> {
    let Scanned {
        end,
        blobs,
        superseded,
        mut gatherer,
        ..
    } = scanned;
    let (sender, receiver) = oneshot::channel();
    runtime.send_flusher(FlusherMessage::Reserve {
        extents: blobs,
        reply: sender,
    });
    runtime.wait(receiver, None).unwrap_or(Err(Error::Closed))?;
    let rest = gatherer.rest.take();
    let replayer = RefCell::new(Replayer {
        runtime,
        gatherer,
        superseded,
        reserved: Vec::new(),
        failure: None,
    });
    if let Some(rest) = rest {
        log.visit(rest, end.position, |group| {
            let mut replayer = replayer.borrow_mut();
            if !replayer.gatherer.has_room(&group) {
                replayer.apply();
            }
            replayer.take(&group)
        })?;
    }
    let mut replayer = replayer.into_inner();
    replayer.apply();
    runtime
        .shared
        .counters
        .set(Counter::RecordsReplayed, replayer.gatherer.taken);
    replayer.failure.take().map_or(Ok(()), Err)
}

struct Replayer<'r> {
    runtime: &'r Arc<Runtime>,
    gatherer: Gatherer,
    /// See [`Scanned::superseded`].
    superseded: BTreeSet<usize>,
    /// Frames that are left unused so that the records have their memory (rule R9).
    reserved: Vec<FrameId>,
    failure: Option<Error>,
}

impl Replayer<'_> {
    /// Takes the group's records. What comes before the load of a tree is applied before it.
    fn take(&mut self, group: &Group<'_>) -> std::result::Result<(), LogDefect> {
        let mut records = group.records();
        let mut skip = true;
        while let Some(load) = self.gatherer.take_until_load(&mut records, &mut skip)? {
            self.apply();
            self.load(load);
        }
        Ok(())
    }

    /// Gives an empty tree the content that a bulk load had written.
    fn load(&mut self, load: TreeLoad) {
        let TreeLoad {
            tree,
            root,
            extents,
            blob,
        } = load;
        if self.superseded.contains(&blob) {
            // Its pages are kept until a checkpoint has the load, and then the log before it isn't read any more.
            self.failure.get_or_insert(Error::Corrupt {
                file: "log".into(),
                offset: 0,
                page: Some(root.reference.id.0),
                reason: "pages of a loaded tree are named again".into(),
            });
        }
        let shared = &self.runtime.shared;
        let state = with_guard(&shared.memory, |guard| {
            shared.current.load(guard).directory.get(tree).cloned()
        });
        // No tree is left only if its drop came first.
        let Some(state) = state.filter(|_| self.failure.is_none()) else {
            return;
        };
        let Some(owner) = state.partitions.first().map(|first| first.owner) else {
            return;
        };
        // It was in one piece when it was loaded. What it was joined from since the checkpoint is in no record.
        let mut joined = Vec::new();
        if state.partitions.len() > 1 {
            if state.partitions.iter().any(|part| !part.root.reference.is_none()) {
                let entries = state.entries();
                self.failure.get_or_insert(Error::TreeNotEmpty { entries });
            }
            let owners: BTreeSet<_> = state.partitions.iter().map(|part| part.owner).collect();
            for other in owners.into_iter().filter(|other| *other != owner) {
                self.ask(other, tree, Action::ForgetEmpty);
            }
            joined.extend(state.partitions.iter().map(|part| Arc::clone(&part.lower)));
        }
        let loaded = LoadedTree {
            root,
            record: Vec::new(),
            extents,
            joined,
        };
        self.ask(owner, tree, Action::Load(Box::new(loaded)));
    }

    /// Has a shard do something for a tree, and waits for it. Nothing, if anything has failed.
    fn ask(&mut self, shard: ShardId, tree: TreeId, action: Action) {
        if self.failure.is_some() {
            return;
        }
        let (reply, ticket) = ticket(self.runtime, Some(shard), |_| ());
        let request = Request {
            tree,
            action,
            durability: Durability::Buffered,
            reply,
            credit: None,
        };
        let sent = self.runtime.send(shard, request, false);
        let answer = sent.map_or(Err(Error::WouldDeadlock), |()| ticket.wait());
        if let Err(error) = answer {
            self.failure.get_or_insert(error);
        }
    }

    /// Has what was gathered applied by the shards, and waits for it.
    fn apply(&mut self) {
        self.reserve_memory();
        // Before the records, all of them: ids aren't used again, so nothing of a tree comes before its creation, and
        // what came before its drop doesn't matter.
        for change in self.gatherer.events() {
            self.restore(|reply| CommitMessage::ChangeTrees { change, reply });
        }
        if self.failure.is_some() {
            return;
        }
        let shared = &self.runtime.shared;
        let version = with_guard(&shared.memory, |guard| shared.current.hold(guard));
        let sorted = self
            .gatherer
            .sorted(&self.superseded, |tree| version.directory.get(tree).is_some());
        let Some(records) = sorted.map(Arc::new) else {
            return;
        };
        let mut parts: Vec<ReplayPart> = (0..shared.settings.shards)
            .map(|_| ReplayPart {
                records: Arc::clone(&records),
                ranges: Vec::new(),
            })
            .collect();
        for (tree, mut range) in records.trees() {
            let Some(state) = version.directory.get(tree) else {
                continue;
            };
            let uppers = state.partitions.iter().skip(1).map(|next| Some(&*next.lower));
            for (partition, upper) in state.partitions.iter().zip(uppers.chain([None])) {
                let end = upper.map_or(range.end, |upper| records.first_from(upper, range.clone()));
                if let Some(part) = parts.get_mut(usize::from(partition.owner.0))
                    && range.start < end
                {
                    part.ranges.push((tree, range.start..end));
                }
                range.start = end;
            }
        }
        drop(version);
        drop(records);
        let mut tickets = Vec::new();
        for (shard, part) in parts
            .into_iter()
            .enumerate()
            .filter(|(_, part)| !part.ranges.is_empty())
        {
            let shard = ShardId(shard as u16);
            let (reply, ticket) = ticket(self.runtime, Some(shard), |_| ());
            let request = Request {
                tree: TreeId(0),
                action: Action::Replay(part),
                durability: Durability::Buffered,
                reply,
                credit: None,
            };
            match self.runtime.send(shard, request, false) {
                Ok(()) => tickets.push(ticket),
                Err(_) => drop(self.failure.get_or_insert(Error::WouldDeadlock)),
            }
        }
        for ticket in tickets {
            if let Err(error) = ticket.wait() {
                self.failure.get_or_insert(error);
            }
        }
    }

    fn restore(&mut self, message: impl FnOnce(Reply) -> CommitMessage) {
        let (reply, ticket) = ticket(self.runtime, None, |_| ());
        self.runtime.send_commit(message(reply));
        if let Err(error) = ticket.wait() {
            self.failure.get_or_insert(error);
        }
    }

    /// Takes as many frames out of use as the records need memory beyond what is allowed besides the cache.
    fn reserve_memory(&mut self) {
        let memory = &self.runtime.shared.memory;
        let bytes = self.gatherer.bytes().saturating_sub(SLICE_BYTES_MIN);
        let wanted = bytes.div_ceil(memory.page_bytes());
        let missing = wanted.saturating_sub(self.reserved.len());
        memory.allocate_many(Class::Worker, missing, &mut self.reserved);
    }
}

impl Drop for Replayer<'_> {
    fn drop(&mut self) {
        let memory = &self.runtime.shared.memory;
        self.reserved
            .drain(..)
            .for_each(|frame| memory.release_now(frame));
    }
}

/// Goes on retiring the pages of trees that were dropped before.
pub(super) fn resume_drops(runtime: &Arc<Runtime>) -> Result<()> {
    let shared = &runtime.shared;
    let dropped: Vec<_> = with_guard(&shared.memory, |guard| {
        let directory = &shared.current.load(guard).directory;
        directory
            .iter()
            .filter(|tree| tree.name.starts_with(DROPPED_PREFIX))
            .flat_map(|tree| {
                let owners: BTreeSet<_> = tree.partitions.iter().map(|partition| partition.owner).collect();
                owners.into_iter().map(|owner| (tree.id, owner))
            })
            .collect()
    });
    for (tree, owner) in dropped {
        let (reply, ticket) = ticket(runtime, Some(owner), |_| ());
        let request = Request {
            tree,
            action: Action::DropTree,
            durability: Durability::Buffered,
            reply,
            credit: None,
        };
        runtime
            .send(owner, request, false)
            .map_err(|_| Error::WouldDeadlock)?;
        ticket.wait()?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
