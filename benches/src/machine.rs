//! Says when and where a run took place, and with which versions of the engines.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The day of a point in time, as `2026-11-20` (UTC).
#[must_use]
pub fn date(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Processor, cores, kernel; what can't be found out is left out.
#[must_use]
pub fn description() -> String {
    let mut parts = Vec::new();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    parts.extend(model);
    if let Ok(cores) = std::thread::available_parallelism() {
        parts.push(format!("{cores} cores"));
    }
    if let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        parts.push(format!("Linux {}", release.trim()));
    }
    parts.join(", ")
}

/// The engines' versions, from a `Cargo.lock`.
#[must_use]
pub fn versions(lock_file: &str) -> String {
    const PACKAGES: [(&str, &str); 4] = [
        ("heed", "heed"),
        ("redb", "redb"),
        ("fjall", "fjall"),
        ("rust-librocksdb-sys", "RocksDB"),
    ];
    let found = PACKAGES.iter().filter_map(|(package, title)| {
        if *title == "RocksDB" && !cfg!(feature = "rocksdb") {
            return None;
        }
        let mut lines = lock_file.lines();
        lines.find(|line| *line == format!("name = \"{package}\""))?;
        let version = lines.next()?.strip_prefix("version = \"")?;
        Some(format!("{title} {}", version.strip_suffix('"')?))
    });
    found.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_777), (2026, 11, 20));
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"heed\"\nversion = \"0.23.1\"\n\n[[package]]\nname = \
                    \"redb\"\nversion = \"4.4.0\"\n";
        assert_eq!(versions(lock), "heed 0.23.1, redb 4.4.0");
    }
}
