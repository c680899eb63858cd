//! [`Stats`] through the `metrics` facade.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use super::{FigureKind, Stats};

/// What all names begin with.
const PREFIX: &str = "treering.";

impl Stats {
    /// Hands all figures to the recorder of the [`metrics`] facade: counters as absolute values, gauges as they are, named
    /// `treering.` and their field's name, with the label `database`. The histogram is there as `commits_per_group_p50`
    /// and `commits_per_group_max`. Call it as often as the figures shall be fresh; without a recorder it does nothing.
    ///
    /// Needs the feature `metrics`.
    pub fn record_metrics(&self, database: &str) {
        for figure in self.figures() {
            let name = format!("{PREFIX}{}", figure.name);
            let labels = [("database", database.to_owned())];
            match figure.kind {
                FigureKind::Counter => counter!(name, &labels).absolute(figure.value),
                // Exact up to 2^53.
                FigureKind::Gauge => gauge!(name, &labels).set(figure.value as f64),
            }
        }
    }

    /// Tells the recorder of the [`metrics`] facade what the figures mean and in which unit they are. Once is enough.
    ///
    /// Needs the feature `metrics`.
    pub fn describe_metrics() {
        for figure in Stats::default().figures() {
            let name = format!("{PREFIX}{}", figure.name);
            let unit = if figure.name.ends_with("_bytes") {
                Unit::Bytes
            } else if figure.name.ends_with("_nanos") {
                Unit::Nanoseconds
            } else {
                Unit::Count
            };
            match figure.kind {
                FigureKind::Counter => describe_counter!(name, unit, figure.description),
                FigureKind::Gauge => describe_gauge!(name, unit, figure.description),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use crate::{Options, Stats};

    /// Values by name, and what is said of the names.
    #[derive(Default)]
    struct Book {
        values: Arc<Mutex<BTreeMap<String, f64>>>,
        described: Mutex<Vec<(String, Option<Unit>)>>,
    }

    struct Cell(Arc<Mutex<BTreeMap<String, f64>>>, String);

    impl Cell {
        fn write(&self, value: f64) {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(self.1.clone(), value);
        }
    }

    impl CounterFn for Cell {
        fn increment(&self, _value: u64) {
            panic!("counters are absolute");
        }

        fn absolute(&self, value: u64) {
            self.write(value as f64);
        }
    }

    impl GaugeFn for Cell {
        fn increment(&self, _value: f64) {
            panic!("gauges are set");
        }

        fn decrement(&self, _value: f64) {
            panic!("gauges are set");
        }

        fn set(&self, value: f64) {
            self.write(value);
        }
    }

    impl Book {
        fn cell(&self, key: &Key) -> Arc<Cell> {
            let labels: Vec<_> = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            let name = format!("{}{{{}}}", key.name(), labels.join(","));
            Arc::new(Cell(Arc::clone(&self.values), name))
        }

        fn describe(&self, name: KeyName, unit: Option<Unit>) {
            let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
            described.push((name.as_str().to_owned(), unit));
        }
    }

    impl Recorder for Book {
        fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _description: SharedString) {
            self.describe(key, unit);
        }

        fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, _description: SharedString) {
            self.describe(key, unit);
        }

        fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {
            panic!("there are no histograms");
        }

        fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
            self.cell(key).into()
        }

        fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
            self.cell(key).into()
        }

        fn register_histogram(&self, _key: &Key, _metadata: &Metadata<'_>) -> Histogram {
            panic!("there are no histograms");
        }
    }

    #[test]
    fn all_figures_reach_the_recorder() {
        let db = Options::new()
            .cache_bytes(4 << 20)
            .open_in_memory()
            .expect("memory for an empty database");
        let tree = db.client().tree("t").expect("a tree");
        (0..10_u8).for_each(|number| tree.put([number], b"v").expect("a put"));
        let stats = db.stats();
        let book = Book::default();
        metrics::with_local_recorder(&book, || {
            Stats::describe_metrics();
            stats.record_metrics("main");
        });
        let values = book.values.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(values.len(), stats.figures().count());
        for figure in stats.figures() {
            let name = format!("treering.{}{{database=main}}", figure.name);
            assert_eq!(values.get(&name), Some(&(figure.value as f64)), "{name}");
        }
        let described = book.described.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(described.len(), values.len());
        let unit_of = |name: &str| {
            let found = described.iter().find(|(described, _)| described == name);
            found.and_then(|(_, unit)| *unit)
        };
        assert_eq!(unit_of("treering.page_bytes"), Some(Unit::Bytes));
        assert_eq!(unit_of("treering.recovery_nanos"), Some(Unit::Nanoseconds));
        assert_eq!(unit_of("treering.hits"), Some(Unit::Count));
    }
}
