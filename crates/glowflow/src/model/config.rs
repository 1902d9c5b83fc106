//! What a model is, before it has weights: the JSON object `glow.config` of a model file, and the
//! section `[model]` of a run's configuration.

use glowflow_kernels::CouplingKind;
use serde::{Deserialize, Serialize};

use crate::Error;

/// How a coupling changes the second half of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CouplingType {
    /// Shift and scale (Glow, RealNVP).
    Affine,
    /// Shift alone (NICE).
    Additive,
}

impl From<CouplingType> for CouplingKind {
    fn from(kind: CouplingType) -> Self {
        match kind {
            CouplingType::Affine => Self::Affine,
            CouplingType::Additive => Self::Additive,
        }
    }
}

/// What stands between two couplings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PermutationType {
    /// An invertible 1×1 convolution, learned.
    Conv1x1,
    /// A random permutation, fixed.
    Shuffle,
    /// The channels reversed.
    Reverse,
}

/// Architecture of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Height, width and channels of an image.
    pub image: [usize; 3],
    /// Bits of a pixel that count, 1 to 8.
    pub bits: u32,
    /// Levels L of the multi-scale architecture.
    pub levels: usize,
    /// Steps of flow K in each level.
    pub steps: usize,
    /// Width of the coupling networks.
    pub hidden: usize,
    /// Kind of coupling.
    pub coupling: CouplingType,
    /// Kind of permutation.
    pub permutation: PermutationType,
    /// Number of classes; 0 for a model without labels.
    pub classes: usize,
}

impl Default for ModelConfig {
    /// The published CIFAR-10 model.
    fn default() -> Self {
        Self {
            image: [32, 32, 3],
            bits: 8,
            levels: 3,
            steps: 32,
            hidden: 512,
            coupling: CouplingType::Affine,
            permutation: PermutationType::Conv1x1,
            classes: 0,
        }
    }
}

impl ModelConfig {
    /// Checks that such a model can be built.
    ///
    /// # Errors
    /// [`Error::Config`] names the key, its value, and what would fit.
    pub fn validate(&self) -> Result<(), Error> {
        let fail = |message: String| Err(Error::Config(message));
        let [height, width, channels] = self.image;
        for (key, value) in [
            ("image height", height),
            ("image width", width),
            ("image channels", channels),
            ("levels", self.levels),
            ("steps", self.steps),
            ("hidden", self.hidden),
        ] {
            if value == 0 {
                return fail(format!("model.{key} is 0; it must be at least 1"));
            }
        }
        if !(1..=8).contains(&self.bits) {
            return fail(format!("model.bits is {}; it must be 1 to 8", self.bits));
        }
        // 2^16 pixels a side is beyond any image here, and keeps every product below from overflowing.
        for (key, value, most) in [
            ("levels", self.levels, 12),
            ("steps", self.steps, 1 << 12),
            ("hidden", self.hidden, 1 << 14),
            ("image height", height, 1 << 16),
            ("image width", width, 1 << 16),
            ("image channels", channels, 64),
            ("classes", self.classes, 1 << 20),
        ] {
            if value > most {
                return fail(format!("model.{key} is {value}; at most {most} is possible"));
            }
        }
        let unit = 1 << self.levels;
        for (key, value) in [("height", height), ("width", width)] {
            if value % unit != 0 {
                let below = value / unit * unit;
                let near =
                    if below == 0 { format!("{unit}") } else { format!("{below} or {}", below + unit) };
                let levels = value.trailing_zeros();
                let fewer = if levels == 0 {
                    String::new()
                } else {
                    format!(", or set model.levels to at most {levels}")
                };
                return fail(format!(
                    "image {key} {value} is not divisible by 2^levels = {unit}: use {near}{fewer}"
                ));
            }
        }
        Ok(())
    }

    /// Dimensions D of an image.
    pub fn dimensions(&self) -> usize {
        self.image.iter().product()
    }

    /// Values that a pixel can take, `2^bits`.
    pub fn bins(&self) -> u32 {
        1 << self.bits
    }

    /// Channels in level `level`, after its squeeze.
    pub fn level_channels(&self, level: usize) -> usize {
        (4 * self.image[2]) << level
    }

    /// Height, width and channels of the latents of each level.
    pub fn latent_shapes(&self) -> Vec<[usize; 3]> {
        (0..self.levels)
            .map(|level| {
                let channels = self.level_channels(level);
                let out = if level + 1 == self.levels { channels } else { channels / 2 };
                [self.image[0] >> (level + 1), self.image[1] >> (level + 1), out]
            })
            .collect()
    }

    /// `−log p / (D·log 2)`: a log-probability in nats as bits per dimension. The result is what the argument is: a
    /// bound of a bound, the density at a point of a density.
    pub fn bits_per_dim(&self, log_probability: f64) -> f64 {
        -log_probability / (self.dimensions() as f64 * std::f64::consts::LN_2)
    }

    /// A log-density `log p(v)` times the volume of the bin that an image stands for, `bins^−D`.
    pub fn in_bin(&self, log_density: f64) -> f64 {
        log_density - self.dimensions() as f64 * f64::from(self.bins()).ln()
    }
}
