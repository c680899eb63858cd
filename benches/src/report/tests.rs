use super::catalog::{ROWS, row_named};
use super::*;

fn row(key: &str) -> &'static Row {
    row_named(key).expect("a row of the catalog")
}

#[test]
fn keys_are_unique() {
    let mut keys: Vec<_> = ROWS.iter().map(|row| row.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), ROWS.len());
}

#[test]
fn names_and_engines_match_both_ways() {
    for engine in std::iter::once(Contender::Treering).chain(Contender::PEERS) {
        assert_eq!(Contender::engine_named(engine.name()), Some(engine));
    }
    assert_eq!(Contender::engine_named("device"), None);
}

#[test]
fn the_median_ignores_one_bad_round() {
    let mut results = Results::default();
    for figure in [100.0, 1.0, 101.0] {
        results.add("get-1", Contender::Lmdb, figure);
    }
    assert_eq!(results.median("get-1", Contender::Lmdb), Some(100.0));
    results.add("get-1", Contender::Lmdb, 102.0);
    assert_eq!(results.median("get-1", Contender::Lmdb), Some(100.5));
    assert_eq!(results.median("get-2", Contender::Lmdb), None);
}

#[test]
fn an_advantage_is_above_one_when_treering_is_better_in_any_unit() {
    let mut results = Results::default();
    results.add("get-1", Contender::Treering, 200.0);
    results.add("get-1", Contender::Lmdb, 100.0);
    results.add("put-durable-64-p99", Contender::Treering, 2.0);
    results.add("put-durable-64-p99", Contender::RocksDb, 4.0);
    assert_eq!(results.advantage(row("get-1"), Contender::Lmdb), Some(2.0));
    assert_eq!(
        results.advantage(row("put-durable-64-p99"), Contender::RocksDb),
        Some(2.0)
    );
}

#[test]
fn the_best_peer_is_the_one_hardest_to_beat() {
    let mut results = Results::default();
    results.add("load-sorted", Contender::Treering, 300.0);
    results.add("load-sorted", Contender::Lmdb, 100.0);
    results.add("load-sorted", Contender::RocksDb, 400.0);
    let row = row("load-sorted");
    assert_eq!(results.advantage_over_best(row), Some(0.75));
    assert_eq!(results.reached(row, Goal::OverBest(1.0)), Some(false));
    assert_eq!(results.reached(row, Goal::Over(Contender::Lmdb, 3.0)), Some(true));
    assert_eq!(results.reached(row, Goal::Over(Contender::Redb, 3.0)), None);
}

#[test]
fn the_table_shows_ratios_targets_and_failures() {
    let mut results = Results::default();
    results.add("get-1", Contender::Treering, 1_500_000.0);
    results.add("get-1", Contender::Lmdb, 1_000_000.0);
    results.add_size(
        "load-random",
        Contender::Lmdb,
        Size {
            total_bytes: 270_000_000,
            log_bytes: 0,
        },
    );
    let text = markdown::render(&results, 174_000_000);
    assert!(
        text.contains("| 1.50M | 1.00M | 1.50 | 1.7x LMDB, 3x redb | **no** |"),
        "{text}"
    );
    assert!(text.contains("| bulk load, random, records | 270 |"), "{text}");
    assert!(!text.contains("RocksDB"), "{text}");
}
