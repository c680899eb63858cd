//! The bench runs itself again for what needs a process of its own: a bounded page cache, a peak of
//! resident memory, a kill.
//!
//! A child is told its task by the environment (the settings are inherited) and answers on its
//! standard output, one line per figure: `figure <row key> <number>`, or `ready <bytes>`.
//! It dies with its parent.
//!
//! Its allocator, mimalloc, is told not to ask for huge pages. By default it does, for the heap of each thread, and the
//! first few bytes that a thread allocates make 2 MiB resident: 64 client threads take 150 MiB, whatever the engine
//! does. The row about resident memory would be about that.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::Result;
use crate::report::Contender;

/// What a child is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Measure the rows beyond the cache on a loaded directory.
    Beyond,
    /// Write a log, say how long it is, wait to be killed.
    Crash,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Self::Beyond => "beyond",
            Self::Crash => "crash",
        }
    }
}

/// A child's task, engine and directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// What to do.
    pub task: Task,
    /// With which engine.
    pub engine: Contender,
    /// Where the data is.
    pub directory: PathBuf,
    /// How many records the directory holds.
    pub records: u64,
    /// Which round this is: seeds the choices.
    pub round: u64,
}

const VARIABLE: &str = "PEERS_CHILD";
/// Read by mimalloc when a process starts.
const HUGE_PAGES_VARIABLE: &str = "MIMALLOC_ALLOW_THP";

/// One line of a child.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A row's figure.
    Figure {
        /// The row's key.
        row: String,
        /// In the row's unit.
        value: f64,
    },
    /// The child has written this many bytes of log and waits.
    Ready {
        /// Bytes that opening will have to replay.
        log_bytes: u64,
    },
}

impl Assignment {
    /// This process's task, if it is a child.
    ///
    /// # Errors
    /// When the variable is set but isn't understood.
    pub fn from_environment() -> Result<Option<Self>> {
        let Ok(text) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        Self::decode(&text)
            .map(Some)
            .ok_or_else(|| format!("{VARIABLE}={text} is not an assignment").into())
    }

    fn encode(&self) -> String {
        format!(
            "{},{},{},{},{}",
            self.task.name(),
            self.engine.name(),
            self.records,
            self.round,
            self.directory.display()
        )
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, ',');
        let task = match parts.next()? {
            "beyond" => Task::Beyond,
            "crash" => Task::Crash,
            _ => return None,
        };
        Some(Self {
            task,
            engine: Contender::engine_named(parts.next()?)?,
            records: parts.next()?.parse().ok()?,
            round: parts.next()?.parse().ok()?,
            directory: Path::new(parts.next()?).to_owned(),
        })
    }

    /// Starts the child.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn start(&self) -> Result<Running> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(VARIABLE, self.encode())
            .env(HUGE_PAGES_VARIABLE, "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("the child has no output")?;
        Ok(Running {
            process,
            output: BufReader::new(output),
        })
    }
}

/// A child process under way. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Running {
    /// The child's next line; `None` when it has ended well.
    ///
    /// # Errors
    /// When the child failed.
    pub fn next_answer(&mut self) -> Result<Option<Answer>> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                let status = self.process.wait()?;
                return if status.success() {
                    Ok(None)
                } else {
                    Err(format!("the child process ended with {status}").into())
                };
            }
            // Engines may print, too; what isn't ours is passed over.
            if let Some(answer) = parse(&line) {
                return Ok(Some(answer));
            }
        }
    }

    /// Kills the child as `kill -9` would and waits until it is gone.
    ///
    /// # Errors
    /// When the signal can't be sent.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is fine, and nobody is left to tell about anything else.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn parse(line: &str) -> Option<Answer> {
    let mut words = line.split_whitespace();
    match words.next()? {
        "figure" => Some(Answer::Figure {
            row: words.next()?.to_owned(),
            value: words.next()?.parse().ok()?,
        }),
        "ready" => Some(Answer::Ready {
            log_bytes: words.next()?.parse().ok()?,
        }),
        _ => None,
    }
}

/// Tells the parent a figure.
pub fn answer_figure(row: &str, value: f64) {
    println!("figure {row} {value}");
}

/// Tells the parent that the log is written.
pub fn answer_ready(log_bytes: u64) {
    println!("ready {log_bytes}");
}

/// Makes the kernel end this process when its parent ends.
///
/// # Errors
/// When the kernel refuses.
pub fn die_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_survive_the_environment() {
        let assignment = Assignment {
            task: Task::Crash,
            engine: Contender::Lmdb,
            directory: PathBuf::from("/a/path, with a comma"),
            records: 12,
            round: 3,
        };
        assert_eq!(Assignment::decode(&assignment.encode()), Some(assignment.clone()));
        assert_eq!(Assignment::decode("crash,device,1,1,/x"), None);
    }

    #[test]
    fn foreign_lines_are_passed_over() {
        assert_eq!(parse("warning: something\n"), None);
        assert_eq!(parse("\n"), None);
        assert_eq!(
            parse("figure beyond-get-64 90000.5\n"),
            Some(Answer::Figure {
                row: "beyond-get-64".to_owned(),
                value: 90_000.5
            })
        );
        assert_eq!(parse("ready 17\n"), Some(Answer::Ready { log_bytes: 17 }));
    }
}
