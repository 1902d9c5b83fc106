//! Evaluations and scores of a study's runs, read from their folders.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use glowflow_report::metrics;

use super::folder::run_folder;
use super::record::{Record, State};
use super::runs::RunId;
use super::{Study, scores};
use crate::Error;
use crate::train::METRICS;

/// One evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub step: u64,
    /// Images trained on until then, repeats included.
    pub images: u64,
    /// Bits/dim of held-out images; `None` if not finite.
    pub bits_per_dim: Option<f64>,
}

/// A run that has started.
#[derive(Clone, Debug)]
pub struct RunResult {
    pub id: RunId,
    pub record: Record,
    /// Evaluations, in the order of steps.
    pub points: Vec<Point>,
    /// Bits/dim of images, by their index; empty without a comparison.
    pub scores: HashMap<usize, f64>,
}

impl RunResult {
    /// Returns whether this is a run of a configuration with the study's own budget.
    pub fn is_of(&self, configuration: usize) -> bool {
        self.id.configuration == configuration && self.id.multiple == 1.0
    }
}

/// Reads all runs that have started, in the order of configurations and seeds; the baseline's other budgets
/// come last.
///
/// # Errors
/// [`Error::Report`] for a damaged log, and errors of [`Record::read`] and [`scores::read`].
pub fn read(study: &Study, out: &Path) -> Result<Vec<RunResult>, Error> {
    let seeds = |configuration| study.seeds.iter().map(move |&seed| RunId::new(configuration, seed));
    let plain = (0..study.configurations.len()).flat_map(seeds);
    let others = study.runs().into_iter().filter(|run| run.multiple != 1.0);
    let mut results = vec![];
    for id in plain.chain(others) {
        let run = run_folder(out, study, id);
        let (log, mut record) = (run.join(METRICS), Record::read(&run)?);
        // A run that diverges before its first checkpoint has no log.
        if !log.exists() && record.state != State::Diverged {
            continue;
        }
        let batch = study.configurations[id.configuration].run.train.batch as u64;
        let records = if log.exists() { metrics::read(&log)? } else { vec![] };
        let points: Vec<_> = records.iter().filter_map(|record| point(record, batch)).collect();
        if record.state == State::Finished && points.last().is_some_and(|last| last.bits_per_dim.is_none()) {
            record.state = State::Diverged;
        }
        let scores = if study.baseline.is_some() { scores::read(&run)? } else { HashMap::new() };
        results.push(RunResult { id, record, points, scores });
    }
    Ok(results)
}

fn point(record: &metrics::Record, batch: u64) -> Option<Point> {
    let bits = record.get("test_bits_per_dim")?;
    let step = record.get("step")?.as_u64()?;
    Some(Point { step, images: step.saturating_mul(batch), bits_per_dim: bits.as_f64() })
}

/// `study.csv`: one row per evaluation. Non-finite bits/dim are empty.
pub fn csv(study: &Study, results: &[RunResult]) -> String {
    let mut csv = String::from("configuration,seed,step,images,test_bits_per_dim\n");
    for result in results.iter().filter(|result| result.id.multiple == 1.0) {
        // Names of configurations need no quotes.
        let name = &study.configurations[result.id.configuration].name;
        for point in &result.points {
            let bits = point.bits_per_dim.map_or(String::new(), |bits| bits.to_string());
            let _ = writeln!(csv, "{name},{},{},{},{bits}", result.id.seed, point.step, point.images);
        }
    }
    csv
}
