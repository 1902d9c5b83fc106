//! The model card: description and results of a trained model, as `config.json` and `README.md` in its
//! folder.
//!
//! A folder with `model.safetensors` and these two files is complete: it can be published, and loads
//! anywhere. `config.json` has the layout of the Hugging Face Hub: `library_name`, `license`, the
//! architecture under `model`, and the data, training and evaluations. `README.md` presents the same
//! information, with a YAML header for model hubs.
//!
//! Neither file replaces one with a different author. The README ends with a checksum of itself and is only
//! rewritten if it is unchanged. The licence is never guessed: it is that of `config.json`, and initially
//! empty.

mod readme;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::evaluate::Evaluation;
use crate::tensor_file::write_atomically;
use crate::train::Best;
use crate::{Error, ModelConfig, text_file};

/// Name of the machine-readable file.
pub const CONFIG_JSON: &str = "config.json";
/// Name of the human-readable file.
pub const README: &str = "README.md";

/// The value of `library_name`.
const LIBRARY: &str = "glowflow";

/// Facts about a trained model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// `"glowflow"`.
    pub library_name: String,
    /// Version of the program that wrote the card.
    pub glowflow_version: String,
    /// Licence of the weights, such as `"mit"`; empty if none is given.
    #[serde(default)]
    pub license: String,
    /// Name of the architecture.
    pub architecture: String,
    /// The model file described by the card.
    pub file: String,
    /// The model's [fingerprint](crate::ModelFile::fingerprint), in hexadecimal digits.
    pub fingerprint: String,
    /// Number of trained parameters.
    pub parameters: usize,
    /// The architecture.
    pub model: ModelConfig,
    /// The training data.
    #[serde(default)]
    pub data: DataCard,
    /// The training.
    #[serde(default)]
    pub training: TrainingCard,
    /// The last evaluation on test images; `None` if there is none.
    #[serde(default)]
    pub evaluation: Option<EvaluationCard>,
    /// The evaluation of the run's best model; `None` if there is none.
    #[serde(default)]
    pub best: Option<Best>,
    /// Entries that users have added to the file, which are kept.
    #[serde(flatten)]
    pub added: Map<String, Value>,
}

/// The data of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataCard {
    /// Name of the folder or file, without its parent folders.
    pub name: String,
    /// Number of training images.
    pub images: usize,
    /// Number of test images.
    pub test_images: usize,
    /// Names of the classes, in the order of the labels.
    pub classes: Vec<String>,
}

/// The training of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingCard {
    /// Number of steps.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
    /// Seed of weights, noise, order and augmentation.
    pub seed: u64,
    /// Precision of products in coupling networks.
    pub precision: String,
    /// Device used for training.
    pub device: String,
    /// The run's configuration as TOML, without paths.
    pub config: String,
}

/// An evaluation on test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationCard {
    /// Step of the evaluated weights.
    pub step: u64,
    /// Number of images.
    pub images: usize,
    /// Mean bits per dimension; `None` if not finite.
    pub bits_per_dim: Option<f64>,
    /// Standard error of the mean; `None` if not finite.
    pub standard_error: Option<f64>,
    /// The estimator, such as `"uniform bound (1 draw)"`.
    pub label: String,
    /// Noise of the scored pixels.
    pub dequantization: String,
    /// Number of images encoded and decoded.
    pub inverted: usize,
    /// Number of these images with exactly equal pixels.
    pub exact: usize,
    /// `max |decode(encode(v)) − v|` over those images; `None` if not finite.
    pub inverse_error: Option<f64>,
}

impl EvaluationCard {
    /// Creates a record of an evaluation of the weights of a step.
    pub fn of(step: u64, evaluation: &Evaluation) -> Self {
        let finite = |number: f64| number.is_finite().then_some(number);
        Self {
            step,
            images: evaluation.images,
            bits_per_dim: finite(evaluation.bits_per_dim),
            standard_error: finite(evaluation.standard_error),
            label: evaluation.estimate.to_string(),
            dequantization: evaluation.dequantization.to_owned(),
            inverted: evaluation.inverted,
            exact: evaluation.exact,
            inverse_error: finite(evaluation.inverse_error),
        }
    }
}

impl Card {
    /// Creates a card of `file` without data, training or evaluations.
    pub fn new(file: &str, model: ModelConfig, fingerprint: u32, parameters: usize) -> Self {
        Self {
            library_name: LIBRARY.to_owned(),
            glowflow_version: env!("CARGO_PKG_VERSION").to_owned(),
            license: String::new(),
            architecture: model.architecture().to_owned(),
            file: file.to_owned(),
            fingerprint: format!("{fingerprint:08x}"),
            parameters,
            model,
            data: DataCard::default(),
            training: TrainingCard::default(),
            evaluation: None,
            best: None,
            added: Map::new(),
        }
    }

    /// Reads the card in a folder or of the pretrained model; `None` if there is no readable one.
    pub fn read(folder: &Path) -> Option<Self> {
        let path = folder.join(CONFIG_JSON);
        let card: Self = serde_json::from_str(&text_file::read(&path).ok()?).ok()?;
        (card.library_name == LIBRARY).then_some(card)
    }

    /// Writes `config.json` and `README.md` to a folder. The licence, and entries that this program does not
    /// know, are taken from the existing card. A README that was edited, and files that another program wrote,
    /// are left unchanged.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(mut self, folder: &Path) -> Result<(), Error> {
        let (json, readme) = (folder.join(CONFIG_JSON), folder.join(README));
        let before = Self::read(folder);
        if let Some(before) = &before {
            if self.license.is_empty() {
                self.license.clone_from(&before.license);
            }
            if self.added.is_empty() {
                self.added.clone_from(&before.added);
            }
        }
        if before.is_some() || !taken(&json) {
            let text = serde_json::to_string_pretty(&self)
                .map_err(|error| Error::file(&json, format!("cannot be written: {error}")))?;
            write_atomically(&json, format!("{text}\n").as_bytes())?;
        }
        let unchanged = || text_file::read(&readme).is_ok_and(|text| readme::is_unchanged(&text));
        if !taken(&readme) || unchanged() {
            write_atomically(&readme, readme::text(&self).as_bytes())?;
        }
        Ok(())
    }
}

/// Returns whether a path is in use, even by a broken link.
fn taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Class names in a folder's card, if it describes a model of this architecture.
pub(crate) fn class_names(folder: &Path, config: &ModelConfig) -> Vec<String> {
    Card::read(folder).filter(|card| card.model == *config).map_or(vec![], |card| card.data.classes)
}
