//! The model card of a run.

use std::path::{Path, PathBuf};

use glowflow_kernels::Operations;

use super::Best;
use super::training::Run;
use crate::Error;
use crate::card::{Card, DataCard, EvaluationCard, TrainingCard};
use crate::train::RunConfig;

/// Writes the card of the run's current weights, those of `file`, unless they are not saved. A card that
/// cannot be written does not end the run.
pub fn write<D: Operations<Real = f32>>(run: &mut Run<'_, D>, file: &str) -> Result<(), Error> {
    let progress = run.trainer.progress();
    if file != crate::train::BEST && run.saved.is_none_or(|saved| saved.step != progress.step) {
        return Ok(());
    }
    match card(run, file)?.write(run.out) {
        Err(error) => run.observers.notice(&format!("the model card is not written: {error}")),
        Ok(()) => Ok(()),
    }
}

fn card<D: Operations<Real = f32>>(run: &Run<'_, D>, file: &str) -> Result<Card, Error> {
    let (config, step) = (run.trainer.config(), run.trainer.progress().step);
    let fingerprint = run.trainer.model()?.fingerprint();
    let mut card = Card::new(file, config.model.clone(), fingerprint, run.trainer.layout().len());
    card.data = DataCard {
        name: data_name(config),
        images: run.images.train.len(),
        test_images: run.images.test.as_ref().map_or(0, |test| test.len()),
        classes: config.data.classes.clone(),
    };
    card.training = TrainingCard {
        steps: step,
        batch: config.train.batch,
        seed: config.train.seed,
        precision: precision(config),
        device: run.trainer.device().name(),
        config: without_folders(config)?,
    };
    card.evaluation = match (&run.evaluation, run.evaluated_step) {
        (Some(evaluation), Some(at)) => Some(EvaluationCard::of(at, evaluation)),
        // A resumed run that was stopped before its first evaluation.
        _ => Card::read(run.out).and_then(|before| before.evaluation),
    };
    let best = run.trainer.progress().best;
    card.best = best.map(|(bits_per_dim, step)| Best { step, bits_per_dim });
    Ok(card)
}

/// Name of the training data, without its parent folders.
fn data_name(config: &RunConfig) -> String {
    let name = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
    config.data.path.as_deref().and_then(name).unwrap_or_default()
}

fn precision(config: &RunConfig) -> String {
    let name = serde_json::to_value(config.train.precision);
    name.ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The configuration as TOML, without folders: cards are published, and folder names may identify their
/// owner. Of the initial model, only the fingerprint remains: its file name may be that of the run's own model.
fn without_folders(config: &RunConfig) -> Result<String, Error> {
    let mut config = config.clone();
    for path in [&mut config.data.path, &mut config.data.test] {
        *path = path.as_deref().and_then(Path::file_name).map(PathBuf::from);
    }
    config.train.from = None;
    config.to_toml()
}
