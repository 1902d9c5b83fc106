//! The section `[data]`: where images come from and how they are changed.

use std::path::PathBuf;

use glowflow_data::{Augment, Edge};
use serde::{Deserialize, Serialize};

/// What appears where an image was shifted away from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeType {
    /// The outermost pixel again and again, as in the published runs. Repeated pixels are easy to predict: training images
    /// have fewer bits/dim than test images, which have no such edges.
    #[default]
    Replicate,
    /// The image mirrored at its outermost pixel, which is not repeated.
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
    /// Images to test on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// The part of the images that is held out to test on. Where nothing is said, data with a test set of its
    /// own uses that, and of other data 5 % are held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    /// Names of the classes, in the order of their labels: those of the training data, unless said. A run writes them down, so
    /// that other data is labelled alike.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Random shifts of up to this part of the width and height; 0 is off.
    pub shift: f64,
    /// What appears where an image was shifted away from. Older programs do not know this key, so it is written only if
    /// it is not [`EdgeType::Replicate`].
    #[serde(skip_serializing_if = "EdgeType::is_replicate")]
    pub edge: EdgeType,
    /// Random left-right flips.
    pub flip: bool,
}

impl DataConfig {
    /// The random changes to training images.
    pub fn augment(&self) -> Augment {
        Augment { shift: self.shift, edge: self.edge.into(), flip: self.flip }
    }
}
