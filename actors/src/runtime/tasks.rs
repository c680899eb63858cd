//! Carrying out what actors leave to others: writing the log, and slow work on files.

use std::sync::PoisonError;

use super::kicks::Kicks;
use super::state::Runtime;
use crate::commit::CommitMessage;
use crate::flusher::{FileTask, FlusherMessage};

impl Runtime {
    /// Runs the commit actor, if it is idle, and whoever gets messages from it.
    pub(super) fn run_commit(&self) {
        self.see_to_alone(Kicks::commit());
    }

    /// Takes up the log task that is out, if there is one, and carries it out in this thread. A thread that isn't
    /// the commit actor's own (`inline`) only does so while that one sleeps, or nobody else waits: a single writer would
    /// find that thread awake after each task of its own, leave it the next one, and pay for two hand-overs. (Synced puts
    /// of one thread: 9,200 a second so, 10,500 without.)
    pub(super) fn run_log_task(&self, inline: bool) -> bool {
        if inline && self.others_wait() && !self.commit.sleeper.is_asleep() {
            return false;
        }
        // Before the task is taken: closing takes away what nobody has taken up.
        let in_use = self.files_in_use.read().unwrap_or_else(PoisonError::into_inner);
        let Some(task) = self.log_task().take() else {
            return false;
        };
        let result = match &self.log_files {
            Some(files) => files.execute(&task),
            None => Ok(()),
        };
        drop(in_use);
        let buffer = task.write.map(|write| write.buffer);
        self.commit.tell(CommitMessage::LogDone { result, buffer });
        self.run_commit();
        true
    }

    /// Carries out slow work on files, in the flusher's thread.
    pub(super) fn run_file_task(&self, task: FileTask) {
        let page_bytes = self.shared.settings.page_bytes as u64;
        match task {
            FileTask::Segment(job) => {
                let result = self.log_files.as_ref().map_or(Ok(()), |files| files.prepare(job));
                self.commit.tell(CommitMessage::SegmentDone { result });
                if self.sim.is_some() {
                    return;
                }
                self.run_commit();
                self.leave_log_task();
            }
            FileTask::Grow { pages } => {
                let result = self.data.grow(u64::from(pages) * page_bytes).map(|()| pages);
                self.flusher.tell(FlusherMessage::Grown { result });
            }
            FileTask::Truncate { pages } => {
                let result = self.data.truncate(u64::from(pages) * page_bytes);
                self.flusher.tell(FlusherMessage::Truncated { result });
            }
        }
    }
}
