//! Result files, and the outcome of a study.

use std::path::Path;

use glowflow_report::comparison::{self, Line, Spread};
use glowflow_report::file;
use serde::Serialize;

use super::comparison::Comparison;
use super::record::State;
use super::results::{self, RunResult};
use super::summary::{self, Row};
use super::{Configuration, Study, comparison_tables};
use crate::models::Architecture;
use crate::{Error, NoiseKind};

const FILES: [&str; 3] = [CSV, FIGURE, TABLE];
const COMPARISON: &str = "study.comparison.csv";

const CSV: &str = "study.csv";
const FIGURE: &str = "study.png";
const TABLE: &str = "study.md";

/// The outcome of a study.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// True if it was stopped on request.
    pub interrupted: bool,
    /// Number of finished runs; in a comparison, those that are also scored.
    pub finished: usize,
    /// Number of runs.
    pub runs: usize,
    /// Results of each configuration.
    pub configurations: Vec<Row>,
    /// The comparison with the first configuration, if the study has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Result files in the study's folder.
    #[serde(skip)]
    pub files: Vec<&'static str>,
    /// The results in Markdown.
    #[serde(skip)]
    pub markdown: String,
}

impl Outcome {
    /// Reads the results of all runs, and writes the result files.
    ///
    /// # Errors
    /// [`Error::Report`] if a log cannot be read or a file cannot be written; [`Error::File`] for a damaged
    /// record.
    pub fn write(study: &Study, out: &Path, interrupted: bool) -> Result<Self, Error> {
        let results = results::read(study, out)?;
        let rows = summary::rows(study, &results);
        let comparison = Comparison::of(study, &results);
        let mut files = FILES.to_vec();
        let mut markdown = summary::markdown(study, &rows, FIGURE);
        if let Some(comparison) = &comparison {
            markdown.push_str(&format!("\n{}", comparison_tables::markdown(comparison)));
            file::replace(&out.join(COMPARISON), comparison_tables::csv(comparison).as_bytes())?;
            files.push(COMPARISON);
        }
        file::replace(&out.join(CSV), results::csv(study, &results).as_bytes())?;
        figure(study, &results, &out.join(FIGURE))?;
        file::replace(&out.join(TABLE), markdown.as_bytes())?;
        let runs = study.runs();
        let finished = |run: &&RunResult| {
            run.record.state == State::Finished && !run.record.is_due(study) && runs.contains(&run.id)
        };
        Ok(Self {
            interrupted,
            finished: results.iter().filter(finished).count(),
            runs: runs.len(),
            configurations: rows,
            comparison,
            files,
            markdown,
        })
    }
}

/// Draws the figure of the finished runs.
fn figure(study: &Study, results: &[RunResult], path: &Path) -> Result<(), Error> {
    let finished = |index: usize| {
        results.iter().filter(move |run| run.is_of(index) && run.record.state == State::Finished)
    };
    let drawn: Vec<(&Configuration, Vec<Spread>)> = (study.configurations.iter().enumerate())
        .map(|(index, configuration)| (index, configuration, spreads(&finished(index).collect::<Vec<_>>())))
        .filter(|(index, _, points)| study.selected.contains(index) || !points.is_empty())
        .map(|(_, configuration, points)| (configuration, points))
        .collect();
    // Different bounds are not comparable.
    let is_marked = |configuration: &Configuration| configuration.run.model.noise() == NoiseKind::Variational;
    let name = |configuration: &Configuration| {
        format!("{}{}", configuration.name, if is_marked(configuration) { " *" } else { "" })
    };
    let names: Vec<_> = drawn.iter().map(|(configuration, _)| name(configuration)).collect();
    let lines: Vec<Line> =
        names.iter().zip(&drawn).map(|(name, (_, points))| Line { name, points }).collect();
    let seeds = match study.seeds.len() {
        1 => None,
        seeds => Some(format!("line: mean over {seeds} seeds; band: lowest to highest")),
    };
    let marks = drawn.iter().any(|(configuration, _)| is_marked(configuration));
    let mark = marks.then(|| "*: variational bound".to_owned());
    let note = seeds.into_iter().chain(mark).collect::<Vec<_>>().join("; ");
    let figure = comparison::Comparison {
        title: &study.title,
        note: &note,
        x_label: "images seen",
        y_label: "bits per dimension, held-out images",
        lines: &lines,
    };
    Ok(figure.save(path)?)
}

/// Mean and range over runs, at image counts for which each of them has an evaluation.
fn spreads(runs: &[&RunResult]) -> Vec<Spread> {
    let Some((first, others)) = runs.split_first() else { return vec![] };
    let spread = |images: u64, bits: Option<f64>| {
        let mut values = vec![bits?];
        for other in others {
            values.push(other.points.iter().find(|point| point.images == images)?.bits_per_dim?);
        }
        Some(Spread {
            x: images as f64,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    };
    first.points.iter().filter_map(|point| spread(point.images, point.bits_per_dim)).collect()
}
