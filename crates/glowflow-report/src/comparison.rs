//! Draws curves of several configurations to a PNG file: for each, a line of means in a band from the lowest
//! to the highest value.
//!
//! The legend is to the right of the plot, in the order of the last values; the figure is as high as it needs.
//! The Okabe-Ito colours are distinguishable with any colour vision. Up to 28 lines differ in colour or marker
//! shape, up to four in marker shape alone. The first values of a run
//! may be far above the rest: the vertical range follows the bulk of the values, and a line begins at the
//! point at which it enters this range.

use crate::curve::{FONT, GRID, count_label, register_typeface, value_label};
use crate::{Error, picture};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::{ops::Range, path::Path};

const WIDTH: u32 = 960;
/// Minimum height.
const HEIGHT: u32 = 560;

/// The Okabe-Ito palette without yellow, which is too light for lines.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// Width of a legend character in pixels; the line height follows.
const LEGEND_CHARACTER: usize = 8;
const LEGEND_ROW: i32 = 26;
const LEGEND_SIZE: u32 = 15;
/// Width of a line sample in the legend, with margins.
const LEGEND_LINE: i32 = 44;
/// Maximum length of a name in the legend, in characters; longer names are truncated.
const MAX_NAME: usize = 30;
/// Half the size of a marker.
const MARKER: i32 = 4;

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type Drawn<'a> = Result<(), Box<dyn std::error::Error + 'a>>;

/// Several values at one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Position on the horizontal axis.
    pub x: f64,
    /// The lowest value.
    pub low: f64,
    /// The mean.
    pub mean: f64,
    /// The highest value.
    pub high: f64,
}

/// The curve of a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Name in the legend.
    pub name: &'a str,
    /// Points in ascending order of `x`.
    pub points: &'a [Spread],
}

/// A figure that compares configurations.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// Title.
    pub title: &'a str,
    /// Small text above the plot; may be empty.
    pub note: &'a str,
    /// Label of the horizontal axis.
    pub x_label: &'a str,
    /// Label of the vertical axis.
    pub y_label: &'a str,
    /// The curves.
    pub lines: &'a [Line<'a>],
}

impl Comparison<'_> {
    /// Draws the figure and writes it as a PNG file, replacing `path` atomically: 960 pixels wide, and 560
    /// high, or higher for more than 18 lines.
    ///
    /// Any number of lines and points is accepted, including none; points that are not finite in single
    /// precision are omitted.
    ///
    /// ```
    /// use glowflow_report::comparison::{Comparison, Line, Spread};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let points = [1.0, 2.0, 3.0].map(|x| {
    ///     Spread { x, low: 2.9 + 1.0 / x, mean: 3.0 + 1.0 / x, high: 3.1 + 1.0 / x }
    /// });
    /// let lines = [Line { name: "conv1x1", points: &points }];
    /// let (x_label, y_label) = ("images", "bits per dimension");
    /// let figure = Comparison { title: "permutations", note: "", x_label, y_label, lines: &lines };
    /// figure.save(&folder.path().join("study.png"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let size = self.size();
        picture::save_drawn(path, size, |pixels| self.draw(pixels, size).map_err(|error| error.to_string()))
    }

    /// Width and height in pixels.
    fn size(&self) -> (u32, u32) {
        let legend = LEGEND_ROW as u32 * self.lines.len() as u32;
        (WIDTH, HEIGHT.max(self.head() as u32 + legend + 6))
    }

    /// Height of title and note.
    fn head(&self) -> i32 {
        if self.note.is_empty() { 46 } else { 68 }
    }

    fn draw<'b>(&self, pixels: &'b mut [u8], size: (u32, u32)) -> Drawn<'b> {
        register_typeface();
        let lines: Vec<Vec<Spread>> = self.lines.iter().map(|line| finite(line.points)).collect();
        let values = value_range(&lines);
        let last = lines.iter().flatten().map(|point| point.x).fold(0.0, f64::max);
        let digits = if values.end - values.start < 0.15 { 3 } else { 2 };

        let area = BitMapBackend::with_buffer(pixels, size).into_drawing_area();
        area.fill(&WHITE)?;
        let names: Vec<String> = self.lines.iter().map(|line| shortened(line.name)).collect();
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let legend_width = LEGEND_LINE + (longest * LEGEND_CHARACTER) as i32 + 16;
        let (head, body) = area.split_vertically(self.head());
        head.draw(&Text::new(self.title, (18, 14), (FONT, 22).into_font()))?;
        head.draw(&Text::new(self.note, (18, 44), (FONT, 14).into_font().color(&BLACK.mix(0.7))))?;
        let (plot, legend) = body.split_horizontally(WIDTH as i32 - legend_width);

        let mut chart = ChartBuilder::on(&plot)
            .margin(14)
            .margin_top(4)
            .x_label_area_size(48)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..if last > 0.0 { last } else { 1.0 }, values.clone())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .x_labels(6)
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .x_label_formatter(&|x| count_label(*x))
            .y_label_formatter(&|value| value_label(*value, digits))
            .label_style((FONT, 15))
            .axis_desc_style((FONT, 16))
            .draw()?;

        let lines: Vec<Vec<Spread>> = lines.into_iter().map(|points| entering(points, &values)).collect();
        for (index, points) in lines.iter().enumerate() {
            if points.iter().any(|point| point.high > point.low) {
                let upper = points.iter().map(|point| (point.x, point.high.min(values.end)));
                let lower = points.iter().rev().map(|point| (point.x, point.low.max(values.start)));
                let band: Vec<_> = upper.chain(lower).collect();
                chart.draw_series([Polygon::new(band, colour(index).mix(0.18))])?;
            }
        }
        for (index, points) in lines.iter().enumerate() {
            let means = points.iter().map(|point| (point.x, point.mean));
            chart.draw_series(LineSeries::new(means.clone(), colour(index).stroke_width(2)))?;
            chart.draw_series(means.map(|at| EmptyElement::at(at) + marker(index, (0, 0))))?;
        }
        drop(chart);
        draw_legend(&legend, &names, &lines)?;
        area.present()?;
        Ok(())
    }
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// A line's marker: one of four shapes, filled.
fn marker(index: usize, (x, y): (i32, i32)) -> Polygon<(i32, i32)> {
    let corners = match index % 4 {
        // An octagon approximates a disc.
        0 => vec![(-2, -5), (2, -5), (5, -2), (5, 2), (2, 5), (-2, 5), (-5, 2), (-5, -2)],
        1 => vec![(-MARKER, -MARKER), (MARKER, -MARKER), (MARKER, MARKER), (-MARKER, MARKER)],
        2 => vec![(0, -6), (6, 5), (-6, 5)],
        _ => vec![(0, -6), (6, 0), (0, 6), (-6, 0)],
    };
    let corners: Vec<_> = corners.into_iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
    Polygon::new(corners, colour(index).filled())
}

