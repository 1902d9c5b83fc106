//! Draws the learning curve, bits per dimension over training steps, to a PNG file.
//!
//! Training values are noisy, so they are drawn faintly, with a running mean on top; test values are few and
//! drawn as dots. The first values of a run can be extremely large: the vertical range follows the bulk of
//! the values, test values first, and points outside are omitted.
//!
//! Text is set in Hack, an embedded typeface, so the image does not depend on the fonts of a machine.

use crate::{Error, picture};
use plotters::prelude::*;
use plotters::style::register_font;
use std::{ops::Range, path::Path, sync::Once};

const SIZE: (u32, u32) = (900, 560);
pub(crate) const FONT: &str = "Hack";

const TRAIN: RGBColor = RGBColor(31, 119, 180);
const TEST: RGBColor = RGBColor(214, 39, 40);
pub(crate) const GRID: RGBColor = RGBColor(228, 228, 228);

/// Contents of a learning curve.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    /// Title.
    pub title: &'a str,
    /// Step and bits per dimension of training batches, in ascending order of steps.
    pub train: &'a [(f64, f64)],
    /// Step and bits per dimension over the test images, in ascending order of steps.
    pub test: &'a [(f64, f64)],
}

impl Curve<'_> {
    /// Draws the curve and writes it as a PNG file of 900 × 560 pixels, replacing `path` atomically.
    ///
    /// Any number of points is accepted, including none; points that are not finite in single precision are
    /// omitted.
    ///
    /// ```
    /// use glowflow_report::curve::Curve;
    ///
    /// let folder = tempfile::tempdir()?;
    /// let train: Vec<_> = (1..200).map(|step| (f64::from(step), 3.0 + 9.0 / f64::from(step))).collect();
    /// let test = [(100.0, 3.2), (199.0, 3.1)];
    /// Curve { title: "portraits", train: &train, test: &test }.save(&folder.path().join("curve.png"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        picture::save_drawn(path, SIZE, |pixels| self.draw(pixels).map_err(|error| error.to_string()))
    }

    fn draw(&self, pixels: &mut [u8]) -> Result<(), Box<dyn std::error::Error + '_>> {
        register_typeface();
        let train = finite(self.train);
        let test = finite(self.test);
        let steps = step_range(&train, &test);
        let values = value_range(&train, &test);
        let [train, test] = [train, test].map(|points| within(points, &values));
        let digits = if values.end - values.start < 0.15 { 3 } else { 2 };

        let area = BitMapBackend::with_buffer(pixels, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(14)
            .margin_right(28)
            .caption(self.title, (FONT, 22))
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d(steps, values.clone())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .x_desc("step")
            .y_desc("bits per dimension")
            .x_label_formatter(&|step| count_label(*step))
            .y_label_formatter(&|value| value_label(*value, digits))
            .label_style((FONT, 15))
            .axis_desc_style((FONT, 16))
            .draw()?;

        chart.draw_series(LineSeries::new(train.iter().copied(), TRAIN.mix(0.25)))?;
        chart
            .draw_series(LineSeries::new(smooth(&train), TRAIN.stroke_width(2)))?
            .label("train")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], TRAIN.stroke_width(2)));
        chart.draw_series(LineSeries::new(test.iter().copied(), TEST.mix(0.5)))?;
        chart
            .draw_series(test.iter().map(|&at| Circle::new(at, 4, TEST.filled())))?
            .label("test")
            .legend(|(x, y)| Circle::new((x + 10, y), 4, TEST.filled()));
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(GRID)
            .label_font((FONT, 16))
            .draw()?;
        area.present()?;
        drop(chart);
        Ok(())
    }
}

/// Registers the typeface with the drawing library.
pub(crate) fn register_typeface() {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        register_font(FONT, FontStyle::Normal, epaint_default_fonts::HACK_REGULAR)
            .unwrap_or_else(|_| unreachable!("the embedded font is sound"));
    });
}

/// The points that can be drawn. Values beyond single precision count as infinite: their differences would
/// overflow.
fn finite(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite = |(step, value): &(f64, f64)| step.is_finite() && (*value as f32).is_finite();
    points.iter().copied().filter(finite).collect()
}

/// From 0 to the last step.
fn step_range(train: &[(f64, f64)], test: &[(f64, f64)]) -> Range<f64> {
    let last = train.iter().chain(test).map(|point| point.0);
    0.0..last.fold(1.0, f64::max)
}

/// The range of the values, without those far outside the middle 80 %. Test values are included unless they
/// are extreme.
fn value_range(train: &[(f64, f64)], test: &[(f64, f64)]) -> Range<f64> {
    let mut values: Vec<f64> = train.iter().chain(test).map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    let (Some(&least), Some(&most)) = (values.first(), values.last()) else {
        return 0.0..8.0;
    };
    // Rounded towards the middle, so that the outermost of a few values are ignored too.
    let ends = 0.1 * (values.len() - 1) as f64;
    let tenth = values[ends.ceil() as usize];
    let ninetieth = values[values.len() - 1 - ends.ceil() as usize];
    let (low, high) = (tenth.min(ninetieth), tenth.max(ninetieth));
    let reach = 1.5 * (high - low);
    let low = least.max(low - reach);
    let high = most.min(high + reach);
    // Test values are few and each matters, unless it is extremely large.
    let far = 3.0 * (high - low).max(0.1);
    let near = test.iter().map(|point| point.1).filter(|value| (low - far..=high + far).contains(value));
    let (low, high) = near.fold((low, high), |(low, high), value| (low.min(value), high.max(value)));
    let margin = (0.05 * (high - low)).max(0.02);
    low - margin..high + margin
}

/// The points with values in the range.
fn within(points: Vec<(f64, f64)>, range: &Range<f64>) -> Vec<(f64, f64)> {
    points.into_iter().filter(|(_, value)| range.contains(value)).collect()
}

/// Exponential running mean over about a fortieth of the points, without bias at the start.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 40.0).max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let smoothed = points.iter().map(|&(step, value)| {
        sum = keep * sum + value;
        weight = keep * weight + 1.0;
        (step, sum / weight)
    });
    smoothed.collect()
}

/// Formats a number, in thousands or millions if it is that large.
pub(crate) fn count_label(number: f64) -> String {
    match number {
        1e6.. => format!("{}M", number / 1e6),
        1e3.. => format!("{}k", number / 1e3),
        _ => format!("{number}"),
    }
}

/// Formats a value with `digits` decimals, without an exponent unless it is huge.
pub(crate) fn value_label(value: f64, digits: usize) -> String {
    if value.abs() < 1e5 { format!("{value:.digits$}") } else { format!("{value:.1e}") }
}
