//! Evaluations of a study's runs, read from their logs.

use std::fmt::Write;
use std::path::Path;

use glowflow_report::metrics;

use super::Study;
use super::folder::run_folder;
use super::record::Record;
use crate::Error;
use crate::train::METRICS;

/// One evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub step: u64,
    /// Images trained on until then, each counted as often as it was used.
    pub images: u64,
    /// Bits/dim of held-out images; `None` if not finite.
    pub bits_per_dim: Option<f64>,
}

/// A run that has begun.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// Index of the configuration.
    pub configuration: usize,
    pub seed: u64,
    pub record: Record,
    /// Evaluations, in the order of steps.
    pub points: Vec<Point>,
}

/// Reads all runs that have begun, in the order of configurations and seeds.
///
/// # Errors
/// [`Error::Report`] for a damaged log, and errors of [`Record::read`].
pub fn read(study: &Study, out: &Path) -> Result<Vec<RunResult>, Error> {
    let mut results = vec![];
    for (configuration, named) in study.configurations.iter().enumerate() {
        for &seed in &study.seeds {
            let run = run_folder(out, &named.name, seed);
            let log = run.join(METRICS);
            if !log.exists() {
                continue;
            }
            let batch = named.run.train.batch as u64;
            let points = metrics::read(&log)?.iter().filter_map(|record| point(record, batch)).collect();
            results.push(RunResult { configuration, seed, record: Record::read(&run)?, points });
        }
    }
    Ok(results)
}

fn point(record: &metrics::Record, batch: u64) -> Option<Point> {
    let bits = record.get("test_bits_per_dim")?;
    let step = record.get("step")?.as_u64()?;
    Some(Point { step, images: step.saturating_mul(batch), bits_per_dim: bits.as_f64() })
}

/// `study.csv`: one row an evaluation. Bits/dim that are not finite are left empty.
pub fn csv(study: &Study, results: &[RunResult]) -> String {
    let mut csv = String::from("configuration,seed,step,images,test_bits_per_dim\n");
    for result in results {
        // Names of configurations need no quotes.
        let name = &study.configurations[result.configuration].name;
        for point in &result.points {
            let bits = point.bits_per_dim.map_or(String::new(), |bits| bits.to_string());
            let _ = writeln!(csv, "{name},{},{},{},{bits}", result.seed, point.step, point.images);
        }
    }
    csv
}
