//! The comparison as a picture.

use crate::rows::Comparison;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

/// Bars from 0 to the median, in both ways of timing, with a line to the 99th percentile of
/// the first. Logarithmic: the rows lie a factor of a hundred apart.
pub fn write(comparison: &Comparison, path: &Path) -> Result<(), Box<dyn Error>> {
    const LOWEST: f64 = 50.0;
    let rows = &comparison.rows;
    let most = rows.iter().map(|row| row.tight.p99().max(row.idle.median())).fold(LOWEST * 2.0, f64::max);
    let area = SVGBackend::new(path, (960, 90 + 40 * rows.len() as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("spawn, run an empty program, wait: microseconds", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(260)
        .build_cartesian_2d((LOWEST..most * 1.3).log_scale(), 0.0..rows.len() as f64)?;
    // the first row on top
    let top = |index: usize| (rows.len() - index) as f64;
    let name = |y: &f64| {
        let index = rows.len().wrapping_sub(y.ceil() as usize);
        rows.get(index).map_or(String::new(), |row| row.name.clone())
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_labels(0)
        .draw()?;
    let style = ("sans-serif", 14).into_font().color(&BLACK);
    for (index, row) in rows.iter().enumerate() {
        let y = top(index);
        let at = chart.plotting_area().map_coordinate(&(LOWEST, y - 0.35));
        area.draw_text(&name(&(y - 0.5)), &style, (16, at.1 - 2))?;
        for (median, from, to, colour) in [
            (row.tight.median(), 0.12, 0.5, RGBColor(31, 97, 141)),
            (row.idle.median(), 0.5, 0.88, RGBColor(169, 204, 227)),
        ] {
            chart.draw_series([Rectangle::new([(LOWEST, y - to), (median, y - from)], colour.filled())])?;
        }
        let line = [(row.tight.median(), y - 0.31), (row.tight.p99(), y - 0.31)];
        chart.draw_series([PathElement::new(line, RGBColor(31, 97, 141))])?;
    }
    let legend = "dark: tight loop, with a line to the 99th percentile; light: after 50 ms of idleness; logarithmic";
    area.draw_text(legend, &("sans-serif", 12).into_font().color(&BLACK), (16, 70 + 40 * rows.len() as i32))?;
    area.present()?;
    Ok(())
}
