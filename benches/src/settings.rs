//! What the `peers` bench is told through its environment.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `PEERS_RECORDS` | records of the rows that fit in memory | 1,000,000 |
//! | `PEERS_BEYOND_RECORDS` | records of the rows beyond the cache | 4 times `PEERS_RECORDS` |
//! | `PEERS_ROUNDS` | rounds; the median counts | 3 |
//! | `PEERS_SECONDS` | length of every timed row | 3 |
//! | `PEERS_ROWS` | only rows whose key contains one of these, separated by commas | all |
//! | `PEERS_ENGINES` | only these of `treering,lmdb,redb,fjall,rocksdb` | all that are built |
//! | `PEERS_MARKDOWN` | file that receives the tables as well | none |
//! | `PEERS_DIR` | directory for the databases; must be on the device to be measured | the build's |
//! | `PEERS_CGROUP` | an existing, empty memory cgroup for the child processes that need one | none |
//! | `PEERS_QUICK` | `1`: 100,000 records, one round, a quarter of a second a row | off |
//!
//! A variable that is set wins over what `PEERS_QUICK` implies.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::report::Contender;

/// The bench's options, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Records of the rows that fit in memory.
    pub records: u64,
    /// Records of the rows beyond the cache.
    pub records_beyond: u64,
    /// Rounds of every row.
    pub rounds: u32,
    /// Length of a timed row, warm-up not included.
    pub row_time: Duration,
    /// Substrings of row keys; empty means all rows.
    pub rows: Vec<String>,
    /// Engines to run; empty means all that are built.
    pub engines: Vec<Contender>,
    /// Where to write the tables, besides the standard output.
    pub markdown: Option<PathBuf>,
    /// Where the databases go.
    pub directory: PathBuf,
    /// A cgroup directory that the operator prepared.
    pub cgroup: Option<PathBuf>,
}

/// A variable that can't be understood.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {reason} (found {found:?})")]
pub struct SettingsError {
    variable: &'static str,
    found: String,
    reason: String,
}

impl Settings {
    /// Reads the process's environment; databases go below `default_directory`.
    ///
    /// # Errors
    /// The first variable that doesn't parse or is out of range.
    pub fn from_environment(default_directory: PathBuf) -> Result<Self, SettingsError> {
        Self::from_lookup(default_directory, |name| std::env::var(name).ok())
    }

    /// Prints a table, and writes it where [`markdown`](Self::markdown) says.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn publish(&self, text: &str) -> crate::Result<()> {
        println!("{text}");
        if let Some(path) = &self.markdown {
            std::fs::write(path, text)?;
        }
        Ok(())
    }

    fn from_lookup(
        default_directory: PathBuf,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let quick = lookup("PEERS_QUICK").is_some_and(|value| value != "0");
        let (records, rounds, seconds) = if quick {
            (100_000, 1, 0.25)
        } else {
            (1_000_000, 3, 3.0)
        };
        let records = number(&lookup, "PEERS_RECORDS", records)?;
        if records < 1_000 {
            return Err(SettingsError {
                variable: "PEERS_RECORDS",
                found: records.to_string(),
                reason: "at least 1000 records".to_owned(),
            });
        }
        let seconds: f64 = number(&lookup, "PEERS_SECONDS", seconds)?;
        let row_time = Duration::try_from_secs_f64(seconds).map_err(|error| SettingsError {
            variable: "PEERS_SECONDS",
            found: seconds.to_string(),
            reason: error.to_string(),
        })?;
        let engines = list(&lookup, "PEERS_ENGINES")
            .into_iter()
            .map(|name| {
                Contender::engine_named(&name).ok_or(SettingsError {
                    variable: "PEERS_ENGINES",
                    found: name,
                    reason: "none of treering, lmdb, redb, fjall, rocksdb".to_owned(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            records,
            records_beyond: number(&lookup, "PEERS_BEYOND_RECORDS", records.saturating_mul(4))?,
            rounds: number(&lookup, "PEERS_ROUNDS", rounds)?.max(1),
            row_time,
            rows: list(&lookup, "PEERS_ROWS"),
            engines,
            markdown: lookup("PEERS_MARKDOWN").map(PathBuf::from),
            directory: lookup("PEERS_DIR").map_or(default_directory, PathBuf::from),
            cgroup: lookup("PEERS_CGROUP").map(PathBuf::from),
        })
    }

    /// Whether a row is asked for.
    #[must_use]
    pub fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|part| row.contains(part.as_str()))
    }

    /// Whether any of these rows is asked for.
    #[must_use]
    pub fn wants_any(&self, rows: &[&str]) -> bool {
        rows.iter().any(|row| self.wants(row))
    }

    /// Untimed time before each timed row: caches fill, threads wake, the log finds its pace.
    #[must_use]
    pub fn warm_up(&self) -> Duration {
        (self.row_time / 5).min(Duration::from_millis(500))
    }
}

fn number<T: FromStr>(
    lookup: &impl Fn(&str) -> Option<String>,
    variable: &'static str,
    default: T,
) -> Result<T, SettingsError>
where
    T::Err: std::fmt::Display,
{
    let Some(found) = lookup(variable) else {
        return Ok(default);
    };
    found
        .trim()
        .replace('_', "")
        .parse()
        .map_err(|error: T::Err| SettingsError {
            variable,
            reason: error.to_string(),
            found,
        })
}

fn list(lookup: &impl Fn(&str) -> Option<String>, variable: &str) -> Vec<String> {
    lookup(variable)
        .unwrap_or_default()
        .split(',')
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from_lookup(PathBuf::from("here"), |name| {
            pairs
                .iter()
                .find(|(variable, _)| *variable == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_means_the_full_run() {
        let settings = parse(&[]).expect("defaults parse");
        assert_eq!(settings.records, 1_000_000);
        assert_eq!(settings.records_beyond, 4_000_000);
        assert_eq!(settings.rounds, 3);
        assert!(settings.wants("get-1"));
    }

    #[test]
    fn quick_shrinks_only_what_is_not_given() {
        let settings = parse(&[("PEERS_QUICK", "1"), ("PEERS_RECORDS", "5_000")]).expect("parses");
        assert_eq!(settings.records, 5_000);
        assert_eq!(settings.rounds, 1);
        assert_eq!(settings.row_time, Duration::from_millis(250));
    }

    #[test]
    fn rows_are_filtered_by_substring() {
        let settings = parse(&[("PEERS_ROWS", "get, durable")]).expect("parses");
        assert!(settings.wants("get-1"));
        assert!(settings.wants("put-durable-16"));
        assert!(!settings.wants("scan"));
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for (variable, value) in [
            ("PEERS_RECORDS", "many"),
            ("PEERS_RECORDS", "10"),
            ("PEERS_SECONDS", "-1"),
            ("PEERS_ENGINES", "lmdb,oracle"),
        ] {
            let error = parse(&[(variable, value)]).expect_err(value);
            assert!(error.to_string().contains(variable), "{error}");
        }
    }
}
