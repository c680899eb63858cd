//! The tables, as Markdown.

use std::fmt::Write;

use super::catalog::ROWS;
use super::{Contender, Goal, Results, Row, Unit};

/// Writes the table of rows, then the table of sizes.
#[must_use]
pub fn render(results: &Results, raw_bytes: u64) -> String {
    let mut text = String::new();
    render_rows(&mut text, results);
    render_sizes(&mut text, results, raw_bytes);
    text
}

const COLUMNS: [Contender; 6] = [
    Contender::Treering,
    Contender::Lmdb,
    Contender::Redb,
    Contender::Fjall,
    Contender::RocksDb,
    Contender::Device,
];

fn present(results: &Results) -> Vec<Contender> {
    COLUMNS
        .into_iter()
        .filter(|&contender| {
            ROWS.iter()
                .any(|row| results.median(row.key, contender).is_some())
        })
        .collect()
}

fn render_rows(text: &mut String, results: &Results) {
    let columns = present(results);
    let peers: Vec<Contender> = columns
        .iter()
        .copied()
        .filter(|column| Contender::PEERS.contains(column))
        .collect();
    let mut header = vec!["row".to_owned()];
    header.extend(columns.iter().map(|column| column.title().to_owned()));
    header.extend(peers.iter().map(|peer| format!("×{}", peer.title())));
    header.push("at least".to_owned());
    header.push("reached".to_owned());
    line(text, &header);
    let rule: Vec<String> = std::iter::once("---".to_owned())
        .chain(std::iter::repeat_n(
            "---:".to_owned(),
            columns.len() + peers.len(),
        ))
        .chain(["---".to_owned(), "---".to_owned()])
        .collect();
    line(text, &rule);
    for row in ROWS {
        let measured = columns
            .iter()
            .any(|&column| results.median(row.key, column).is_some());
        if !measured {
            continue;
        }
        let mut cells = vec![row.title.to_owned()];
        cells.extend(columns.iter().map(|&column| {
            results
                .median(row.key, column)
                .map_or_else(String::new, |figure| format_figure(figure, row.unit))
        }));
        cells.extend(peers.iter().map(|&peer| {
            results
                .advantage(row, peer)
                .map_or_else(String::new, |advantage| format!("{advantage:.2}"))
        }));
        let goals: Vec<String> = row.goals.iter().map(|&goal| describe(goal)).collect();
        cells.push(goals.join(", "));
        cells.push(verdict(results, row));
        line(text, &cells);
    }
    let noisiest = noisiest(results, &columns);
    if let Some((row, contender, spread)) = noisiest {
        let _ = writeln!(
            text,
            "\nMedians of the rounds; ×X: how many times better Treering is than X. The rounds lie \
             furthest apart in \"{}\" of {}: {:.0}% of the median.",
            row.title,
            contender.title(),
            spread * 100.0
        );
    }
}

fn noisiest(results: &Results, columns: &[Contender]) -> Option<(&'static Row, Contender, f64)> {
    ROWS.iter()
        .flat_map(|row| columns.iter().map(move |&column| (row, column)))
        .filter_map(|(row, column)| Some((row, column, results.spread(row.key, column)?)))
        .max_by(|left, right| left.2.total_cmp(&right.2))
}

fn verdict(results: &Results, row: &Row) -> String {
    if row.goals.is_empty() || results.median(row.key, Contender::Treering).is_none() {
        return String::new();
    }
    let outcomes: Vec<Option<bool>> = row.goals.iter().map(|&goal| results.reached(row, goal)).collect();
    let verdict = if outcomes.contains(&Some(false)) {
        "**no**"
    } else if outcomes.contains(&None) {
        "as far as measured"
    } else {
        "yes"
    };
    verdict.to_owned()
}

fn describe(goal: Goal) -> String {
    match goal {
        Goal::Over(rival, factor) => format!("{factor}x {}", rival.title()),
        Goal::OverBest(1.0) => "the best".to_owned(),
        Goal::OverBest(factor) => format!("{factor}x the best"),
        Goal::AtLeast(figure) => format!("{figure}"),
        Goal::AtMost(figure) => format!("at most {figure}"),
    }
}

fn render_sizes(text: &mut String, results: &Results, raw_bytes: u64) {
    let rows: Vec<&Row> = ROWS
        .iter()
        .filter(|row| {
            COLUMNS
                .iter()
                .any(|&column| results.size(row.key, column).is_some())
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let columns: Vec<Contender> = COLUMNS
        .into_iter()
        .filter(|&column| rows.iter().any(|row| results.size(row.key, column).is_some()))
        .collect();
    let _ = writeln!(
        text,
        "\nMB on disk after each row that writes (of it log); the raw records are {} MB.\n",
        raw_bytes / 1_000_000
    );
    let mut header = vec!["after".to_owned()];
    header.extend(columns.iter().map(|column| column.title().to_owned()));
    line(text, &header);
    let rule: Vec<String> = std::iter::once("---".to_owned())
        .chain(std::iter::repeat_n("---:".to_owned(), columns.len()))
        .collect();
    line(text, &rule);
    for row in rows {
        let mut cells = vec![row.title.to_owned()];
        cells.extend(columns.iter().map(|&column| {
            let Some(size) = results.size(row.key, column) else {
                return String::new();
            };
            let total = size.total_bytes as f64 / 1e6;
            if size.log_bytes == 0 {
                format!("{total:.0}")
            } else {
                format!("{total:.0} ({:.0})", size.log_bytes as f64 / 1e6)
            }
        }));
        line(text, &cells);
    }
}

fn line(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// Three digits or so, with a suffix where figures are large.
pub(crate) fn format_figure(figure: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond if figure >= 9_995_000.0 => format!("{:.1}M", figure / 1e6),
        Unit::PerSecond if figure >= 999_500.0 => format!("{:.2}M", figure / 1e6),
        Unit::PerSecond if figure >= 99_950.0 => format!("{:.0}k", figure / 1e3),
        Unit::PerSecond if figure >= 999.5 => format!("{:.1}k", figure / 1e3),
        Unit::PerSecond | Unit::MegabytesPerSecond => format!("{figure:.0}"),
        Unit::Milliseconds if figure < 10.0 => format!("{figure:.2}"),
        Unit::Milliseconds => format!("{figure:.0}"),
        Unit::TimesRaw | Unit::TimesBudget | Unit::BlocksPerGet => format!("{figure:.2}"),
    }
}
