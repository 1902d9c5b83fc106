//! The TOML form of a study.
//!
//! ```toml
//! name = "width"                # default folder: studies/width
//! title = "Width of the coupling networks"
//! seeds = [0, 1, 2]
//! images = 50_000               # training of each run; or steps, or minutes, or flops
//! evaluations = 10              # or evaluate_every, in images
//!
//! curve = [0.5, 1, 2, 4]        # optional: compares with the first configuration, also trained with these
//!                               # multiples of the budget
//! curve_seeds = 1               # seeds of multiples other than 1
//! score_images = 10_000         # held-out images of the comparison; all by default
//!
//! [base]                        # common to all configurations
//! preset = "tiny32"
//! train = { eval_images = 500 }
//! data = { path = "portraits" }
//!
//! [[configurations]]
//! name = "narrow"
//! model = { hidden = 32 }
//!
//! [[configurations]]
//! name = "wide"
//! model = { hidden = 64 }
//! data = { flip = true }        # augmentation alone: images are the same in all configurations
//! ```
//!
//! Precedence, ascending: defaults, the preset (a configuration's own replaces that of the base), `[base]`,
//! the configuration, overrides.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::train::{DataConfig, TrainConfig, wrong};
use crate::{Error, ModelConfig};

/// A study file. `M`, `T` and `D` are the sections `model`, `train` and `data`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form<M = Table, T = Table, D = Table> {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    pub seeds: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<u64>,
    /// Images between evaluations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u64>,
    /// Multiples of the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curve: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curve_seeds: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_images: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Base<M, T, D>>,
    pub configurations: Vec<Entry<M, T, D>>,
}

/// The section `[base]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base<M = Table, T = Table, D = Table> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<M>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<D>,
}

/// One of the `[[configurations]]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry<M = Table, T = Table, D = Table> {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<M>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<D>,
}

impl Form {
    /// Parses a study file.
    ///
    /// # Errors
    /// [`Error::Config`] with the line.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse(text)
    }
}

/// Finds the line of an error in a section `model`, `train` or `data`, which [`Form::parse`] does not
/// validate.
///
/// # Errors
/// [`Error::Config`] with the line, if the error is within a single section.
pub fn check_sections(text: &str) -> Result<(), Error> {
    parse::<Form<ModelConfig, TrainConfig, DataConfig>>(text).map(drop)
}

fn parse<F: DeserializeOwned>(text: &str) -> Result<F, Error> {
    toml::from_str(text).map_err(|error| Error::Config(wrong(&error, text)))
}
