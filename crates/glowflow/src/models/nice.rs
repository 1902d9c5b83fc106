//! NICE (Dinh, Krueger and Bengio 2014): additive couplings of alternating values, a diagonal scaling, and a
//! fixed base distribution.

use glowflow_kernels::Primitives;
use serde::{Deserialize, Serialize};

use super::architecture::{Architecture, check};
use crate::Error;
use crate::flow::{AdditiveCoupling, Base, FactorRest, FlowBuilder, Scaling};
use crate::train::{Optimizer, TrainConfig};

/// Maximum number of values of an image: sizes of a matrix of all by all do not overflow.
const MAX_DIMENSIONS: usize = 1 << 24;

/// Base distribution of a NICE model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prior {
    /// The logistic distribution.
    Logistic,
    /// N(0, 1).
    Normal,
}

/// Configuration of a NICE model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NiceConfig {
    /// Height, width and channels of an image.
    pub image: [usize; 3],
    /// Significant bits of a pixel, 1 to 8.
    pub bits: u32,
    /// Number of couplings.
    pub couplings: usize,
    /// Number of hidden layers of a coupling's network.
    pub layers: usize,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Base distribution.
    pub prior: Prior,
}

impl Default for NiceConfig {
    /// The published MNIST model.
    fn default() -> Self {
        Self { image: [28, 28, 1], bits: 8, couplings: 4, layers: 5, hidden: 1000, prior: Prior::Logistic }
    }
}

impl Architecture for NiceConfig {
    fn image(&self) -> [usize; 3] {
        self.image
    }

    fn bits(&self) -> u32 {
        self.bits
    }

    fn size_keys(&self) -> &'static [&'static str] {
        &["hidden", "layers", "couplings"]
    }

    fn build<D: Primitives>(&self, flow: &mut FlowBuilder<'_, D>) {
        let dimensions = self.dimensions();
        for k in 0..self.couplings {
            flow.push_with(format!("couplings.{k}"), |p, _| {
                AdditiveCoupling::new(p, dimensions, self.hidden, self.layers, k % 2 == 1)
            });
        }
        flow.push_with("scaling", |p, _| Scaling::new(p, dimensions));
        flow.push(
            "latents",
            FactorRest(match self.prior {
                Prior::Logistic => Base::Logistic,
                Prior::Normal => Base::Normal,
            }),
        );
    }

    fn set_channels(&mut self, channels: usize) {
        self.image[2] = channels;
    }

    fn train_defaults(&self) -> TrainConfig {
        TrainConfig {
            optimizer: Optimizer::Adam,
            batch: 200,
            beta2: 0.99,
            epsilon: 1e-4,
            warmup: 0,
            ema: 0.0,
            ..TrainConfig::default()
        }
    }

    fn validate(&self) -> Result<(), Error> {
        check::image(self.image, self.bits)?;
        check::at_least_one("couplings", self.couplings, 1 << 10)?;
        check::at_most("layers", self.layers, 1 << 10)?;
        check::at_least_one("hidden", self.hidden, 1 << 16)?;
        let values = self.dimensions();
        if !(2..=MAX_DIMENSIONS).contains(&values) {
            return Err(Error::Config(format!(
                "model.image has {values} values; a coupling needs at least two, and at most {MAX_DIMENSIONS}"
            )));
        }
        Ok(())
    }
}
