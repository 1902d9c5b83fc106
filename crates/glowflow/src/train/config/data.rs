//! The section `[data]`: location of the images, and augmentation.

use std::path::PathBuf;

use glowflow_data::{Augment, Edge};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Content of the margin exposed by shifting an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeType {
    /// The edge pixel repeated, as in the published runs. Repeated pixels are easy to predict, so training
    /// images have fewer bits/dim than test images, which have no such margins.
    #[default]
    Replicate,
    /// The image mirrored at its edge pixel, which is not repeated.
    Reflect,
}

impl EdgeType {
    fn is_replicate(&self) -> bool {
        *self == Self::Replicate
    }
}

impl From<EdgeType> for Edge {
    fn from(edge: EdgeType) -> Self {
        match edge {
            EdgeType::Replicate => Self::Replicate,
            EdgeType::Reflect => Self::Reflect,
        }
    }
}

/// The section `[data]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A folder of images, CIFAR-10 binaries, idx files, or a NumPy array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The test images, in the same formats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Share of the images held out for testing. By default, data with a test set uses that set, and 5 % of
    /// other data is held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    /// Seed that selects the held-out images; `train.seed` by default. Older versions reject this key, so it
    /// is only written if it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_seed: Option<u64>,
    /// Names of the classes, in the order of their labels; by default those of the training data. A run
    /// records them, so that other data is labelled consistently.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Maximum random shift as a fraction of width and height; 0 disables shifts.
    pub shift: f64,
    /// Content of the margin exposed by a shift. Older versions reject this key, so it is only written if it
    /// is not [`EdgeType::Replicate`].
    #[serde(skip_serializing_if = "EdgeType::is_replicate")]
    pub edge: EdgeType,
    /// Random left-right flips.
    pub flip: bool,
}

impl DataConfig {
    /// Random augmentation of training images.
    pub fn augment(&self) -> Augment {
        Augment { shift: self.shift, edge: self.edge.into(), flip: self.flip }
    }

    /// Checks the values.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.augment().check()?;
        if let Some(fraction) = self.test_fraction.filter(|fraction| !(*fraction > 0.0 && *fraction < 1.0)) {
            return Err(Error::Config(format!(
                "data.test_fraction is {fraction}; it must be between 0 and 1 (exclusive)"
            )));
        }
        if let Some(seed) = self.test_seed.filter(|&seed| i64::try_from(seed).is_err()) {
            return Err(Error::Config(format!("data.test_seed is {seed}; it must be below 2^63")));
        }
        Ok(())
    }
}
