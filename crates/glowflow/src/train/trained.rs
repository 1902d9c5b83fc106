//! Training and evaluation of a model, as recorded in the other files of its folder.

use std::path::Path;

use glowflow_report::metrics;

use super::checkpoint;
use super::config::{CONFIG, RunConfig};
use super::folder::{BEST, METRICS};
use super::recorded::best_recorded;
use super::run::run_folder;
use crate::ModelFile;
use crate::card::Card;

/// Amount of training of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trained {
    /// Number of steps.
    pub steps: u64,
    /// Number of images in all steps, counting repetitions.
    pub images: u64,
}

/// Result of an evaluation of a model on test images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluated {
    /// The step that the evaluation followed.
    pub step: u64,
    /// Mean bits per dimension.
    pub bits_per_dim: f64,
    /// Maximum difference between a test image and its reconstruction from latents; `None` if unknown or not
    /// finite.
    pub inverse_error: Option<f64>,
}

/// Configuration of the run of a model, which is a file or the one in a folder, or else that on its card, whose
/// paths have no parent folders; `None` if there is none, or it cannot be read.
pub fn recorded_config(model: &Path) -> Option<RunConfig> {
    let on_card = || {
        let text = card_of(model)?.training.config;
        RunConfig::of_table(text.parse().ok().filter(|_| !text.is_empty())?).ok()
    };
    RunConfig::read(&run_folder(model).join(CONFIG)).ok().or_else(on_card)
}

/// Amount of training of a model, which is a file or the one in a folder: for a run's best model, up to its
/// evaluation; otherwise up to the run's last checkpoint, or else the last record of its log. Without a run,
/// that on the model card. `None` if there is none, or the files cannot be read.
pub fn trained(model: &Path) -> Option<Trained> {
    let run = run_folder(model);
    let steps = if is_best(model) {
        Some(best_recorded(run)?.0)
    } else {
        checkpoint::last_step(run).or_else(|| last_recorded_step(run))
    };
    let training = card_of(model).map(|card| card.training);
    let config = RunConfig::read(&run.join(CONFIG)).ok();
    let batch =
        config.map(|config| config.train.batch).or(training.as_ref().map(|training| training.batch))?;
    let steps = steps.or(training.map(|training| training.steps).filter(|steps| *steps > 0))?;
    Some(Trained { steps, images: steps.saturating_mul(batch as u64) })
}

/// Evaluation of a model, which is a file or the one in a folder: for a run's best model, its own; otherwise
/// the last one in the run's log. Without a log, that on the model card. `None` if there is none.
pub fn evaluated(model: &Path) -> Option<Evaluated> {
    let run = run_folder(model);
    let log = metrics::read(&run.join(METRICS)).ok();
    let points = |key| metrics::points(log.as_deref().unwrap_or_default(), key);
    let known = if is_best(model) {
        best_recorded(run)
    } else {
        points("test_bits_per_dim").pop().map(|(step, bits_per_dim)| (step as u64, bits_per_dim))
    };
    if let Some((step, bits_per_dim)) = known {
        let inverse_error = points("inverse_error").into_iter().rfind(|(at, _)| *at as u64 == step);
        return Some(Evaluated { step, bits_per_dim, inverse_error: inverse_error.map(|(_, error)| error) });
    }
    let card = card_of(model)?.evaluation.filter(|_| log.is_none() && !is_best(model))?;
    Some(Evaluated { step: card.step, bits_per_dim: card.bits_per_dim?, inverse_error: card.inverse_error })
}

/// The card of a model, or of the run whose best model it is; `None` if the card in its folder describes another
/// file.
fn card_of(model: &Path) -> Option<Card> {
    let file = ModelFile::path(model);
    let describes = |card: &Card| is_best(model) || file.file_name().is_some_and(|name| name == &*card.file);
    Card::read(run_folder(model)).filter(describes)
}

/// Returns whether a path is that of a run's best model.
fn is_best(model: &Path) -> bool {
    model.file_name().is_some_and(|name| name == BEST)
}

fn last_recorded_step(run: &Path) -> Option<u64> {
    let records = metrics::read(&run.join(METRICS)).ok()?;
    records.iter().rev().find_map(|record| record.get("step")?.as_u64())
}
