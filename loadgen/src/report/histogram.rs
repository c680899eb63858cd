//! Latencies in HdrHistogram's percentile format, as its plotter and its tools read it.

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Percentiles are written this many times between each two halvings of what remains above them.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
/// The histogram holds nanoseconds, the file microseconds.
const UNIT: f64 = 1000.0;

/// Writes `histogram` (of nanoseconds) with values in microseconds.
///
/// # Errors
/// The writer's.
pub fn write_percentiles(histogram: &Histogram<u64>, mut to: impl Write) -> io::Result<()> {
    writeln!(
        to,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / UNIT;
        let quantile = step.quantile_iterated_to();
        write!(to, "{value:>12.3} {quantile:>14.12} {count:>10}")?;
        if quantile < 1.0 {
            writeln!(to, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(to)?;
        }
    }
    let buckets = histogram.buckets();
    let sub_buckets = (2 * 10u64.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    writeln!(
        to,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        histogram.mean() / UNIT,
        histogram.stdev() / UNIT
    )?;
    writeln!(
        to,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        histogram.max() as f64 / UNIT,
        histogram.len()
    )?;
    writeln!(
        to,
        "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]"
    )
}
