//! The progress bar: what is going on, live throughput and 99th percentile. It draws on standard error, and only
//! on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::measure::Point;
use crate::report::{duration_text, thousands};

/// Shows how far a run is. Any thread may use it.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

/// Parts that the bar of a timed run is divided into, for each second.
const PARTS_PER_SECOND: f64 = 10.0;

impl Progress {
    /// A bar on standard error; nothing at all where that is no terminal.
    #[must_use]
    pub fn visible() -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Progress { bar }
    }

    /// A bar that is never shown.
    #[must_use]
    pub fn hidden() -> Progress {
        Progress {
            bar: ProgressBar::hidden(),
        }
    }

    /// A stage without measure begins.
    pub fn stage(&self, what: &str) {
        self.restart("{spinner} {msg}", None);
        self.bar.set_message(what.to_owned());
        self.bar.tick();
    }

    pub(crate) fn start_load(&self, records: u64) {
        self.restart("load {wide_bar} {human_pos}/{human_len}  {msg}", Some(records));
    }

    pub(crate) fn start_run(&self, workload: &str, duration: Duration) {
        self.restart(
            &format!("{workload} {{wide_bar}} {{elapsed}}  {{msg}}"),
            Some(time_position(duration).max(1)),
        );
    }

    /// What the last stretch of the run was like. `position` is in records while loading, and else what
    /// [`time_position`] makes of the time that has passed.
    pub(crate) fn tick(&self, point: Point, position: u64, errors: u64) {
        self.bar.set_position(position);
        let errors = if errors > 0 {
            format!("  {errors} errors")
        } else {
            String::new()
        };
        let throughput = thousands(point.ops_per_s as u64);
        self.bar.set_message(format!(
            "{throughput} op/s  p99 {}{errors}",
            duration_text(point.p99_us)
        ));
    }

    /// Says something on standard error, terminal or not, and leaves the bar as it is.
    pub(crate) fn say(&self, what: &str) {
        self.bar.suspend(|| eprintln!("loadgen: {what}"));
    }

    /// The bar goes away.
    pub fn end_run(&self) {
        self.bar.finish_and_clear();
    }

    fn restart(&self, template: &str, length: Option<u64>) {
        // The style first, for each of the other calls may draw.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message("");
        self.bar.reset();
        match length {
            Some(length) => self.bar.set_length(length),
            None => self.bar.unset_length(),
        }
    }
}

/// Place of a moment on the bar of a timed run.
pub(crate) fn time_position(elapsed: Duration) -> u64 {
    (elapsed.as_secs_f64() * PARTS_PER_SECOND) as u64
}
