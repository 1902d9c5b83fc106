//! Fine-tuning: a run that begins with the weights of another model of the same architecture.
//!
//! Permutations and actnorms are taken from the model, not initialised from the new data. The optimiser's
//! state and the average of the weights are reset.

use std::path::Path;

use super::class_names::class_names;
use super::config::{CONFIG, DataConfig, RunConfig, Schedule, TrainConfig};
use super::run::run_folder;
use crate::model::ModelFile;
use crate::models::Architecture;
use crate::{Error, ModelConfig, pretrained};

/// Learning rate relative to that of the source model's run. A small model of CelebA faces, fine-tuned on 150
/// other portraits, reached 2.70 bits/dim on 50 more at the full rate, at a quarter and at an eighth. After
/// 400 steps it had 2.98, 2.82 and 2.73: a lower rate overfits later.
const RATE: f64 = 0.125;

impl RunConfig {
    /// Resolves the configuration of a run that begins with the weights of `model`, a run's folder or a model
    /// file. Its architecture is the model's, and its training and augmentation settings are those of the
    /// model's run, with an eighth of the learning rate and without an end; preset, file and overrides change
    /// them.
    ///
    /// # Errors
    /// [`Error::Config`] if the architecture differs from the model's, with both values, and as
    /// [`resolve`](Self::resolve); errors of reading the model.
    pub fn fine_tune(
        model: &Path,
        preset: Option<&str>,
        file: Option<&Path>,
        overrides: &[String],
    ) -> Result<Self, Error> {
        let source = ModelFile::read(model)?;
        let path = ModelFile::path(model);
        let path = if pretrained::is_pretrained(model) {
            path
        } else {
            std::path::absolute(path).map_err(Error::io(model))?
        };
        let base = base(&path, &source.config);
        let mut config = base.layered(preset, file, overrides)?;
        check_same(&path, &source.config, &config.model)?;
        check_fingerprint(&path, &source, config.train.from_fingerprint.as_deref())?;
        config.train.from = Some(path);
        config.train.from_fingerprint = Some(text(&source));
        config.validate()?;
        Ok(config)
    }
}

/// Settings of a model's run; the defaults of its architecture if unknown.
fn base(path: &Path, model: &ModelConfig) -> RunConfig {
    let run = RunConfig::read(&run_folder(path).join(CONFIG)).ok().filter(|run| run.model == *model);
    let (train, data) = match run {
        Some(run) => (run.train, run.data),
        None => (model.train_defaults(), DataConfig::default()),
    };
    let rate = if train.from.is_some() { 1.0 } else { RATE };
    RunConfig {
        model: model.clone(),
        train: TrainConfig {
            lr: rate * train.lr,
            muon_lr: rate * train.muon_lr,
            steps: None,
            schedule: Schedule::Constant,
            from: None,
            from_fingerprint: None,
            ..train
        },
        data: DataConfig {
            classes: class_names(path, model),
            shift: data.shift,
            edge: data.edge,
            flip: data.flip,
            ..DataConfig::default()
        },
    }
}

/// Reads the initial model of a run.
///
/// # Errors
/// [`Error::Config`] if its architecture is not the run's; [`Error::File`] if the model has changed since the
/// run was configured; errors of reading it.
pub fn weights<A: Architecture>(path: &Path, config: &RunConfig<A>) -> Result<ModelFile<A>, Error> {
    let source = ModelFile::<A>::read_as(path)?;
    check_same(path, &source.config, &config.model)?;
    check_fingerprint(path, &source, config.train.from_fingerprint.as_deref())?;
    Ok(source)
}

/// Checks that a model is the one that a configuration names.
fn check_fingerprint<A: Architecture>(
    path: &Path,
    source: &ModelFile<A>,
    known: Option<&str>,
) -> Result<(), Error> {
    let found = text(source);
    match known {
        Some(known) if known != found => Err(Error::file(
            path,
            format!(
                "it is another model (fingerprint {found}) than the one in the configuration ({known}): start a new run \
                 from it, without train.from_fingerprint"
            ),
        )),
        _ => Ok(()),
    }
}

/// A model's fingerprint as text.
pub fn text<A: Architecture>(model: &ModelFile<A>) -> String {
    format!("{:08x}", model.fingerprint())
}

/// Checks that a run's architecture is that of its initial model.
fn check_same<A: Architecture>(path: &Path, source: &A, run: &A) -> Result<(), Error> {
    let table = |config: &A| {
        toml::Table::try_from(config)
            .map_err(|e| Error::Config(format!("the architecture cannot be written: {e}")))
    };
    let (source, run) = (table(source)?, table(run)?);
    // Unset values are missing from the table.
    match source.keys().chain(run.keys()).find(|&key| source.get(key) != run.get(key)) {
        None => Ok(()),
        Some(key) => {
            let value = |table: &toml::Table| table.get(key).map_or("not set".into(), ToString::to_string);
            Err(Error::Config(format!(
                "model.{key} is {} here and {} in {}: training from a model keeps its architecture, so omit \
                 model.{key}, and any preset with another value",
                value(&run),
                value(&source),
                path.display()
            )))
        }
    }
}