/// Draws the names in descending order of the last values; lines without points come last.
fn draw_legend<'b>(area: &Area<'b>, names: &[String], lines: &[Vec<Spread>]) -> Drawn<'b> {
    let end = |index: usize| lines[index].last().map_or(f64::NEG_INFINITY, |point| point.mean);
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|&one, &two| end(two).total_cmp(&end(one)));
    for (row, index) in order.into_iter().enumerate() {
        let y = 16 + LEGEND_ROW * row as i32;
        area.draw(&PathElement::new([(4, y), (34, y)], colour(index).stroke_width(2)))?;
        area.draw(&marker(index, (19, y)))?;
        let style = (FONT, LEGEND_SIZE).into_font();
        area.draw(&Text::new(names[index].as_str(), (LEGEND_LINE, y - 7), style))?;
    }
    Ok(())
}

/// The name, truncated for the legend.
fn shortened(name: &str) -> String {
    if name.chars().count() <= MAX_NAME {
        return name.to_owned();
    }
    name.chars().take(MAX_NAME - 1).chain(['…']).collect()
}

/// The points that can be drawn.
fn finite(points: &[Spread]) -> Vec<Spread> {
    let finite = |value: f64| (value as f32).is_finite();
    let sound = |point: &&Spread| [point.x, point.low, point.mean, point.high].into_iter().all(finite);
    points.iter().filter(sound).copied().collect()
}

/// The range of the later halves of all lines, extended upwards for earlier values by at most twice its
/// height.
fn value_range(lines: &[Vec<Spread>]) -> Range<f64> {
    let late = lines.iter().flat_map(|points| &points[points.len() / 2..]);
    let (low, high) = late.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
        (low.min(point.low), high.max(point.high))
    });
    if low > high {
        return 0.0..8.0;
    }
    let most = lines.iter().flatten().map(|point| point.high).fold(high, f64::max);
    let high = most.min(high + 2.0 * (high - low).max(0.02));
    let margin = (0.05 * (high - low)).max(0.02);
    low - margin..high + margin
}

/// The points from the first with its mean in the range, without any outside.
fn entering(points: Vec<Spread>, range: &Range<f64>) -> Vec<Spread> {
    points.into_iter().filter(|point| range.contains(&point.mean)).collect()
}
