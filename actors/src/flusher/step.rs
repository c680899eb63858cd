//! One step of the flusher.

use std::sync::Arc;

use super::messages::{FlusherMessage, PublishedPages};
use super::named::NamedChange;
use super::state::{Flusher, WantsIds};
use crate::actor::{Actor, Nanos, Outbox};
use crate::commit::{CommitMessage, DELTA_PAGES_MAX};
use crate::shared::Counter;

/// Pages of publications taken note of before the commit actor is told: it counts them only to stop when there are many
/// more, and being told runs it.
const DELTAS_TOLD: usize = DELTA_PAGES_MAX / 32;
/// How soon the flusher looks again, unless writes fail, when somebody waits for frames that pinned readers or pending writes hold.
pub(super) const RETRY_NANOS: Nanos = 50_000;

impl Actor for Flusher {
    type Message = FlusherMessage;

    fn handle(&mut self, message: FlusherMessage, now: Nanos, outbox: &mut Outbox) {
        match message {
            FlusherMessage::Published { version, pages } => {
                self.deltas_done += PublishedPages::count(&pages);
                self.note_loads(&version, &pages);
                self.note_published(version.seq, pages);
                self.newest = Arc::clone(&version);
                // Those that recovery makes were nobody's versions.
                if self.live {
                    self.retained.note(&version, now);
                }
            }
            // If it was the last count, this reports the death, and the end of the batch takes note of it.
            FlusherMessage::Released { kept } => drop(kept),
            FlusherMessage::Release { extents } => self.free(extents),
            FlusherMessage::ChunkRequest { shard, pages } => {
                self.wants_ids.push_back(WantsIds::Shard { shard, pages });
            }
            FlusherMessage::ExtentRequest { pages, waiter } => {
                self.wants_ids.push_back(WantsIds::Blob { pages, waiter });
            }
            FlusherMessage::HolesRequest {
                pages,
                extents_max,
                below,
                reply,
            } => {
                let holes = self.space.allocate_runs_below(pages, extents_max, below);
                if let Err(returned) = reply.send(holes) {
                    // The client went away: nobody else will ever free them.
                    self.free(returned.into_inner());
                }
            }
            FlusherMessage::Pressure { shard: Some(shard) } => {
                self.write_pause.asked();
                self.starving_shards.insert(shard);
            }
            FlusherMessage::Pressure { shard: None } => {
                self.write_pause.asked();
                self.pager_waits = true;
            }
            FlusherMessage::PageWritten { id, frame, result } => {
                self.page_written(id, frame, result, now, outbox);
            }
            FlusherMessage::Transferred { token, result } => {
                if token == self.checkpoint.token {
                    self.transferred(result, now, outbox);
                }
            }
            FlusherMessage::LogSynced { token, result } => {
                if token == self.checkpoint.token {
                    self.log_synced(result, outbox);
                }
            }
            FlusherMessage::Checkpoint { reply } => {
                self.checkpoint_wanted = true;
                self.checkpoint_replies.push(reply);
            }
            FlusherMessage::CreateNamed { name, reply } => {
                self.named_wanted.push(NamedChange::Create { name, reply });
            }
            FlusherMessage::DropNamed { name, reply } => {
                self.named_wanted.push(NamedChange::Drop { name, reply });
            }
            FlusherMessage::ListNamed { reply } => {
                // Whoever went away needs no answer.
                let _ = reply.send(self.named.clone());
            }
            FlusherMessage::VersionAt { seq, reply } => {
                // Whoever went away needs no answer.
                self.retained.expire(now);
                let _ = reply.send(self.version_at(seq));
            }
            FlusherMessage::Close { reply } => {
                self.close_wanted = true;
                self.checkpoint_replies.push(reply);
            }
            FlusherMessage::BeginCompaction { reply } => self.begin_compaction(reply, outbox),
            FlusherMessage::EndCompaction { reply } => self.end_compaction(reply, outbox),
            FlusherMessage::Grown { result } => self.grown(result),
            FlusherMessage::Truncated { result } => self.cut(result),
            FlusherMessage::GoLive => {
                self.live = true;
                self.retained.note(&self.newest, now);
                self.may_allocate = true;
                self.free_reserved(outbox);
            }
            FlusherMessage::Reserve { extents, reply } => {
                let _ = reply.send(self.reserve(&extents));
                self.may_allocate = true;
            }
        }
    }

    fn end_batch(&mut self, now: Nanos, outbox: &mut Outbox) {
        self.free_dying();
        self.retained.expire(now);
        self.note_deaths();
        self.run_checkpoint(now, outbox);
        self.evict(now, outbox);
        self.serve_ids(outbox);
        if self.deltas_done >= DELTAS_TOLD {
            outbox.commit.push(CommitMessage::DeltasDone {
                pages: std::mem::take(&mut self.deltas_done),
            });
        }
        let counters = &self.shared.counters;
        counters.set(Counter::FreePages, self.space.available_pages());
        counters.set(Counter::WaitingPages, self.waiting.pages_waiting());
        counters.set(Counter::FilePages, u64::from(self.space.file_pages()));
        counters.set(Counter::LiveVersions, self.waiting.live_versions() as u64);
        counters.set(Counter::OldestLiveSeq, self.oldest_live().map_or(0, |seq| seq.0));
        counters.set(
            Counter::OldestRetainedPages,
            self.waiting.versions().next().map_or(0, |oldest| oldest.1),
        );
        counters.set(Counter::DirtyPages, self.dirty_pages);
        counters.set(Counter::FramesEvicting, self.evicting.len() as u64);
    }

    fn deadline(&self, now: Nanos) -> Option<Nanos> {
        if self.checkpoint_is_walking() {
            return Some(0);
        }
        let dying = (!self.dying.is_empty()).then_some(RETRY_NANOS);
        let starving = self.somebody_starves().then(|| self.retry_nanos(now));
        dying
            .into_iter()
            .chain(starving)
            .chain(self.retained.deadline(now))
            .min()
    }
}
