//! One picture of a run: latency by percentile above, throughput and 99th percentile over time below.

use std::error::Error;
use std::path::Path;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::{duration_text, thousands};
use crate::measure::Point;
use crate::run::Outcome;

const SIZE: (u32, u32) = (960, 720);
const MARGIN: u32 = 12;
const LABEL_AREA: u32 = 64;
/// Points of a latency curve.
const CURVE_POINTS: u32 = 200;

/// Draws the run to `file` as SVG. A run of no operations gives empty axes.
///
/// # Errors
/// When the file can't be written.
pub fn draw(outcome: &Outcome, file: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (above, below) = root.split_vertically(SIZE.1 / 2);
    draw_latencies(outcome, &above)?;
    draw_course(outcome.totals.points(), &below)?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Percentiles lie by their "nines": 90% at 1, 99% at 2, and so on, so that the tail is not a hair's breadth.
fn draw_latencies(outcome: &Outcome, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let all = outcome.totals.all();
    // The last percentile that still has an operation above it.
    let nines = (all.len().max(10) as f64).log10();
    let highest_us = (all.max() as f64 / 1000.0).max(1.0);
    let lowest_us = (all.min() as f64 / 1000.0).clamp(0.01, highest_us / 2.0);
    let title = format!("workload {}: latency by percentile", outcome.plan.workload);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(MARGIN)
        .x_label_area_size(LABEL_AREA / 2)
        .y_label_area_size(LABEL_AREA)
        .build_cartesian_2d(0.0..nines, (lowest_us..highest_us * 1.1).log_scale())?;
    chart
        .configure_mesh()
        .x_labels(nines.ceil() as usize + 1)
        .x_label_formatter(&|nines| percentile_text(*nines))
        .y_label_formatter(&|us| duration_text(*us))
        .light_line_style(TRANSPARENT)
        .draw()?;
    let kinds: Vec<(&str, &Histogram<u64>)> = outcome
        .totals
        .kinds()
        .map(|(kind, histogram)| (kind.name(), histogram))
        .collect();
    for (number, (name, histogram)) in kinds.into_iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let curve = (0..=CURVE_POINTS).map(|step| {
            let x = nines * f64::from(step) / f64::from(CURVE_POINTS);
            let us = histogram.value_at_quantile(1.0 - 10f64.powf(-x)) as f64 / 1000.0;
            (x, us.max(lowest_us))
        });
        chart
            .draw_series(LineSeries::new(curve, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn draw_course(points: &[Point], area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let end = points.last().map_or(1.0, |point| point.seconds).max(0.1);
    let highest = points.iter().map(|point| point.ops_per_s).fold(1.0, f64::max);
    let slowest_us = points.iter().map(|point| point.p99_us).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(
            "operations a second, and 99th percentile, over seconds",
            ("sans-serif", 18),
        )
        .margin(MARGIN)
        .x_label_area_size(LABEL_AREA / 2)
        .y_label_area_size(LABEL_AREA)
        .right_y_label_area_size(LABEL_AREA)
        .build_cartesian_2d(0.0..end, 0.0..highest * 1.1)?
        .set_secondary_coord(0.0..end, 0.0..slowest_us * 1.1);
    chart
        .configure_mesh()
        .y_label_formatter(&|count| thousands(*count as u64))
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart
        .configure_secondary_axes()
        .y_label_formatter(&|us| duration_text(*us))
        .draw()?;
    let (throughput, latency) = (Palette99::pick(0).to_rgba(), Palette99::pick(1).to_rgba());
    chart
        .draw_series(LineSeries::new(
            points.iter().map(|p| (p.seconds, p.ops_per_s)),
            throughput.stroke_width(2),
        ))?
        .label("op/s")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], throughput.stroke_width(2)));
    chart
        .draw_secondary_series(LineSeries::new(
            points.iter().map(|p| (p.seconds, p.p99_us)),
            latency.stroke_width(1),
        ))?
        .label("p99")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], latency.stroke_width(1)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// The percentile with so many nines.
fn percentile_text(nines: f64) -> String {
    let decimals = (nines - 2.0).ceil().max(0.0) as usize;
    format!("{:.decimals$}%", 100.0 - 10f64.powf(2.0 - nines))
}
